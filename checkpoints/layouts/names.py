"""Which names are those of checkpoints, and why something that looks like one is none.

A *numbered* name says its step. A *last* one (``final``, ``checkpoint_last.pt``) says none, and counts if what lies in it
does. ``pattern`` in the runs file replaces both.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from pathlib import Path

from ..errors import UserError
from ..files.weights import choose_files

__all__ = ["file_step", "folder_step", "is_last", "left_out", "step_in"]

_WHAT = r"(?:model|ckpt|checkpoint|weights|state_?dict|net)"
_COUNT = r"(?:global_step|step|epoch|iteration|iter|it|ep|e)"
_SUFFIX = r"\.(?:pt|pth|bin|ckpt)"
_FLAGS = re.IGNORECASE | re.ASCII
_FOLDER = re.compile(r"(?:global_step|step|checkpoint|ckpt|iteration|iter)[-_]?(\d+)", _FLAGS)
_FILE = re.compile(rf"(?:{_WHAT}[-_.]?)?(?:({_COUNT})[-_.=]?)?(\d+){_SUFFIX}", _FLAGS)
"""Names of optimizers, schedulers, random states and parts (``-00001-of-00002``) do not match."""
_LAST = re.compile(rf"(?:(?:{_WHAT}|step)[-_.]?)?(?:final|last|latest|end|best)(?:{_SUFFIX})?|{_WHAT}{_SUFFIX}", _FLAGS)
_LIKE = re.compile(
    r"(?:.*[-_.])?(?:global_?step|step|checkpoint|ckpt|iteration|iter|epoch)s?[-_.=]?(?:\d|e\d|final|last|best).*",
    _FLAGS,
)
"""What else looks like a checkpoint by its name."""
_WEIGHTS = re.compile(r".*\.(?:pt|pth|ckpt|safetensors)|pytorch_model.*\.bin", _FLAGS)
_PACKED = re.compile(r"[^.]*|.*\.(?:pkl|npz|msgpack|h5|gguf|zip|tar|tgz|gz|bz2|xz|zst)", _FLAGS)
"""What else a checkpoint may lie in, to judge by a name that is one's."""
_PACKED_MODEL = re.compile(r".*(?:model|weights|state_?dict|params|snapshot).*\.(?:pkl|npz|msgpack|h5|gguf)", _FLAGS)
_OTHER = re.compile(r".*(?:optim|sched|rng|random|scaler|training_args|adapter|-of-\d+).*", _FLAGS)
"""Files of that kind that are no weights, or not all of them."""


def folder_step(name: str) -> int | None:
    """The step that a folder is named after.

    >>> folder_step("step-00000100"), folder_step("Checkpoint-500"), folder_step("ckpt_3"), folder_step("final")
    (100, 500, 3, None)
    """
    match = _FOLDER.fullmatch(name)
    return None if match is None else int(match[1])


def file_step(name: str) -> tuple[int, bool] | None:
    """The number that a file of weights is named after, and whether the name calls it an epoch.

    >>> file_step("model_0100.pth"), file_step("checkpoint_e001000.pt"), file_step("optimizer_100.pt")
    ((100, False), (1000, True), None)
    """
    match = _FILE.fullmatch(name)
    return None if match is None else (int(match[2]), (match[1] or "").lower() in ("epoch", "ep", "e"))


def is_last(name: str) -> bool:
    """Whether this is what a trainer calls its last, latest or best checkpoint, which says its step inside if at all.

    >>> [is_last(name) for name in ("final", "checkpoint_last.pt", "model.pt", "lr_0.1", "ema_final.pt")]
    [True, True, True, False, False]
    """
    return _LAST.fullmatch(name) is not None


def step_in(name: str, pattern: re.Pattern[str]) -> int | None:
    """The step that a name says by a pattern of the user's; None if it does not match.

    Raises:
        UserError: when what the pattern takes for the step is no number.
    """
    match = pattern.fullmatch(name)
    if match is None:
        return None
    try:
        return int(match["step"])
    except (TypeError, ValueError):
        raise UserError(
            f"{name!r} matches {pattern.pattern!r}, and what is there for the step is no number",
            expected="a pattern as step(?P<step>\\d+)",
            remedy="correct `series.pattern` in the runs file",
        ) from None


def left_out(root: Path, taken: Collection[str], pattern: re.Pattern[str] | None = None) -> dict[str, str]:
    """What lies beside the checkpoints of a folder and looks like one, with the reason why it is none.

    Args:
        root: the folder.
        taken: names in it that are checkpoints, or of which the reason is known.
        pattern: of the user's, that names of checkpoints match.
    """
    found, loose = {}, []
    no_step = _NO_STEP if pattern is None else "its name does not match `series.pattern`"
    for path in sorted(root.iterdir()):
        if path.name in taken or path.name.startswith("."):
            continue
        if path.is_dir():
            if reason := _folder(path, no_step):
                found[path.name] = reason
        elif not path.exists():
            if _weights(path.name) or _named(path.name):
                found[path.name] = f"it is a link to nothing ({os.readlink(path)})"
        elif _weights(path.name) and (_named(path.name) or _LOOSE.search(path.name) is not None):
            loose.append(path.name)
        elif _PACKED.fullmatch(path.name) and (_named(path.name) or _PACKED_MODEL.fullmatch(path.name)):
            found[path.name] = "it is a file of a kind that is not read"
    whole = [name for name in choose_files(loose).files if name in loose]
    for names in (whole, *([name] for name in loose if name not in whole)):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            said = "beside the checkpoints, and nothing says its step"
            found[f"{names[0]}{more}"] = said if names is whole or is_last(names[0]) else no_step
    return found


_NO_STEP = "its name says no step here; `series.pattern` in the runs file can say how names do"


def _folder(path: Path, no_step: str) -> str:
    try:
        names = [inner.name for inner in path.iterdir()]
    except OSError as error:
        return f"it cannot be listed: {error.strerror or error}" if _named(path.name) else ""
    if not names:
        return "it is an empty folder" if _named(path.name) else ""
    if any(_weights(name) or name.endswith(".distcp") for name in names):
        other = folder_step(path.name) is not None and no_step == _NO_STEP
        return "it holds nothing in the layout of the others" if other else no_step
    if any(folder_step(name) is not None and (path / name).is_dir() for name in names):
        return "it holds folders named after steps: a series of its own"
    return "it holds no weights, and its name says no step" if _LIKE.fullmatch(path.name) else ""


_LOOSE = re.compile(r"model|weights|state_?dict|params|snapshot|policy|final|last|best|ema|gpt|\d", _FLAGS)


def _weights(name: str) -> bool:
    return _WEIGHTS.fullmatch(name) is not None and (_OTHER.fullmatch(name) is None or "-of-" in name)


def _named(name: str) -> bool:
    return folder_step(name) is not None or _LIKE.fullmatch(name) is not None or is_last(name)
