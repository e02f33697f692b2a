"""Plain state dicts: a folder of files named after steps, or one file that holds a list of them (as papers on toy models do).

Nothing says the architecture: an adapter builds the module, or ``config`` is given and the names are transformers'.
The step is what a file says inside, else the number in its name; an epoch inside counts where no file says anything better.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import CheckpointError, UserError
from ..files.owned import FilesState, files_state
from ..files.tensors import TensorInfo
from ..files.torchfile import contents, plain_names, state_dict_at, tensors_at, tensors_digest
from ..files.weights import files_digest
from ..loading import Prepared
from .base import Found, FoundCheckpoint, LayoutOptions, converted, given_config, with_contradictions
from .content import KeyPath, Listed, copies, recorded_step, state_dict_list, state_dict_path
from .names import file_step, is_last, step_in

if TYPE_CHECKING:
    from transformers import PretrainedConfig

__all__ = ["EXPECTED", "NEEDS_CONFIG", "config", "files", "find", "header", "read"]

EXPECTED = "files step100.pth, epoch_100.pt, model_0100.pt, ..., or one file with a list of state dicts"
NEEDS_CONFIG = False


class _File(NamedTuple):
    """What a file says of its step.

    Attributes:
        name: of the file.
        number: in its name.
        is_epoch: whether the name calls the number an epoch.
        step: inside.
        epoch: inside.
        copies: keys of other state dicts in it.
        fault: why it cannot be read.
        state: of the file before it was read.
    """

    name: str
    number: int | None
    is_epoch: bool
    step: int | None = None
    epoch: int | None = None
    copies: tuple[str, ...] = ()
    fault: CheckpointError | None = None
    state: FilesState = ()


def find(root: Path, options: LayoutOptions) -> Found:
    """The state dicts in a file, or the files of a folder that are named after steps or say their step inside."""
    if root.is_file():
        return Found(_in_file(root, options))
    files = [f for path in sorted(root.iterdir()) if path.is_file() and (f := _look(path, options)) is not None]
    numbered = [f for f in files if f.number is not None]
    if numbered and all(f.fault for f in numbered):
        raise next(f.fault for f in numbered if f.fault)
    whole = [f for f in files if f.fault is None]
    # the number in a name knows better than an epoch inside, unless it is one
    epochs = all(f.step is None and (f.is_epoch or f.number == f.epoch) for f in whole if f.number is not None)
    epochs = epochs and (any(f.number is not None for f in whole) or all(f.step is None for f in whole))
    found, left_out = [], {}
    for file in files:
        said = file.step if file.step is not None else file.number
        if options.pattern is not None:
            said = file.number
        elif epochs and file.number is None:
            said = file.epoch
        if said is not None:
            found.append(FoundCheckpoint(said, file.name, numbered=file.number is not None, state=file.state))
        elif file.fault is not None:
            left_out[file.name] = f"its name says no step, and {file.fault.observed}"
        else:
            found_there = [("step", file.step, "epochs"), ("epoch", file.epoch, "steps")]
            left_out[file.name] = next(
                (
                    f"it says {what} {n}, where others count {others}"
                    for what, n, others in found_there
                    if n is not None
                ),
                "it says no step",
            )
    for key in sorted({key for f in whole for key in f.copies}):
        names = [f.name for f in whole if key in f.copies]
        more = f" (and in {len(names) - 1} more)" if len(names) > 1 else ""
        left_out[f"`{key}` in {names[0]}{more}"] = "it is a second copy of the model's tensors"
    if options.pattern is None:
        named = {f.name: f.number for f in whole if f.number is not None and f.step is not None}
        found = with_contradictions(found, named)
    return Found(found, left_out)


def _look(path: Path, options: LayoutOptions) -> _File | None:
    """What a file says; None for one that is none by its name, which is not opened."""
    if options.pattern is not None:
        step = step_in(path.name, options.pattern)
        named = None if step is None else (step, False)
    else:
        named = file_step(path.name)
    if named is None and (options.pattern is not None or not is_last(path.name)):
        return None
    number, is_epoch = named or (None, False)
    file = _File(path.name, number, is_epoch, state=files_state([path]))
    try:
        content = contents(path)
        keys = _key_path(path, content, "")
    except CheckpointError as error:
        return file._replace(fault=error)
    step = recorded_step({**content, "epoch": None})
    return file._replace(step=step, epoch=recorded_step({"epoch": content.get("epoch")}), copies=copies(content, keys))


def files(path: Path) -> list[Path]:
    """The file, which may hold other checkpoints too."""
    return [_split(path)[0]]


def header(path: Path) -> dict[str, TensorInfo]:
    """The tensors of this state dict."""
    file, index = _split(path)
    content = contents(file)
    return plain_names(state_dict_at(content, _key_path(file, content, index)), file)


def config(path: Path, options: LayoutOptions) -> PretrainedConfig | None:
    """The given one, or none."""
    return given_config(options)


def read(path: Path, options: LayoutOptions) -> Prepared:
    """The tensors of this state dict, under their own names."""
    file, index = _split(path)
    content = options.kept.contents(file) if index else contents(file)
    tensors = tensors_at(file, _key_path(file, content, index), content=content)
    digest = tensors_digest(tensors) if index else files_digest([file])
    return converted(path, tensors, digest, given_config(options))


def _split(path: Path) -> tuple[Path, str]:
    """``file#3`` as file and 3."""
    name, mark, index = path.name.rpartition("#")
    return (path.with_name(name), index) if mark and not path.exists() else (path, "")


