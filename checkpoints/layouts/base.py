"""What every layout has: a module with these functions, so that a new one is one file."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from ..configs import read_config
from ..errors import CheckpointError
from ..files.tensors import TensorInfo
from ..files.torchfile import KeptFile
from ..loading import Prepared, stored_dtype

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig

__all__ = [
    "FoundCheckpoint",
    "Layout",
    "LayoutOptions",
    "converted",
    "found_folders",
    "given_config",
    "step_folders",
    "step_of",
    "unknown_tensors",
    "zero_biases",
]

_NAME = re.compile(r"^(?:global_step|step|checkpoint|iter)[-_]?0*(\d+)$")


class FoundCheckpoint(NamedTuple):
    """A checkpoint that a layout found.

    Attributes:
        step: optimizer steps done.
        revision: path below the series' folder; with ``#index`` where several checkpoints share a file.
        tokens: tokens seen, where the files say it.
    """

    step: int
    revision: str
    tokens: int | None = None


@dataclass(frozen=True)
class LayoutOptions:
    """What the runs file adds to what the files say.

    Attributes:
        config: folder or file of a transformers config, which wins over what the files say.
        steps: the steps of a list of state dicts.
        every: or the steps between them.
        kept: keeps a file of several checkpoints open between reads.
    """

    config: Path | None = None
    steps: tuple[int, ...] | None = None
    every: int | None = None
    kept: KeptFile = field(default_factory=KeptFile, compare=False)


class Layout(Protocol):
    """How some trainer lays out its checkpoints. A ``path`` below is what :class:`FoundCheckpoint`'s revision leads to."""

    EXPECTED: str
    """What the files look like, for messages."""
    NEEDS_CONFIG: bool
    """Whether the architecture can only come from :attr:`LayoutOptions.config`."""

    def find(self, root: Path, options: LayoutOptions) -> list[FoundCheckpoint]:
        """The checkpoints below a path, in any order; empty if there are none in this layout.

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


def step_of(name: str) -> int | None:
    """The step that a folder is named after.

    >>> step_of("step-00000100"), step_of("checkpoint-500"), step_of("final")
    (100, 500, None)
    """
    match = _NAME.match(name)
    return None if match is None else int(match[1])


def found_folders(root: Path, files: Callable[[Path], list[Path]]) -> list[FoundCheckpoint]:
    """Every sub-folder that is named after a step, if any has weight files: one without is a fault, not a gap."""
    named = step_folders(root)
    return [FoundCheckpoint(step, path.name) for step, path in named] if any(files(path) for _, path in named) else []


def step_folders(root: Path) -> list[tuple[int, Path]]:
    """Sub-folders that are named after a step and are not empty, by name."""
    if not root.is_dir():
        return []
    named = ((step_of(p.name), p) for p in sorted(root.iterdir()) if p.is_dir())
    return [(step, path) for step, path in named if step is not None and any(path.iterdir())]


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
