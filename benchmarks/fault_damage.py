"""Files of a finished trace, damaged in five ways: does ``verify`` notice it, and does ``--repair`` mend it?

A repair is tried on eight damaged files at a time, but for the root's metadata and their copy, of which one has to be whole.
What cannot be made again by it, features, has to be named by it after the repair as before.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.fault_figures import Figures
from benchmarks.fault_traces import NAME, Made, workplace

__all__ = ["WAYS", "damaged", "run"]

WAYS = ("deleted", "emptied", "truncated", "flipped", "replaced")
_BATCH = 8


def damaged(files: dict[str, bytes], name: str, way: str) -> bytes | None:
    """What is in a file after it was damaged; None where it is gone, replaced by another of its name where there is one."""
    content, middle = files[name], len(files[name]) // 2
    if way == "replaced":
        last = name.rsplit("/", 1)[-1]
        others = (c for n, c in files.items() if n.rsplit("/", 1)[-1] == last and c != content)
        return next(others, b"another file")
    flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    return {"deleted": None, "emptied": b"", "truncated": content[:-1], "flipped": flipped}[way]


def run(each: int | None = 2) -> list[Figures]:
    """Files in every way.

    Args:
        each: so many files of each kind, drawn at random (of a kind are those whose paths differ in numbers alone); None for all.
    """
    with workplace() as folder:
        made = Made(folder)
        traces = made.copy("learned") / "traces"
        where, path = {"run": made.run(), "traces": traces}, traces / f"{NAME}.zarr"
        files = snapshot(path)
        kinds: dict[str, list[str]] = {}
        for name in random.Random(0).sample(sorted(files), len(files)):
            kinds.setdefault(re.sub(r"\d+", "N", name), []).append(name)
        names = sorted(name for kind in kinds.values() for name in kind[:each])
        tried = [(name, way) for way in WAYS for name in names]
        print(f"{len(names)} of {len(files)} files, of each of {len(kinds)} kinds, {len(WAYS)} ways", flush=True)
        unseen, unmended = set(_unseen(path, files, tried)), set(_unmended(where, path, files, tried))
        rows = []
        for way in WAYS:
            mine = [(name, way) for name in names]
            failures = [f"{n}: not noticed" for n, w in mine if (n, w) in unseen]
            failures += [f"{n}: not mended" for n, w in mine if (n, w) in unmended]
            seen = len(mine) - sum(fault in unseen for fault in mine)
            survived = len(mine) - sum(fault in unmended for fault in mine)
            rows.append(Figures(f"a file of a trace is {way}", len(mine), survived, seen, tuple(failures)))
        return rows


def snapshot(path: Path) -> dict[str, bytes]:
    """Every file of a trace and its content."""
    return {p.relative_to(path).as_posix(): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


def _put(path: Path, name: str, content: bytes | None) -> None:
    file = path / name
    if content is None:
        file.unlink()
    else:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)


def _unseen(path: Path, files: dict[str, bytes], tried: Sequence[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """The faults that are not noticed, or that end in something else than a finding."""
    from dynamics.store.damage import trace_damage

    for name, way in tried:
        _put(path, name, damaged(files, name, way))
        try:
            found = trace_damage(path)
        except Exception as error:
            print(f"{name} {way}: {error!r}")
            found = []
        if not found:
            yield name, way
        _put(path, name, files[name])


def _unmended(
    where: dict[str, Any], path: Path, files: dict[str, bytes], tried: Sequence[tuple[str, str]]
) -> Iterator[tuple[str, str]]:
    """The faults after whose repair a file is another than it was, without a word."""
    import dynamics

    alone = [[(n, w)] for n, w in tried if n in ("zarr.json", "manifest/root.json")]
    rest = [(n, w) for n, w in tried if n not in ("zarr.json", "manifest/root.json")]
    random.Random(0).shuffle(rest)
    # one file once in a batch
    for batch in [*alone, *(rest[at : at + _BATCH] for at in range(0, len(rest), _BATCH))]:
        faults = list(dict(batch).items())
        for name, way in faults:
            _put(path, name, damaged(files, name, way))
        try:
            left = [d.variable for d in dynamics.verify(NAME, **where, repair=True) if not d.repaired]
        except Exception as error:
            print(f"{faults}: {error!r}")
            yield from faults
            left = []
        after = snapshot(path)
        for name, way in faults:
            said = name.startswith("features/") and any(variable.startswith("features/") for variable in left)
            if after.get(name) != files[name] and not said:
                yield name, way
        for name in files.keys() | after.keys():
            if after.get(name) != files.get(name):
                _put(path, name, files.get(name))