def _key_path(file: Path, content: Any, index: str) -> KeyPath:
    if index:
        listed = state_dict_list(content)
        if listed is not None and index.isdecimal() and int(index) < len(listed.paths):
            return listed.paths[int(index)]
    else:
        keys = state_dict_path(content)
        if keys is not None:
            return keys
    raise CheckpointError(
        f"{file} holds no state dict" + (f" number {index}" if index else ""),
        expected="tensors by name; or a dict with `model`, `state_dict` or `model_state_dict`; or a list of such",
        remedy="save `model.state_dict()`, or name as `series.path` the files that hold weights alone",
    )


def _in_file(file: Path, options: LayoutOptions) -> list[FoundCheckpoint]:
    state = files_state([file])
    content = contents(file)
    listed = state_dict_list(content)
    if listed is not None:
        steps = _steps(file, listed, options)
        return [FoundCheckpoint(step, f"{file.name}#{index}") for index, step in enumerate(steps)]
    keys = _key_path(file, content, "")
    named, step = file_step(file.name), recorded_step(content)
    said = [step] if step is not None else [named[0]] if named else None
    return [FoundCheckpoint(step, file.name, state=state) for step in _steps(file, Listed([keys], said), options)]


def _steps(file: Path, listed: Listed, options: LayoutOptions) -> list[int]:
    count = len(listed.paths)
    given = list(options.steps) if options.steps is not None else None
    if options.every is not None:
        given = [options.every * index for index in range(count)]
    if given is not None and len(given) != count:
        raise UserError(
            f"{file} holds {count} state dict(s), and `steps` names {len(given)} step(s)",
            expected="one step for each, in the order of the file",
            remedy="correct `series.steps` in the runs file",
        )
    if given is not None and listed.steps is not None and given != listed.steps:
        raise UserError(
            f"{file} says itself which steps it holds ({_some(listed.steps)}), and the runs file says others",
            expected="one answer",
            remedy="remove `steps` and `every` from the series in the runs file",
        )
    steps = given if given is not None else listed.steps
    if steps is None:
        raise UserError(
            f"{file} holds {count} state dict(s) and does not say their steps",
            expected="steps beside them in the file, or in the runs file",
            remedy="give `series.steps: [0, 100, ...]`, one for each, or `series.every: 100`",
        )
    return steps


def _some(steps: list[int]) -> str:
    return ", ".join(map(str, steps[:5])) + (", ..." if len(steps) > 5 else "")
