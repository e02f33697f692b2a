"""A run's dictionary, as far as an explanation needs it: its weights, its checkpoints, and what its features are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from checkpoints.errors import UserError
from checkpoints.foreign import read_json
from checkpoints.series import Checkpoint

from ..runs.resolve import Model
from ..runs.schedule import scheduled
from ..store import FeatureTable
from ..store.paths import open_run_trace
from .prompts import token_text

if TYPE_CHECKING:
    from ..learning.coder import Coder
    from ..learning.site import SiteAt
    from .splitting import SiteActivations

__all__ = ["MOST", "OpenDictionary", "open_dictionary", "split_checkpoints"]

MOST = 12
"""Features, and errors, that one checkpoint shows at most."""

_EXAMPLES, _BEFORE, _AFTER = 3, 8, 2


@dataclass(frozen=True)
class OpenDictionary:
    """A dictionary that can be asked.

    Features are known by numbers that mean the same at every checkpoint: those of a crosscoder's or a published dictionary's
    features, or the tracks of a chain's.

    Attributes:
        name: of the dictionary.
        coder: its weights, one snapshot for each of its checkpoints.
        site: whose activations it describes.
        after: how many layers have written before the site.
        table: what the trace says about it.
        digests: step to the digest of the weights that the trace holds, from which the dictionary was learned.
    """

    name: str
    coder: Coder
    site: SiteAt
    after: int
    table: FeatureTable
    digests: Mapping[int, str] = field(default_factory=dict)

    def require_same(self, step: int, digest: str) -> None:
        """Raise unless these are the weights that the dictionary was learned from.

        Raises:
            UserError: when they are others: its features would say nothing of them.
        """
        if digest and self.digests.get(step, digest) != digest:
            raise UserError(
                f"the weights of step {step} are not those that dictionary {self.name!r} was learned from",
                expected="the weights that the trace was collected from",
                remedy="restore them, or collect the run and learn its dictionaries anew",
            )

    @property
    def steps(self) -> list[int]:
        """(snapshot,) optimizer steps that it covers."""
        return [int(step) for step in self.table.steps]

    @property
    def size(self) -> int:
        """Features that its numbers count."""
        return int(self.table.about.sizes["track_number"]) if self._tracks is not None else self.coder.features

    @property
    def _tracks(self) -> npt.NDArray[np.int64] | None:
        """(snapshot, feature) numbers of a chain's tracks; -1 for features that are dead."""
        return self.table.about["track"].values if "track" in self.table.about else None

    def numbers(self, snapshot: int) -> npt.NDArray[np.int64]:
        """(feature,) what its features are called at a snapshot; -1 for none."""
        tracks = self._tracks
        return np.arange(self.coder.features) if tracks is None else tracks[snapshot]

    def known(self) -> list[npt.NDArray[np.bool_]] | None:
        """Per snapshot (feature,) which features have a number; None if all have."""
        tracks = self._tracks
        return None if tracks is None else [row >= 0 for row in tracks]

    def checkpoints(
        self, available: Sequence[Checkpoint], count: int | None
    ) -> tuple[list[Checkpoint], list[Checkpoint]]:
        """The checkpoints that are explained, and all that have to be read for it.

        Args:
            available: those that the trace holds.
            count: explain at most so many, evenly on a log scale of steps; None for all that the dictionary covers.

        Raises:
            UserError: when the dictionary covers one that is not available.
        """
        by_step = {c.step: c for c in available}
        lacking = [step for step in self.steps if step not in by_step]
        if lacking:
            raise UserError(
                f"dictionary {self.name!r} covers step {lacking[0]}, which the trace does not hold",
                expected="the checkpoints that it was learned from",
                remedy="collect the run again, or learn the dictionary anew",
            )
        covered = [by_step[step] for step in self.steps]
        indices = range(len(covered)) if count is None else scheduled(self.steps, "log", count)
        chosen = covered[-1:] if count == 1 else [covered[i] for i in indices]
        return chosen, covered if self.coder.joint else chosen

    def about(self, numbers: Sequence[int], tokenizer: Any, available: int) -> dict[str, Any]:
        """What an explanation says of the dictionary and of some features (docs/explain-format.md).

        Args:
            numbers: the features.
            tokenizer: the run's.
            available: checkpoints that the trace holds.
        """
        method = {"crosscoder": "a crosscoder", "chain": "a chain of sparse autoencoders", "published": "published"}
        settings, covered = self.table.settings, len(self.steps)
        many = "checkpoint" if covered == 1 else "checkpoints"
        note = (
            f"The dictionary covers {covered} of the {available} checkpoints that the trace holds; only these are explained."
            if covered < available
            else f"The dictionary covers all {covered} {many} that the trace holds."
        )
        if settings["method"] == "chain":
            note += " Features of neighbouring checkpoints that match have one number, that of their track."
        return {
            "name": self.name,
            "method": method.get(settings["method"], str(settings["method"])),
            "site": self.site.name,
            "layer": self.site.layer,
            "after": self.after,
            "joint": self.coder.joint,
            "size": self.size,
            "note": note,
            "features": [
                {"feature": number, "birth": self._birth(number), "examples": self._examples(number, tokenizer)}
                for number in numbers
            ],
        }

    def _birth(self, number: int) -> dict[str, int | None] | None:
        about = self.table.about
        if "born" in about:
            born, there = about["born"].values[number], bool(about["present"].values[number, 0])
        elif "track_born" in about:  # a track that begins where a match was lost is not shown to be born
            born, there = about["track_born"].values[number], int(about["track_first"].values[number]) == 0
        else:
            return None
        absent, present = (int(step) for step in born)
        if present >= 0:
            return {"absent": absent if absent >= 0 else None, "present": present}
        return {"absent": None, "present": self.steps[0]} if there else None

    def _examples(self, number: int, tokenizer: Any) -> list[dict[str, Any]]:
        """The strongest tokens of a feature, strongest first; a chain's are those of its last dictionary."""
        about = self.table.about
        rows = np.flatnonzero(self.numbers(len(self.steps) - 1) == number)
        if not rows.size:
            return []
        found: list[dict[str, Any]] = []
        examples = (about[f"example_{what}"].values[rows[0]] for what in ("token", "activation"))
        for tokens, activation in zip(*examples, strict=True):
            if len(found) == _EXAMPLES or not (activation > 0).any():
                break
            at = int(np.nanargmax(activation))
            before, after = tokens[max(0, at - _BEFORE) : at], tokens[at + 1 : at + 1 + _AFTER]
            found.append(
                {
                    "before": str(tokenizer.decode(before[before >= 0].tolist())),
                    "token": token_text(tokenizer, int(tokens[at])),
                    "after": str(tokenizer.decode(after[after >= 0].tolist())),
                    "activation": float(activation[at]),
                }
            )
        return found


