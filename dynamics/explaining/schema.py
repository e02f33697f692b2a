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

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import StringConstraints, ValidationError, model_validator

from checkpoints.errors import UserError

from .schema_features import Birth, Example, Feature, Index, Number, Probability, ShownDictionary, Split, Strict

__all__ = [
    "FORMAT",
    "FORMATS",
    "KIND",
    "PORTS",
    "Ablations",
    "Asked",
    "Birth",
    "Corrupted",
    "Example",
    "ExplainedCheckpoint",
    "Explanation",
    "Feature",
    "Lens",
    "Node",
    "ShownAttention",
    "ShownDictionary",
    "Split",
    "Token",
    "TopToken",
    "check_explanation",
]

FORMAT = 1
"""Version of the format without features. A reader of version 1 refuses any other."""

FORMATS = (FORMAT, 2, 3, 4)
"""Version 2 is version 1 with features of a dictionary, version 3 is either with ablations, version 4 any of them with
attention taken apart; they are written only where there is such, so that a reader of version 1 reads everything else as before."""

KIND = "circuit-dynamics-explanation"
"""What the file says it is."""

PORTS = ("q", "k", "v", "in")
"""Where an edge enters its target: a head's queries, keys or values; the input of an MLP or of the logits."""

State = Literal["explained", "not measurable", "not reached", "failed"]
Port = Literal["q", "k", "v", "in"]


class Token(Strict):
    """One token of the vocabulary, as text and as number."""

    text: str
    id: Index


class TopToken(Strict):
    """One of the most probable next tokens."""

    text: str
    probability: Probability | None


class Corrupted(Strict):
    """The prompts in which the information was destroyed: where they come from, and what was done in words."""

    how: Literal["given", "probe", "likely word", "random tokens"]
    texts: tuple[str, ...]
    note: str


class Asked(Strict):
    """How a chat was asked: the system's text (null where the template decides), how the answer begins, and the template's digest."""

    system: str | None
    begun: str
    digest: str


class Node(Strict):
    """A part of the model at one position of the prompt (both counted from 0)."""

    id: str
    kind: Literal["embed", "head", "mlp", "logits", "feature", "error"]
    layer: Index | None = None
    head: Index | None = None
    position: Index
    feature: Index | None = None

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        if (self.kind == "feature") != (self.feature is not None):
            raise ValueError(f"{self.id}: a node has the number of a feature if and only if it is one")
        if (self.layer is not None, self.head is not None) != (self.kind in ("head", "mlp"), self.kind == "head"):
            has = {"head": "a layer and a head", "mlp": "a layer and no head"}.get(self.kind, "no layer and no head")
            raise ValueError(f"{self.id}: a {self.kind} has {has}")
        return self

    @property
    def in_dictionary(self) -> bool:
        """Whether it is a part of a site's activation (a feature, or what no feature rebuilds), and writes nothing."""
        return self.kind in ("feature", "error")

    @property
    def depth(self) -> tuple[int, int]:
        """Order in which nodes write: embeddings, then layer by layer heads and MLP, then the logits.

        Features have no place in it; among each other, errors come last.
        """
        if self.in_dictionary:
            return (self.feature if self.feature is not None else 1 << 30, 0)
        if self.kind == "embed":
            return (-1, 0)
        if self.kind == "logits":
            return (1 << 30, 0)
        assert self.layer is not None
        return (self.layer, int(self.kind == "mlp"))


class Lens(Strict):
    """Logit lens (nostalgebraist, 2020) after each block: (layer, position), the first layer first."""

    top: tuple[tuple[tuple[str, Probability | None], ...], ...]
    answer: tuple[tuple[Probability | None, ...], ...]


class Ablations(Strict):
    """What was ablated, each by itself: names of parts, joined by + where they are ablated together.

    Attributes:
        factor: by which what the parts wrote was multiplied; null where it was taken from the corrupted prompts.
        names: the id of a node where the ablation is of that part at that position alone.
    """

    factor: Number | None
    names: tuple[str, ...]


AblatedRow = tuple[Index, Number | None, Probability | None, Probability | None, str | None, Probability | None]


class ShownAttention(Strict):
    """How a head looks at a token, and why.

    Attributes:
        head: its name and position, as a node is called.
        token: the position that it looks at.
        weight, corrupted: attention for the prompt, and mean for the corrupted prompts.
        score: log of the weight, less the mean over what the head sees from there.
        rest: what of the score is no product of a query and a key; null where it could not be taken apart.
        queries, keys: (what wrote it, its part of the score with all keys, or queries), the strongest.
        parts: (what wrote the query, what wrote the key, their part of the score), the strongest.
    """

    head: Annotated[str, StringConstraints(pattern=r"^L[0-9]+H[0-9]+@[0-9]+$")]
    token: Index
    weight: Probability
    corrupted: Probability | None
    score: Number
    rest: Number | None
    queries: tuple[tuple[str, Number], ...]
    keys: tuple[tuple[str, Number], ...]
    parts: tuple[tuple[str, str, Number], ...]


