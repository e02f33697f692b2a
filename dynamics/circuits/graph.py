"""The graph of a transformer: what writes to the residual stream, what reads from it, and which edges there can be.

Sources are the embedding, each attention head and each MLP. Readers are each head's query, key and value inputs, each
MLP and the logits (Elhage et al. 2021; the edges are those of Conmy et al. 2023 and Syed et al. 2023). Heads that share
keys and values (grouped-query attention) share those readers.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from checkpoints.errors import UserError

from ..models.architecture import ModelShape

__all__ = ["Graph", "Reader", "Source", "graph_of", "passes_of"]

Role = Literal["q", "k", "v", "mlp", "logits"]


@dataclass(frozen=True)
class Source:
    """What writes: the embedding (layer and head None), an MLP (head None), or a head."""

    name: str
    layer: int | None = None
    head: int | None = None


@dataclass(frozen=True)
class Reader:
    """What reads; ``head`` is the key-value head for roles k and v."""

    name: str
    role: Role
    layer: int | None = None
    head: int | None = None


@dataclass(frozen=True)
class Graph:
    """Sources and readers in the order of computation.

    Attributes:
        layers, heads, kv_heads: sizes.
        parallel: whether attention and MLP of a layer read the same stream.
    """

    layers: int
    heads: int
    kv_heads: int
    parallel: bool

    @cached_property
    def sources(self) -> tuple[Source, ...]:
        """``embed``, then per layer ``L0H0``, ..., ``L0M``."""
        found = [Source("embed")]
        for layer in range(self.layers):
            found += [Source(f"L{layer}H{head}", layer, head) for head in range(self.heads)]
            found.append(Source(f"L{layer}M", layer))
        return tuple(found)

    @cached_property
    def readers(self) -> tuple[Reader, ...]:
        """Per layer ``L0H0.q``, ..., ``L0H0.k``, ..., ``L0H0.v``, ..., ``L0M``; then ``logits``."""
        shared = "H" if self.kv_heads == self.heads else "KV"
        found: list[Reader] = []
        for layer in range(self.layers):
            found += [Reader(f"L{layer}H{head}.q", "q", layer, head) for head in range(self.heads)]
            for role in ("k", "v"):
                found += [Reader(f"L{layer}{shared}{h}.{role}", role, layer, h) for h in range(self.kv_heads)]
            found.append(Reader(f"L{layer}M", "mlp", layer))
        found.append(Reader("logits", "logits"))
        return tuple(found)

    def attention_readers(self, layer: int) -> slice:
        """The readers of one layer's attention: queries, then keys, then values."""
        start = layer * self._per_layer
        return slice(start, start + self._per_layer - 1)

    def mlp_reader(self, layer: int) -> slice:
        """The one reader of a layer's MLP."""
        end = (layer + 1) * self._per_layer
        return slice(end - 1, end)

    @property
    def logits_reader(self) -> slice:
        """The last reader."""
        return slice(self.layers * self._per_layer, self.layers * self._per_layer + 1)

    @property
    def _per_layer(self) -> int:
        return self.heads + 2 * self.kv_heads + 1

    def attention_sources(self, layer: int) -> slice:
        """The heads of one layer, as sources."""
        start = 1 + layer * (self.heads + 1)
        return slice(start, start + self.heads)

    def mlp_source(self, layer: int) -> slice:
        """A layer's MLP, as a source."""
        end = 1 + (layer + 1) * (self.heads + 1)
        return slice(end - 1, end)

    def seen_by(self, reader: slice) -> int:
        """How many sources, the first ones, have written before these readers read."""
        first: Reader = self.readers[int(reader.start)]
        layer = first.layer
        if layer is None:
            return len(self.sources)
        before = 1 + layer * (self.heads + 1)
        is_mlp = first.role == "mlp"
        return before + self.heads if is_mlp and not self.parallel else before

    @cached_property
    def edges(self) -> npt.NDArray[np.bool_]:
        """(source, reader) whether there is such an edge."""
        found = np.zeros((len(self.sources), len(self.readers)), dtype=bool)
        for index in range(len(self.readers)):
            found[: self.seen_by(slice(index, index + 1)), index] = True
        return found

    def heads_of(self, reader: int) -> list[int]:
        """Indices of the sources through which a reader acts (several where heads share keys and values).

        The logits act through none.
        """
        about = self.readers[reader]
        if about.layer is None:
            return []
        if about.role == "mlp":
            return [self.mlp_source(about.layer).start]
        first = self.attention_sources(about.layer).start
        assert about.head is not None
        if about.role == "q":
            return [first + about.head]
        share = self.heads // self.kv_heads
        return [first + head for head in range(about.head * share, (about.head + 1) * share)]

    def connected(self, kept: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """(..., source, reader) the edges that lie on a path from the embedding to the logits, among those kept.

        The others cannot matter: what they carry is never read, or is the same with and without them.
        """
        kept = kept & self.edges
        sources = len(self.sources)
        fed: npt.NDArray[np.bool_] = np.zeros((*kept.shape[:-2], sources), dtype=bool)
        fed[..., 0] = True
        for source in range(1, sources):  # sources are in the order of computation
            readers = self._acting[source]
            fed[..., source] = (kept[..., readers] & fed[..., :, None]).any((-2, -1))
        through: npt.NDArray[np.bool_] = np.zeros((*kept.shape[:-2], len(self.readers)), dtype=bool)
        through[..., self.logits_reader] = True
        for source in reversed(range(sources)):
            used = (kept[..., source, :] & through).any(-1)
            through[..., self._acting[source]] |= np.asarray(used)[..., None]
        result: npt.NDArray[np.bool_] = kept & fed[..., :, None] & through[..., None, :]
        return result

    @cached_property
    def _acting(self) -> list[list[int]]:
        """Per source the readers that act through it."""
        found: list[list[int]] = [[] for _ in self.sources]
        for reader in range(len(self.readers)):
            for source in self.heads_of(reader):
                found[source].append(reader)
        return found


def graph_of(shape: ModelShape) -> Graph:
    """The graph of a model.

    Raises:
        UserError: for an architecture whose wiring is not known.
    """
    if shape.parallel is None:
        raise UserError(
            "what reads and writes where is not known of this architecture, so that nothing in it can be patched",
            expected="a causal model of a known family, or a SiteTable with a `wiring`",
            remedy="leave this analysis or measurement out",
        )
    return Graph(shape.layers, shape.heads, shape.kv_heads or shape.heads, shape.parallel)


def passes_of(graph: Graph) -> npt.NDArray[np.float64]:
    """(source,) what patching a source costs, in passes through the whole model: those from its layer on.

    >>> passes_of(Graph(2, 1, 1, False)).tolist()  # the embedding; head and MLP of two layers
    [1.0, 1.0, 0.5, 0.5, 0.0]
    """
    first = [0 if s.layer is None else s.layer + (s.head is None or graph.parallel) for s in graph.sources]
    return 1 - np.array(first) / graph.layers
