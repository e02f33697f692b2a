"""Which layout a folder is in: the one that is named, else the one that finds checkpoints in it."""

from __future__ import annotations

from pathlib import Path

from ..errors import UserError
from . import folders, litgpt, names, nanogpt, statedicts, torchtitan
from .base import Found, FoundCheckpoint, Layout, LayoutOptions

__all__ = ["LAYOUTS", "choose"]

LAYOUTS: dict[str, Layout] = {
    "transformers": folders,
    "nanogpt": nanogpt,
    "litgpt": litgpt,
    "torchtitan": torchtitan,
    "state-dicts": statedicts,
}


def choose(root: Path, name: str, options: LayoutOptions) -> tuple[str, Found]:
    """The layout and its checkpoints.

    Args:
        root: the series' folder or file.
        name: of a layout, or ``auto``.
        options: what the runs file adds.

    Raises:
        UserError: when nothing is found, or checkpoints of several layouts are; or what is found cannot be used.
    """
    if options.pattern is not None and root.is_file():
        raise UserError(
            f"{root} is one file, and the runs file gives a `pattern` for names",
            expected="`pattern` only for a folder of checkpoints",
            remedy="remove it from the series in the runs file",
        )
    found: dict[str, Found] = {}
    faults = []
    for key in LAYOUTS if name == "auto" else (name,):
        try:
            if (one := LAYOUTS[key].find(root, options)).checkpoints:
                found[key] = one
        except UserError as error:
            faults.append(error)
    if "nanogpt" in found:
        found.pop("state-dicts", None)  # every file of nanoGPT's holds a state dict too
    if any(map(_numbered, found.values())):  # a final file beside a series in another layout is none itself
        found = {key: one for key, one in found.items() if _numbered(one)}
    if not found:
        raise faults[-1] if faults else _nothing(root, name, options)
    if len(found) > 1:
        seen = "; ".join(f"{key}: {_first(root, key, one.checkpoints)}" for key, one in found.items())
        raise UserError(
            f"{root} holds checkpoints in several layouts ({seen})",
            expected="a series in one layout",
            remedy=f"name the right one as `series.layout` in the runs file: {' or '.join(found)}",
        )
    [(key, one)] = found.items()
    if LAYOUTS[key].NEEDS_CONFIG and options.config is None:
        raise UserError(
            f"{root} is in the layout {key!r}, whose files do not say the architecture",
            expected="the model's config, as transformers writes it",
            remedy="name a config.json, or its folder, as `series.config` in the runs file",
        )
    if key != "state-dicts" and (options.steps is not None or options.every is not None):
        raise UserError(
            f"{root} is in the layout {key!r}, which says its steps itself",
            expected="`steps` and `every` only for a list of state dicts",
            remedy="remove them from the series in the runs file",
        )
    return key, _complete(root, one, options)


def _numbered(found: Found) -> bool:
    return any(c.numbered for c in found.checkpoints)


def _complete(root: Path, found: Found, options: LayoutOptions) -> Found:
    """Without the last ones that are copies of numbered ones, and with everything else that looks like a checkpoint."""
    numbered = {c.step: c.revision for c in found.checkpoints if c.numbered}
    copies = [c for c in found.checkpoints if not c.numbered and c.step in numbered]
    left_out = {c.revision: f"it says step {c.step}, as {numbered[c.step]} does" for c in copies} | {**found.left_out}
    if root.is_dir():
        taken = {c.revision.partition("/")[0] for c in found.checkpoints}
        left_out |= names.left_out(root, {*taken, *left_out}, options.pattern)
    return Found([c for c in found.checkpoints if c not in copies], left_out)


def _first(root: Path, key: str, checkpoints: list[FoundCheckpoint]) -> str:
    """The first checkpoint whose weights are in this layout."""
    base = root if root.is_dir() else root.parent
    return next(c.revision for c in sorted(checkpoints, key=lambda c: c.step) if LAYOUTS[key].files(base / c.revision))


def _nothing(root: Path, name: str, options: LayoutOptions) -> UserError:
    what = "a series of checkpoints" if name == "auto" else f"a series in the layout {name!r}"
    if name == "auto":
        expected = "one of these layouts:" + "".join(f"\n    {key}: {LAYOUTS[key].EXPECTED}" for key in LAYOUTS)
    else:
        expected = LAYOUTS[name].EXPECTED
    if options.pattern is not None:
        expected = f"names that match `series.pattern` ({options.pattern.pattern}), in " + expected
    return UserError(
        f"{root} is not {what}: it holds {_seen(root)}",
        expected=expected,
        remedy="point `series.path` at the folder above the checkpoints, or at the one file that holds them all",
    )


def _seen(root: Path) -> str:
    if root.is_file():
        return "what is in a file of another kind"
    entries = sorted(root.iterdir())
    folders_seen = [p.name for p in entries if p.is_dir()]
    files_seen = [p.name for p in entries if not p.is_dir() and not p.name.startswith(".")]
    some = [", ".join(seen[:5]) + (", ..." if len(seen) > 5 else "") for seen in (folders_seen, files_seen)]
    return (some[0] or "no sub-folder at all") + (f"; files: {some[1]}" if some[1] else "")
