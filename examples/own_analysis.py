"""When does the model prefer the right answer to the foil on your own prompts?

An analysis of your own is a module with TITLE, plan (what to measure) and summarise (from the trace alone). Put it beside
your ``runs.yaml`` and name it there: ``analyses: [own_analysis]``. The question above stands in the report, with one figure
of every headline's curve.
"""

from __future__ import annotations

from pydantic import Field

from dynamics.analysis import (
    AnalysisOptions,
    Answers,
    Context,
    CurveSpec,
    Null,
    Request,
    Section,
    Trace,
    from_units,
    sign_flip_null,
)

TITLE = "Answer against foil"


class Options(AnalysisOptions):
    """Options, with their defaults (leave the class out if there are none); unknown ones are errors."""

    probe: str = Field("prompts", description="Name of the probe in the runs file.")


def plan(context: Context, options: Options) -> list[Request]:
    """The user's own probe, with answers and foils."""
    return [Request(context.probe(options.probe), (Answers(),))]


def summarise(trace: Trace, options: Options) -> Section:
    """Mean logit difference between answer and foil, against no difference."""
    difference = trace.values(options.probe, "answer_logprob") - trace.values(options.probe, "foil_logprob")
    spec = CurveSpec("logit difference (nat)", "prompts", "mean log p(answer) - log p(foil)", headline=True)
    null = Null(sign_flip_null(difference), "no difference")
    curve = from_units("preference", "own prompts: right answer preferred", difference, null, spec)
    return Section([curve], notes=[f"{difference.shape[1]} prompts"])
