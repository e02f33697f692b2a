"""A GPU that is not there: tensors that say that they are on a device that the machine lacks, with true numbers.

Mixing them with tensors of the CPU raises, as on a GPU. Each carries its numbers along on the CPU: what was measured comes out,
and can be held against the CPU's. The device has a name of its own, because builds of torch without CUDA cannot index what is on
``cuda``, not even there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend as setup_privateuseone

__all__ = ["GPU", "PretendedGPU"]


class _Hook(torch._C._acc.PrivateUse1Hooks):  # type: ignore[misc, name-defined]
    def is_available(self) -> bool:
        return False  # nothing else takes it for an accelerator

    def has_primary_context(self, dev_id: int) -> bool:
        return False

    def is_built(self) -> bool:
        return False


class _Module:
    def is_initialized(self) -> bool:
        return True

    def is_available(self) -> bool:
        return False

    def current_device(self) -> int:
        return 0

    def device_count(self) -> int:
        return 0

    def _is_in_bad_fork(self) -> bool:
        return False

    def manual_seed_all(self, seed: int) -> None:
        pass


setup_privateuseone("pretended", _Module(), _Hook())
GPU = torch.device("pretended:0")

aten = torch.ops.aten
_INDEXING = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._unsafe_index.Tensor)
"""CUDA takes indices from the CPU."""
_COPYING = (aten.copy_.default, aten._to_copy.default)


class Held(torch.Tensor):
    """A tensor on the GPU; its numbers are in ``numbers``."""

    numbers: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def holding(real: torch.Tensor) -> Held:
        """A tensor on the GPU with these numbers."""
        held: Held = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            Held, real.size(), strides=real.stride(), dtype=real.dtype, device=GPU
        )
        held.numbers = real
        return held

    def tolist(self) -> Any:
        return self.numbers.tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{func} of a tensor on {GPU} without the device")


class PretendedGPU(TorchDispatchMode):
    """Everything that is on :data:`GPU` is computed on the CPU; see the module's docstring."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # what it wraps every operator in takes as long as the operator

    def __enter__(self) -> PretendedGPU:
        torch._C._set_only_lift_cpu_tensors(True)  # `torch.tensor(1, device=GPU)` is made here, and copied
        super().__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)
        torch._C._set_only_lift_cpu_tensors(False)

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        known: dict[int, Held] = {}
        others: list[torch.Tensor] = []

        def real(value: Any) -> Any:
            kind = type(value)
            if kind is Held:
                known[id(value.numbers)] = value
                return value.numbers
            if kind is list or kind is tuple:
                return kind([real(v) for v in value])
            if isinstance(value, torch.Tensor) and value.ndim:
                others.append(value)
            return value

        real_args = [real(value) for value in args]
        real_kwargs = {key: real(value) for key, value in kwargs.items()} if kwargs else {}
        if known and others and func not in _COPYING and (func not in _INDEXING or type(args[0]) is not Held):
            raise RuntimeError(f"{func} got tensors on {GPU} and on {others[0].device}")
        wanted = real_kwargs.get("device")
        if wanted is not None:
            real_kwargs["device"] = torch.device("cpu")
            on_gpu = torch.device(wanted).type == GPU.type
        else:
            on_gpu = type(args[0]) is Held if func is aten.copy_.default else bool(known)
        if func is aten.histc.default:  # of integers, CUDA only: the CPU counts them as floats
            real_args[0] = real_args[0].float()
        made = func(*real_args, **real_kwargs)

        def placed(value: Any) -> Any:
            if isinstance(value, torch.Tensor):
                same = known.get(id(value))
                return Held.holding(value) if same is None else same
            return type(value)([placed(v) for v in value]) if type(value) in (list, tuple) else value

        return placed(made) if on_gpu else made
