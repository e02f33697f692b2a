"""What heads do with the tokens that they attend to, by their weights: copying, succession, eigenvalues, composition.

See :mod:`dynamics.circuits.heads` for how norms are folded in and for composition.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from checkpoints.errors import UserError

from ..circuits.graph import graph_of
from ..models.architecture import Architecture, ModelShape
from ..names import LAYER, PROMPT
from ..probes import LAST, TokenizedProbe
from ..store.variable import Variable
from .base import require_causal

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

__all__ = ["HeadCopying", "HeadSuccession", "HeadWeights"]

_LOGITS = 2**25
"""At most this many logits at once."""


@dataclass(frozen=True)
class HeadCopying:
    """Does a head raise, or lower, the logit of the token that it attends to?

    Each prompt is a token to copy: its last. A head of layer 0 reads its embedding, all others the stream after the
    first block, where the token has become what later heads read (Wang et al. 2023). What the head writes when it
    attends to this alone goes to logits through the final norm and the unembedding. Variables (prompt, layer, head):

    - ``copying``, ``negative_copying``: 1 where the token's own logit is among the largest (smallest) ``top`` of the
      vocabulary, else 0 (copy score and negative copy score of Wang et al. 2023);
    - ``copying_control``, ``negative_control``: share of the probe's other tokens that are among them.

    Attributes:
        top: how many of the vocabulary count.
    """

    top: int = 5

    def declare(self, probe: TokenizedProbe, shape: ModelShape) -> list[Variable]:
        """Four variables. Raises UserError for a model without a known wiring, and for fewer than two tokens."""
        require_causal(probe, shape, "copying by heads")
        graph_of(shape)
        last = _last_ids(probe)
        if len(set(last)) != len(last) or len(last) < 2 or shape.vocab <= 2 * self.top:
            raise UserError(
                f"probe {probe.probe.name!r} ends in {len(set(last))} different tokens in {len(last)} prompts, "
                f"of a vocabulary of {shape.vocab}",
                expected=f"at least two prompts, each with a last token of its own, and more than {2 * self.top} words",
                remedy="give the probe more prompts that end in different tokens, or lower `top`",
            )
        size = (len(probe.ids), shape.layers, shape.heads)
        words = {
            "copying": f"the token's own logit is among the largest {self.top}",
            "negative_copying": f"the token's own logit is among the smallest {self.top}",
            "copying_control": f"share of the other tokens among the largest {self.top}",
            "negative_control": f"share of the other tokens among the smallest {self.top}",
        }
        return [Variable(name, (PROMPT, LAYER, "head"), size, "float", text) for name, text in words.items()]

    def run(
        self, model: Any, architecture: Architecture, probe: TokenizedProbe, batch_tokens: int
    ) -> dict[str, np.ndarray]:
        """See the class."""
        import torch

        names = (("copying", "copying_control"), ("negative_copying", "negative_control"))
        shape = (len(probe.ids), architecture.shape.layers, architecture.shape.heads)
        result = {name: np.full(shape, np.nan, dtype=np.float32) for pair in names for name in pair}
        own = torch.tensor(_last_ids(probe))
        for layer, rows, written, to_logits in _written(model, architecture, probe, batch_tokens):
            logits = written @ to_logits.T  # (row, head, vocab)
            sample = logits[..., own.to(logits.device)]  # (row, head, token of the probe)
            highest, lowest = (logits.topk(self.top + 1, dim=-1, largest=large).values for large in (True, False))
            # a NaN counts as the largest
            finite = torch.isfinite(highest[..., 0]) & torch.isfinite(lowest[..., 0])
            mine = torch.zeros(len(rows), len(own), dtype=torch.bool, device=logits.device)
            mine[torch.arange(len(rows)), torch.from_numpy(rows)] = True
            # strictly beyond the next one: a head that writes nothing has no largest logits
            among = (sample > highest[..., -1:], sample < lowest[..., -1:])
            for (name, control), within in zip(names, among, strict=True):
                within = within & finite[..., None]
                hit = (within & mine[:, None]).any(-1).float()
                rest = (within & ~mine[:, None]).sum(-1) / (len(own) - 1)
                for key, value in ((name, hit), (control, rest)):
                    result[key][rows, layer] = torch.where(finite, value, torch.nan).cpu().numpy()
        return result


@dataclass(frozen=True)
class HeadSuccession:
    """Which member of an ordered list does a head raise most, when it attends to one? (Gould et al. 2023)

    Each prompt's last token is a member of a list. Variable ``raised`` (prompt, layer, head), integer: the place in the
    list of the member whose logit the head raises most (see :class:`HeadCopying` for how); -1 where the logits are not
    finite, or two members share the largest. A successor head raises ``place + 1``.

    The probe's labels ``series`` (text) and ``place`` (integer, 0 ...) say which list, and where in it; every place of a
    list occurs once.
    """

    def declare(self, probe: TokenizedProbe, shape: ModelShape) -> list[Variable]:
        """One variable. Raises UserError for a model without a known wiring, and for lists with gaps."""
        require_causal(probe, shape, "succession in heads")
        graph_of(shape)
        self.lists(probe)
        size = (len(probe.ids), shape.layers, shape.heads)
        words = "place in its list of the member that the head raises most"
        return [Variable("raised", (PROMPT, LAYER, "head"), size, "int", words)]

    def lists(self, probe: TokenizedProbe) -> dict[str, list[int]]:
        """List name to its prompts in order.

        Raises:
            UserError: when the labels do not make whole lists.
        """
        labels = probe.probe.labels
        series, ranks = labels.get("series", ()), labels.get("place", ())
        found: dict[str, list[tuple[int, int]]] = {}
        for row, (name, rank) in enumerate(zip(series, ranks, strict=True)):
            found.setdefault(str(name), []).append((int(rank), row))
        whole = {name: [row for _, row in sorted(members)] for name, members in found.items()}
        if not found or any(sorted(p for p, _ in m) != list(range(len(m))) for m in found.values()):
            raise UserError(
                f"probe {probe.probe.name!r} is not made of lists: its labels `series` and `place` have gaps",
                expected="for every list the places 0, 1, 2, ..., once each",
                remedy="number the prompts of every list from 0 in `place`",
            )
        return whole

    def run(
        self, model: Any, architecture: Architecture, probe: TokenizedProbe, batch_tokens: int
    ) -> dict[str, np.ndarray]:
        """See the class."""
        import torch

        last = torch.tensor(_last_ids(probe))
        rank, series = np.empty(len(last), dtype=np.int64), np.empty(len(last), dtype=np.int64)
        for number, members in enumerate(self.lists(probe).values()):
            rank[members], series[members] = np.arange(len(members)), number
        same, ranks = torch.from_numpy(series[:, None] == series), torch.from_numpy(rank)
        raised = np.full((len(last), architecture.shape.layers, architecture.shape.heads), -1, dtype=np.int32)
        for layer, rows, written, to_logits in _written(model, architecture, probe, batch_tokens):
            logits = (written @ to_logits[last.to(written.device)].T).cpu()  # (row, head, member of any list)
            known = torch.isfinite(logits).all(-1)
            logits = torch.where(same[torch.from_numpy(rows)][:, None], logits, -torch.inf)
            best = logits.max(-1, keepdim=True)
            alone = known & ((logits == best.values).sum(-1) == 1)
            raised[rows, layer] = torch.where(alone, ranks[best.indices[..., 0]], -1).numpy()
        return {"raised": raised}


@dataclass(frozen=True)
class HeadWeights:
    """Heads by their weights alone (the probe's prompts are not used); see :mod:`dynamics.circuits.heads`.

    Variables: ``copying_positivity`` (layer, head); ``composition`` (source, reader), the ratio of norms minus what
    unrelated directions give, 1/sqrt(d), NaN where the source is not in an earlier layer; ``source_rank`` (source),
    ``reader_rank`` (reader), effective ranks; ``stream_dimensions``, d. Sources are heads, readers their queries, keys
    and values, named as in :class:`dynamics.circuits.graph.Graph`.
    """

    def declare(self, probe: TokenizedProbe, shape: ModelShape) -> list[Variable]:
        """Five variables. Raises UserError for a model without a known wiring."""
        require_causal(probe, shape, "composition of heads")
        graph = graph_of(shape)
        names = {
            "source": tuple(s.name for s in graph.sources if s.head is not None),
            "reader": tuple(r.name for r in graph.readers if r.head is not None),
        }
        sizes = {dim: len(values) for dim, values in names.items()}
        own = {dim: {dim: values} for dim, values in names.items()}
        return [
            Variable("copying_positivity", (LAYER, "head"), (shape.layers, shape.heads), "float",
                     "sum of the eigenvalues of the head's token to logit map, over the sum of their sizes"),
            Variable("composition", ("source", "reader"), (sizes["source"], sizes["reader"]), "float",
                     "composition beyond that of unrelated directions", padded=True, coords=names),
            Variable("source_rank", ("source",), (sizes["source"],), "float", "effective rank of what a head moves",
                     coords=own["source"]),
            Variable("reader_rank", ("reader",), (sizes["reader"],), "float", "effective rank of what a head reads by",
                     coords=own["reader"]),
            Variable("stream_dimensions", (), (), "int", "dimensions of the stream, without the mean if it is taken off"),
        ]  # fmt: skip

    def run(
        self, model: Any, architecture: Architecture, probe: TokenizedProbe, batch_tokens: int
    ) -> dict[str, np.ndarray]:
        """See the class."""
        import torch

        from ..circuits.heads import compositions, positivity
        from ..circuits.wired import Wired

        with torch.no_grad():
            wired = Wired(model, architecture)
            found = compositions(wired)
            return {
                "copying_positivity": positivity(wired).cpu().numpy(),
                "composition": (found.scores - found.dimensions**-0.5).cpu().numpy(),
                "source_rank": found.source_rank.cpu().numpy(),
                "reader_rank": found.reader_rank.cpu().numpy(),
                "stream_dimensions": np.array(found.dimensions, dtype=np.int32),
            }


def _last_ids(probe: TokenizedProbe) -> list[int]:
    return [int(row[at]) for row, at in zip(probe.ids, probe.positions[LAST], strict=True)]


def _written(
    model: Any, architecture: Architecture, probe: TokenizedProbe, batch_tokens: int
) -> Iterator[tuple[int, np.ndarray, torch.Tensor, torch.Tensor]]:
    """(layer, rows, what its heads write for the rows' last tokens (row, head, d_model), unembedding (vocab, d_model)).

    Rows come in pieces whose logits keep to :data:`_LOGITS`.
    """
    import torch

    from ..circuits.heads import unembedding, written_by
    from ..circuits.wired import Wired

    with torch.no_grad():
        wired = Wired(model, architecture)
        streams = _streams(model, architecture, probe, batch_tokens)
        to_logits = unembedding(wired)
        order = np.arange(len(probe.ids))
        size = max(1, _LOGITS // (architecture.shape.heads * len(to_logits)))
        for layer in range(architecture.shape.layers):
            for start in range(0, len(order), size):
                rows = order[start : start + size]
                stream = streams[min(layer, 1)][torch.from_numpy(rows).to(wired.device)]
                yield layer, rows, written_by(wired, layer, stream), to_logits


def _streams(
    model: Any, architecture: Architecture, probe: TokenizedProbe, batch_tokens: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """(prompt, d_model) the stream before and after the first block, at each prompt's last token."""
    import torch

    from ..models.sites import observe

    device = next(model.parameters()).device
    size = (len(probe.ids), architecture.shape.d_model)
    found = {site: torch.zeros(size, device=device) for site in ("resid_pre", "resid_post")}
    rows = np.arange(0)

    def keep(site: str, _layer: int, value: torch.Tensor) -> None:
        at = torch.from_numpy(probe.positions[LAST][rows]).to(device)
        prompts = torch.from_numpy(rows).to(device)
        found[site][prompts] = value[torch.arange(len(rows), device=device), at].float()

    with observe(model, architecture.table, frozenset(found), 1, keep):
        for rows in probe.batches(batch_tokens):
            ids = torch.from_numpy(np.stack([probe.ids[row] for row in rows])).to(device)
            architecture.logits(model, ids, torch.tensor([ids.shape[1] - 1], device=device))
    return found["resid_pre"], found["resid_post"]
