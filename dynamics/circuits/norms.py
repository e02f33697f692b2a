"""What a norm computes, in closed form: n(x) = gain * c(x) / s(x) + bias.

c(x) is x itself, or x without its mean where the norm centres (LayerNorm); s(x) the root of the mean square of c(x), plus
epsilon. With u = c(x) / s(x) and d numbers per token, the gradient at x of a gradient g at n(x) is

    (c(gain * g) - u (u . gain * g) / d) / s(x),

so that what all readers of one norm pull back through it differs in numbers per reader, not in vectors.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import cast

import torch

__all__ = ["Norm", "gain_of", "norm_of", "scale_of"]

CLOSE = 4.0
"""Units of rounding, of the largest output, within which a module computes its closed form."""


@dataclass(frozen=True)
class Norm:
    """A norm's parameters, float32.

    Attributes:
        centred: whether it takes the mean off.
        epsilon: what is added to the mean square.
        gain, bias: (d_model,); None for 1 and 0.
    """

    centred: bool
    epsilon: float
    gain: torch.Tensor | None
    bias: torch.Tensor | None

    def centre(self, x: torch.Tensor) -> torch.Tensor:
        """c(x) for (..., d_model)."""
        return x - x.mean(-1, keepdim=True) if self.centred else x

    def unit(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """u (..., d_model) and 1 / s(x) (..., 1), float32."""
        c = self.centre(x.float())
        inverse = torch.rsqrt(c.pow(2).mean(-1, keepdim=True) + self.epsilon)
        return c * inverse, inverse

    def folded(self, matrix: torch.Tensor) -> torch.Tensor:
        """(..., d_model) float32 maps from what the norm returns, as maps from u."""
        matrix = matrix.detach().float()
        return self.centre(matrix if self.gain is None else matrix * self.gain)

    def computes(self, module: torch.nn.Module, x: torch.Tensor) -> bool:
        """Whether that is what a module makes of (..., d_model), in float32: half precision could not tell it from another."""
        if x.dtype != torch.float32:
            module, x = deepcopy(module).float(), x.float()
        made = self.unit(x)[0]
        made = made if self.gain is None else made * self.gain
        made = made if self.bias is None else made + self.bias
        own = module(x).float()
        bound = CLOSE * torch.finfo(x.dtype).eps * own.abs().amax() * x.shape[-1] ** 0.5
        return bool(((own - made).abs() <= bound).all())


def norm_of(module: torch.nn.Module) -> Norm | None:
    """A norm by its class and parameters; None for what is none, such as an identity."""
    if "Norm" not in type(module).__name__:
        return None
    epsilon = float(getattr(module, "variance_epsilon", getattr(module, "eps", 1e-5)))
    gain, bias = gain_of(module), cast("torch.Tensor | None", getattr(module, "bias", None))
    parameters = (None if p is None else p.detach().float() for p in (gain, bias))
    return Norm(_centres(module), epsilon, *parameters)


def _centres(module: torch.nn.Module) -> bool:
    return isinstance(module, torch.nn.LayerNorm) or "LayerNorm" in type(module).__name__


def gain_of(module: torch.nn.Module) -> torch.Tensor | None:
    """(d_model,) what a norm multiplies by: its weight, or 1 + weight (Gemma), whichever it makes of ones; None for neither."""
    weight = cast("torch.Tensor | None", getattr(module, "weight", None))
    if weight is None or _centres(module) or "Norm" not in type(module).__name__:
        return weight
    with torch.no_grad():
        made = module.forward(torch.ones_like(weight))  # past hooks, of which one may be asking
        shifted = (made - weight - 1).abs().sum() < (made - weight).abs().sum()
    return weight + 1 if shifted else weight


def scale_of(norm: torch.nn.Module, raw: torch.Tensor) -> torch.Tensor:
    """(row, token, d_model) what a root-mean-square norm multiplies each coordinate by."""
    epsilon = float(getattr(norm, "variance_epsilon", getattr(norm, "eps", 0.0)))
    return cast(torch.Tensor, gain_of(norm)) * torch.rsqrt(raw.float().pow(2).mean(-1, keepdim=True) + epsilon).to(
        raw.dtype
    )
