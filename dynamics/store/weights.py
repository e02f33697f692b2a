"""What was measured on the weights alone, of every checkpoint of a trace."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
import zarr

from .declaration import WEIGHTS
from .format import TOGETHER, open_group

__all__ = ["WeightSketches"]


class WeightSketches:
    """What was measured on the weights of every checkpoint of a trace (missing: NaN): see :data:`WEIGHTS`.

    What is damaged is missing, too: a checkpoint that cannot be measured again must not stand in the way of others.
    Indexed by an array of checkpoints it gives their sketches, (index, sample), which are read then: those of thousands of
    checkpoints are large.

    Attributes:
        norm: (checkpoint,).
        nonfinite: (checkpoint,).
    """

    def __init__(self, path: Path) -> None:
        root = open_group(path, mode="r")
        arrays = {name: root[f"{WEIGHTS}/{name}"] for name in ("sketch", "norm", "nonfinite")}
        self._arrays = {name: array for name, array in arrays.items() if isinstance(array, zarr.Array)}
        some = [np.arange(at, min(at + TOGETHER, len(self))) for at in range(0, max(1, len(self)), TOGETHER)]
        self.norm = np.concatenate([self._read("norm", part) for part in some])
        self.nonfinite = np.maximum(np.concatenate([self._read("nonfinite", part) for part in some]), 0)

    def __len__(self) -> int:
        return self._arrays["sketch"].shape[0]

    def __getitem__(self, checkpoints: np.ndarray) -> np.ndarray:
        return self._read("sketch", checkpoints)

    def _read(self, name: str, checkpoints: np.ndarray) -> np.ndarray:
        array = self._arrays[name]
        in_a_row = len(checkpoints) and checkpoints[-1] - checkpoints[0] == len(checkpoints) - 1
        try:
            if in_a_row:  # what lies together is read faster
                return np.asarray(array[int(checkpoints[0]) : int(checkpoints[-1]) + 1])
            return np.asarray(array.oindex[checkpoints])
        except Exception:  # whatever reading a damaged chunk raises
            found = np.full((len(checkpoints), *array.shape[1:]), array.fill_value, dtype=array.dtype)
            for at, index in enumerate(checkpoints.tolist()):
                with suppress(Exception):
                    found[at] = array[index]
            return found
