"""A direction in the residual stream: does it tell two kinds of prompt apart, and does the model act on it?

At each layer, with x(p) the stream (``resid_post``) of prompt p at a named position, the direction is the *difference in
means* over prompts that train it, d = mean of x over class 1 - mean of x over class 0, and its unit u = d / |d| (Marks
and Tegmark 2023, "The Geometry of Truth"). It is evaluated on held-out prompts alone:

- *projection*: (x(p) - m) . u, with m halfway between the two class means.
- *steering*: s d is added to the stream at the position and all later ones, for several strengths s: 1 is the distance
  between the class means (Rimsky et al. 2024, "Steering Llama 2 via Contrastive Activation Addition").
- *ablation*: at the same positions x becomes x - ((x - c) . u) u, with c the mean over training prompts as many tokens
  after the position: what the stream says along u is then the same for all prompts, and as large as usual (Arditi et al.
  2024, "Refusal in Language Models Is Mediated by a Single Direction", who set it to zero). At one layer, or at all, each
  with its own direction.

Controls take the same way: *shuffled*, directions fitted to training labels dealt anew, each with the length that comes
out; and *random*, Gaussian directions of the true one's length, the same ones at every checkpoint. A few of them are steered
along at every strength; what all of them begin to do follows from one gradient, because it is linear in the direction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from checkpoints.errors import UserError

from ..models.architecture import Architecture, ModelShape
from ..models.sites import observe
from ..names import LAYER, PROMPT
from ..numerics.ranking import shuffled_labels
from ..probes import LAST, TokenizedProbe
from ..store.variable import Variable
from .base import require_causal, require_positions
from .editing import LOGITS, Edited

if TYPE_CHECKING:
    import torch

__all__ = ["Direction"]

_DEEPEST = 8
_GRADIENT = 4
_TRUE, _SHUFFLED, _RANDOM = "true", "shuffled", "random"


@dataclass(frozen=True)
class Direction:
    """The direction between two classes of prompts, read and used; see the module's docstring.

    Variables; ``direction`` is ``true``, then ``shuffled0`` ..., ``random0`` ..., and ``steered`` the few of them that are
    also steered along. A prompt is *asked* if its label ``held_out`` is 1.

    - ``direction_projection`` (layer, direction, prompt): of every prompt on the true direction, of asked ones on the others;
    - ``direction_norm`` (layer, direction): length of what strength 1 adds;
    - ``direction_base`` (prompt,): logit(answer) - logit(foil) of asked prompts, as they are;
    - ``steering_slope`` (layer, direction, prompt): its derivative by the strength of steering, at 0, from the gradient;
    - ``steering`` (layer, strength, steered, prompt): what is added to that difference by steering; ``steering_said``: the
      first choice among all tokens then;
    - ``ablation`` (layer, steered, prompt), ``ablation_said``: the same of ablation at one layer;
    - ``ablation_everywhere`` (steered, prompt), ``ablation_everywhere_said``: the same at all layers at once.

    NaN, or -1 for first choices: prompts that are not asked, layers that are not steered, ablation of shuffled directions
    (which may lie along the true one, and have no length to say how little), and logits that are not finite.

    Attributes:
        contrast: label that is 1 and 0; prompts with other values are only projected.
        held_out: label that is 0 for prompts that train the direction and 1 for those that are asked.
        position: where the direction is fitted; it is added there and at all later tokens.
        layers: layers to steer and ablate one by one; None for all but the last, after which nothing but the unembedding reads, or
            eight of them in models that are deeper.
        strengths: multiples of the difference between the class means.
        shuffled: directions fitted to shuffled labels.
        random: random directions.
        steered_shuffled: how many of the shuffled ones are also steered along.
        steered_random: how many of the random ones are also steered along, and ablated.
        units: label of what belongs together when labels are shuffled (see :func:`dynamics.numerics.ranking.shuffled_labels`).
        seed: of shuffles and random directions.
    """

    contrast: str
    held_out: str = "held_out"
    position: str = LAST
    layers: tuple[int, ...] | None = None
    strengths: tuple[float, ...] = (-2.0, -1.0, 1.0, 2.0)
    shuffled: int = 16
    random: int = 16
    steered_shuffled: int = 2
    steered_random: int = 4
    units: str | None = None
    seed: int = 0

    def directions(self) -> tuple[str, ...]:
        """Names of all directions, the true one first."""
        return (
            _TRUE,
            *(f"{_SHUFFLED}{i}" for i in range(self.shuffled)),
            *(f"{_RANDOM}{i}" for i in range(self.random)),
        )

    def steered_directions(self) -> tuple[str, ...]:
        """Names of those that are steered along."""
        shuffled, random = min(self.steered_shuffled, self.shuffled), min(self.steered_random, self.random)
        return (_TRUE, *(f"{_SHUFFLED}{i}" for i in range(shuffled)), *(f"{_RANDOM}{i}" for i in range(random)))

    def steered_layers(self, layers: int) -> tuple[int, ...]:
        """The layers that are steered, of a model with that many.

        >>> Direction("x").steered_layers(4), Direction("x").steered_layers(32)
        ((0, 1, 2), (0, 4, 9, 13, 17, 21, 26, 30))
        """
        if self.layers is not None:
            return self.layers
        before = max(layers - 1, 1)
        return tuple(sorted({round(i) for i in np.linspace(0, before - 1, min(before, _DEEPEST))}))

    def declare(self, probe: TokenizedProbe, shape: ModelShape) -> list[Variable]:
        """The variables; needs answers, foils, both labels with both classes on either side, and the position."""
        require_causal(probe, shape, "steering along a direction")
        name = probe.probe.name
        if probe.answer_ids is None or probe.foil_ids is None:
            raise UserError(
                f"probe {name!r} has no answers and foils",
                expected="both, for every prompt",
                remedy="give every prompt an `answer` and a `foil`",
            )
        require_positions(probe, (self.position,))
        beyond = [layer for layer in self.layers or () if not 0 <= layer < shape.layers]
        if beyond:
            raise UserError(
                f"there is no layer {beyond[0]} to steer",
                expected=f"0 to {shape.layers - 1}",
                remedy="name layers of this model",
            )
        if not any(self.strengths) or len(set(self.strengths)) < len(self.strengths):
            raise UserError(
                f"steering strengths are {', '.join(f'{s:g}' for s in self.strengths) or 'none'}",
                expected="different ones, not only 0",
                remedy="give strengths such as -2, -1, 1, 2",
            )
        self._sides(probe)
        n, layers, text = len(probe.ids), shape.layers, "difference between the logits of answer and foil"
        every, some = self.directions(), self.steered_directions()
        strengths = tuple(f"{s:g}" for s in self.strengths)
        steer = ((LAYER, "strength", "steered", PROMPT), (layers, len(strengths), len(some), n))
        one, all_of_them = ((LAYER, "steered", PROMPT), (layers, len(some), n)), (("steered", PROMPT), (len(some), n))
        axes: dict[str, tuple[str | int, ...]] = {"steered": some}
        dosed = axes | {"strength": strengths}
        names: dict[str, tuple[str | int, ...]] = {"direction": every}
        return [
            Variable("direction_projection", (LAYER, "direction", PROMPT), (layers, len(every), n), "float",
                     "the stream along a unit direction, from halfway between the class means", padded=True, coords=names),
            Variable("direction_norm", (LAYER, "direction"), (layers, len(every)), "float",
                     "length of what strength 1 adds to the stream", coords=names),
            Variable("direction_base", (PROMPT,), (n,), "float", text, "logits", True),
            Variable("steering_slope", (LAYER, "direction", PROMPT), (layers, len(every), n), "float",
                     f"slope of the {text} by the strength of steering, at 0", "logits", True, names),
            Variable("steering", *steer, "float", f"what steering adds to the {text}", "logits", True, dosed),
            Variable("steering_said", *steer, "int", "first choice when steered", coords=dosed),
            Variable("ablation", *one, "float", f"what ablation adds to the {text}", "logits", True, axes),
            Variable("ablation_said", *one, "int", "first choice with the direction ablated", coords=axes),
            Variable("ablation_everywhere", *all_of_them, "float", f"what ablation at all layers adds to the {text}",
                     "logits", True, axes),
            Variable("ablation_everywhere_said", *all_of_them, "int", "first choice with all directions ablated",
                     coords=axes),
        ]  # fmt: skip

    def _sides(self, probe: TokenizedProbe) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(prompt,) members of class 1, those that train, those that are asked.

        Raises:
            UserError: for missing labels, or one class only.
        """
        name, labels = probe.probe.name, probe.probe.labels
        for label in (self.contrast, self.held_out, *([self.units] if self.units else [])):
            if label not in labels:
                known = ", ".join(labels) or "no label"
                raise UserError(f"probe {name!r} has no label {label!r}", expected="1 or 0 for every prompt", remedy=f"it has {known}")  # fmt: skip
        value, held = (np.array([_binary(v) for v in labels[label]]) for label in (self.contrast, self.held_out))
        train, asked = (value >= 0) & (held == 0), (value >= 0) & (held == 1)
        for side, rows in ((0, train), (1, asked)):
            found = set(value[rows].tolist())
            if found != {0, 1}:
                raise UserError(
                    f"probe {name!r}: of the prompts with {self.held_out} = {side}, {self.contrast!r} is "
                    + (f"{found.pop()} for all" if found else "neither 0 nor 1"),
                    expected="prompts of both classes to train the direction, and to evaluate it",
                    remedy=f"label prompts of both sides with {self.contrast}: 0 and 1",
                )
        return value == 1, train, asked

    def cost(self, probe: TokenizedProbe, shape: ModelShape) -> float:
        """See :class:`dynamics.measurements.base.Priced`: every variant from its layer on, half a model in the mean."""
        *_, asked = self._sides(probe)
        steered, layers = len(self.steered_directions()), len(self.steered_layers(shape.layers))
        variants = layers * (len(self.strengths) + 1) * steered / 2 + steered
        return float(1 + asked.mean() * (4 + variants))

    def run(
        self, model: Any, architecture: Architecture, probe: TokenizedProbe, batch_tokens: int
    ) -> dict[str, np.ndarray]:
        """See the class."""
        one, train, asked = self._sides(probe)
        result = {
            v.name: np.full(
                v.shape, -1 if v.kind == "int" else np.nan, dtype=np.int64 if v.kind == "int" else np.float64
            )
            for v in self.declare(probe, architecture.shape)
        }
        streams, usual = _read(model, architecture, probe, probe.positions[self.position], train, batch_tokens)
        units = None if self.units is None else np.array([str(v) for v in probe.probe.labels[self.units]])
        vectors, middle = self._fit(streams, one, train, None if units is None else units[train])
        norms = np.linalg.norm(vectors, axis=-1)
        unit = np.divide(vectors, norms[..., None], out=np.zeros_like(vectors), where=norms[..., None] != 0)
        unit[~np.isfinite(norms)] = np.nan
        along = (streams - middle[:, None]) @ np.swapaxes(unit, 1, 2)  # (layer, prompt, direction)
        along[:, ~asked, 1:] = np.nan
        result["direction_projection"][:] = np.swapaxes(along, 1, 2)
        result["direction_norm"][:] = norms
        self._steer(Edited(model, architecture), probe, asked, vectors, unit, usual, batch_tokens, result)
        return result

    def _fit(
        self, streams: np.ndarray, one: np.ndarray, train: np.ndarray, units: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """(layer, direction, width) what strength 1 adds, and (layer, width) the point halfway between the class means."""
        shuffled = shuffled_labels(one[train], units=units, shuffles=self.shuffled, seed=self.seed)
        labels = np.concatenate([one[train][None], shuffled]).astype(np.float64)
        first, second = (side / side.sum(1, keepdims=True) for side in (labels, 1 - labels))
        x = streams[:, train]
        fitted = (first - second) @ x
        layers, _, width = fitted.shape
        random = np.random.default_rng(self.seed).normal(size=(layers, self.random, width))
        random *= np.linalg.norm(fitted[:, :1], axis=-1, keepdims=True) / np.linalg.norm(random, axis=-1, keepdims=True)
        return np.concatenate([fitted, random], axis=1), 0.5 * (first[0] + second[0]) @ x

    def _steer(
        self,
        edited: Edited,
        probe: TokenizedProbe,
        asked: np.ndarray,
        vectors: np.ndarray,
        unit: np.ndarray,
        usual: np.ndarray,
        batch_tokens: int,
        result: dict[str, np.ndarray],
    ) -> None:
        """Fills in everything but projections and norms; see :meth:`run` for the arguments."""
        layers = self.steered_layers(edited.layers)
        names = self.steered_directions()
        chosen = [self.directions().index(name) for name in names]
        every, vectors, unit = vectors, vectors[:, chosen], unit[:, chosen]
        ablated = [i for i, name in enumerate(names) if not name.startswith(_SHUFFLED)]
        doses = np.array(self.strengths)
        given = np.zeros((edited.layers, len(doses) * len(names) + len(ablated), vectors.shape[-1]))
        removed = np.zeros_like(given)
        steered = len(doses) * len(names)
        given[:, :steered] = (doses[:, None, None] * vectors[:, None]).reshape(edited.layers, steered, -1)
        removed[:, steered:] = unit[:, ablated]
        where = probe.positions[self.position]
        pieces = [rows[asked[rows]] for rows in probe.batches(batch_tokens)]
        for rows in (rows for rows in pieces if len(rows)):
            base = edited.load(probe, rows, where[rows], layers, usual)
            result["direction_base"][rows] = base
            size = max(1, min(batch_tokens // len(probe.ids[rows[0]]), LOGITS // edited.logits_of(probe, rows)))
            # a gradient keeps what every layer computed
            result["steering_slope"][..., rows] = edited.slopes(every, max(1, size // _GRADIENT))
            for layer in layers:
                change, said = edited.variants(given[layer], removed[layer], layer, size)
                shape = (len(doses), len(names), len(rows))
                result["steering"][layer][..., rows] = change[:steered].reshape(shape) - base
                result["steering_said"][layer][..., rows] = said[:steered].reshape(shape)
                result["ablation"][layer][np.ix_(ablated, rows)] = change[steered:] - base
                result["ablation_said"][layer][np.ix_(ablated, rows)] = said[steered:]
            change, said = edited.variants(np.zeros_like(unit[:, ablated]), unit[:, ablated], None, size)
            result["ablation_everywhere"][np.ix_(ablated, rows)] = change - base
            result["ablation_everywhere_said"][np.ix_(ablated, rows)] = said


def _binary(value: object) -> int:
    """0 or 1, or -1 for anything else."""
    return int(value) if isinstance(value, int | float) and value in (0, 1) else -1


def _read(
    model: Any,
    architecture: Architecture,
    probe: TokenizedProbe,
    where: np.ndarray,
    train: np.ndarray,
    batch_tokens: int,
) -> tuple[np.ndarray, np.ndarray]:
    """The stream after every layer: (layer, prompt, width) at each prompt's position, and (layer, after, width) the mean
    over training prompts as many tokens after it; where no such prompt is so long, the mean of the last that are."""
    import torch

    shape = architecture.shape
    device = next(model.parameters()).device
    after = int((probe.lengths - where).max())
    streams = np.full((shape.layers, len(probe.ids), shape.d_model), np.nan)
    total = np.zeros((shape.layers, after, shape.d_model))
    count = np.bincount(np.concatenate([np.arange(n) for n in (probe.lengths - where)[train]]), minlength=after)
    with torch.no_grad():
        for rows in probe.batches(batch_tokens):
            ids = torch.from_numpy(np.stack([probe.ids[row] for row in rows])).to(device)
            here = where[rows]

            def keep(_site: str, layer: int, x: torch.Tensor, rows: np.ndarray = rows, here: np.ndarray = here) -> None:
                x = x.detach().float()
                streams[layer, rows] = x[torch.arange(len(rows)), torch.from_numpy(here)].cpu().numpy()
                for start in np.unique(here[train[rows]]):  # few: prompts of one length turn at much the same token
                    mine = torch.from_numpy(np.flatnonzero(train[rows] & (here == start)))
                    tail = x[mine.to(x.device), int(start) :].sum(0).cpu().numpy()
                    total[layer, : len(tail)] += tail

            with observe(model, architecture.table, frozenset({"resid_post"}), shape.layers, keep):
                architecture.logits(model, ids, torch.tensor([ids.shape[1] - 1], device=device))
    known = int(np.flatnonzero(count).max()) + 1
    mean = total[:, :known] / count[:known, None]
    return streams, np.concatenate([mean, np.repeat(mean[:, -1:], after - known, axis=1)], axis=1)