def open_dictionary(name: str, dictionary: str, traces: Path, model: Model) -> OpenDictionary:
    """A dictionary that `dynamics learn` made.

    Args:
        name: of the run.
        dictionary: of the dictionary.
        traces: folder of traces.
        model: the run's.

    Raises:
        UserError: when there is none, when it is not the one that the trace describes, or when its site is not on the
            residual stream between two layers.
    """
    trace = open_run_trace(name, traces)
    table = FeatureTable(trace, dictionary)
    site, layer = str(table.settings["site"]), int(table.settings["layer"])
    if site not in ("resid_pre", "resid_post"):
        raise UserError(
            f"dictionary {dictionary!r} is of site {site!r}",
            expected="resid_pre or resid_post: the residual stream between two layers, where all of it can be split",
            remedy="learn a dictionary of `site: resid_post`",
        )
    from ..learning.site import SiteAt

    at = SiteAt(model.architecture, site, layer)
    coder = _coder(name, dictionary, traces, table, model)
    shapes = {(d.features, int(d.decoder.shape[2])) for d in coder.dictionaries}
    fits = coder.snapshots == len(table.steps) and shapes == {(table.features, at.width)}
    if fits and coder.joint:  # trained anew, perhaps, and interrupted before it was measured
        fits = np.allclose(coder.dictionaries[0].strength(), table.about["strength"].values, rtol=1e-3, atol=1e-5)
    if not fits:
        raise UserError(
            f"the weights of dictionary {dictionary!r} are not those that the trace describes",
            expected=f"{table.features} features of width {at.width} over {len(table.steps)} checkpoints",
            remedy=f"dynamics learn {name}",
        )
    digests = {int(step): digest for step, digest in zip(trace.steps, trace.digests, strict=True) if digest}
    return OpenDictionary(dictionary, coder, at, layer + (site == "resid_post"), table, digests)


