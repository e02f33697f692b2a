"""An analysis module of your own: name it in a runs file as ``analyses: [examples.own_analysis]``.

The question here: when does the model prefer the right answer to the foil on your own prompts? An analysis has five
names: TITLE, Options, plan (what to measure), summarise (from the trace alone), figures (from the summary alone).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from dynamics.analysis.base import Context, Request
from dynamics.analysis.figures import curve_grid
from dynamics.analysis.findings import Definition, Summary, from_units, sign_flip_null
from dynamics.measurements import Answers

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dynamics.store import Trace

__all__ = ["TITLE", "Options", "figures", "plan", "summarise"]

TITLE = "Answer against foil"


class Options(BaseModel):
    """Options, with their defaults; unknown ones are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    probe: str = Field("prompts", description="Name of the probe in the runs file.")


def plan(context: Context, options: Options) -> Sequence[Request]:
    """The user's own probe, with answers and foils."""
    return [Request(context.probes[options.probe], (Answers(candidates=True),))]


def summarise(trace: Trace, options: Options) -> Summary:
    """Mean logit difference between answer and foil, against no difference."""
    difference = trace.values(options.probe, "answer_logprob") - trace.values(options.probe, "foil_logprob")
    finding = from_units(
        "own_analysis.preference",
        "own prompts: right answer preferred",
        difference,
        steps=trace.steps,
        tokens=trace.tokens,
        null=sign_flip_null(difference),
        null_name="no difference",
        metric="logit difference (nat)",
        unit="prompts",
        headline=True,
        definition="mean log p(answer) - log p(foil)",
    )
    return Summary(
        analysis="own_analysis",
        title=TITLE,
        question="When does the model prefer the right answer to the foil?",
        findings=(finding,),
        definitions=(Definition("logit difference", "log p(answer) - log p(foil), in nats"),),
        notes=(f"{np.shape(difference)[1]} prompts",),
    )


def figures(summary: Summary) -> Mapping[str, Figure]:
    """One curve."""
    return {"preference": curve_grid([("Answer against foil", [("preference", summary.findings[0])])], columns=1)}
