"""Checkpoints that hold an adapter alone (LoRA, DoRA, ...), as trainers save them with ``peft``: merged into their model.

The model is in none of them; ``series.base`` in the runs file names its folder. It is read once and kept, and what is
measured at each step is that model with the step's adapter merged in, in single precision. ``peft`` says how; nothing of
a file is executed.
"""

from __future__ import annotations

import copy
import hashlib
import json
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from ..configs import quiet, read_config
from ..errors import CheckpointError, UserError, first_line, shown
from ..files import weights
from ..files.owned import files_state
from ..loading import Prepared, ResidentModel, prepare, stored_dtype
from ..wrappers import plain, unwrapped

if TYPE_CHECKING:
    import torch

__all__ = ["ADAPTER_CONFIG", "ADAPTER_FILES", "Base", "adapter_files", "require_base", "require_peft"]

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_FILES = ("adapter_model.safetensors", "adapter_model.bin")
_KINDS = ("LORA", "ADALORA", "LOHA", "LOKR", "IA3", "OFT", "BOFT", "VERA")
"""Others are prompts, or load more than lies in the folder."""
_KEEPS = (True, False, "gaussian", "eva", "orthogonal")
"""Ways to begin an adapter that leave the model's own weights as they are."""


def adapter_files(folder: Path) -> list[Path]:
    """The files of an adapter in a folder without whole weights, that of its tensors first; empty where there is none."""
    places = _places(folder)
    return [] if len(places) != 1 or weights.weight_files(folder) else _files(places[0])


def _places(folder: Path) -> list[Path]:
    """The folder itself or, as `peft` saves an adapter that has a name, its sub-folders that hold one."""
    if _files(folder):
        return [folder]
    try:
        return sorted(file.parent for file in folder.glob(f"*/{ADAPTER_CONFIG}") if _files(file.parent))
    except OSError:  # not ours to read
        return []


def _files(folder: Path) -> list[Path]:
    found = [folder / name for name in ADAPTER_FILES if (folder / ADAPTER_CONFIG).is_file()]
    return next(([file, folder / ADAPTER_CONFIG] for file in found if file.is_file()), [])


def require_base(root: Path, folders: list[Path], base: Base | None) -> None:
    """That there is a model for checkpoints that are adapters, and only for these.

    Raises:
        UserError: when there is not, or ``peft`` is missing.
    """
    for path in folders:
        if len(places := _places(path)) > 1 and not weights.weight_files(path):
            raise UserError(
                f"{path} holds {len(places)} adapters without their model: {', '.join(p.name for p in places)}",
                expected="one adapter in a checkpoint",
                remedy="move the others away, or merge them where they were trained and save that",
            )
    alone = [path for path in folders if adapter_files(path)]
    if alone and any(map(weights.weight_files, folders)):
        raise UserError(
            f"{root} holds {len(alone)} adapters without their model, such as {alone[0].name}, and whole checkpoints",
            expected="a series of one kind",
            remedy="move the others away",
        )
    if alone and base is None:
        raise UserError(
            f"{root} holds adapters without their model ({adapter_files(alone[0])[0].relative_to(root)}, ...), as peft "
            "saves them",
            expected="the model that they were trained on",
            remedy="name its folder as `series.base` in the runs file, or merge them (`merge_and_unload`) and save that",
        )
    if alone:
        require_peft(str(root))
    if folders and not alone and base is not None:
        raise UserError(
            f"{root} holds whole checkpoints, and the runs file names a base for adapters",
            expected="`series.base` only where checkpoints are adapters",
            remedy="remove it from the series in the runs file",
        )


def require_peft(where: str) -> None:
    """That adapters can be merged.

    Raises:
        UserError: when ``peft`` is missing.
    """
    if find_spec("peft") is None:
        raise UserError(
            f"{where} holds adapters, and the package peft, which merges them, is not installed",
            expected="peft, or whole checkpoints",
            remedy="pip install 'circuit-dynamics[adapters]'",
        )


