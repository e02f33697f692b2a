"""One sub-folder per checkpoint, as ``save_pretrained`` and the HF Trainer write them.

Tokens come from ``trainer_state.json`` (``num_input_tokens_seen``), and its ``global_step`` is compared with the name. ``training_args.bin`` and ``optimizer.pt`` are
pickles and are never opened.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..configs import read_config
from ..errors import CheckpointError
from ..files import weights
from ..files.tensors import TensorInfo
from ..foreign import read_json
from ..loading import Prepared, prepare
from ..series import LAST_STEP
from .adapters import ADAPTER_FILES, adapter_files, require_base
from .base import Found, LayoutOptions, converted, found_folders, given_config
from .content import recorded_step

if TYPE_CHECKING:
    from transformers import PretrainedConfig

__all__ = ["EXPECTED", "NEEDS_CONFIG", "config", "files", "find", "header", "others_said", "read", "trainer_state"]

EXPECTED = (
    "sub-folders stepN or checkpoint-N, each with config.json and *.safetensors or pytorch_model*.bin, or with an adapter "
    "(adapter_config.json and adapter_model.*)"
)
NEEDS_CONFIG = False


def find(root: Path, options: LayoutOptions) -> Found:
    """Every sub-folder that is named after a step, and ``final`` if it says its step; one without weights is a fault."""
    usable = weights.has_weights if options.config is None else weights.weight_files
    found = found_folders(root, lambda path: files(path) if usable(path) or adapter_files(path) else [], options, _said)
    require_base(root, [root / c.revision for c in found.checkpoints], options.base)
    checkpoints = []
    for checkpoint in found.checkpoints:
        said = trainer_state(root / checkpoint.revision)
        step = recorded_step({"step": said.get("global_step")})
        wrong = step not in (None, checkpoint.step) and options.pattern is None
        checkpoints.append(
            checkpoint._replace(
                tokens=_tokens(said), contradiction=f"its trainer_state.json says step {step}" if wrong else ""
            )
        )
    return Found(checkpoints, _others(root, [c.revision for c in checkpoints]))


def _others(root: Path, names: list[str]) -> dict[str, str]:
    """Files of weights beside those that checkpoints are read from."""
    chosen = {}
    for name in names:
        with suppress(CheckpointError, OSError):  # said when it is read
            found = weights.choice_in(root / name)
            beside = [n for n in ADAPTER_FILES if found.files and (root / name / n).is_file()]
            inner = [p for p in sorted((root / name).iterdir()) if found.files and p.is_dir()]
            beside += [f"{p.name}/{f.name}" for p in inner for f in weights.weight_files(p)]
            chosen[name] = found._replace(others=(*found.others, *beside))
    return others_said(chosen)


def others_said(chosen: Mapping[str, weights.Choice]) -> dict[str, str]:
    """What lies beside the weights of checkpoints and is not read, with the reason: checkpoint to its files."""
    there: dict[tuple[str, str], list[str]] = {}
    for name, choice in chosen.items():
        for other in choice.others:
            there.setdefault((other, choice.files[0] if choice.files else ""), []).append(name)
    return {
        f"{folders[0]}/{other}" + (f" (and in {len(folders) - 1} more)" if len(folders) > 1 else ""): (
            f"the weights are read from {first}" if first else "it belongs to another save"
        )
        for (other, first), folders in there.items()
    }


def files(path: Path) -> list[Path]:
    """Its safetensors, else its ``.bin`` files, else the files of an adapter."""
    return weights.weight_files(path) or adapter_files(path)


def header(path: Path) -> dict[str, TensorInfo]:
    """From the headers of the safetensors files."""
    return weights.header(path, files=adapter_files(path)[:1])


def config(path: Path, options: LayoutOptions) -> PretrainedConfig | None:
    """The given one, else its ``config.json``, or that of the model that it is an adapter of."""
    return given_config(options) or read_config(path if options.base is None else options.base.folder)


def read(path: Path, options: LayoutOptions) -> Prepared:
    """As ``from_pretrained`` would, unless another config is given."""
    if options.base is not None:
        return options.base.merged(path)
    prepared = prepare(path)
    given = given_config(options)
    return prepared if given is None else converted(path, prepared.tensors, prepared.digest, given)


def _said(folder: Path) -> int | None:
    return recorded_step({"step": trainer_state(folder).get("global_step")})


def _tokens(said: dict[str, Any]) -> int | None:
    seen = said.get("num_input_tokens_seen")
    return seen if type(seen) is int and 0 < seen <= LAST_STEP else None


def trainer_state(folder: Path) -> dict[str, Any]:
    """What the HF Trainer wrote of itself; empty where nothing can be read."""
    try:
        found: dict[str, Any] = read_json(folder / "trainer_state.json", dict)
        return found
    except (OSError, ValueError):  # none, or truncated: what it would have said is unknown
        return {}
