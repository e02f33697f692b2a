"""Which sparse features does a series have, when are they born, when do they die, and what are they for?

It reads what ``dynamics learn`` stored and measures nothing itself. For every dictionary of the trace:

- *Fit*: fraction of variance unexplained on text that it was not trained on, and loss recovered (Gao et al. 2024), at every
  checkpoint: of a published dictionary, how far it still fits.
- *Present*: share of the features that are present at the last checkpoint that are present at each. A feature of a
  crosscoder is present from its birth to its death (:mod:`dynamics.learning.tracks`); one of a chain is present from where
  its track, made of mutual best matches of neighbouring dictionaries, begins. Null: the share at the first checkpoint,
  features resampled.
- *Births and deaths*: intervals between two checkpoints (:mod:`dynamics.emergence.lives`). What they had to beat is the
  sampling error of the feature's strength (its decoder's norm; in a chain its track's mean activation) and a quarter of the
  largest; a series that was not trained is not part of a trace.
- *Effects*: what the loss on held-out text would rise by without a feature, at every checkpoint
  (:mod:`dynamics.learning.effects`).
- *Turning points*: transitions at which features move together, beyond what they do if each moves at a time of its own.
- *Enrichment*: features that stand out for a value of a label of the prompts that other analyses read through the
  dictionary, at the last checkpoint (:mod:`dynamics.analysis.enrichment`).
"""

from __future__ import annotations

from collections.abc import Sequence

from dynamics.analysis import Context, Request

from .figures import figures
from .summary import Options, summarise

__all__ = ["QUESTION", "TITLE", "Options", "figures", "plan", "summarise"]

TITLE = "Features"
QUESTION = "Which sparse features does the model have, when are they born, when do they die, and what are they for?"


def plan(context: Context, options: Options) -> Sequence[Request]:
    """Nothing: dictionaries are learned from the trace's weights, not collected."""
    return []
