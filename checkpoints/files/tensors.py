"""What is said of a stored tensor, and of a file that cannot or must not be read."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from ..errors import CheckpointError

__all__ = ["TensorInfo", "refused", "unreadable"]


class TensorInfo(NamedTuple):
    """Shape and dtype (as the file names it, e.g. ``F32``) of one stored tensor."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def floating(self) -> bool:
        """Whether its numbers are real ones, of whatever precision.

        >>> [TensorInfo((1,), dtype).floating for dtype in ("BF16", "float32", "F8_E4M3", "I8", "C64", "bool")]
        [True, True, True, False, False, False]
        """
        return self.dtype.removeprefix("torch.").upper().startswith(("F", "BF"))


def refused(file: Path, what: str) -> CheckpointError:
    """The error for a pickle that would do more than hold tensors."""
    return CheckpointError(
        f"{file} was refused: it is a pickle that holds more than tensors ({what})",
        expected="a state dict of tensors",
        remedy="get the weights as safetensors, or have their owner save them again",
    )


def unreadable(file: Path, error: Exception) -> CheckpointError:
    """The error for a file that is damaged, or is something else."""
    first = (str(error).splitlines() or ["empty file"])[0]
    return CheckpointError(
        f"{file} cannot be read as weights: {first}",
        expected="a complete weight file",
        remedy="copy or save this checkpoint again; it may be truncated",
    )