class ExplainedCheckpoint(Strict):
    """What was computed at one checkpoint; numbers in logits, probabilities in [0, 1].

    Attributes:
        nodes: (index of the node, its total attribution in logits).
        edges: (index of the source, index of the target, port, attribution in logits): the strongest of those kept.
        split: what crosses the dictionary's site, where there is one.
        ablated: (number of the ablation, metric with it, probability of answer and of foil, most probable next token and its
            probability); null where the logits are not finite.
        attention: where heads look that carry much, and why.
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
    split: Split | None = None
    ablated: tuple[AblatedRow, ...] | None = None
    attention: tuple[ShownAttention, ...] | None = None

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
        if self.edges and (self.edges_kept or 0) < len(self.edges):
            raise ValueError(f"step {self.step}: edges_kept is {self.edges_kept}, edges are {len(self.edges)}")
        return self


class Explanation(Strict):
    """What a model computed on one prompt, at every checkpoint."""

    format: Literal[1, 2, 3, 4]
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
    checkpoints: tuple[ExplainedCheckpoint, ...]
    chat: Asked | None = None
    dictionary: ShownDictionary | None = None
    ablation: Ablations | None = None

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
        self._check_dictionary()
        if self.format < 4 and (self.format == 3) != (self.ablation is not None):
            raise ValueError(f"format {self.format} has {'' if self.format == 3 else 'no '}ablations")
        steps = [checkpoint.step for checkpoint in self.checkpoints]
        if steps != sorted(set(steps)):
            raise ValueError("the checkpoints' steps do not ascend")
        for checkpoint in self.checkpoints:
            try:
                self._check(checkpoint)
            except ValueError as error:
                raise ValueError(f"step {checkpoint.step}: {error}") from None
        return self

    def _check_dictionary(self) -> None:
        if self.format < 3 and (self.format == 2) != (self.dictionary is not None):
            raise ValueError(f"format {self.format} has {'no' if self.format == 1 else 'a'} dictionary")
        shown = {node.feature for node in self.nodes if node.feature is not None}
        if self.dictionary is None:
            if any(node.in_dictionary for node in self.nodes) or any(c.split is not None for c in self.checkpoints):
                raise ValueError("there are features of no dictionary")
            return
        if self.dictionary.after > self.layers:
            raise ValueError(f"the dictionary is after {self.dictionary.after} of {self.layers} layers")
        about = [feature.feature for feature in self.dictionary.features]
        if len(set(about)) < len(about) or set(about) != shown or max(about, default=-1) >= self.dictionary.size:
            raise ValueError(f"what is known of features {sorted(about)} is not of those shown, {sorted(shown)}")

    def _check(self, checkpoint: ExplainedCheckpoint) -> None:
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
        if self.dictionary is not None and checkpoint.split is None:
            raise ValueError("it does not say how the dictionary splits it")
        active = [] if checkpoint.split is None else [index for index, *_ in checkpoint.split.active]
        if sorted(active) != sorted(i for i in known if self.nodes[i].kind == "feature"):
            raise ValueError("the active features are not those among the nodes")
        names = () if self.ablation is None else self.ablation.names
        if (self.ablation is None) != (checkpoint.ablated is None):
            raise ValueError("what was ablated is not said of the whole and of every checkpoint alike")
        numbers = [row[0] for row in checkpoint.ablated or ()]
        if len(set(numbers)) < len(numbers) or max(numbers, default=-1) >= len(names):
            raise ValueError(f"ablations {numbers} of {len(names)}")
        if numbers and checkpoint.state == "failed":
            raise ValueError("a checkpoint that failed has no ablations")
        if (self.format == 4) != (checkpoint.attention is not None):
            raise ValueError(
                f"format {self.format} has {'' if self.format == 4 else 'no '}attention at every checkpoint"
            )
        if checkpoint.attention and checkpoint.state == "failed":
            raise ValueError("a checkpoint that failed has no attention")
        for look in checkpoint.attention or ():
            layer, head, position = map(int, re.findall(r"[0-9]+", look.head))
            if layer >= self.layers or head >= self.heads or not look.token <= position < len(self.tokens):
                raise ValueError(f"{look.head} cannot look at position {look.token}")
        if checkpoint.lens is not None:
            for table in (checkpoint.lens.top, checkpoint.lens.answer):
                if [len(row) for row in table] != [len(self.tokens)] * self.layers:
                    raise ValueError(f"the lens is not {self.layers} layers x {len(self.tokens)} positions")

    def _check_edge(self, source: Node, target: Node, port: str) -> None:
        if source.in_dictionary or target.in_dictionary:
            raise ValueError(f"the edge from {source.id} to {target.id} has a feature at its end")
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
            expected=f"format {' or '.join(map(str, FORMATS))}, as in docs/explain-format.md",
            remedy="write it anew with this version of the program",
        ) from error
