"""The format of an explanation: one JSON value that holds everything the page and the figure show.

``docs/explain-format.md`` specifies it in prose. The models here refuse what contradicts it: unknown keys, numbers that
are not finite, edges that point at nothing, tables of the wrong shape, and a state that the numbers beside it deny.
Missing numbers are ``null``.

>>> Node.model_validate({"id": "L1H2@5", "kind": "mlp", "layer": 1, "head": 2, "position": 5})
Traceback (most recent call last):
...
pydantic_core._pydantic_core.ValidationError: 1 validation error for Node
  Value error, L1H2@5: a mlp has a layer and no head ...
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from checkpoints.errors import UserError

__all__ = [
    "FORMAT",
    "KIND",
    "PORTS",
    "Checkpoint",
    "Corrupted",
    "Explanation",
    "Lens",
    "Node",
    "Token",
    "TopToken",
    "check_explanation",
]

FORMAT = 1
"""Version of the format. A reader of version 1 refuses any other."""

KIND = "circuit-dynamics-explanation"
"""What the file says it is."""

PORTS = ("q", "k", "v", "in")
"""Where an edge enters its target: a head's queries, keys or values; the input of an MLP or of the logits."""

Probability = Annotated[float, Field(ge=0, le=1, strict=True)]
Number = Annotated[float, Field(strict=True)]
State = Literal["explained", "not measurable", "not reached", "failed"]
Port = Literal["q", "k", "v", "in"]
Index = Annotated[int, Field(ge=0, strict=True)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Token(_Strict):
    """One token of the vocabulary, as text and as number."""

    text: str
    id: Index


class TopToken(_Strict):
    """One of the most probable next tokens."""

    text: str
    probability: Probability | None


class Corrupted(_Strict):
    """The prompts in which the information was destroyed: where they come from, and what was done in words."""

    how: Literal["given", "one token", "random tokens"]
    texts: tuple[str, ...]
    note: str


class Node(_Strict):
    """A part of the model at one position of the prompt (both counted from 0)."""

    id: str
    kind: Literal["embed", "head", "mlp", "logits"]
    layer: Index | None = None
    head: Index | None = None
    position: Index

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        if (self.layer is not None, self.head is not None) != (self.kind in ("head", "mlp"), self.kind == "head"):
            has = {"head": "a layer and a head", "mlp": "a layer and no head"}.get(self.kind, "no layer and no head")
            raise ValueError(f"{self.id}: a {self.kind} has {has}")
        return self

    @property
    def depth(self) -> tuple[int, int]:
        """Order in which nodes write: embeddings, then layer by layer heads and MLP, then the logits."""
        if self.kind == "embed":
            return (-1, 0)
        if self.kind == "logits":
            return (1 << 30, 0)
        assert self.layer is not None
        return (self.layer, int(self.kind == "mlp"))


class Lens(_Strict):
    """Logit lens (nostalgebraist, 2020) after each block: (layer, position), the first layer first."""

    top: tuple[tuple[tuple[str, Probability | None], ...], ...]
    answer: tuple[tuple[Probability | None, ...], ...]


class Checkpoint(_Strict):
    """What was computed at one checkpoint; numbers in logits, probabilities in [0, 1].

    Attributes:
        nodes: (index of the node, its total attribution in logits).
        edges: (index of the source, index of the target, port, attribution in logits).
    """

    step: Index
    tokens: Index | None = None
    stage: str = ""
    label: str
    state: State
    reason: str = ""
    answer_probability: Probability | None
    foil_probability: Probability | None
    answer_rank: Index | None
    top: tuple[TopToken, ...]
    logit_difference: Number | None
    corrupted_difference: Number | None
    faithfulness: Number | None
    edges_kept: Index | None
    edges_total: Index | None
    nodes: tuple[tuple[Index, Number | None], ...]
    edges: tuple[tuple[Index, Index, Port, Number | None], ...]
    lens: Lens | None

    @model_validator(mode="after")
    def _state_holds(self) -> Self:
        if self.state != "explained" and not self.reason:
            raise ValueError(f"step {self.step}: the state {self.state!r} needs a reason")
        if self.state in ("failed", "not measurable") and (self.edges or self.nodes):
            raise ValueError(f"step {self.step}: {self.state!r} has neither nodes nor edges")
        if self.state == "explained" and self.faithfulness is None:
            raise ValueError(f"step {self.step}: 'explained' needs its faithfulness")
        if self.state == "failed" and (self.top or self.answer_probability is not None):
            raise ValueError(f"step {self.step}: a checkpoint that failed has no numbers")
        if self.edges and self.edges_kept != len(self.edges):
            raise ValueError(f"step {self.step}: edges_kept is {self.edges_kept}, edges are {len(self.edges)}")
        return self


class Explanation(_Strict):
    """What a model computed on one prompt, at every checkpoint."""

    format: Literal[1]
    kind: Literal["circuit-dynamics-explanation"]
    run: str
    prompt: str
    tokens: tuple[str, ...]
    answer: Token
    foil: Token
    guessed: tuple[Literal["answer", "foil"], ...]
    corrupted: Corrupted
    metric: str
    share: Probability
    layers: Index
    heads: Index
    parallel: bool
    step_counts: str
    nodes: tuple[Node, ...]
    checkpoints: tuple[Checkpoint, ...]

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if not self.tokens or not self.checkpoints:
            raise ValueError("there must be at least one token and one checkpoint")
        names = [node.id for node in self.nodes]
        if len(set(names)) < len(names):
            twice = sorted({name for name in names if names.count(name) > 1})
            raise ValueError(f"nodes named twice: {', '.join(twice)}")
        for node in self.nodes:
            if node.position >= len(self.tokens):
                raise ValueError(f"{node.id} is at position {node.position} of {len(self.tokens)}")
            if (node.layer or 0) >= max(self.layers, 1) or (node.head or 0) >= max(self.heads, 1):
                raise ValueError(f"{node.id} is outside of {self.layers} layers of {self.heads} heads")
        steps = [checkpoint.step for checkpoint in self.checkpoints]
        if steps != sorted(set(steps)):
            raise ValueError("the checkpoints' steps do not ascend")
        for checkpoint in self.checkpoints:
            try:
                self._check(checkpoint)
            except ValueError as error:
                raise ValueError(f"step {checkpoint.step}: {error}") from None
        return self

    def _check(self, checkpoint: Checkpoint) -> None:
        shown = [index for index, _ in checkpoint.nodes]
        if len(set(shown)) < len(shown):
            raise ValueError("a node is listed twice")
        known = set(shown)
        if max(known, default=-1) >= len(self.nodes):
            raise ValueError(f"node {max(known)} of {len(self.nodes)}")
        if len({edge[:3] for edge in checkpoint.edges}) < len(checkpoint.edges):
            raise ValueError("an edge is listed twice")
        for source, target, port, _ in checkpoint.edges:
            if not {source, target} <= known:
                raise ValueError(f"the edge from {source} to {target} has an end that is not among the nodes")
            self._check_edge(self.nodes[source], self.nodes[target], port)
        if checkpoint.lens is not None:
            for table in (checkpoint.lens.top, checkpoint.lens.answer):
                if [len(row) for row in table] != [len(self.tokens)] * self.layers:
                    raise ValueError(f"the lens is not {self.layers} layers x {len(self.tokens)} positions")

    def _check_edge(self, source: Node, target: Node, port: str) -> None:
        (low, rank), (high, target_rank) = source.depth, target.depth
        upward = low < high or (low == high and rank < target_rank and not self.parallel)
        if not upward:
            raise ValueError(f"the edge from {source.id} to {target.id} does not point upward")
        if (port in ("q", "k", "v")) != (target.kind == "head"):
            raise ValueError(f"the edge from {source.id} enters {target.id} at {port!r}")
        if port in ("q", "in") and source.position != target.position:
            raise ValueError(f"the edge from {source.id} to {target.id} ({port}) crosses positions")


def check_explanation(value: Mapping[str, Any]) -> Explanation:
    """``value`` as a checked explanation.

    Raises:
        UserError: with the first contradictions, when ``value`` does not follow the format.
    """
    try:
        return Explanation.model_validate(value)
    except ValidationError as error:
        found = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}".removeprefix(": ") for e in error.errors()]
        more = f" (and {len(found) - 3} more)" if len(found) > 3 else ""
        raise UserError(
            "this is not an explanation: " + "; ".join(found[:3]) + more,
            expected=f"format {FORMAT}, as in docs/explain-format.md",
            remedy="write it anew with this version of the program",
        ) from error
