"""Plain state dicts: a folder of files named after steps, or one file that holds a list of them (as papers on toy models do).

Nothing says the architecture: an adapter builds the module, or ``config`` is given and the names are transformers'.
The step is what a file says inside, else the number in its name; an epoch counts as a step.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CheckpointError, UserError
from ..files.tensors import TensorInfo
from ..files.torchfile import contents, plain_names, state_dict_at, tensors_at, tensors_digest
from ..files.weights import files_digest
from ..loading import Prepared
from .base import FoundCheckpoint, LayoutOptions, converted, given_config
from .content import KeyPath, Listed, recorded_step, state_dict_list, state_dict_path

if TYPE_CHECKING:
    from transformers import PretrainedConfig

__all__ = ["EXPECTED", "NEEDS_CONFIG", "config", "files", "find", "header", "read"]

EXPECTED = "files step100.pth, epoch_100.pt, model_0100.pt, ..., or one file with a list of state dicts"
NEEDS_CONFIG = False

_WHAT = r"(?:model|ckpt|checkpoint|weights|state_?dict|net)"
_COUNT = r"(?:global_step|step|epoch|iteration|iter)"
_NAME = re.compile(rf"^(?:{_WHAT}[-_.]?)?(?:{_COUNT}[-_.=]?)?0*(\d+)\.(?:pt|pth|bin)$")
"""Names of optimizers, schedulers, random states and parts (``-00001-of-00002``) do not match."""


def find(root: Path, options: LayoutOptions) -> list[FoundCheckpoint]:
    """The state dicts in a file, or the files of a folder that are named after steps."""
    if root.is_file():
        return _in_file(root, options)
    found, faults = [], []
    named = ((_NAME.match(file.name), file) for file in sorted(root.iterdir()) if file.is_file())
    for match, file in named:
        if match is None:
            continue
        step = None
        try:
            content = contents(file)
            _key_path(file, content, "")
            step = recorded_step({**content, "epoch": None})  # the name knows better than an epoch
        except CheckpointError as error:
            faults.append(error)
        found.append(FoundCheckpoint(int(match[1]) if step is None else step, file.name))
    if found and len(faults) == len(found):
        raise faults[0]
    return found


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
    )


def _in_file(file: Path, options: LayoutOptions) -> list[FoundCheckpoint]:
    content = contents(file)
    listed = state_dict_list(content)
    if listed is not None:
        steps = _steps(file, listed, options)
        return [FoundCheckpoint(step, f"{file.name}#{index}") for index, step in enumerate(steps)]
    keys = _key_path(file, content, "")
    match = _NAME.match(file.name)
    step = recorded_step(content)
    said = [step] if step is not None else [int(match[1])] if match else None
    return [FoundCheckpoint(step, file.name) for step in _steps(file, Listed([keys], said), options)]


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
