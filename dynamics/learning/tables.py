"""From a dictionary to the arrays that a trace keeps of it: quality, strengths, tracks, examples, and who answers what."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import xarray as xr

from ..emergence.lives import Lives
from ..emergence.runs import CODES
from ..probes import TokenizedProbe
from ..runs.dictionaries import DictionaryConfig
from .chains import Chain, along, chain, continued, follow_chain, moves
from .coder import Coder, Codes
from .examples import logit_effect, top_examples
from .matching import Matches, match_activations, match_decoders
from .quality import Held, Quality, measure, read_rows
from .readings import OnCheckpoint, installed, read_probes
from .site import SiteAt
from .tracks import changes, follow, partings, turning_points
from .training import Material

__all__ = ["about_dictionary", "about_probe", "say_what"]


def about_dictionary(
    material: Material,
    site: SiteAt,
    coder: Coder,
    held: Any,
    config: DictionaryConfig,
    *,
    tokenizer: Any,
    progress: OnCheckpoint,
) -> xr.Dataset:
    """Everything about the dictionary itself (docs/trace-format.md, features)."""
    resident = material.resident()
    rows = read_rows(
        material.series,
        material.checkpoints,
        resident,
        site,
        held,
        skip=config.skip,
        batch_tokens=material.batch_tokens,
        progress=progress,
    )
    examples = top_examples(coder, rows)
    correlated = _correlated(coder, rows, config) if config.method == "chain" else []
    quality = measure(
        material.series,
        material.checkpoints,
        resident,
        site,
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
    arrays["example_token"] = (("feature", "example", "window"), examples.tokens)
    arrays["example_activation"] = (("feature", "example", "window"), examples.activation)
    final = coder.dictionaries[-1]
    effect = None
    for _, model in installed(material.series, material.checkpoints[-1:], resident):
        effect = logit_effect(model, site, final.decoder[:, -1] * final.scale[-1], vocab=len(tokenizer))
    if effect is not None:
        known = np.union1d(known, effect.tokens)
        arrays["logit_token"] = (("feature", "logit_rank"), effect.tokens)
        arrays["logit_effect"] = (("feature", "logit_rank"), effect.effect)
    names = [str(t) for t in tokenizer.convert_ids_to_tokens(known.tolist())] if len(known) else []
    arrays["token_text"] = ("known_token", np.array(names, dtype=np.dtypes.StringDType()))
    wide = ("snapshot", "feature")
    arrays["effect"] = (wide, quality.effect.astype(np.float32), _EFFECT)
    arrays["effect_error"] = (wide, quality.effect_error.astype(np.float32), _ERROR)
    if coder.joint:
        arrays |= _joint(steps, coder, quality)
    else:
        arrays["mean_activation"] = (wide, quality.activation.astype(np.float32), _ACTIVATION)
        arrays["mean_activation_error"] = (wide, quality.activation_error.astype(np.float32), _ERROR)
    if config.method == "chain":
        arrays |= _chain(steps, coder, config, quality, correlated)
    coords = {
        "snapshot": ("snapshot", steps),
        "feature": ("feature", np.arange(final.features)),
        "known_token": ("known_token", known.astype(np.int64)),
    }
    if "drift" in arrays or "matched" in arrays:
        coords["transition"] = ("transition", steps[1:])
    return xr.Dataset(arrays, coords=coords)


_EFFECT = {
    "long_name": "rise of the loss on held-out text if the feature were removed, estimated",
    "units": "nat per token",
}
_ACTIVATION = {
    "long_name": "mean length of the feature's part on held-out text, in root mean square lengths of the activation"
}
_PART = {"long_name": "length of the feature's part, in root mean square lengths of the activation"}
_ERROR = {"long_name": "standard error over rows of text"}


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
    return _turning(changes(decoder)) | {
        "strength": (("feature", "snapshot"), dictionary.strength().astype(np.float32), {"long_name": "decoder norm"}),
        "strength_error": (("feature", "snapshot"), tracks.error.astype(np.float32), {"long_name": "sampling error of the decoder norm"}),
        "frequency": ("feature", fit.frequency, {"long_name": "share of held-out tokens on which it fires"}),
        **_life("", "feature", steps, tracks),
        "present": (("feature", "snapshot"), tracks.present),
        "drift": (("feature", "transition"), tracks.drift.astype(np.float32), {"long_name": "cosine of neighbouring decoders"}),
        "parted_features": (("parting", "pair"), parted.features),
        "parted_split": ("parting", parted.split),
        "parted_between": (("parting", "bound"), _steps_at(steps, parted.between)),
    }  # fmt: skip


def _turning(moved: np.ndarray) -> dict[str, Any]:
    """Mean change over features (or tracks) at every transition, and what it stays below if each moves by itself."""
    nothing = np.full(moved.shape[1], np.nan)
    found = turning_points(moved) if np.isfinite(moved).any() else None
    return {
        "change": ("transition", nothing if found is None else found.change),
        "change_bound": ("transition", nothing if found is None else found.upper),
    }


def _steps_at(steps: list[int], positions: np.ndarray) -> np.ndarray:
    """Steps of positions in the series, -1 for none."""
    return np.where(positions >= 0, np.asarray(steps)[np.maximum(positions, 0)], -1)


def _chain(
    steps: list[int], coder: Coder, config: DictionaryConfig, quality: Quality, correlated: list[Matches]
) -> dict[str, Any]:
    directions = [d.directions() for d in coder.dictionaries]
    matches = [match_decoders(a, b, seed=config.seed) for a, b in pairwise(directions)]
    chained = chain(matches)
    arrays = _matched("matched", "cosine of decoders", matches)
    arrays["track"] = (("snapshot", "feature"), np.stack(chained.track), {"long_name": "number of the track; -1 dead"})
    arrays["track_first"] = ("track_number", chained.first)
    arrays["track_last"] = ("track_number", chained.last)
    arrays["split_event"] = (("split", "event_part"), chained.splits)
    arrays["merge_event"] = (("merge", "event_part"), chained.merges)
    arrays |= _matched("correlated", "correlation of activations", correlated)
    arrays |= _turning(moves(chained, directions))
    return arrays | _lives(steps, chained, quality, continued(chained, correlated))


def _matched(name: str, by: str, matches: list[Matches]) -> dict[str, Any]:
    """Each feature's partner at the snapshot before, and what is known of the match."""
    wide, sides = ("transition", "feature"), [match.other for match in matches]
    words = {"long_name": f"mutual nearest at the snapshot before, by {by}; -1 for none"}
    return {
        name: (wide, np.stack([side.partner for side in sides]), words),
        f"{name}_status": (wide, np.stack([side.status for side in sides])),
        f"{name}_score": (wide, np.stack([side.nearest_score for side in sides]).astype(np.float32)),
        f"{name}_p_value": (wide, np.stack([side.p_value for side in sides]).astype(np.float32)),
    }


