"""One sub-folder per checkpoint, as ``save_pretrained`` and the HF Trainer write them.

Tokens come from ``trainer_state.json`` (``num_input_tokens_seen``). ``training_args.bin`` and ``optimizer.pt`` are
pickles and are never opened.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..configs import read_config
from ..files import weights
from ..files.tensors import TensorInfo
from ..foreign import read_json
from ..loading import Prepared, prepare
from .base import FoundCheckpoint, LayoutOptions, converted, given_config, step_folders

if TYPE_CHECKING:
    from transformers import PretrainedConfig

__all__ = ["EXPECTED", "NEEDS_CONFIG", "config", "files", "find", "header", "read"]

EXPECTED = "sub-folders stepN or checkpoint-N, each with config.json and *.safetensors or pytorch_model*.bin"
NEEDS_CONFIG = False


def find(root: Path, options: LayoutOptions) -> list[FoundCheckpoint]:
    """Every sub-folder that is named after a step, if any has weights: one without is a fault, not a gap."""
    named = step_folders(root)
    usable = weights.has_weights if options.config is None else weights.weight_files
    if not any(usable(path) for _, path in named):
        return []
    return [FoundCheckpoint(step, path.name, _tokens(path)) for step, path in named]


def files(path: Path) -> list[Path]:
    """Its safetensors, else its ``.bin`` files."""
    return weights.weight_files(path)


def header(path: Path) -> dict[str, TensorInfo]:
    """From the headers of the safetensors files."""
    return weights.header(path)


def config(path: Path, options: LayoutOptions) -> PretrainedConfig | None:
    """The given one, else its ``config.json``."""
    return given_config(options) or read_config(path)


def read(path: Path, options: LayoutOptions) -> Prepared:
    """As ``from_pretrained`` would, unless another config is given."""
    prepared = prepare(path)
    given = given_config(options)
    return prepared if given is None else converted(path, prepared.tensors, prepared.digest, given)


def _tokens(folder: Path) -> int | None:
    try:
        content = read_json(folder / "trainer_state.json", dict)
    except (OSError, ValueError):  # none, or truncated: what it would have said is unknown
        return None
    seen = content.get("num_input_tokens_seen")
    return seen if type(seen) is int and 0 < seen < 2**63 else None
