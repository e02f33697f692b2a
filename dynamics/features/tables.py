"""From a dictionary to the arrays that a trace keeps of it: quality, strengths, tracks, examples, and who answers what."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import xarray as xr

from ..emergence.runs import CODES
from ..probes import TokenizedProbe
from .coder import Coder, Codes
from .examples import logit_effect, top_examples
from .matching import match_activations, match_decoders
from .quality import Held, Quality, measure, read_rows
from .readings import installed, read_probes
from .settings import DictionaryConfig
from .site import Place
from .tracks import chain, changes, follow, partings, turning_points
from .training import Material

__all__ = ["about_dictionary", "about_probe", "say_what"]

Progress = Callable[[int, int], None]


def about_dictionary(
    material: Material,
    place: Place,
    coder: Coder,
    held: Any,
    config: DictionaryConfig,
    *,
    tokenizer: Any,
    progress: Progress,
) -> xr.Dataset:
    """Everything about the dictionary itself (docs/trace-format.md, features)."""
    resident = material.resident()
    rows = read_rows(
        material.series,
        material.checkpoints,
        resident,
        place,
        held,
        skip=config.skip,
        batch_tokens=material.batch_tokens,
        progress=progress,
    )
    examples = top_examples(coder, rows)
    correlated = {} if coder.joint or config.method == "published" else _correlated(coder, rows, config)
    quality = measure(
        material.series,
        material.checkpoints,
        resident,
        place,
        coder,
        rows,
        batch_tokens=material.batch_tokens,
        progress=progress,
    )
    steps = [c.step for c in material.checkpoints]
    arrays: dict[str, Any] = {
        name: ("snapshot", getattr(quality, name), {"long_name": words, "units": units})
        for name, words, units in (
            ("fvu", "fraction of variance unexplained on held-out text", "1"),
            ("l0", "features that fire on a token", "1"),
            ("loss", "loss of the model as it is", "nat"),
            ("loss_replaced", "loss with the site replaced by its reconstruction", "nat"),
            ("loss_without", "loss with the site replaced by its mean", "nat"),
            ("loss_recovered", "1 - (loss_replaced - loss) / (loss_without - loss)", "1"),
        )
    }
    arrays["dead"] = ("snapshot", _dead(quality, len(steps)), {"long_name": "share of features that never fired"})
    known = np.unique(examples.tokens[examples.tokens >= 0])
    names = [str(t) for t in tokenizer.convert_ids_to_tokens(known.tolist())] if len(known) else []
    arrays["example_token"] = (("feature", "example", "window"), examples.tokens)
    arrays["example_activation"] = (("feature", "example", "window"), examples.activation)
    final = coder.dictionaries[-1]
    effect = None
    for _, model in installed(material.series, material.checkpoints[-1:], resident):
        effect = logit_effect(model, place, final.decoder[:, -1] * final.scale[-1], vocab=len(tokenizer))
    if effect is not None:
        known = np.union1d(known, effect.tokens)
        names = [str(t) for t in tokenizer.convert_ids_to_tokens(known.tolist())]
        arrays["logit_token"] = (("feature", "logit_rank"), effect.tokens)
        arrays["logit_effect"] = (("feature", "logit_rank"), effect.effect)
    arrays["token_text"] = ("known_token", np.array(names, dtype=np.dtypes.StringDType()))
    arrays |= _joint(steps, coder, quality) if coder.joint else _separate(coder, config) | correlated
    coords = {
        "snapshot": ("snapshot", steps),
        "feature": ("feature", np.arange(final.features)),
        "known_token": ("known_token", known.astype(np.int64)),
    }
    if "drift" in arrays or "matched" in arrays:
        coords["transition"] = ("transition", steps[1:])
    return xr.Dataset(arrays, coords=coords)


def _dead(quality: Quality, snapshots: int) -> np.ndarray:
    dead = np.array([fit.dead for fit in quality.fits])
    return np.broadcast_to(dead, snapshots) if len(dead) == 1 else dead


def _joint(steps: list[int], coder: Coder, quality: Quality) -> dict[str, Any]:
    dictionary, fit = coder.dictionaries[0], quality.fits[0]
    decoder = dictionary.decoder.cpu().numpy()
    tracks = follow(
        steps, decoder, variance=dictionary.variance.cpu().numpy(), error=fit.error, dimensions=fit.dimensions
    )
    parted = partings(decoder, tracks.present)
    moved = changes(decoder)
    turning = turning_points(moved) if np.isfinite(moved).any() else None
    nothing = np.full(len(steps) - 1, np.nan)
    return {
        "strength": (("feature", "snapshot"), dictionary.strength().astype(np.float32), {"long_name": "decoder norm"}),
        "frequency": ("feature", fit.frequency, {"long_name": "share of held-out tokens on which it fires"}),
        "state": ("feature", np.array(CODES, dtype=np.dtypes.StringDType())[tracks.state]),
        "found": ("feature", tracks.found),
        "born": (("feature", "bound"), _steps_at(steps, tracks.born), {"long_name": "absent at the first step, present at the second"}),
        "died": (("feature", "bound"), _steps_at(steps, tracks.died), {"long_name": "present at the first step, absent at the second"}),
        "p_value": ("feature", tracks.p_value),
        "present": (("feature", "snapshot"), tracks.present),
        "drift": (("feature", "transition"), tracks.drift.astype(np.float32), {"long_name": "cosine of neighbouring decoders"}),
        "change": ("transition", nothing if turning is None else turning.change),
        "change_bound": ("transition", nothing if turning is None else turning.upper),
        "parted_features": (("parting", "pair"), parted.features),
        "parted_split": ("parting", parted.split),
        "parted_between": (("parting", "bound"), _steps_at(steps, parted.between)),
    }  # fmt: skip


def _steps_at(steps: list[int], places: np.ndarray) -> np.ndarray:
    """Steps for places, -1 for none."""
    return np.where(places >= 0, np.asarray(steps)[np.maximum(places, 0)], -1)


def _separate(coder: Coder, config: DictionaryConfig) -> dict[str, Any]:
    if config.method == "published":
        return {}
    directions = [d.directions() for d in coder.dictionaries]
    arrays: dict[str, Any] = {}
    matches = [match_decoders(a, b, seed=config.seed) for a, b in pairwise(directions)]
    assigned = [match_decoders(a, b, method="assignment", seed=config.seed) for a, b in pairwise(directions)]
    chained = chain(matches)
    wide = ("transition", "feature")
    arrays["matched"] = (wide, np.stack([m.other.partner for m in matches]), {"long_name": "mutual nearest at the snapshot before, by cosine of decoders; -1 for none"})  # fmt: skip
    arrays["matched_status"] = (wide, np.stack([m.other.status for m in matches]))
    arrays["matched_score"] = (wide, np.stack([m.other.nearest_score for m in matches]).astype(np.float32))
    arrays["matched_p_value"] = (wide, np.stack([m.other.p_value for m in matches]).astype(np.float32))
    arrays["assigned"] = (wide, np.stack([m.other.partner for m in assigned]), {"long_name": "the same, assigned one to one"})  # fmt: skip
    arrays["assigned_status"] = (wide, np.stack([m.other.status for m in assigned]))
    arrays["track"] = (("snapshot", "feature"), np.stack(chained.track), {"long_name": "number of the track; -1 dead"})
    arrays["track_first"] = ("track_number", chained.first)
    arrays["track_last"] = ("track_number", chained.last)
    arrays["split_event"] = (("split", "event_part"), chained.splits)
    arrays["merge_event"] = (("merge", "event_part"), chained.merges)
    return arrays


def _correlated(coder: Coder, held: Held, config: DictionaryConfig) -> dict[str, Any]:
    """Mutual nearest by the correlation of activations on the same held-out tokens; mean activation of every feature."""
    from scipy.sparse import csr_array, vstack

    def answers(place: int) -> Any:
        parts = torch.split(held.activations[place : place + 1], 512, dim=1)
        with torch.no_grad():
            return vstack([csr_array(coder.dictionaries[place].encode(part).cpu().numpy()) for part in parts])

    before = answers(0)
    strength, matches = [before.mean(axis=0)], []
    for place in range(1, coder.snapshots):
        after = answers(place)
        matches.append(match_activations(before, after, seed=config.seed))
        strength.append(after.mean(axis=0))
        before = after
    wide = ("transition", "feature")
    return {
        "correlated": (wide, np.stack([m.other.partner for m in matches]), {"long_name": "mutual nearest at the snapshot before, by correlation of activations; -1 for none"}),
        "correlated_status": (wide, np.stack([m.other.status for m in matches])),
        "correlated_score": (wide, np.stack([m.other.nearest_score for m in matches]).astype(np.float32)),
        "correlated_p_value": (wide, np.stack([m.other.p_value for m in matches]).astype(np.float32)),
        "mean_activation": (("snapshot", "feature"), np.stack(strength).astype(np.float32), {"long_name": "mean activation on held-out tokens"}),
    }  # fmt: skip


def about_probe(
    material: Material,
    place: Place,
    coder: Coder,
    readings: Sequence[tuple[TokenizedProbe, tuple[str, ...]]],
    config: DictionaryConfig,
    *,
    progress: Progress,
) -> dict[str, xr.Dataset]:
    """Which features answer which prompt at which checkpoint, for every probe that is read."""
    ranks = max(1, min(coder.features, round(2 * config.k)))
    joint = coder.joint
    tables: list[dict[str, np.ndarray]] = []
    for probe, positions in readings:
        size = (len(probe.ids), len(positions), ranks)
        across = (coder.snapshots, *size)
        tables.append(
            {
                "index": np.full(size if joint else across, -1, dtype=np.int32),
                "activation": np.zeros(across, dtype=np.float32),
            }
        )
    for block in read_probes(
        material.series,
        material.checkpoints,
        material.resident(),
        place,
        readings,
        batch_tokens=material.batch_tokens,
        progress=progress,
    ):
        codes: Codes = coder.codes(block.activations, ranks)
        table = tables[block.probe]
        shape = (len(block.prompts), len(block.positions), ranks)
        if joint:
            table["index"][block.prompts] = codes.index.reshape(shape)
        else:
            table["index"][:, block.prompts] = codes.index.reshape(-1, *shape)
        table["activation"][:, block.prompts] = codes.activation.reshape(-1, *shape)
    result = {}
    steps = [c.step for c in material.checkpoints]
    for (probe, positions), table in zip(readings, tables, strict=True):
        dims = ("prompt", "position", "rank")
        labels = {name: ("prompt", list(values)) for name, values in probe.probe.labels.items()}
        result[probe.probe.name] = xr.Dataset(
            {
                "index": (
                    dims if joint else ("snapshot", *dims),
                    table["index"],
                    {"long_name": "features that answer"},
                ),
                "activation": (
                    ("snapshot", *dims),
                    table["activation"],
                    {"long_name": "length of the feature's part, in root mean square lengths of the activation"},
                ),
            },
            coords={
                "snapshot": ("snapshot", steps),
                "position": ("position", list(positions)),
                "text": ("prompt", list(probe.probe.text)),
                **labels,
            },
        )
    return result


def say_what(name: str, about: xr.Dataset) -> list[str]:
    """What a user wants to know first."""
    fvu, recovered = about["fvu"].values, about["loss_recovered"].values
    lines = [
        f"{name}: {about.sizes['feature']} features; {about['l0'].values[-1]:.1f} fire on a token; variance unexplained "
        f"{fvu[0]:.3f} at step {int(about['snapshot'][0])}, {fvu[-1]:.3f} at step {int(about['snapshot'][-1])}; "
        + (
            f"loss recovered {recovered[-1]:.3f}"
            if np.isfinite(recovered[-1])
            else "loss recovered: nothing to recover"
        )
    ]
    if "found" in about:
        births, deaths = (int((about[n].values[:, 1] >= 0).sum()) for n in ("born", "died"))
        lines.append(
            f"{name}: {int(about['found'].values.sum())} features are beyond their null; {births} are born during training, "
            f"{deaths} die; {about['dead'].values[-1]:.1%} never fire"
        )
    return lines
