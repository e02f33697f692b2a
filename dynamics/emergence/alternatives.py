r"""Is a sigmoid the right shape, or does the curve only rise smoothly? Goodness of fit against alternatives.

With x = log10(step + 1) and weighted residual sum of squares R of n checkpoints: ``constant`` f; ``linear`` f + r x;
``power`` f + r 10^{p x}, a power law of the step with p between 0.02 and 2; ``sigmoid``; ``segmented`` (constant - linear -
constant), the last two with growth beside the rise where that was chosen (:mod:`dynamics.emergence.growth`). For k free parameters

.. math:: \text{BIC} = n \ln(R/n) + k \ln n

(Schwarz 1978), the variance of the noise being free up to a factor. The weights are exp(-BIC/2) normalised (Burnham and
Anderson 2002): the share of the evidence for each, if one of them is right.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from dynamics.emergence.growth import parameters, rise_with_growth
from dynamics.emergence.noise import Noise
from dynamics.emergence.shapes import ShapeFit
from dynamics.numerics.arrays import FloatArray

__all__ = ["Comparison", "compare_shapes"]


POWERS = np.geomspace(0.02, 2.0, 60)
"""Exponents of the power law; below, it is linear in x, and above, a step at the last checkpoint."""


@dataclass(frozen=True)
class Comparison:
    """What speaks for each shape.

    Attributes:
        bic: the criterion.
        weights: BIC weights, which add up to 1.
        kink: whether the segmented model is worth its two kinks, each counted as two parameters.
        fits: of the sigmoid and the segmented model: the best, and others that are nearly as good.
    """

    bic: dict[str, float]
    weights: dict[str, float]
    kink: bool
    fits: dict[str, tuple[ShapeFit, ...]]


def compare_shapes(x: FloatArray, values: FloatArray, noise: Noise, *, level: float = 0.95) -> Comparison:
    """Compare the shapes of a rising curve.

    Args:
        x: (checkpoint,) log10(step + 1).
        values: (checkpoint,) finite.
        noise: of the curve.
        level: of the fits' intervals.
    """
    nearly = {
        "sigmoid": rise_with_growth("logistic", x, values, noise, level=level),
        "segmented": rise_with_growth("ramp", x, values, noise, level=level),
    }
    fits = {name: found[0] for name, found in nearly.items()}
    # One set of weights for all, or the sums of squares could not be compared.
    scale = noise.scale(min(fits.values(), key=lambda fit: fit.misfit).mean)
    weight = 1.0 / scale**2
    n = x.size

    def residual(*columns: FloatArray) -> float:
        design = np.stack([np.ones(n), *columns], axis=1) / scale[:, None]
        coefficients = np.linalg.lstsq(design, values / scale, rcond=None)[0]
        return float(((values / scale - design @ coefficients) ** 2).sum())

    size = {
        "constant": residual(),
        "linear": residual(x),
        "power": min(residual(10.0 ** (power * (x - x[-1]))) for power in POWERS),
        **{name: float((weight * (values - fit.mean) ** 2).sum()) for name, fit in fits.items()},
    }
    free = {"constant": 1, "linear": 2, "power": 3} | {name: parameters(fit.growth) for name, fit in fits.items()}
    least = 1e-12 * max(size["constant"], 1e-300)
    cost = {name: n * math.log(max(value, least) / n) for name, value in size.items()}
    bic = {name: cost[name] + k * math.log(n) for name, k in free.items()}
    lowest = min(bic.values())
    raw = {name: math.exp(-0.5 * (value - lowest)) for name, value in bic.items()}
    total = sum(raw.values())
    charged = bic["segmented"] + 2 * math.log(n)
    return Comparison(
        bic=bic,
        weights={name: value / total for name, value in raw.items()},
        kink=charged < min(bic["constant"], bic["linear"]),
        fits=nearly,
    )
