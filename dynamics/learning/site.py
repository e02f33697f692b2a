"""One site of one layer of a model: read without running the layers above, or replaced while they run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from checkpoints.errors import UserError

from ..models.architecture import Architecture
from ..models.sites import observe

__all__ = ["SiteAt"]


class SiteAt:
    """A site of one layer: where a dictionary looks.

    Args:
        architecture: of the models.
        site: the site, such as ``resid_post``; not ``pattern`` or ``logits``.
        layer: 0 is the first; of no meaning for sites outside the blocks.

    Raises:
        UserError: when the site or the layer is not there.

    Attributes:
        name: of the site.
        width: of the activations.
    """

    def __init__(self, architecture: Architecture, site: str, layer: int) -> None:
        table, shape = architecture.table, architecture.shape
        if site in ("pattern", "logits") or site not in table.sites:
            raise UserError(
                f"activations cannot be streamed from site {site!r}",
                expected=f"one of {', '.join(s for s in table.sites if s not in ('pattern', 'logits'))}",
                remedy="name one of these as `site` of the dictionary",
            )
        if site in table.in_block and not 0 <= layer < shape.layers:
            raise UserError(
                f"there is no layer {layer}",
                expected=f"0 to {shape.layers - 1}",
                remedy="correct `layer` of the dictionary, or leave it out",
            )
        self.architecture, self.name, self.layer = architecture, site, layer
        self.width = {"mlp_post": shape.d_mlp, "z": shape.heads * shape.d_head}.get(site, shape.d_model)
        self._outside = site in table.outside

    def read(self, model: Any, ids: npt.NDArray[np.integer]) -> torch.Tensor:
        """(row, token, width) float32 values of rows (row, token) of equal length; the layers above do not run."""
        found: list[torch.Tensor] = []

        def read(_site: str, layer: int, value: torch.Tensor) -> None:
            if self._outside or layer == self.layer:
                found.append(value.float())
                raise _Enough

        architecture = self.architecture
        device = next(model.parameters()).device
        last = torch.tensor([ids.shape[1] - 1], device=device)
        given = torch.from_numpy(np.ascontiguousarray(ids, dtype=np.int64)).to(device)
        with (
            torch.no_grad(),
            observe(model, architecture.table, frozenset({self.name}), architecture.shape.layers, read),
        ):
            try:
                architecture.logits(model, given, last)
            except _Enough:
                return found[0]
        raise UserError(
            f"site {self.name!r} was not reached at layer {self.layer}",
            expected="a model that computes the site in every forward pass",
            remedy="choose another `site` for the dictionary, or correct the table of the adapter",
        )

    @contextmanager
    def replaced(self, model: Any, by: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
        """While the context is open, everything that reads the site sees ``by(value)``, (row, token, width) both."""
        table = self.architecture.table
        where = table.place(self.name)
        prefix = "" if self._outside else table.block.format(self.layer)
        module = model.get_submodule(".".join(part for part in (prefix, where.module) if part))
        if where.flat:  # what is made of a token does not depend on which row it is in
            plain = by
            by = lambda value: plain(value[None])[0]  # noqa: E731

        def before(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if args:
                return (by(args[0]), *args[1:]), kwargs
            name = next(iter(kwargs))
            return args, kwargs | {name: by(kwargs[name])}

        def after(_module: Any, _args: tuple[Any, ...], output: Any) -> Any:
            return _swapped(output, where.index, by)

        if where.side == "input":
            handle = module.register_forward_pre_hook(before, with_kwargs=True)
        else:
            handle = module.register_forward_hook(after)
        try:
            yield
        finally:
            handle.remove()


def _swapped(output: Any, index: int, by: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    if not isinstance(output, tuple):
        return by(output)
    return (*output[:index], _swapped(output[index], index, by), *output[index + 1 :])


class _Enough(BaseException):
    """The wanted site has been read: no error, so that what guards code of the user's lets it through."""
