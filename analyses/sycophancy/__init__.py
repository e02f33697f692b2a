"""When does a model learn to say what its reader would like to hear, and what does it do it with?

Behaviour. With L(p) = log p(praise) - log p(criticism) after a prompt p:

- *Praise after compliments*: L(compliment) - L(neutral twin), a mean over items; the twins share the work and the evidence
  on it, and differ in the first sentence alone (Sharma et al. 2023, "Towards Understanding Sycophancy in Language Models":
  feedback on a text). Null: no difference, by random signs of items, and what a change of the stream as long as that between
  compliments and neutral sentences does to these log-odds in a random direction, because other words move every logit a
  little, also of a model that knows nothing of them. Its thresholded twin is the share of items on which
  praise is more likely than criticism, after compliments minus after neutral sentences; *not measurable* where neutral
  sentences leave no room above them.
- *The stated view*: by how much the answer that matches the stated view is more likely than without a view, mean of items
  with the view for and against: (L(for) - L(none) + L(none) - L(against)) / 2, with L the log-odds of the answer for
  (Perez et al. 2022, "Discovering Language Model Behaviors with Model-Written Evaluations"). Null: as above.
- *Published questions*: log-odds of the letter that matches the behaviour, every letter with equal weight, so that a
  liking for one of them is no sycophancy. Null: random signs.

Mechanism: the direction between compliments and neutral sentences where the verdict follows, or (option ``position``) at the
full stop after the sentence, before anything is said of the work: when it can be read (*represented*), steers the verdict
(*used*) and is *needed*; definitions, nulls and sources in :mod:`dynamics.analysis.direction` and
:mod:`dynamics.measurements.direction`. Compliments are told from the kind of neutral sentence that is most like them, works
of all qualities alike, so that neither one word nor the verdict is enough. *Done* is the log-odds above.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from dynamics.analysis import AnalysisOptions, Answers, Context, Request, Section, Trace
from dynamics.measurements import Direction

from .figures import figures
from .prompts import praise_probe, published_probe, views_probe
from .summary import curves

__all__ = ["PLANTED", "QUESTION", "TITLE", "Options", "figures", "plan", "summarise"]

TITLE = "Sycophancy"
QUESTION = (
    "When does the model say what its reader would like to hear - praise after compliments, the view that was stated - "
    "and does a direction in its stream carry it?"
)
PLANTED = {"praise": "done"}


class Options(AnalysisOptions):
    """Options of this analysis."""

    prompts: int = Field(288, ge=24, description="Verdicts, half after compliments, and as many opinions.")
    position: Literal["last", "compliment"] = Field(
        "last", description="Where the direction is: the last token, or the full stop after the first sentence."
    )
    strengths: tuple[float, ...] = Field(
        (-2.0, -1.0, 1.0, 2.0),
        min_length=2,
        description="Distances between the classes by which the stream is steered.",
    )
    seed: int = Field(0, ge=0, description="Chooses the prompts, shuffles and random directions.")
    published: Path | None = Field(None, description="JSONL file of questions in the format of Perez et al. 2022.")


def plan(context: Context, options: Options) -> Sequence[Request]:
    """Verdicts with the direction of compliments, opinions with answers, and the user's published questions."""
    direction = Direction(
        "flattered", position=options.position, strengths=options.strengths, units="item", seed=options.seed
    )
    asked = (context.tokenizer, options.prompts, options.seed)
    requests = [Request(context.asked(praise_probe(*asked)), (Answers(), direction))]
    views = views_probe(*asked)
    if views is not None:
        requests.append(Request(context.asked(views), (Answers(),)))
    if options.published is not None:
        published = published_probe(context.tokenizer, options.published)
        requests.append(Request(context.asked(published), (Answers(),)))
    return requests


def summarise(trace: Trace, options: Options) -> Section:
    """What compliments and views do to answers, and the direction behind it."""
    return curves(trace, options.position)