class Base:
    """The model that adapters were trained on; read when the first is, and again when its files have changed.

    Args:
        folder: in transformers' own format.

    Raises:
        UserError: when there is no such model.
    """

    def __init__(self, folder: Path) -> None:
        if not weights.has_weights(folder):
            raise UserError(
                f"there is no model in {folder}",
                expected="the folder of the model that the adapters were trained on: config.json and its weights",
                remedy="correct `series.base`; relative paths are relative to the runs file",
            )
        self.folder = folder
        self._lock = Lock()
        self._state: Any = None
        self._model: torch.nn.Module | None = None
        self._digest = self._dtype = ""

    def merged(self, folder: Path) -> Prepared:
        """The model with the adapter in a folder.

        Raises:
            CheckpointError: when the adapter cannot be read, does not fit, or is no change of weights.
        """
        with self._lock:  # readers are threads, and injecting an adapter is not for two of them
            model = self._loaded()
            files = adapter_files(folder)
            tensors, digest = weights.read_tensors(folder, files=files[:1])
            try:
                said = files[1].read_bytes()
                state = _merged(model, json.loads(said), tensors)
            except CheckpointError as error:
                error.add_note(f"in {folder}")
                raise
            except Exception as error:  # whatever its settings may hold, and whatever peft says of it
                raise CheckpointError(
                    f"the adapter in {folder} cannot be merged into {self.folder}: {first_line(error)}",
                    expected="an adapter of that model",
                    remedy="correct `series.base` in the runs file, or save the adapter again",
                ) from error
            together = hashlib.sha256("\n".join((self._digest, hashlib.sha256(said).hexdigest(), digest)).encode())
            dtypes = "+".join(sorted({*self._dtype.split("+"), *stored_dtype(tensors).split("+")}))
            return Prepared(folder, state, together.hexdigest(), dtypes, read_config(self.folder), native=False)

    def _loaded(self) -> torch.nn.Module:
        state = files_state(weights.weight_files(self.folder))
        if self._model is None or state != self._state:
            self._model = None
            prepared = prepare(self.folder)
            self._model = ResidentModel().install(prepared)
            self._state, self._digest, self._dtype = state, prepared.digest, prepared.stored_dtype
        return self._model


def _merged(model: torch.nn.Module, settings: Any, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The state of the model with an adapter; what the adapter leaves alone is the model's own memory."""
    import peft

    if settings.get("peft_type") not in _KINDS:
        raise CheckpointError(
            f"the adapter is of the kind {shown(settings.get('peft_type'))}",
            expected=f"a change of weights: {', '.join(_KINDS)}",
            remedy="merge it where it was trained, and save that",
        )
    kinds: Any = peft.PeftConfig
    config = kinds.from_peft_type(**settings)
    begun = getattr(config, "init_lora_weights", True)
    if begun not in _KEEPS or getattr(config, "megatron_config", None) is not None:
        raise CheckpointError(
            f"the adapter was begun by {begun!r}, which changes the model's own weights"
            if begun not in _KEEPS
            else "the adapter is of Megatron's layers",
            expected="an adapter of the model as it is in its folder",
            remedy="merge it where it was trained, and save that",
        )
    with quiet():
        # the modules are new ones, and their tensors the model's
        shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
        wrapped = peft.PeftModel(copy.deepcopy(model, shared), config, low_cpu_mem_usage=True)
        found: Any = peft.set_peft_model_state_dict(wrapped, tensors, low_cpu_mem_usage=True)
        missing = [name for name, value in wrapped.named_parameters() if value.device.type == "meta"]
        if missing or found.unexpected_keys:
            raise CheckpointError(
                f"the adapter does not fit its settings: {len(missing)} missing, {len(found.unexpected_keys)} unexpected "
                f"({[*missing, *found.unexpected_keys][0]}, ...)",
                expected="every tensor of the adapter once, and no other",
                remedy="save the adapter again with `save_pretrained`; its adapter_config.json belongs to these weights alone",
            )
        root = unwrapped(wrapped.eval())
    with plain(root):
        return {name: tensor.detach() for name, tensor in root.state_dict().items()}
