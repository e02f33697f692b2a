"""A direction through training: when can two kinds of prompt be told apart by it, and when does the model act on it?

Everything comes from what :class:`dynamics.measurements.Direction` stored, and from *asked* prompts alone, which trained no
direction. With y the class of a prompt, and o = 1 or -1 where the direction should raise or lower logit(answer) -
logit(foil) of its class:

- *represented*: AUROC of the projections, best layer; where class 0 has several kinds (a flattering word to another person, a
  plain word to the reader), that against the kind told apart worst, so that no single word is enough. Null: directions fitted to shuffled training labels, held against
  asked labels that are shuffled in the same way; or the first checkpoint, where that is more, because an untrained model
  mixes what came before and a good deal can be read off it. A second curve holds the same against random directions: where
  two classes lie far apart, most directions tell them apart, and only this one being better shows that it is theirs.
- *used*: mean of o (change at strength s), as a slope over all strengths, sum(s change) / sum(s^2), best layer. Null: no
  effect with the noise of these prompts, and what random directions of the same length do, or those of shuffled labels
  where that is more.
- *needed*: how much of the difference between the classes, mean of o (logit difference) in class 1 minus class 0, is lost
  with the direction ablated at all layers. Null: random directions ablated.

What a direction begins to do, from the gradient, is linear in it. A null draw is therefore a random sum of the k that were
measured, whole curves at a time, divided by the root of a chi-square with k degrees of freedom: Student's t with the k
squares as its scale, so that few directions make a wide null and not a narrow one.

Steering at the last layers and the last token adds to the logits what the classes differ by, whatever the model does with
it; only what is added early, or at an earlier token, has to be used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..emergence import unit_bootstrap
from ..numerics.draws import DRAWS, FINE_DRAWS
from ..numerics.ranking import resampled_counts, shuffled_labels, weighted_auroc
from ..store import Trace
from ..wording import plural
from .curves import Curve, CurveSpec, Null
from .direction_words import DEFINITIONS, direction_notes, order_note
from .section import Section

__all__ = [
    "DEFINITIONS",
    "DirectionTask",
    "arbitrary_effect",
    "direction_measured",
    "direction_section",
    "order_note",
]


@dataclass(frozen=True)
class DirectionTask:
    """What to chart about one direction.

    Attributes:
        probe: the probe, measured with ``Direction``.
        name: what the direction is called in titles, e.g. ``"compliments"``.
        contrast, held_out: labels, as in ``Direction``.
        meaning: what tells class 1 from class 0, in words.
        position: where the direction was fitted, in words.
        units: label whose values are resampled, and shuffled, together; None for prompts.
        strata: label of kinds of prompts of class 0; AUROC is that of the kind which is told apart worst. None for one kind.
        towards: o of class 0 and of class 1: 1 where the direction should raise the answer, -1 where it should lower it.
        part: added to keys where an analysis has several directions, e.g. ``"views_"``.
        headline: whether the two onsets belong in the emergence table.
    """

    probe: str
    name: str
    contrast: str
    meaning: str
    position: str = "at the last token"
    held_out: str = "held_out"
    units: str | None = None
    strata: str | None = None
    towards: tuple[int, int] = (1, 1)
    part: str = ""
    headline: bool = True


def direction_measured(trace: Trace, probe: str) -> bool:
    """Whether a trace holds a direction on this probe."""
    return probe in trace.probes and "direction_projection" in trace.probe(probe)


def direction_section(trace: Trace, task: DirectionTask) -> Section:
    """Curves ``represented``, ``used`` (headlines), ``represented_random`` and ``needed``, notes, and arrays over
    ``checkpoint``, ``layer`` and ``strength`` of one direction, from the trace alone."""
    data = _Asked(trace, task)
    read, arrays = _represented(data)
    used, more = _used(data)
    needed, last = _needed(data)
    arrays |= more | last
    units = "" if data.units is None else f" ({len(np.unique(data.units))} {plural(task.units or '')})"
    notes = [
        f"{task.name}: the direction is fitted on {data.trained} prompts; everything about it is measured on {len(data.rows)} "
        f"others{units}.",
        *direction_notes(task.name, trace.steps, data.strengths, {name: value for name, (_, value) in arrays.items()}),
    ]
    arrays = {f"{task.part}direction_{name}": value for name, value in arrays.items()}
    coords = {"layer": np.arange(data.layers), "strength": data.strengths}
    return Section([*read, used, needed], notes, DEFINITIONS, arrays, coords)


class _Asked:
    """Labels of the asked prompts, and what is common to all curves of one direction."""

    def __init__(self, trace: Trace, task: DirectionTask) -> None:
        self.trace, self.task = trace, task
        dataset = trace.probe(task.probe)
        contrast, held = trace.label(task.probe, task.contrast), trace.label(task.probe, task.held_out)
        both = np.isin(contrast, (0, 1)) if contrast.dtype.kind in "biuf" else np.zeros(len(contrast), dtype=bool)
        self.rows = np.flatnonzero(both & (held == 1))
        self.trained = int((both & (held == 0)).sum())
        self.one = contrast[self.rows].astype(int) == 1
        self.toward = np.array(task.towards)[self.one.astype(int)]
        self.units = None if task.units is None else trace.label(task.probe, task.units)[self.rows]
        kinds = np.zeros(len(self.rows)) if task.strata is None else trace.label(task.probe, task.strata)[self.rows]
        self.strata = [kinds == kind for kind in np.unique(kinds)]
        self.names = [str(v) for v in dataset["direction"].values]
        self.steered = [str(v) for v in dataset["steered"].values]
        self.strengths = np.array([float(v) for v in dataset["strength"].values])
        self.layers = int(dataset.sizes["layer"])
        self.spec = CurveSpec("", "prompts" if task.units is None else plural(task.units), sample=f"{task.probe}.asked")

    def key(self, name: str) -> str:
        return f"{self.task.part}{name}"

    def of_kind(self, kind: str, names: Sequence[str]) -> list[int]:
        """Which of the directions with these names are of a kind (``random``, ``shuffled``)."""
        return [i for i, name in enumerate(names) if name.startswith(kind)]

    def each(self, variable: str) -> np.ndarray:
        """(checkpoint, ..., asked prompt) a variable, NaN where it was not measured."""
        return self.trace.values(self.task.probe, variable)[..., self.rows].astype(np.float64)

    def area(self, scores: np.ndarray, counts: np.ndarray, labels: np.ndarray | None = None) -> np.ndarray:
        """(..., draw) AUROC of (..., prompt) scores, of prompts counted (draw, prompt) times; of the worst stratum.

        Args:
            labels: (draw, prompt) members of class 1, where they are not the real ones.
        """
        one = self.one[None] if labels is None else labels
        found = [weighted_auroc(scores, counts * one, counts * (~one & mine)) for mine in self.strata]
        return np.asarray(np.min(found, axis=0))

    def mean(self, units: np.ndarray, *, classes: bool = False, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Of (..., prompt): the mean (...), or that of class 1 minus class 0, and (..., draw) of resampled prompts."""
        flat = units.reshape(-1, units.shape[-1])
        sides = [np.where(side, flat, np.nan) for side in (self.one, ~self.one)] if classes else [flat]
        found = []
        for side in sides:
            count = np.isfinite(side).sum(1)
            value = np.divide(np.nansum(side, axis=1), count, out=np.full(len(side), np.nan), where=count > 0)
            found.append((value, unit_bootstrap(side, draws=DRAWS, clusters=self.units, seed=seed)))
        value, draws = (a - b for a, b in zip(*found, strict=True)) if classes else found[0]
        shape = units.shape[:-1]
        return value.reshape(shape), draws.reshape(*shape, DRAWS)


