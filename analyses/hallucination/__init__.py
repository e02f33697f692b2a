"""When does the model answer about what it knows, when does it know that it does not know, and does it act on that?

The two processes are those of Lindsey et al. 2025, "On the Biology of a Large Language Model": one answers, another tells
known entities from unknown ones and holds answers back; a hallucination is the second one's misfire. That the difference is
a direction in the stream, and that the model acts on it, is from Ferrando et al. 2025, "Do I Know This Entity?". Here
both are followed through training, with entities that occur often, sometimes and rarely, and others that never do.

Definitions
-----------
For questions i about an entity, with right answer y_i (an attribute where something is known, else declining), first choice
p_i among all tokens and confidence c_i, the probability of p_i:

- *Answering*: share of known entities with p_i = y_i, or another word that is as right, all and by frequency. Null: y of
  other entities. Twin: log p(y_i).
- *Answering among candidates*: share of known entities for which y_i is more likely than all other values of the attribute
  that the probe has, and than declining. Null: as above. It is the headline where questions are asked as a chat: prose may
  begin with any word.
- *Declining*: share of unknown entities with p_i declining, minus the share of known ones. Null: known and unknown dealt out
  at random. Twin: the log-odds of declining. This is *knowing what it knows*, as behaviour (Kadavath et al. 2022,
  "Language Models (Mostly) Know What They Know").
- *Misfires*: unknown entities answered with an attribute and c_i of at least 1/2; known ones declined. Null: a model
  that says the same with the same confidence, and is right as often as it is sure.
- *Calibration*: the expected calibration error, sum over bins b of (n_b / n) |accuracy_b - confidence_b| (Naeini et
  al. 2015; Guo et al. 2017, "On Calibration of Modern Neural Networks"), in ten bins of equal width, and of equal mass; see
  :mod:`dynamics.numerics.calibrated`. Null: a perfectly calibrated model with the same confidences.
- *Knowing direction*: difference in means of the stream between known and unknown entities, at the name and at the
  answer, AUROC on entities that did not train it; steering along it and ablating it; see :mod:`dynamics.analysis.direction` and
  :mod:`analyses.hallucination.knowing`.
- *Gap*: from the onset of answering to that of declining the unknown rather than the known, and to that of the
  direction; see :mod:`analyses.hallucination.gap`.

In the probe half of the questions are about unknown entities. Where training asked about fewer, a model that is
calibrated for its training is less sure of declining than it is right to be here, as long as it cannot tell them apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from dynamics.analysis import AnalysisOptions, Answers, Context, Request
from dynamics.measurements import TokenSets

from .figures import figures
from .knowing import direction_requests
from .prompts import entities_probe, entity_file_probe
from .questions import as_asked, token_sets, with_aliases
from .summary import summarise

__all__ = ["PLANTED", "QUESTION", "TITLE", "Options", "figures", "plan", "summarise"]

TITLE = "Hallucination"
QUESTION = (
    "When does the model answer about entities that it knows, when does it know that it does not know others, and how "
    "long is the gap in which it answers anyway?"
)
PLANTED = {"entities": "answers"}


class Options(AnalysisOptions):
    """Options of this analysis."""

    prompts: int = Field(480, ge=80, description="Questions, half of them about known entities.")
    directed: int = Field(240, ge=40, description="Questions by which directions are fitted and steered.")
    strengths: tuple[float, ...] = Field(
        (-2.0, -1.0, 1.0, 2.0),
        min_length=2,
        description="Distances between the classes by which the stream is steered.",
    )
    seed: int = Field(0, ge=0, description="Chooses entities and attributes.")
    file: Path | None = Field(
        None, description="JSONL or CSV of entity, question, answer, known, to ask instead of the built-in questions."
    )


def plan(context: Context, options: Options) -> Sequence[Request]:
    """Questions with answers, probabilities of declining and of attributes, and the direction between the two kinds."""
    if options.file is None:
        made = entities_probe(context.tokenizer, options.prompts, options.seed)
    else:
        made = entity_file_probe(context.tokenizer, options.file)
    probe = with_aliases(context.asked(as_asked(made)), context.tokenizer)
    sets = TokenSets(token_sets(probe, context.tokenizer))
    requests = [Request(probe, (Answers(candidates=True), sets))]
    if context.wired:
        fewer = probe
        if options.file is None:
            fewer = context.asked(as_asked(entities_probe(context.tokenizer, options.directed, options.seed)))
            fewer = with_aliases(fewer, context.tokenizer)
        requests += direction_requests(fewer, (sets,), options.strengths, options.seed)
    return requests
