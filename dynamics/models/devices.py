"""Which torch device a model runs on."""

from __future__ import annotations

from checkpoints.errors import UserError

__all__ = ["usable_device"]


def usable_device(wanted: str) -> str:
    """A torch device name; ``auto`` takes a GPU if there is one.

    Raises:
        UserError: when there is no such device.
    """
    import torch

    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=wanted)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(
            f"device {wanted!r} cannot be used: {str(error).splitlines()[0]}", expected="cpu, cuda, cuda:N or mps"
        ) from error
    return wanted
