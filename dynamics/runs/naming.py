"""What can name a run."""

from __future__ import annotations

from checkpoints.errors import UserError, short
from checkpoints.paths import as_text

__all__ = ["check_name"]


def check_name(name: str) -> None:
    """Refuse what cannot be a file's name.

    Raises:
        UserError: for separators, a leading dot, signs that do not print, nothing at all.
    """
    as_text(name, "name")
    if "/" in name or "\\" in name or name.startswith(".") or not name.strip() or not name.isprintable():
        raise UserError(
            f"{short(name)!r} cannot name a run",
            expected="a name that is also a file's name, such as my-run",
            remedy="rename it",
        )
