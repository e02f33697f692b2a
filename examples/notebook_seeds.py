# %% [markdown]
# # The same circuits in several seeds
#
# One trace per seed. The onset of a circuit is an interval between two measured checkpoints in each of them; whether two seeds
# differ is asked of the bootstrap draws, not of the intervals' middles.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import xarray as xr

import dynamics

TRACES = sorted(Path("traces").glob("organism*.zarr"))

# %%
seeds = {path.stem: dynamics.open_results(path) for path in TRACES}
table = pd.concat({name: results.to_dataframe() for name, results in seeds.items()}, names=["seed"])
table[table.headline].set_index("title", append=True)[["state", "onset_after", "onset_by"]].unstack("seed")

# %% [markdown]
# Bootstrap draws of the onsets, (seed, finding, draw): infinite where a draw never rose above its null, NaN where it cannot be
# used. Findings that only some of the runs have are NaN elsewhere.

# %%
draws = xr.concat(
    [results.to_xarray()["onset_draw"].drop_vars("title") for results in seeds.values()],
    dim=pd.Index(seeds, name="seed"),
    join="outer",
    coords="minimal",
    compat="override",
)
shared = draws.finding[draws.notnull().any("draw").all("seed")].values

# %% [markdown]
# A row for each circuit that all seeds have, a mark for each seed, with the 95% range of its onset.

# %%
figure, ax = plt.subplots(figsize=(7, 0.35 * len(shared) + 1.2), layout="constrained")
for number, (name, results) in enumerate(seeds.items()):
    rows = results.to_dataframe().loc[shared]
    there = rows.onset_by.notna() & rows.state.isin(["emerged", "transient"])
    heights = np.arange(len(shared)) + 0.16 * (number - (len(seeds) - 1) / 2)
    by, low, high = rows.onset_by, rows.onset_low.fillna(0), rows.onset_high.fillna(np.inf)
    end = max(results.findings[0].steps)
    ax.hlines(heights[there], low[there], high[there].clip(upper=end), color=f"C{number}", lw=1)
    ax.plot(by[there], heights[there], "o", ms=4, color=f"C{number}", label=name)
ax.set_yticks(range(len(shared)), [str(key) for key in shared], fontsize=7)
ax.set(xscale="symlog", xlabel="onset (optimizer step)")
ax.invert_yaxis()
if len(shared):
    ax.legend(fontsize=7)

# %% [markdown]
# Which seed came first, circuit by circuit: the share of pairs of draws in which the first one's onset is earlier. Near 0 or 1
# the seeds differ; draws of different runs are independent, so that all pairs count.

# %%
one, other, *_ = [*seeds, *seeds]
a, b = draws.sel(seed=one, finding=shared), draws.sel(seed=other, finding=shared).rename(draw="draw_of_other")
earlier = ((a < b) + 0.5 * (a == b)).where(a.notnull() & b.notnull()).mean(["draw", "draw_of_other"])
earlier.to_series().rename(f"{one} before {other}")
