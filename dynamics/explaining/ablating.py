"""What the answer becomes without some parts of the model: exact, at every checkpoint.

A part is what a head, an MLP or the embedding writes, at one position or at all. It is *ablated* when all that read it see
what it wrote for the corrupted prompts instead (their mean; a resample ablation, Chan et al. 2022), or *scaled* when they
see a multiple of what it wrote for the prompt (0: zero ablation). All that follows is computed anew, so that this is a
total effect, and not the attribution that the flowchart's numbers estimate.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from checkpoints.errors import UserError

from ..circuits.graph import Graph
from .prompts import Question, token_text

if TYPE_CHECKING:
    import torch

    from ..circuits.wired import Wired
    from .flow import Flow

__all__ = ["DRAWN", "MOST", "Ablating", "Ablation", "Row", "ablated", "ablations_of", "drawn_parts"]

DRAWN = "drawn"
"""Asks for every head and MLP that is drawn, each by itself."""

MOST = 40
"""Drawn parts that are ablated at a checkpoint: those with the largest attributions."""

Part = tuple[int, int | None]
"""Number of a source, and the position; None for all positions."""

Row = tuple[str, float | None, float | None, float | None, str | None, float | None]
"""Name of an ablation; with it, the metric, the probabilities of answer and foil, and the first choice with its
probability; None where the logits are not finite."""


@dataclass(frozen=True)
class Ablation:
    """Parts that are ablated together.

    Attributes:
        name: as it was asked for, such as ``L1H2@5+L0M``.
        parts: at least one.
    """

    name: str
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Ablating:
    """What is ablated at every checkpoint.

    Attributes:
        asked: named by the user.
        drawn: whether what is drawn is ablated too.
        factor: see :func:`ablated`.
    """

    asked: tuple[Ablation, ...]
    drawn: bool
    factor: float | None

    @classmethod
    def asked_for(cls, texts: Sequence[str], factor: float | None, graph: Graph, tokens: int) -> Self:
        """From the texts of :func:`.explain`; arguments and errors as of :func:`ablations_of`."""
        return cls(ablations_of(texts, graph, tokens), DRAWN in texts, factor)

    def rows(
        self,
        wired: Wired,
        tokenizer: Any,
        question: Question,
        answer: int,
        foil: int,
        part: dict[str, Any],
        flow: Flow | None,
    ) -> list[Row]:
        """Of one checkpoint; none where it has no numbers."""
        import torch

        if part["state"] == "failed":
            return []
        shown = {} if flow is None or not self.drawn else flow.shown[1]
        every = {a.name: a for a in (*self.asked, *drawn_parts(shown, wired.graph))}
        ids, twins = (torch.from_numpy(x).to(wired.device) for x in (question.ids[None], question.twins))
        return ablated(wired, tokenizer, ids, twins, tuple(every.values()), answer, foil, self.factor)

    def about(self, parts: list[dict[str, Any]]) -> dict[str, Any]:
        """For the whole; the rows of ``parts`` get numbers instead of names."""
        names = dict.fromkeys(
            [a.name for a in self.asked] + [row[0] for part in parts for row in part.get("ablated", [])]
        )
        number = {name: i for i, name in enumerate(names)}
        for part in parts:
            part["ablated"] = [[number[name], *values] for name, *values in part.get("ablated", [])]
        return {"factor": self.factor, "names": list(names)}


def ablations_of(texts: Sequence[str], graph: Graph, tokens: int) -> tuple[Ablation, ...]:
    """What is asked for, :data:`DRAWN` left out.

    Args:
        texts: names of parts, joined by + where they are ablated together: ``L1H2`` or ``L1M`` at all positions, ``L1H2@5``
            at one.
        graph: of the model.
        tokens: of the prompt.

    Raises:
        UserError: for a part that the model or the prompt does not have.
    """
    numbers = {source.name: number for number, source in enumerate(graph.sources)}
    found: dict[str, Ablation] = {}
    for text in texts:
        if text == DRAWN:
            continue
        parts: list[Part] = []
        for name in text.split("+"):
            match = re.fullmatch(r"\s*([^@\s]+)(?:@(\d{1,9}))?\s*", name, re.ASCII)
            if match is None or match[1] not in numbers:
                raise UserError(
                    f"--ablate {text!r}: {name.strip()!r} is no part of this model",
                    expected=f"embed, L0H0 to L{graph.layers - 1}H{graph.heads - 1} or L0M to L{graph.layers - 1}M, several "
                    f"joined by +, each with @POSITION where it is one of them; or {DRAWN!r}",
                    remedy="name parts as the flowchart's boxes are",
                )
            position = None if match[2] is None else int(match[2])
            if position is not None and position >= tokens:
                raise UserError(
                    f"--ablate {text!r}: the prompt has no position {position}",
                    expected=f"a position from 0 to {tokens - 1}",
                    remedy="positions are counted from 0, as the page shows them; without @ all are ablated",
                )
            parts.append((numbers[match[1]], position))
        name = "+".join(part.strip() for part in text.split("+"))
        found[name] = Ablation(name, tuple(parts))
    return tuple(found.values())


def drawn_parts(nodes: dict[tuple[int, int], float], graph: Graph) -> tuple[Ablation, ...]:
    """The heads and MLPs of a flowchart with the largest attributions, each by itself.

    Args:
        nodes: attribution of each (source, position), with the logits as the number after the last source.
        graph: of the model.
    """
    parts = [(abs(score), at) for at, score in nodes.items() if 0 < at[0] < len(graph.sources)]
    strongest = sorted(parts, key=lambda part: (-part[0], part[1]))[:MOST]
    return tuple(Ablation(f"{graph.sources[s].name}@{position}", ((s, position),)) for _, (s, position) in strongest)


def ablated(
    wired: Wired,
    tokenizer: Any,
    ids: torch.Tensor,
    twins: torch.Tensor,
    ablations: Sequence[Ablation],
    answer: int,
    foil: int,
    factor: float | None,
) -> list[Row]:
    """What the model says with each ablation.

    Args:
        wired: the model.
        tokenizer: of its tokens.
        ids: (1, token) the prompt.
        twins: (twin, token) the corrupted prompts.
        ablations: each is made by itself.
        answer, foil: tokens that the metric compares.
        factor: by which what the parts wrote for the prompt is multiplied; None takes it from the corrupted prompts.
    """
    import torch

    if not ablations:
        return []
    last = torch.tensor([ids.shape[1] - 1], device=ids.device)
    clean = wired.run(ids)
    twin = wired.run(twins) if factor is None else None
    written: dict[int, torch.Tensor] = {}

    def instead(source: int) -> torch.Tensor:
        """(1, token, d_model) what is read in place of what the source wrote."""
        if source not in written:
            own = wired.source(clean, source)
            written[source] = (
                own * (factor or 0.0) if twin is None else wired.source(twin, source).mean(0, keepdim=True)
            )
        return written[source]

    found: list[Row] = []
    for ablation in ablations:
        logits = _without(wired, ids, last, clean, ablation, instead)[0].float()
        difference = float(logits[answer] - logits[foil])
        if not (math.isfinite(difference) and bool(torch.isfinite(logits.amax()))):
            found.append((ablation.name, None, None, None, None, None))
            continue
        probabilities, first = logits.softmax(-1), int(logits.argmax())
        right, wrong, likely = (float(probabilities[token]) for token in (answer, foil, first))
        found.append((ablation.name, difference, right, wrong, token_text(tokenizer, first), likely))
    return found


def _without(wired: Wired, ids: Any, last: Any, clean: Any, ablation: Ablation, instead: Any) -> torch.Tensor:
    """(1, vocab) logits at the last token."""
    import torch

    places = {(source, at) for source, position in ablation.parts for at in _positions(position, ids.shape[1])}
    sources = {source for source, _ in places}
    if len(sources) == 1:  # what comes before it need not be computed again
        (source,) = sources
        here = torch.zeros(ids.shape[1], 1, device=ids.device)
        here[[at for _, at in places]] = 1
        added = (instead(source) - wired.source(clean, source)) * here.to(clean.streams[0].dtype)
        return wired.resumed(ids, last, clean, source, added[None])[0]
    other = clean.streams[0].new_zeros((len(wired.graph.sources), *clean.streams[0].shape))
    cut = torch.zeros((1, ids.shape[1], *wired.graph.edges.shape), device=ids.device)
    edges = torch.from_numpy(wired.graph.edges).to(cut)
    for source in sources:
        other[source] = instead(source)
    for source, at in places:
        cut[0, at, source] = edges[source]
    return wired.patched(ids, last, other, cut)


def _positions(position: int | None, tokens: int) -> Sequence[int]:
    return range(tokens) if position is None else (position,)
