"""How well dictionaries fit, and how many of their features are there at every checkpoint."""

from __future__ import annotations

from typing import Any

import numpy as np

from dynamics.analysis.features import Parts
from dynamics.analysis.findings import Finding, from_units
from dynamics.emergence import unit_bootstrap
from dynamics.numerics.draws import FINE_DRAWS
from dynamics.store import Trace

__all__ = ["census_arrays", "census_finding", "census_notes", "presence"]

Arrays = dict[str, Any]


def presence(parts: Parts) -> np.ndarray | None:
    """(snapshot, feature) whether each feature, or track of a chain, is present; None where it is not known."""
    about = parts.table.about
    if "present" in about:
        return np.asarray(about["present"].values.T)
    if "track_first" in about:
        at = np.arange(len(parts.steps))[:, None]
        return np.asarray((about["track_first"].values <= at) & (at <= about["track_last"].values))
    return None


def census_finding(trace: Trace, parts: Parts, headline: bool) -> Finding | None:
    """Share of the finally present features that are present; None where births are not known or nothing is present."""
    there = presence(parts)
    if there is None or not there[-1].any():
        return None
    units = there[:, there[-1]].astype(np.float64)
    first = unit_bootstrap(units[:1], draws=FINE_DRAWS, seed=1)
    what = "features" if parts.kept else "tracks"
    return from_units(
        f"feature_census.{parts.name}.present",
        f"features: present, dictionary {parts.name}",
        parts.spread(units),
        steps=trace.steps,
        tokens=trace.tokens,
        null=parts.spread(np.repeat(first, len(units), axis=0)),
        null_name=f"the share at the first checkpoint, {what} resampled",
        metric=f"share of the final {what}",
        limits=(0.0, 1.0),
        unit="features",
        headline=headline,
        definition=f"dictionary {parts.name} ({parts.place}): share of the {what} present at the last checkpoint that are "
        "present at each",
    )


def census_arrays(parts: Parts) -> Arrays:
    """Curves for the figure, over checkpoints of the trace."""
    about, name, steps = parts.table.about, parts.name, parts.steps
    arrays: Arrays = {
        f"{name}_{key}": ("checkpoint", parts.spread(about[key].values)) for key in ("fvu", "loss_recovered", "l0")
    }
    there = presence(parts)
    if there is not None:
        if parts.kept:  # every feature of a chain is of some track
            arrays[f"{name}_present"] = ("checkpoint", parts.spread(there.sum(axis=1)))
        for key, born in (("born", True), ("died", False)):
            arrays[f"{name}_{key}"] = ("checkpoint", parts.spread(_events(parts, there, born)))
    moved = np.full((2, len(steps)), np.nan)
    if "change" in about:
        moved[:, 1:] = about["change"].values, about["change_bound"].values
        arrays |= {
            f"{name}_change{s}": ("checkpoint", parts.spread(m)) for s, m in zip(("", "_bound"), moved, strict=True)
        }
    return arrays


def _events(parts: Parts, there: np.ndarray, born: bool) -> np.ndarray:
    """(snapshot,) births (deaths) between the snapshot before and this one."""
    about = parts.table.about
    prefix = "" if parts.kept else "track_"
    if f"{prefix}born" in about:  # only those that were shown
        by = about[f"{prefix}born" if born else f"{prefix}died"].values[:, 1]
        return np.array([(by == step).sum() for step in parts.steps])
    change = np.diff(there.astype(int), axis=0) == (1 if born else -1)
    return np.concatenate([[0], change.sum(axis=1)])


def census_notes(parts: Parts) -> list[str]:
    """What a reader has to know of one dictionary, in words."""
    about, steps = parts.table.about, parts.steps
    fvu, recovered = about["fvu"].values, about["loss_recovered"].values
    settings = parts.table.settings
    best = int(np.nanargmin(fvu))
    text = (
        f"Dictionary {parts.name}: {parts.features} features of {parts.place}, {settings['method']}, {len(steps)} "
        f"checkpoints, read from {settings['corpus'] or 'no text'}; {about['dead'].values[-1]:.0%} never fire. Unexplained "
        f"variance {fvu[0]:.1%} at step {steps[0]}, {fvu[-1]:.1%} at step {steps[-1]} (least: {fvu[best]:.1%} at step "
        f"{steps[best]}; most: {np.nanmax(fvu):.1%} at step {steps[int(np.nanargmax(fvu))]}). "
    )
    known = np.flatnonzero(np.isfinite(recovered))
    if len(known):
        text += (
            f"Loss recovered {recovered[known[0]]:.1%} at step {steps[known[0]]}, {recovered[known[-1]]:.1%} at step "
            f"{steps[known[-1]]}."
        )
        text += " Before that the site's mean does as well as its values." if known[0] > 0 else ""
    else:
        text += "There is no loss to recover: the site's mean does as well as its values."
    if settings["method"] == "published":
        text += " It was trained elsewhere on one model: where unexplained variance grows, its features no longer describe this one."
    notes = [text, *(f"Dictionary {parts.name}: {remark}" for remark in settings["remarks"])]
    if "born" in about:
        notes.append(_births(parts))
    elif "track_first" in about:
        notes.append(_tracks(parts))
    if "change" in about:
        notes.append(_turns(parts))
    return notes


