"""What every layout has: a module with these functions, so that a new one is one file."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple, Protocol

from ..configs import read_config
from ..errors import CheckpointError
from ..files.owned import FilesState
from ..files.tensors import TensorInfo
from ..files.torchfile import KeptFile
from ..loading import Prepared, stored_dtype
from .names import folder_step, is_last, step_in

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig

    from .adapters import Base

__all__ = [
    "Found",
    "FoundCheckpoint",
    "Layout",
    "LayoutOptions",
    "converted",
    "found_folders",
    "given_config",
    "step_folders",
    "unknown_tensors",
    "with_contradictions",
    "zero_biases",
]


class FoundCheckpoint(NamedTuple):
    """A checkpoint that a layout found.

    Attributes:
        step: optimizer steps done.
        revision: path below the series' folder; with ``#index`` where several checkpoints share a file.
        tokens: tokens seen, where the files say it.
        numbered: whether its name says the step, too; else it is one of those that are called final, last, ...
        contradiction: what else it says of its step, as a clause; empty where nothing contradicts.
        state: of the file whose content said the step, from before it was read for that (``files_state``); else empty.
    """

    step: int
    revision: str
    tokens: int | None = None
    numbered: bool = True
    contradiction: str = ""
    state: FilesState = ()


class Found(NamedTuple):
    """What a layout found.

    Attributes:
        checkpoints: in any order.
        left_out: what looks like a checkpoint, or like a part of one, and is not taken: name to the reason.
    """

    checkpoints: list[FoundCheckpoint]
    left_out: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class LayoutOptions:
    """What the runs file adds to what the files say.

    Attributes:
        config: folder or file of a transformers config, which wins over what the files say.
        steps: the steps of a list of state dicts.
        every: or the steps between them.
        pattern: that names of checkpoints match, with a group named step; it wins over what their files say.
        base: the model that the checkpoints are adapters of.
        kept: keeps a file of several checkpoints open between reads.
    """

    config: Path | None = None
    steps: tuple[int, ...] | None = None
    every: int | None = None
    pattern: re.Pattern[str] | None = None
    base: Base | None = None
    kept: KeptFile = field(default_factory=KeptFile, compare=False)


class Layout(Protocol):
    """How some trainer lays out its checkpoints. A ``path`` below is what :class:`FoundCheckpoint`'s revision leads to."""

    EXPECTED: str
    """What the files look like, for messages."""
    NEEDS_CONFIG: bool
    """Whether the architecture can only come from :attr:`LayoutOptions.config`."""

    def find(self, root: Path, options: LayoutOptions) -> Found:
        """The checkpoints below a path; none if there are none in this layout.

        One that is damaged is found all the same as long as its name says the step.

        Raises:
            UserError: when there is something in this layout that cannot be used at all.
        """

    def files(self, path: Path) -> list[Path]:
        """The files that its weights are read from; empty if it lost them."""

    def header(self, path: Path) -> dict[str, TensorInfo]:
        """The stored tensors of the model, without reading them.

        Raises:
            CheckpointError: when the files cannot be read, or would run code.
        """

    def config(self, path: Path, options: LayoutOptions) -> PretrainedConfig | None:
        """Its architecture; None if nothing says it, and an adapter has to build the module.

        Raises:
            CheckpointError: when what says it cannot be used.
        """

    def read(self, path: Path, options: LayoutOptions) -> Prepared:
        """Its weights, in CPU memory, under transformers' names unless :meth:`config` is None.

        Raises:
            CheckpointError: when the files cannot be read, would run code, or are of no architecture known here.
        """


def found_folders(
    root: Path, files: Callable[[Path], list[Path]], options: LayoutOptions, said: Said = lambda _path: None
) -> Found:
    """Every sub-folder that is named after a step, if any has weight files: one without is a fault, not a gap.

    Args:
        root: the series' folder.
        files: the weight files of a folder.
        options: what the runs file adds.
        said: the step that the files in a folder say; it counts for a folder that is called final, last, ...
    """
    found = [FoundCheckpoint(step, path.name) for step, path in step_folders(root, options)]
    if root.is_dir() and options.pattern is None:
        for path in sorted(root.iterdir()):
            if is_last(path.name) and path.is_dir() and files(path) and (step := said(path)) is not None:
                found.append(FoundCheckpoint(step, path.name, numbered=False))
    return Found(found if any(files(root / c.revision) for c in found) else [])


Said = Callable[[Path], int | None]


def step_folders(root: Path, options: LayoutOptions) -> list[tuple[int, Path]]:
    """Sub-folders that are named after a step and are not empty, by name."""
    if not root.is_dir():
        return []
    of = folder_step if options.pattern is None else partial(step_in, pattern=options.pattern)
    named = ((of(p.name), p) for p in sorted(root.iterdir()) if p.is_dir())
    return [(step, path) for step, path in named if step is not None and any(path.iterdir())]


def with_contradictions(found: list[FoundCheckpoint], named: Mapping[str, int]) -> list[FoundCheckpoint]:
    """Say of which checkpoints the name contradicts the step that the file says, where most names agree with theirs.

    Where most do not, names count something else.

    Args:
        found: checkpoints whose step is what their files say.
        named: revision to the number in the name.
    """
    agree = sum(named.get(c.revision) == c.step for c in found)
    if 2 * agree <= len(named):
        return found
    return [
        c
        if named.get(c.revision, c.step) == c.step
        else c._replace(contradiction=f"its name says step {named[c.revision]}")
        for c in found
    ]


def given_config(options: LayoutOptions) -> PretrainedConfig | None:
    """The config that the runs file names."""
    return None if options.config is None else read_config(options.config)


def converted(path: Path, tensors: dict[str, torch.Tensor], digest: str, config: PretrainedConfig | None) -> Prepared:
    """Weights that ``from_pretrained`` could not read where they lie."""
    return Prepared(path, tensors, digest, stored_dtype(tensors), config=config, native=False)


def unknown_tensors(path: Path, names: Iterable[str], family: str) -> CheckpointError:
    """The error for tensors that the architecture does not have."""
    names = sorted(names)
    some = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return CheckpointError(
        f"{path} holds {len(names)} tensor(s) that {family} does not have: {some}",
        expected=f"the tensors of {family} and no other",
        remedy="convert this series to transformers' format with its trainer's own tools, and use that",
    )


def zero_biases(tensors: dict[str, torch.Tensor], linear: Mapping[str, int]) -> None:
    """Add biases of zero where the stored model has none and transformers' has one: the two compute the same.

    Args:
        tensors: changed in place.
        linear: name of each such module (without ``.weight``) to the number of its outputs.
    """
    for module, outputs in linear.items():
        weight = tensors.get(f"{module}.weight")
        if weight is not None and f"{module}.bias" not in tensors:
            tensors[f"{module}.bias"] = weight.new_zeros(outputs)
