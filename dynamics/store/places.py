"""Where a trace is, whatever it is called: what lies beside it is there once, or two processes would not see each other."""

from __future__ import annotations

from pathlib import Path

from checkpoints.errors import UserError

__all__ = ["beside", "require_place"]


def beside(trace: Path, ending: str) -> Path:
    """What is called after a trace and lies beside it; of a link, beside what it leads to."""
    place = trace.resolve() if trace.is_symlink() else trace
    return place.with_name(place.name + ending)


def require_place(trace: Path) -> None:
    """Refuse a trace, or a folder of traces, that is a link to nothing: what it should lead to may come back.

    Raises:
        UserError: when it is.
    """
    for path in (trace, trace.parent):
        if path.is_symlink() and not path.exists():
            raise UserError(
                f"{path} is a link to nothing ({path.readlink()})",
                expected="a folder, a link to one, or nothing of that name",
                remedy="bring back what it leads to, or delete the link",
            )
