"""Loading checkpoints of one series into a *resident* model: built once, then overwritten in place.

The first checkpoint is loaded by ``transformers`` and required to be complete. From then on a checkpoint whose files
have the same tensors is copied over the resident parameters, which skips building the model again. The in-place path
is only taken after it has been proved on the first checkpoint: every parameter must equal, bit for bit, the tensor
that the name table assigns to it. Where the table does not fit (an architecture that fuses or renames tensors in a
way it does not know), every checkpoint goes through ``from_pretrained``: slower, same result.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import CheckpointError
from .weights import TensorInfo, read_tensors, weights_digest

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel

__all__ = ["Prepared", "ResidentModel", "compare_headers", "load_tokenizer", "prepare", "read_config"]

# Stored by older versions of transformers and recomputed by newer ones: masks and rotary tables.
_LEGACY = re.compile(
    r"(^|\.)((attn|attention)\.(bias|masked_bias)|rotary_emb\.inv_freq|rotary_emb\.(cos|sin)_cached|position_ids)$"
)
_RENAMED = ((re.compile(r"^embed_out\."), "lm_head."),)


@dataclass(frozen=True)
class Prepared:
    """The weights of one checkpoint in CPU memory, ready to be copied into the resident model.

    Attributes:
        folder: where they were read from.
        tensors: stored name to tensor, in the stored dtype.
        digest: sha256 of the weight files.
        stored_dtype: the floating dtypes of the files, e.g. ``float32`` (several joined by ``+``).
    """

    folder: Path
    tensors: dict[str, torch.Tensor]
    digest: str
    stored_dtype: str


def prepare(folder: Path) -> Prepared:
    """Read one checkpoint into CPU memory; safe to run in a thread while another checkpoint computes."""
    tensors = read_tensors(folder)
    kinds = {str(t.dtype).removeprefix("torch.") for t in tensors.values() if t.is_floating_point()}
    return Prepared(folder, tensors, weights_digest(folder), "+".join(sorted(kinds)))


def load_tokenizer(folder: Path) -> Any:
    """The fast tokenizer in a local folder (character offsets need a fast one).

    Raises:
        CheckpointError: when there is none or it cannot be read.
    """
    from transformers import AutoTokenizer

    if not folder.is_dir():
        raise CheckpointError(f"there is no folder {folder}", expected="the folder of a tokenizer")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, use_fast=True)
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"no usable tokenizer in {folder}: {str(error).splitlines()[0]}",
            expected="a tokenizer.json that transformers can read",
            remedy="name the tokenizer's folder as `series.tokenizer` in the runs file",
        ) from error
    if not tokenizer.is_fast:
        raise CheckpointError(
            f"the tokenizer in {folder} is a slow one, which cannot tell which token holds which character",
            expected="a fast tokenizer (tokenizer.json)",
        )
    return tokenizer


def compare_headers(reference: dict[str, TensorInfo], other: dict[str, TensorInfo]) -> list[str]:
    """What differs between two checkpoints' tensors, as sentences; names of no consequence are left out.

    >>> compare_headers({"w": TensorInfo((2,), "F32")}, {"w": TensorInfo((3,), "F32"), "x": TensorInfo((1,), "F32")})
    ["'w' has shape (3,), not (2,)", "'x' is unexpected"]
    """
    problems = []
    for name in sorted(reference.keys() | other.keys()):
        if _LEGACY.search(name):
            continue
        if name not in other:
            problems.append(f"{name!r} is missing")
        elif name not in reference:
            problems.append(f"{name!r} is unexpected")
        elif reference[name].shape != other[name].shape:
            problems.append(f"{name!r} has shape {other[name].shape}, not {reference[name].shape}")
    return problems


class ResidentModel:
    """One model in memory whose weights are replaced checkpoint by checkpoint.

    Args:
        device: torch device name.
        dtype: dtype to compute in: ``float32``, ``float16`` or ``bfloat16``.

    Attributes:
        in_place: how many checkpoints were copied in place.
        rebuilt: how many went through ``from_pretrained`` (the first one always does).
    """

    def __init__(self, device: str = "cpu", dtype: str = "float32") -> None:
        self._device = device
        self._dtype = dtype
        self._model: PreTrainedModel | None = None
        self._config: dict[str, Any] = {}
        self._names: dict[str, str] | None = None
        self.in_place = 0
        self.rebuilt = 0

    @property
    def model(self) -> PreTrainedModel:
        """The model with the weights of the last :meth:`install`."""
        if self._model is None:
            raise RuntimeError("no checkpoint has been installed yet")
        return self._model

    def install(self, prepared: Prepared) -> PreTrainedModel:
        """Make ``prepared`` the resident weights.

        Raises:
            CheckpointError: when a tensor is missing, unexpected, of another shape, or the config cannot be read.
        """
        import torch

        config = read_config(prepared.folder)
        identity = _architecture(config)
        if self._model is not None and identity == self._config and self._fits(prepared):
            self._copy(prepared)
            self.in_place += 1
            return self._model
        self._model = None  # let go of the old weights before the new ones are built
        self._model = _from_pretrained(prepared.folder, config, getattr(torch, self._dtype), self._device)
        self._config = identity
        self._names = _proved_names(self._model, prepared.tensors)
        self.rebuilt += 1
        return self._model

    def _fits(self, prepared: Prepared) -> bool:
        """Whether the name table covers these tensors exactly; what does not fit is loaded, or refused, by transformers."""
        import torch

        assert self._model is not None
        if self._names is None or self._names.keys() != {name for name in prepared.tensors if not _LEGACY.search(name)}:
            return False
        state = self._model.state_dict()
        shared: dict[int, torch.Tensor] = {}
        for source, target in self._names.items():
            value = prepared.tensors[source]
            if value.shape != state[target].shape:
                return False
            # a tied weight may be stored under two names, and then only counts as tied where both are equal
            first = shared.setdefault(state[target].data_ptr(), value)
            if first is not value and not torch.equal(first, value):
                return False
        return True

    def _copy(self, prepared: Prepared) -> None:
        import torch

        assert self._model is not None and self._names is not None
        state = self._model.state_dict()
        with torch.no_grad():
            for source, target in self._names.items():
                state[target].copy_(prepared.tensors[source])


def read_config(folder: Path) -> PretrainedConfig:
    """The model config in a checkpoint's folder.

    Raises:
        CheckpointError: when it is missing or of an unknown architecture.
    """
    from transformers import AutoConfig

    try:
        with _quiet():
            return AutoConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"the config in {folder} cannot be used: {str(error).splitlines()[0]}",
            expected="a config.json of an architecture that transformers knows",
        ) from error


def _architecture(config: PretrainedConfig) -> dict[str, Any]:
    ignored = {"_name_or_path", "transformers_version", "dtype", "torch_dtype"}
    return {key: value for key, value in config.to_dict().items() if key not in ignored}


def _from_pretrained(folder: Path, config: PretrainedConfig, dtype: torch.dtype, device: str) -> PreTrainedModel:
    from transformers import AutoModelForCausalLM

    with _quiet():
        try:
            model, info = AutoModelForCausalLM.from_pretrained(
                folder,
                config=config,
                dtype=dtype,
                attn_implementation="eager",  # the only implementation that returns attention patterns
                local_files_only=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # reported below, with names
            )
        except torch.OutOfMemoryError:  # the machine's fault, not the checkpoint's
            raise
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise CheckpointError(f"{folder} cannot be loaded: {str(error).splitlines()[0]}") from error
    missing = sorted(info["missing_keys"])
    unexpected = sorted(k for k in info["unexpected_keys"] if not _LEGACY.search(k))
    wrong = sorted(entry[0] if isinstance(entry, tuple) else str(entry) for entry in info["mismatched_keys"])
    if missing or unexpected or wrong:
        raise _incomplete(folder, missing, unexpected, wrong)
    return model.to(device).eval()


def _incomplete(folder: Path, missing: list[str], unexpected: list[str], wrong: list[str]) -> CheckpointError:
    parts = [
        f"{len(names)} {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for what, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", wrong))
        if names
    ]
    return CheckpointError(
        f"{folder} does not fit its config: tensors {'; '.join(parts)}",
        expected="every tensor of the architecture once, and no other; nothing is ever initialised silently",
        remedy="save or copy this checkpoint again, or leave its step out with `exclude` in the runs file",
    )


def _proved_names(model: PreTrainedModel, tensors: dict[str, torch.Tensor]) -> dict[str, str] | None:
    """Stored name -> state-dict name, if that table reproduces the loaded model exactly; else None."""
    import torch

    state = model.state_dict()
    prefix = f"{model.base_model_prefix}."
    names: dict[str, str] = {}
    for stored in tensors:
        if _LEGACY.search(stored):
            continue
        renamed = stored
        for pattern, replacement in _RENAMED:
            renamed = pattern.sub(replacement, renamed)
        target = next((n for n in (stored, renamed, prefix + stored) if n in state), None)
        if target is None:
            return None
        names[stored] = target
    filled = {state[target].data_ptr() for target in names.values()}
    if any(value.data_ptr() not in filled for value in state.values()):  # tied weights share memory
        return None
    same = all(
        state[target].shape == tensors[stored].shape and torch.equal(state[target], tensors[stored].to(state[target]))
        for stored, target in names.items()
    )
    return names if same else None


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers' own progress bars and load reports off the terminal; what matters is raised instead."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
