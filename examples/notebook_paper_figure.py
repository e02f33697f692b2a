# %% [markdown]
# # A figure for a paper, in ten lines
#
# `dynamics.open_results` reads what the analyses found; `plot` draws a finding into any axes: the curve with its 95% band, the
# bound of its null (dashed), and the onset interval as a strip.

# %%
import matplotlib.pyplot as plt

import dynamics

TRACE = "traces/organism.zarr"

# %%
results = dynamics.open_results(TRACE)
results

# %% [markdown]
# The four headlines with the earliest onsets, side by side in the width of two columns:

# %%
table = results.to_dataframe()
first = table[table.headline].sort_values("onset_by").index[:4]
figure, grid = plt.subplots(1, len(first), figsize=(7, 1.9), sharey=False, layout="constrained", squeeze=False)
for letter, key, ax in zip("abcd", first, grid.flat, strict=False):
    finding = results.finding(key)
    finding.plot(ax, color="#0072B2")
    ax.set_title(f"{letter}  {finding.title}", fontsize=8, loc="left", wrap=True)
    ax.set_ylabel("")
figure.savefig("onsets.pdf")

# %% [markdown]
# The table below it: which state, which interval between two measured checkpoints, how sure.

# %%
table.loc[first, ["title", "state", "onset_after", "onset_by", "onset_low", "onset_high", "holds"]]
