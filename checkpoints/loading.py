"""Loading checkpoints of one series into a *resident* model: built once, then overwritten in place.

What is loaded is :class:`Prepared`: the weights of one checkpoint in memory. Where they come from is the series'
affair (``Series.read``); most are folders in transformers' own format (:func:`prepare`).

The first checkpoint is loaded by ``transformers`` and required to be complete. From then on a checkpoint whose files
have the same tensors is copied over the resident parameters, which skips building the model again. The in-place path
is only taken after it has been proved on the first checkpoint: every parameter must equal, bit for bit, the tensor
that the name table assigns to it. Where the table does not fit (an architecture that fuses or renames tensors in a
way it does not know), every checkpoint goes through ``from_pretrained``: slower, same result.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .configs import architecture_of, model_class, quiet, read_config
from .errors import CheckpointError, UserError, first_line
from .files.tensors import TensorInfo
from .files.weights import IGNORED, read_tensors, weights_digest

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel

__all__ = [
    "Prepared",
    "ResidentModel",
    "compare_headers",
    "prepare",
    "stored_dtype",
]

_REMEDY = "save or copy this checkpoint again, or leave its step out with `exclude` in the runs file"

_RENAMED = ((re.compile(r"^embed_out\."), "lm_head."),)


@dataclass(frozen=True)
class Prepared:
    """The weights of one checkpoint in CPU memory, ready to be copied into the resident model.

    Attributes:
        folder: where they were read from.
        tensors: name to tensor, in the stored dtype.
        digest: sha256 of the weight files.
        stored_dtype: the floating dtypes of the files, e.g. ``float32`` (several joined by ``+``).
        config: the architecture, where the tensors were converted to transformers' names; None where the folder says
            it itself, or an adapter knows.
        native: whether ``folder`` is in transformers' own format, so that ``from_pretrained`` can read it.
    """

    folder: Path
    tensors: dict[str, torch.Tensor]
    digest: str
    stored_dtype: str
    config: PretrainedConfig | None = None
    native: bool = True


def prepare(folder: Path, *, digest: str = "", mapped: bool = False) -> Prepared:
    """Read one checkpoint into CPU memory; safe to run in a thread while another checkpoint computes.

    Args:
        folder: in transformers' own format.
        digest: sha256 of its weight files as ``weights_digest`` gives it, where it is already known.
        mapped: whether its files are ours alone, so that they may be mapped; others are read, and the digest is of
            the bytes that were read.
    """
    tensors, found = read_tensors(folder, mapped=mapped)
    return Prepared(folder, tensors, digest or found or weights_digest(folder), stored_dtype(tensors))


def stored_dtype(tensors: Mapping[str, torch.Tensor]) -> str:
    """The floating dtypes of a state dict, joined by ``+``."""
    return "+".join(sorted({str(t.dtype).removeprefix("torch.") for t in tensors.values() if t.is_floating_point()}))


def compare_headers(reference: dict[str, TensorInfo], other: dict[str, TensorInfo]) -> list[str]:
    """What differs between two checkpoints' tensors, as sentences; names of no consequence are left out.

    >>> compare_headers({"w": TensorInfo((2,), "F32")}, {"w": TensorInfo((3,), "F32"), "x": TensorInfo((1,), "F32")})
    ["'w' has shape (3,), not (2,)", "'x' is unexpected"]
    """
    problems = []
    for name in sorted(reference.keys() | other.keys()):
        if IGNORED.search(name):
            continue
        if name not in other:
            problems.append(f"{name!r} is missing")
        elif name not in reference:
            problems.append(f"{name!r} is unexpected")
        elif reference[name].shape != other[name].shape:
            problems.append(f"{name!r} has shape {other[name].shape}, not {reference[name].shape}")
        elif reference[name].floating != other[name].floating:
            problems.append(f"{name!r} holds {other[name].dtype}, not {reference[name].dtype}")
    return problems


Build = Callable[[Mapping[str, "torch.Tensor"]], "torch.nn.Module"]


class ResidentModel:
    """One model in memory whose weights are replaced checkpoint by checkpoint.

    Args:
        device: torch device name.
        dtype: dtype to compute in: ``float32``, ``float16`` or ``bfloat16``.
        build: makes the module for a state dict (a module of one's own); None for transformers' models.
        check: called with the config of a checkpoint before anything is built; raises CheckpointError for one that
            does not belong to the series. A config that claims a larger model must not be built to find that out.

    Attributes:
        in_place: how many checkpoints were copied in place.
        rebuilt: how many were built anew (the first one always is).
    """

    def __init__(
        self,
        device: str = "cpu",
        dtype: str = "float32",
        build: Build | None = None,
        check: Callable[[PretrainedConfig], None] | None = None,
    ) -> None:
        self._check = check
        self._device = device
        self._dtype = dtype
        self._build = build
        self._model: torch.nn.Module | None = None
        self._config: dict[str, Any] = {}
        self._names: dict[str, str] | None = None
        self.in_place = 0
        self.rebuilt = 0

    @property
    def model(self) -> torch.nn.Module:
        """The model with the weights of the last :meth:`install`."""
        if self._model is None:
            raise RuntimeError("no checkpoint has been installed yet")
        return self._model

    def install(self, prepared: Prepared) -> torch.nn.Module:
        """Make ``prepared`` the resident weights.

        Raises:
            CheckpointError: when a tensor is missing, unexpected, of another shape, not of real numbers where the model's
                are, or the config cannot be read.
        """
        import torch

        config = None if self._build is not None else prepared.config or read_config(prepared.folder)
        if config is not None and self._check is not None:
            self._check(config)
        identity = {} if config is None else architecture_of(config)
        if self._model is not None and identity == self._config and self._fits(prepared):
            self._copy(prepared)
            self.in_place += 1
            return self._model
        self._model = None  # release the old weights before the new ones are built
        dtype = getattr(torch, self._dtype)
        if self._build is not None:
            model = _built(prepared, self._build, dtype, self._device)
        else:
            assert config is not None
            kind = model_class(config, prepared.folder, prepared.tensors)
            build = _from_tensors if prepared.native else _from_config
            model = build(kind, prepared, config, dtype, self._device)
        _require_real(model, prepared)
        self._model = model
        self._config = identity
        self._names = _proved_names(self._model, prepared.tensors)
        self.rebuilt += 1
        return self._model

    def _fits(self, prepared: Prepared) -> bool:
        """Whether the name table covers these tensors exactly; what does not fit is loaded, or refused, by transformers."""
        import torch

        assert self._model is not None
        if self._names is None:
            return False
        state = self._model.state_dict()
        if self._names.keys() != {name for name in prepared.tensors if name in state or not IGNORED.search(name)}:
            return False
        shared: dict[int, torch.Tensor] = {}
        for source, target in self._names.items():
            value = prepared.tensors[source]
            if value.shape != state[target].shape or value.is_floating_point() != state[target].is_floating_point():
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


def _from_tensors(
    kind: Any, prepared: Prepared, config: PretrainedConfig, dtype: torch.dtype, device: str
) -> PreTrainedModel:
    """What transformers makes of these tensors, which it may rename and fuse.

    It is given the tensors and not the folder, whose shard index may name other files than those that were verified.
    """
    import torch

    folder = prepared.folder
    with quiet():
        try:
            model, info = kind.from_pretrained(  # the auto classes take no tensors
                None,
                config=config,
                state_dict=dict(prepared.tensors),
                dtype=dtype,
                attn_implementation="eager",  # the only implementation that returns attention patterns
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # reported below, with names
            )
        except torch.OutOfMemoryError:  # the machine's fault, not the checkpoint's
            raise
        except Exception as error:  # a config may hold anything, and transformers then raises anything
            raise CheckpointError(
                f"{folder} cannot be loaded: {first_line(error)}",
                expected="weights and a config that fit each other",
                remedy=_REMEDY,
            ) from error
    missing = sorted(info["missing_keys"])
    unexpected = sorted(k for k in info["unexpected_keys"] if not IGNORED.search(k))
    wrong = sorted(entry[0] if isinstance(entry, tuple) else str(entry) for entry in info["mismatched_keys"])
    if missing or unexpected or wrong:
        raise _incomplete(folder, missing, unexpected, wrong)
    return model.to(device).eval()


def _from_config(
    kind: Any, prepared: Prepared, config: PretrainedConfig, dtype: torch.dtype, device: str
) -> PreTrainedModel:
    """The architecture of ``config`` with exactly these tensors, which some other layout was converted to."""
    import torch

    with quiet():
        try:
            model = kind._from_config(config, dtype=dtype, attn_implementation="eager")
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            raise CheckpointError(
                f"{prepared.folder} cannot be loaded: {first_line(error)}",
                expected="weights and a config that fit each other",
                remedy=_REMEDY,
            ) from error
    _fill(model, prepared)
    return model.to(device).eval()


def _built(prepared: Prepared, build: Build, dtype: torch.dtype, device: str) -> torch.nn.Module:
    """A module of the user's own with exactly these tensors."""
    import torch

    try:
        model = build(prepared.tensors)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # code of the user's, which may raise anything
        raise CheckpointError(
            f"the adapter cannot build a module for {prepared.folder}: {type(error).__name__}: {error}",
            expected="a torch.nn.Module with these tensors",
            remedy="mend `build` of the adapter",
        ) from error
    if not isinstance(model, torch.nn.Module):
        raise UserError(  # of no checkpoint: all others would fail by it
            f"the adapter built a {type(model).__name__}",
            expected="a torch.nn.Module",
            remedy="return one from `build` of the adapter",
        )
    if next(model.parameters(), None) is None:
        raise UserError(  # of no checkpoint: all others would fail by it
            "the adapter built a module without parameters",
            expected="weights that are parameters: what is measured of them would be nothing",
            remedy="make what is trained a torch.nn.Parameter, not a buffer",
        )
    model = model.to(dtype)
    _fill(model, prepared)
    return model.to(device).eval()


def _fill(model: torch.nn.Module, prepared: Prepared) -> None:
    """Copy every tensor to the place of its name; a place that shares memory with a filled one counts as filled.

    Raises:
        CheckpointError: when a tensor is missing, unexpected or of another shape.
    """
    import torch

    state = model.state_dict()
    prefix = getattr(model, "base_model_prefix", "")
    given = {
        _target(name, state, prefix) or name: tensor
        for name, tensor in prepared.tensors.items()
        if name in state or not IGNORED.search(name)
    }
    filled = {state[name].data_ptr() for name in given if name in state}
    missing = sorted(name for name, value in state.items() if value.data_ptr() not in filled)
    unexpected = sorted(given.keys() - state.keys())
    wrong = sorted(n for n, tensor in given.items() if n in state and tensor.shape != state[n].shape)
    if missing or unexpected or wrong:
        raise _incomplete(prepared.folder, missing, unexpected, wrong)
    first: dict[int, str] = {}
    for name, tensor in given.items():
        other = first.setdefault(state[name].data_ptr(), name)
        if other != name and not torch.equal(tensor, given[other]):
            raise CheckpointError(
                f"{prepared.folder} does not fit its config: {other!r} and {name!r} differ",
                expected="equal tensors, because the model ties them",
                remedy="set `tie_word_embeddings: false` in its config.json if the model was trained so; otherwise save it again",
            )
    with torch.no_grad():
        for name, tensor in given.items():
            state[name].copy_(tensor)


def _require_real(model: torch.nn.Module, prepared: Prepared) -> None:
    """Refuse integers, truth values and complex numbers for weights, which a copy would turn into real numbers silently.

    Raises:
        CheckpointError: with the tensors: they are quantised, and what they stand for is written elsewhere, or are damaged.
    """
    state, prefix = model.state_dict(), getattr(model, "base_model_prefix", "")
    wrong = []
    for name, tensor in prepared.tensors.items():
        if not tensor.is_floating_point() and (name in state or not IGNORED.search(name)):
            target = _target(name, state, prefix)
            if target is None or state[target].is_floating_point():
                wrong.append(f"{name} ({str(tensor.dtype).removeprefix('torch.')})")
    if wrong:
        raise CheckpointError(
            f"{prepared.folder} holds weights that are no real numbers: {', '.join(wrong[:3])}{', ...' if wrong[3:] else ''}",
            expected="weights in float32, float16, bfloat16 or float64",
            remedy="save the weights as they were before they were quantised",
        )


def _incomplete(folder: Path, missing: list[str], unexpected: list[str], wrong: list[str]) -> CheckpointError:
    parts = [
        f"{len(names)} {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for what, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", wrong))
        if names
    ]
    return CheckpointError(
        f"{folder} does not fit its config: tensors {'; '.join(parts)}",
        expected="every tensor of the architecture once, and no other; nothing is ever initialised silently",
        remedy=_REMEDY,
    )


def _proved_names(model: torch.nn.Module, tensors: dict[str, torch.Tensor]) -> dict[str, str] | None:
    """Stored name -> state-dict name, if that table reproduces the loaded model exactly; else None."""
    import torch

    state = model.state_dict()
    prefix = getattr(model, "base_model_prefix", "")
    names: dict[str, str] = {}
    for stored in tensors:
        if stored not in state and IGNORED.search(stored):
            continue
        target = _target(stored, state, prefix)
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


def _target(stored: str, state: Mapping[str, Any], prefix: str) -> str | None:
    """The state-dict name of a stored one, as transformers would rename it; None where there is none."""
    renamed = stored
    for pattern, replacement in _RENAMED:
        renamed = pattern.sub(replacement, renamed)
    return next((n for n in (stored, renamed, f"{prefix}.{stored}") if n in state), None)
