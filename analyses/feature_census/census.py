"""How well dictionaries fit, and how many of their features are there at every checkpoint."""

from __future__ import annotations

import numpy as np

from dynamics.analysis import Curve, CurveSpec, Null, Section, from_units
from dynamics.analysis.features import FeatureReader
from dynamics.emergence import unit_bootstrap
from dynamics.numerics.draws import FINE_DRAWS

__all__ = ["census", "census_notes"]


def census(reader: FeatureReader, headline: bool) -> Section:
    """Fit, features present, births and deaths of one dictionary."""
    there = _presence(reader)
    about, name = reader.table.about, reader.name
    tables = {key: about[key].values for key in ("fvu", "loss_recovered", "l0")}
    if there is not None:
        if reader.kept:  # every feature of a chain is of some track
            tables["present"] = there.sum(axis=1)
        tables |= {"born": _events(reader, there, born=True), "died": _events(reader, there, born=False)}
    if "change" in about:
        for key in ("change", "change_bound"):
            tables[key] = np.concatenate([[np.nan], about[key].values])
    arrays = {f"{name}_{key}": ("checkpoint", reader.spread(values)) for key, values in tables.items()}
    section = Section(notes=census_notes(reader), arrays=arrays)
    if there is not None and there[-1].any():
        section.findings.append(_present(reader, there, headline))
    return section


def _presence(reader: FeatureReader) -> np.ndarray | None:
    """(snapshot, feature) whether each feature, or track of a chain, is present; None where it is not known."""
    about = reader.table.about
    if "present" in about:
        return np.asarray(about["present"].values.T)
    if "track_first" in about:
        at = np.arange(len(reader.steps))[:, None]
        return np.asarray((about["track_first"].values <= at) & (at <= about["track_last"].values))
    return None


def _present(reader: FeatureReader, there: np.ndarray, headline: bool) -> Curve:
    """Share of the finally present features that are present."""
    units = there[:, there[-1]].astype(np.float64)
    first = unit_bootstrap(units[:1], draws=FINE_DRAWS, seed=1)
    what = "features" if reader.kept else "tracks"
    return from_units(
        f"{reader.name}.present",
        f"features: present, dictionary {reader.name}",
        reader.spread(units),
        Null(
            reader.spread(np.repeat(first, len(units), axis=0)), f"the share at the first checkpoint, {what} resampled"
        ),
        CurveSpec(
            f"share of the final {what}",
            "features",
            limits=(0.0, 1.0),
            headline=headline,
            definition=f"dictionary {reader.name} ({reader.where}): share of the {what} present at the last checkpoint that "
            "are present at each",
        ),
    )


def _events(reader: FeatureReader, there: np.ndarray, born: bool) -> np.ndarray:
    """(snapshot,) births (deaths) between the snapshot before and this one."""
    about = reader.table.about
    prefix = "" if reader.kept else "track_"
    if f"{prefix}born" in about:  # only those that were shown
        by = about[f"{prefix}born" if born else f"{prefix}died"].values[:, 1]
        return np.array([(by == step).sum() for step in reader.steps])
    change = np.diff(there.astype(int), axis=0) == (1 if born else -1)
    return np.concatenate([[0], change.sum(axis=1)])


def census_notes(reader: FeatureReader) -> list[str]:
    """What a reader has to know of one dictionary, in words."""
    about, steps = reader.table.about, reader.steps
    fvu, recovered = about["fvu"].values, about["loss_recovered"].values
    settings = reader.table.settings
    best = int(np.nanargmin(fvu))
    text = (
        f"Dictionary {reader.name}: {reader.features} features of {reader.where}, {settings['method']}, {len(steps)} "
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
    notes = [text, *(f"Dictionary {reader.name}: {remark}" for remark in settings["remarks"])]
    if "born" in about:
        notes.append(_births(reader))
    elif "track_first" in about:
        notes.append(_tracks(reader))
    if "change" in about:
        notes.append(_turns(reader))
    return notes


def _births(reader: FeatureReader) -> str:
    about, steps = reader.table.about, reader.steps
    found, there = about["found"].values, about["present"].values
    born, died = about["born"].values, about["died"].values
    split = about["parted_split"].values if "parted_split" in about else np.array([], dtype=bool)
    events = _events(reader, there.T, born=True)
    most = int(events.argmax())
    text = (
        f"Births, dictionary {reader.name}: {int(found.sum())} features are beyond their null; {int((born[:, 1] >= 0).sum())} "
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


def _tracks(reader: FeatureReader) -> str:
    about, last = reader.table.about, len(reader.steps) - 1
    first, stop = about["track_first"].values, about["track_last"].values
    matched = (about["matched"].values >= 0).mean(axis=1)
    text = (
        f"Tracks, dictionary {reader.name}: {len(first)} tracks; {int((first > 0).sum())} begin after the first checkpoint, "
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
    events = _events(reader, np.empty(0), born=True)
    text += (
        f"Of those that begin late, the tokens of {int(before.sum())} were another feature's before; of those that end early, "
        f"the tokens of {int(after.sum())} are another's after. Shown to be born are "
        f"{int((about['track_born'].values[:, 1] >= 0).sum())}, to die {int((about['track_died'].values[:, 1] >= 0).sum())}"
    )
    if events.any():
        most = int(events.argmax())
        text += f"; most births, {events[most]}, lie in ({reader.steps[most - 1]}, {reader.steps[most]}]"
    return text + (
        ". A birth is an interval in which the mean activation rises above a quarter of its peak by more than its sampling "
        "error over rows of text (false discovery rate 5%). What two trainings of one autoencoder do not have in common is born "
        "and dies as well: no second training, and no series of untrained models, was held against this count."
    )


def _turns(reader: FeatureReader) -> str:
    about, steps = reader.table.about, reader.steps
    change, bound = about["change"].values, about["change_bound"].values
    if not np.isfinite(change).any():
        return f"Turning points, dictionary {reader.name}: not measurable."
    at = np.flatnonzero(change > bound)
    if not len(at):
        return f"Turning points, dictionary {reader.name}: none beyond features that move each at a time of its own."
    most = int(at[np.argmax((change - bound)[at])])
    runs = np.split(at, np.flatnonzero(np.diff(at) > 1) + 1)
    listed = ", ".join(f"({steps[r[0]]}, {steps[r[-1] + 1]}]" for r in runs)
    text = (
        f"Turning points, dictionary {reader.name}: features move together most in ({steps[most]}, {steps[most + 1]}], by "
        f"{change[most]:.2f} of a decoder's largest length on average; if each moved at a time of its own, the mean would stay "
        f"below {bound[most]:.2f}. "
    )
    if not reader.kept:
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
