"""Which torch device a model runs on."""

from __future__ import annotations

from checkpoints.errors import UserError, first_line, short

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
        torch.ones(1, device=wanted).item()  # one that holds no numbers (meta) is no device to measure on
    except Exception as error:  # each back end has its own
        raise UserError(
            f"device {short(wanted)!r} cannot be used: {first_line(error)}",
            expected="cpu, cuda, cuda:N or mps",
            remedy="correct `device` of the run, or --device; auto takes a GPU if there is one",
        ) from error
    return wanted