def _lives(steps: list[int], chained: Chain, quality: Quality, unknown: np.ndarray) -> dict[str, Any]:
    """What tracks are through training; their statistics are of their mean activation."""
    strength, error, effect, effect_error = (
        along(chained, values, unknown)
        for values in (quality.activation, quality.activation_error, quality.effect, quality.effect_error)
    )
    lives = follow_chain(steps, strength, error)
    wide = ("track_number", "snapshot")
    return {
        "track_strength": (wide, strength.astype(np.float32), _ACTIVATION),
        "track_strength_error": (wide, error.astype(np.float32), _ERROR),
        "track_effect": (wide, effect.astype(np.float32), _EFFECT),
        "track_effect_error": (wide, effect_error.astype(np.float32), _ERROR),
        "track_continued": (("track_number", "end"), unknown, {"long_name": "whether another feature had its tokens before it, and has them after it"}),
        **_life("track_", "track_number", steps, lives),
    }  # fmt: skip


def _life(prefix: str, dim: str, steps: list[int], lives: Lives) -> dict[str, Any]:
    """State, birth and death of features or tracks."""
    return {
        f"{prefix}state": (dim, np.array(CODES, dtype=np.dtypes.StringDType())[lives.state]),
        f"{prefix}found": (dim, lives.found),
        f"{prefix}born": ((dim, "bound"), _steps_at(steps, lives.born), {"long_name": "absent at the first step, present at the second"}),
        f"{prefix}died": ((dim, "bound"), _steps_at(steps, lives.died), {"long_name": "present at the first step, absent at the second"}),
        f"{prefix}p_value": (dim, lives.p_value),
    }  # fmt: skip


def _correlated(coder: Coder, held: Held, config: DictionaryConfig) -> list[Matches]:
    """Features of neighbours matched by the correlation of their activations on the same held-out tokens."""
    before = coder.sparse(held.activations, 0)
    matches = []
    for snapshot in range(1, coder.snapshots):
        after = coder.sparse(held.activations, snapshot)
        matches.append(match_activations(before, after, seed=config.seed))
        before = after
    return matches


def about_probe(
    material: Material,
    site: SiteAt,
    coder: Coder,
    readings: Sequence[tuple[TokenizedProbe, tuple[str, ...]]],
    config: DictionaryConfig,
    *,
    progress: OnCheckpoint,
) -> dict[str, xr.Dataset]:
    """Which features answer which prompt at which checkpoint, for every probe that is read."""
    ranks = max(1, min(coder.features, round(2 * config.k)))
    joint = coder.joint
    tables: list[dict[str, np.ndarray]] = []
    for probe, positions in readings:
        size = (len(probe.ids), len(positions), ranks)
        across = (coder.snapshots, *size)
        index = np.full(size if joint else across, -1, dtype=np.int32)
        tables.append({"index": index, "activation": np.zeros(across, dtype=np.float32)})
    for block in read_probes(
        material.series,
        material.checkpoints,
        material.resident(),
        site,
        readings,
        batch_tokens=material.batch_tokens,
        progress=progress,
    ):
        codes: Codes = coder.codes(block.activations, ranks)
        table = tables[block.probe]
        shape = (len(block.prompts), len(block.positions), ranks)
        for name, values in (("index", codes.index), ("activation", codes.activation)):
            table[name][..., block.prompts, :, :] = values.reshape(*values.shape[:-2], *shape)
    result = {}
    steps = [c.step for c in material.checkpoints]
    for (probe, positions), table in zip(readings, tables, strict=True):
        dims = ("snapshot", "prompt", "position", "rank")
        labels = {name: ("prompt", list(values)) for name, values in probe.probe.labels.items()}
        result[probe.probe.name] = xr.Dataset(
            {
                "index": (dims[joint:], table["index"], {"long_name": "features that answer"}),
                "activation": (dims, table["activation"], _PART),
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
    for prefix in ("", "track_"):
        if f"{prefix}found" not in about:
            continue
        births, deaths = (int((about[prefix + n].values[:, 1] >= 0).sum()) for n in ("born", "died"))
        found, lived = int(about[f"{prefix}found"].values.sum()), f"{births} are born during training, {deaths} die"
        lines.append(
            f"{name}: {about.sizes['track_number']} tracks, {found} of them beyond their null; {lived}"
            if prefix
            else f"{name}: {found} features are beyond their null; {lived}; {about['dead'].values[-1]:.1%} never fire"
        )
    return lines