def _births(parts: Parts) -> str:
    about, steps = parts.table.about, parts.steps
    found, there = about["found"].values, about["present"].values
    born, died = about["born"].values, about["died"].values
    split = about["parted_split"].values if "parted_split" in about else np.array([], dtype=bool)
    events = _events(parts, there.T, born=True)
    most = int(events.argmax())
    text = (
        f"Births, dictionary {parts.name}: {int(found.sum())} features are beyond their null; {int((born[:, 1] >= 0).sum())} "
        f"are born, {int((died[:, 1] >= 0).sum())} die, {int(there[:, -1].sum())} are present in the end, "
        f"{int((there[:, 0] & there[:, -1]).sum())} of them from the start, or not shown to be absent there; {int(split.sum())} pairs split, "
        f"{int((~split).sum())} merge. "
    )
    if events.any():
        text += f"Most births, {events[most]}, lie in ({steps[most - 1]}, {steps[most]}]. "
    return text + (
        "A birth is an interval in which a decoder rises above a quarter of its largest length by more than its sampling error, "
        "after it was shown to be less than half as long (false discovery rate 5% each). A dictionary of another "
        "seed need not have the same births; none was held against this count."
    )


def _tracks(parts: Parts) -> str:
    about, last = parts.table.about, len(parts.steps) - 1
    first, stop = about["track_first"].values, about["track_last"].values
    matched = (about["matched"].values >= 0).mean(axis=1)
    text = (
        f"Tracks, dictionary {parts.name}: {len(first)} tracks; {int((first > 0).sum())} begin after the first checkpoint, "
        f"{int((stop < last).sum())} end before the last, {int(((first == 0) & (stop == last)).sum())} run through. Between "
        f"neighbouring checkpoints {matched.min():.0%} to {matched.max():.0%} of features have a mutual best match; "
        f"{about.sizes.get('split', 0)} splits, {about.sizes.get('merge', 0)} merges. "
    )
    if "track_born" not in about:
        return text + (
            "Features without a match count as born or dead, so that these numbers include what two trainings of one "
            "autoencoder do not have in common."
        )
    before, after = about["track_continued"].values.T
    events = _events(parts, np.empty(0), born=True)
    text += (
        f"Of those that begin late, the tokens of {int(before.sum())} were another feature's before; of those that end early, "
        f"the tokens of {int(after.sum())} are another's after. ShownFeature to be born are "
        f"{int((about['track_born'].values[:, 1] >= 0).sum())}, to die {int((about['track_died'].values[:, 1] >= 0).sum())}"
    )
    if events.any():
        most = int(events.argmax())
        text += f"; most births, {events[most]}, lie in ({parts.steps[most - 1]}, {parts.steps[most]}]"
    return text + (
        ". A birth is an interval in which the mean activation rises above a quarter of its peak by more than its sampling "
        "error over rows of text (false discovery rate 5%). What two trainings of one autoencoder do not have in common is born "
        "and dies as well: no second training, and no series of untrained models, was held against this count."
    )


def _turns(parts: Parts) -> str:
    about, steps = parts.table.about, parts.steps
    change, bound = about["change"].values, about["change_bound"].values
    if not np.isfinite(change).any():
        return f"Turning points, dictionary {parts.name}: not measurable."
    at = np.flatnonzero(change > bound)
    if not len(at):
        return f"Turning points, dictionary {parts.name}: none beyond features that move each at a time of its own."
    most = int(at[np.argmax((change - bound)[at])])
    runs = np.split(at, np.flatnonzero(np.diff(at) > 1) + 1)
    listed = ", ".join(f"({steps[r[0]]}, {steps[r[-1] + 1]}]" for r in runs)
    text = (
        f"Turning points, dictionary {parts.name}: features move together most in ({steps[most]}, {steps[most + 1]}], by "
        f"{change[most]:.2f} of a decoder's largest length on average; if each moved at a time of its own, the mean would stay "
        f"below {bound[most]:.2f}. "
    )
    if not parts.kept:
        text += "A track that begins or ends has moved by its whole length. "
    if 2 * len(at) > len(change):
        return text + (
            f"It does not in {len(at)} of {len(change)} transitions, {listed}: change is spread over most of the series, no "
            "single moment."
        )
    if len(at) == 1:
        return text + "In no other transition does it exceed that."
    return (
        text
        + f"It exceeds that in {listed}"
        + ("; a long span is steady change rather than a moment." if max(map(len, runs)) > 3 else ".")
    )
