"""Traces with made dictionaries: what features answer is planted, no model is needed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from checkpoints.series import Checkpoint
from dynamics.probes import Probe
from dynamics.store import Group, Trace, TraceDeclaration, TraceWriter, write_features
from dynamics.store.variable import Variable

STEPS = (0, 10, 20, 40, 80, 160)
RANKS = 6
LATER = (
    *("effect", "effect_error", "strength_error", "mean_activation", "mean_activation_error", "track"),
    *(f"track_{n}" for n in ("strength", "strength_error", "effect", "effect_error")),
    *(f"track_{n}" for n in ("born", "died", "found", "continued")),
)
"""What versions did not store before features had effects, of what is made here."""


def made_trace(folder: Path) -> Path:
    """A trace of six checkpoints and no dictionary."""
    path = folder / "made.zarr"
    variable = Variable("entropy", ("prompt",), (1,), "float", "entropy")
    checkpoints = tuple(Checkpoint(s, f"step{s}", 100 * s) for s in STEPS)
    writer = TraceWriter(path, TraceDeclaration(checkpoints, (Group("p", "", {"text": ("x",)}, (variable,)),)))
    for number in range(len(STEPS)):
        writer.write(number, "p", {"entropy": np.array([1.0])})
        writer.commit(number, digest="d", stored_dtype="float32")
    return path


def add_dictionary(
    path: Path,
    name: str,
    probes: Mapping[str, tuple[Probe, Mapping[str, np.ndarray]]],
    strength: np.ndarray | None = None,
    *,
    method: str = "crosscoder",
    born: Mapping[int, tuple[int, int]] | None = None,
    older: bool = False,
) -> Trace:
    """Write a dictionary whose answers are given.

    Args:
        path: the trace.
        name: of the dictionary.
        probes: name to the probe and, by position, answers (snapshot, prompt, feature) at every checkpoint; of a crosscoder
            which features answer is taken from all of them together, as its code does.
        strength: (feature, snapshot) decoder norms of a crosscoder.
        method: crosscoder, chain or published.
        born: feature to its birth; it is present from then on, the others always.
        older: leave out what versions did not store before features had effects.
    """
    features = next(iter(next(iter(probes.values()))[1].values())).shape[2]
    joint = method == "crosscoder"
    groups = {}
    for probe, by_position in probes.values():
        index, activation = zip(*(_sparse(x, joint) for x in by_position.values()), strict=True)
        dims = ("prompt", "position", "rank")
        groups[probe.name] = xr.Dataset(
            {
                "index": (dims if joint else ("snapshot", *dims), np.stack(index, axis=-2)),
                "activation": (("snapshot", *dims), np.stack(activation, axis=-2)),
            },
            coords={
                "snapshot": ("snapshot", list(STEPS)),
                "position": ("position", list(by_position)),
                "text": ("prompt", list(probe.text)),
                **{label: ("prompt", list(values)) for label, values in probe.labels.items()},
            },
        )
    about = _about(features, strength, method, born or {})
    if older:
        about = about.drop_vars([v for v in about if v in LATER])
    settings = {
        "key": name, "method": method, "joint": joint, "site": "resid_post", "layer": 1, "corpus": "text", "folder": "",
        "remarks": ["made by hand"],
    }  # fmt: skip
    write_features(path, name, about, groups, settings)
    return Trace(path)


def _sparse(x: np.ndarray, joint: bool) -> tuple[np.ndarray, np.ndarray]:
    """Index and activation, (prompt, rank) or (snapshot, prompt, rank), and (snapshot, prompt, rank)."""
    size = np.abs(x).sum(axis=0) if joint else np.abs(x)
    order = np.argsort(-size, axis=-1, kind="stable")[..., :RANKS]
    index = np.where(np.take_along_axis(size, order, axis=-1) > 0, order, -1).astype(np.int32)
    wide = np.broadcast_to(order, (len(x), *order.shape[-2:]))
    values = np.take_along_axis(x, wide, axis=2)
    return index, np.where(np.broadcast_to(index, values.shape) >= 0, values, 0.0).astype(np.float32)


def _about(features: int, strength: np.ndarray | None, method: str, born: Mapping[int, tuple[int, int]]) -> xr.Dataset:
    n = len(STEPS)
    curve = np.linspace(0.3, 0.1, n)
    arrays: dict[str, Any] = dict.fromkeys(("fvu", "l0", "loss", "loss_replaced", "loss_without"), ("snapshot", curve))
    arrays["loss_recovered"] = ("snapshot", np.where(np.arange(n) == 0, np.nan, 1 - curve))
    arrays["dead"] = ("snapshot", np.zeros(n))
    tokens = np.full((features, 2, 16), -1, dtype=np.int32)
    tokens[:, :, 10:15] = [0, 1, 2, 3, 1]
    active = np.zeros(tokens.shape, dtype=np.float16)
    active[:, :, 12] = 2.0
    arrays["example_token"], arrays["example_activation"] = (
        (("feature", "example", "window"), a) for a in (tokens, active)
    )
    effect = np.outer(np.linspace(0, 1, n), np.arange(features)[::-1] / 100)  # feature 0 is worth most, at last
    arrays["effect"], arrays["effect_error"] = (("snapshot", "feature"), effect), (("snapshot", "feature"), effect / 10)
    if method != "crosscoder":
        for key in ("mean_activation", "mean_activation_error"):
            arrays[key] = (("snapshot", "feature"), np.ones((n, features)))
    arrays["logit_token"] = (("feature", "logit_rank"), np.tile([0, 1, 2, 3], (features, 1)).astype(np.int32))
    arrays["logit_effect"] = (("feature", "logit_rank"), np.tile([2.0, 1.0, -1.0, -2.0], (features, 1)))
    arrays["token_text"] = ("known_token", np.array(["$x_1$", "ĠcatĊ", "5", "日"], dtype=np.dtypes.StringDType()))
    coords = {"snapshot": list(STEPS), "feature": np.arange(features), "known_token": np.arange(4)}
    if method == "crosscoder":
        assert strength is not None
        when = np.full((features, 2), -1)
        present = np.ones((features, n), dtype=bool)
        for feature, interval in born.items():
            when[feature] = interval
            present[feature] = np.array(STEPS) >= interval[1]
        arrays |= {
            "strength": (("feature", "snapshot"), strength.astype(np.float32)),
            "strength_error": (("feature", "snapshot"), 0.01 * strength.astype(np.float32)),
            "found": ("feature", np.ones(features, dtype=bool)),
            "born": (("feature", "bound"), when),
            "died": (("feature", "bound"), np.full((features, 2), -1)),
            "present": (("feature", "snapshot"), present),
            "change": ("transition", np.array([0.1, 0.1, 0.5, 0.1, 0.1])),
            "change_bound": ("transition", np.full(n - 1, 0.2)),
            "parted_split": ("parting", np.array([True])),
        }
        coords["transition"] = list(STEPS[1:])
    elif method == "chain":
        arrays |= {
            "matched": (("transition", "feature"), np.tile(np.arange(features), (n - 1, 1))),
            **_tracks(features),
            "split_event": (("split", "event_part"), np.zeros((1, 3), dtype=np.int64)),
        }
        coords["transition"] = list(STEPS[1:])
    return xr.Dataset(arrays, coords={k: (k, v) for k, v in coords.items()})


def _tracks(features: int) -> dict[str, Any]:
    """Track 0 is born by step 40 and is feature 0 in the end, track 1 runs through, 2 dies by 40, 3 goes on from another."""
    n = len(STEPS)
    first, last = np.array([3, 0, 0, 3]), np.array([n - 1, n - 1, 2, n - 1])
    track = np.full((n, features), -1)
    for number, (begin, end) in enumerate(zip(first, last, strict=True)):
        track[begin : end + 1, number] = number
    strength = np.where((np.arange(n) >= first[:, None]) & (np.arange(n) <= last[:, None]), 1.0, 0.0)
    strength[3, :3] = np.nan
    none = [-1, -1]
    wide = ("track_number", "snapshot")
    return {
        "track": (("snapshot", "feature"), track),
        "track_first": ("track_number", first),
        "track_last": ("track_number", last),
        "track_strength": (wide, strength),
        "track_strength_error": (wide, 0.01 * strength),
        "track_effect": (wide, 0.1 * strength),
        "track_effect_error": (wide, 0.01 * strength),
        "track_found": ("track_number", np.ones(4, dtype=bool)),
        "track_born": (("track_number", "bound"), np.array([[20, 40], none, none, none])),
        "track_died": (("track_number", "bound"), np.array([none, none, [20, 40], none])),
        "track_continued": (("track_number", "end"), np.array([[False] * 2] * 3 + [[True, False]])),
    }