def _coder(name: str, dictionary: str, traces: Path, table: FeatureTable, model: Model) -> Coder:
    from ..learning.coder import Coder
    from ..learning.published import load_published
    from ..learning.training import stored

    settings: Mapping[str, Any] = table.settings
    config = settings["config"]
    if settings["method"] == "published":
        found = load_published(
            config["place"],
            site=str(settings["site"]),
            layer=int(settings["layer"]),
            norm_factor=config.get("norm_factor"),
            table=model.architecture.table,
        )
        return Coder((found.dictionary,) * len(table.steps), False)
    folder = traces / f"{name}.dictionaries" / dictionary
    try:
        coder = stored(folder, read_json(folder / "about.json", dict)["key"])
    except (OSError, ValueError, KeyError):
        coder = None
    if coder is None:
        raise UserError(
            f"the weights of dictionary {dictionary!r} are not in {folder}",
            expected="those that were learned, beside the trace",
            remedy=f"dynamics learn {name}",
        )
    return coder


def split_checkpoints(
    dictionary: OpenDictionary,
    crossings: Mapping[int, SiteActivations],
    parts: Sequence[dict[str, Any]],
    share: float,
    first: int,
) -> list[dict[str, Any]]:
    """Say of every checkpoint how the dictionary splits it, and which features and errors it shows.

    Args:
        dictionary: the dictionary.
        crossings: what was read, by step.
        parts: the checkpoints of the explanation; ``split`` is added, and what it shows to ``nodes``.
        share: of the sum of absolute attributions of features, and of errors, that is to be shown.
        first: index of the first node that is added to the explanation.

    Returns:
        The nodes to add.
    """
    from .splitting import split, strongest

    read = [crossings.get(step) for step in dictionary.steps]
    usable = [c if c is not None and c.finite else None for c in read]
    lost = [step for step, c in zip(dictionary.steps, usable, strict=True) if c is None]
    broken = bool(lost) and dictionary.coder.joint
    found = [None] * len(usable) if broken else split(dictionary.coder, usable, dictionary.known())
    snapshots = {step: i for i, step in enumerate(dictionary.steps)}
    chosen: list[list[tuple[int, int | None, float]]] = []
    for part in parts:
        snapshot = snapshots[part["step"]]
        one, numbers = found[snapshot], dictionary.numbers(snapshot)
        if one is None:
            reason = f"the checkpoint is {part['state']}" if part["state"] != "failed" else "the checkpoint failed"
            if broken and part["state"] not in ("failed", "not measurable"):
                reason = f"its code needs every checkpoint that it covers, and step {lost[0]} could not be read"
            part["split"] = _nothing(reason)
            chosen.append([])
            continue
        kept = strongest(one, share, MOST)
        part["split"] = {
            "total": float(one.total.sum()),
            "features": float(one.features.sum()),
            "error": float(one.error.sum()),
            "differ": one.differ,
            "shown": kept.share,
            "active": [
                (t, int(numbers[j]), float(one.active[t, j]), float(one.corrupted[t, j])) for t, j, _ in kept.features
            ],
            "reason": "",
        }
        chosen.append(
            [(t, int(numbers[j]), score) for t, j, score in kept.features] + [(t, None, s) for t, s in kept.errors]
        )
    shown = sorted({(t, n) for some in chosen for t, n, _ in some}, key=lambda p: (p[0], p[1] is None, p[1] or 0))
    index = {feature: first + i for i, feature in enumerate(shown)}
    for part, some in zip(parts, chosen, strict=True):
        part["nodes"] = [*part["nodes"], *([index[t, n], score] for t, n, score in some)]
        part["split"]["active"] = [[index[t, n], *lengths] for t, n, *lengths in part["split"]["active"]]
    return [_node(position, number) for position, number in shown]


def _nothing(reason: str) -> dict[str, Any]:
    return {**dict.fromkeys(("total", "features", "error", "differ", "shown")), "active": [], "reason": reason}


def _node(position: int, number: int | None) -> dict[str, Any]:
    node = {"id": f"error@{position}", "kind": "error", "layer": None, "head": None, "position": position}
    return node if number is None else node | {"id": f"F{number}@{position}", "kind": "feature", "feature": number}