def _represented(data: _Asked) -> tuple[list[Curve], dict[str, Any]]:
    """Curves held against shuffled labels and against random directions; AUROC by layer."""
    n, layers = len(data.trace.steps), data.layers
    values, random_area = np.full((n, layers), np.nan), np.full((n, layers), np.nan)
    draws, shuffled, random, first = (np.full((n, layers, DRAWS), np.nan) for _ in range(4))
    labels = shuffled_labels(data.one, units=data.units, shuffles=DRAWS, seed=1)
    others = {kind: data.of_kind(kind, data.names) for kind in ("shuffled", "random")}
    earliest: np.ndarray | None = None
    whole = np.ones((1, len(data.rows)))
    # of the first checkpoint at half the size: the noise of this sample and of the curve's
    counts, again, half = (
        resampled_counts(len(data.rows), clusters=data.units, draws=DRAWS, share=share, seed=seed)
        for share, seed in ((1.0, 0), (1.0, 2), (0.5, 3))
    )
    for index, along in data.trace.each(data.task.probe, "direction_projection"):
        asked = along[..., data.rows].astype(np.float64)
        values[index] = data.area(asked[:, 0], whole)[..., 0]
        draws[index] = data.area(asked[:, 0], counts)
        for kind, table in (("shuffled", shuffled), ("random", random)):
            for i, column in enumerate(others[kind]):
                turn = np.arange(i, DRAWS, len(others[kind]))  # every direction has its share of the draws
                if kind == "shuffled":
                    table[index][:, turn] = data.area(
                        asked[:, column], np.ones((len(turn), len(data.rows))), labels[turn]
                    )
                else:
                    sign = np.where(turn < DRAWS // 2, 1, -1)[:, None]  # a random direction has no right way round
                    both = [data.area(s * asked[:, column], again[turn]) for s in (1, -1)]
                    table[index][:, turn] = np.where(sign.T > 0, *both)
        if others["random"]:
            pair = [data.area(s * asked[:, others["random"]], whole)[..., 0] for s in (1, -1)]
            random_area[index] = np.maximum(*pair).mean(1)
        if earliest is None and np.isfinite(values[index]).all():
            earliest = data.area(asked[:, 0], half)
        if earliest is not None:
            first[index] = np.where(np.isfinite(values[index])[:, None], earliest, np.nan)
    task = data.task
    text = f"AUROC by which projections on the direction {task.position} tell {task.meaning}, on held-out prompts, best layer"
    spec = data.spec.but(metric="AUROC", limits=(0.0, 1.0), definition=text)
    best = _best(values), draws.max(1)
    read = Curve(
        data.key("represented"),
        f"{task.name}: represented",
        *best,
        Null(np.fmax(shuffled, first).max(1), "shuffled labels, or the first checkpoint, best layer"),
        spec.but(headline=task.headline),
    )
    other = Curve(
        data.key("represented_random"),
        f"{task.name}: represented, against random directions",
        *best,
        Null(random.max(1), "random directions, best layer"),
        spec,
    )
    dims = ("checkpoint", "layer")
    arrays = {"auroc": (dims, values), "auroc_random": (dims, random_area)}
    arrays["auroc_shuffled"] = (dims, np.where(np.isfinite(values), _quantile(shuffled, 0.95), np.nan))
    return [read, other], arrays


def _used(data: _Asked) -> tuple[Curve, dict[str, Any]]:
    """The slope over strengths, and what every strength does at every layer."""
    change = data.each("steering") * data.toward  # (checkpoint, layer, strength, steered, prompt)
    weights = data.strengths / (data.strengths**2).sum()
    slopes = np.einsum("clsdp,s->cldp", change, weights)
    values, draws = data.mean(slopes[:, :, 0])
    begun = data.each("steering_slope") * data.toward  # (checkpoint, layer, direction, prompt)
    begun[~np.isfinite(values)] = np.nan
    null = _null(data, slopes, begun, data.names)
    task = data.task
    curve = Curve(
        data.key("used"),
        f"{task.name}: used",
        _best(values),
        _best(draws),
        Null(_best(null), "no effect, random directions or shuffled labels, best layer"),
        data.spec.but(
            metric="logits per distance between the classes",
            headline=task.headline,
            definition=f"slope of logit(answer) - logit(foil) of held-out prompts over the strength with which the direction "
            f"is added to the stream {task.position} and after, best layer",
        ),
    )
    dose, drawn = data.mean(change[..., 0, :])
    dims = ("checkpoint", "layer", "strength")
    arrays: dict[str, Any] = {
        "slope": (("checkpoint", "layer"), values),
        "dose": (dims, dose),
        "dose_low": (dims, _quantile(drawn, 0.025)),
        "dose_high": (dims, _quantile(drawn, 0.975)),
    }
    for kind in ("random", "shuffled"):
        columns = data.of_kind(kind, data.steered)
        size = _root_mean_square(change[..., columns, :].mean(-1), 3) if columns else np.full(dose.shape, np.nan)
        arrays[f"dose_{kind}"] = (dims, size)
    return curve, arrays


def _needed(data: _Asked) -> tuple[Curve, dict[str, Any]]:
    """What ablation takes from the difference between the classes."""
    whole, single = (-data.toward * data.each(name) for name in ("ablation_everywhere", "ablation"))
    values, draws = data.mean(whole[:, 0], classes=True)
    base, _ = data.mean(data.toward * data.each("direction_base"), classes=True)
    task = data.task
    curve = Curve(
        data.key("needed"),
        f"{task.name}: needed",
        values,
        draws,
        Null(
            _null(data, whole[:, None], whole[:, None], data.steered, classes=True)[:, 0], "random directions ablated"
        ),
        data.spec.but(
            metric="difference between the classes lost (logits)",
            definition=f"how much less {task.meaning} differ in logit(answer) - logit(foil) with the direction ablated at "
            f"all layers, {task.position} and after, on held-out prompts",
        ),
    )
    by_layer, _ = data.mean(single[:, :, 0], classes=True)
    arrays: dict[str, Any] = {
        "ablation": (("checkpoint", "layer"), by_layer),
        "ablation_everywhere": ("checkpoint", values),
        "difference": ("checkpoint", base),
    }
    columns = data.of_kind("random", data.steered)
    if columns:
        random, _ = data.mean(whole[:, columns], classes=True)
        arrays["ablation_random"] = ("checkpoint", _root_mean_square(random, 1))
    return curve, arrays


def _null(
    data: _Asked, units: np.ndarray, others: np.ndarray, names: Sequence[str], *, classes: bool = False
) -> np.ndarray:
    """(checkpoint, layer, draw) null of an effect: the noise of the true direction's prompts, and what others do.

    Args:
        units: (checkpoint, layer, direction, prompt) effects, the true direction first.
        others: the same of the directions ``names``, controls among them; see the module's docstring.
        classes: whether the effect is on the difference between the classes.
    """
    rng = np.random.default_rng(4)
    values, draws = data.mean(units[:, :, 0], classes=classes, seed=5)
    null = draws - values[..., None]
    controls = []
    for kind in ("random", "shuffled"):
        columns = data.of_kind(kind, names)
        if not columns or not np.isfinite(others[:, :, columns]).any():
            continue
        effect, _ = data.mean(others[:, :, columns], classes=classes)
        controls.append(_another(effect, rng, DRAWS))
    return null + np.max(controls, axis=0) if controls else np.full_like(null, np.nan)


def _another(effect: np.ndarray, rng: np.random.Generator, draws: int) -> np.ndarray:
    """(checkpoint, layer, draw) what other directions would do, from (checkpoint, layer, direction) of some; see the
    module's docstring."""
    layers, number = effect.shape[1:]
    weights = rng.normal(size=(layers, number, draws)) / np.sqrt(rng.chisquare(number, size=(layers, 1, draws)))
    return np.asarray(np.einsum("clk,lkd->cld", effect, weights))


def arbitrary_effect(trace: Trace, task: DirectionTask) -> np.ndarray:
    """What a change of the stream as long as that between the classes, but in no particular direction, does to answers.

    Two kinds of prompt differ in words, which move every logit a little and the same way in all prompts, in a model that
    knows nothing of them too. This is how much: a null for differences between the classes' answers.

    Returns:
        (checkpoint, draw) change of logit(answer) - logit(foil), from random directions after the last layer; NaN where it
        was not measured.
    """
    data = _Asked(trace, task)
    slopes = data.each("steering_slope")[:, -1:, data.of_kind("random", data.names)]
    return _another(slopes.mean(-1), np.random.default_rng(6), FINE_DRAWS)[:, 0]


def _best(values: np.ndarray) -> np.ndarray:
    """The largest layer of (checkpoint, layer, ...); layers that are not steered are NaN, and so is a broken checkpoint."""
    known = np.isfinite(values).any(axis=tuple(i for i in range(values.ndim) if i != 1))
    if not known.any():
        return np.full((values.shape[0], *values.shape[2:]), np.nan)
    return np.asarray(values[:, known].max(axis=1))


def _root_mean_square(values: np.ndarray, axis: int) -> np.ndarray:
    return np.asarray(np.sqrt((values**2).mean(axis=axis)))


def _quantile(values: np.ndarray, share: float) -> np.ndarray:
    """Over the last dimension; NaN where anything is."""
    return np.asarray(np.quantile(values, share, axis=-1))
