# %% [markdown]
# # A measure of one's own, over a trace that is larger than memory
#
# In how many dimensions does the residual stream of many prompts lie? With eigenvalues $\lambda_i$ of the covariance over
# prompts, the participation ratio $(\sum \lambda_i)^2 / \sum \lambda_i^2$ is between 1 and the width of the stream (Gao et al.
# 2017). `chunks={}` opens every variable as a dask array, chunked as it is stored, so that only the slab of one layer at one
# checkpoint is in memory for each thread that computes.

# %%
import numpy as np
import xarray as xr

import dynamics

TRACE = "traces/organism.zarr"
PROBE, SITE = "addition_sums", "resid_post"

# %%
trace = dynamics.Trace(TRACE)
trace

# %%
stream = dynamics.open_trace(TRACE, chunks={})[PROBE][SITE].sel(position="last")
stream = stream[trace.complete]  # what was not measured is NaN
stream

# %% [markdown]
# A function of one slab, a plain array (prompt, d_model):


# %%
def participation_ratio(slab: np.ndarray) -> np.ndarray:
    """(..., prompt, d_model) to (...,): effective dimensions of the stream."""
    centred = slab.astype(np.float64) - slab.mean(-2, keepdims=True)
    values = np.linalg.svd(centred, compute_uv=False) ** 2
    return np.asarray(values.sum(-1) ** 2 / (values**2).sum(-1))


# %% [markdown]
# A plan for all slabs. `chunk(prompt=-1)` joins prompts that are stored in several chunks; nothing is read yet.

# %%
dimensions = xr.apply_ufunc(
    participation_ratio,
    stream.chunk(prompt=-1, d_model=-1),
    input_core_dims=[["prompt", "d_model"]],
    dask="parallelized",
    output_dtypes=[np.float64],
)
dimensions

# %% [markdown]
# Now it is computed, slab by slab.

# %%
dimensions = dimensions.compute()
dimensions.plot(x="step", hue="layer", xscale="symlog")
