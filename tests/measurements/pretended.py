"""A GPU that is not there: torch's fake device, with true numbers.

In ``FakeTensorMode`` tensors say that they are on a device that the machine lacks, and mixing them with tensors of the CPU
raises, as on a GPU. They hold no numbers, though, so that nothing that asks for one (``item``, ``unique``, ``numpy``) can be
run. Here each carries its numbers along on the CPU: what was measured comes out, and can be held against the CPU's. The device
has a name of its own, because builds of torch without CUDA cannot index what is on ``cuda``, not even there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
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


def _mapped(function: Callable[[Any], Any], value: Any) -> Any:
    """As ``tree_map`` of torch, of what operators take and give: a good deal faster."""
    if isinstance(value, (tuple, list)):
        return type(value)([_mapped(function, v) for v in value])
    if isinstance(value, dict):
        return {key: _mapped(function, v) for key, v in value.items()}
    return function(value)


class PretendedGPU(FakeTensorMode):
    """Everything that is on :data:`GPU` is computed on the CPU; see the module's docstring."""

    def dispatch(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] = {}
    ) -> Any:
        if func is torch.ops.prim.device.default:
            return args[0].fake_device
        flat: list[Any] = []
        _mapped(flat.append, (args, kwargs))
        fakes = [t for t in flat if isinstance(t, FakeTensor)]
        if fakes and func not in _COPYING:
            given = flat[:1] if func in _INDEXING else flat
            mixed = [t for t in given if isinstance(t, torch.Tensor) and not isinstance(t, FakeTensor) and t.ndim]
            if mixed:
                raise RuntimeError(f"{func} got tensors on {GPU} and on {mixed[0].device}")
        known = {id(t.real_tensor): t for t in fakes}
        real_args, real_kwargs = _mapped(
            lambda v: v.real_tensor if isinstance(v, FakeTensor) else v, (args, dict(kwargs))
        )
        wanted = real_kwargs.get("device")
        device = torch.device(wanted) if wanted is not None else None
        if device is not None:
            real_kwargs["device"] = torch.device("cpu")
        if func is aten.copy_.default:
            device = torch.device("cpu") if not isinstance(args[0], FakeTensor) else GPU
        on_gpu = device.type == GPU.type if device is not None else bool(fakes)
        if func is aten.histc.default:  # of integers, CUDA only: the CPU counts them as floats
            real_args = [real_args[0].float(), *real_args[1:]]
        made = func(*real_args, **real_kwargs)

        def placed(value: Any) -> Any:
            if not isinstance(value, torch.Tensor) or not on_gpu:
                return value
            return known.get(id(value)) if id(value) in known else self.hold(value)

        return _mapped(placed, made)

    def hold(self, real: torch.Tensor) -> FakeTensor:
        """A tensor on the GPU with these numbers."""
        shape = torch.empty_strided(real.size(), real.stride(), dtype=real.dtype, device="meta")
        return FakeTensor(self, shape, GPU, real_tensor=real)
