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

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from dynamics.analysis.base import Context, Request

from .figures import figures as _figures
from .summary import summarise as _summarise

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dynamics.analysis.findings import Summary
    from dynamics.store import Trace

__all__ = ["TITLE", "Options", "figures", "plan", "summarise"]

TITLE = "Features"


class Options(BaseModel):
    """Options of this analysis."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    draws: int = Field(499, ge=99, description="Labels dealt anew behind the p values of enrichment.")
    gallery: int = Field(12, ge=0, le=60, description="Features of each dictionary that are shown with examples.")


def plan(context: Context, options: Options) -> Sequence[Request]:
    """Nothing: dictionaries are learned from the trace's weights, not collected."""
    return []


def summarise(trace: Trace, options: Options) -> Summary:
    """Census, enrichment and gallery from the trace alone."""
    return _summarise(trace, options.draws, options.gallery)


def figures(summary: Summary) -> Mapping[str, Figure]:
    """Of every dictionary its census, its labels and its gallery."""
    return _figures(summary)
