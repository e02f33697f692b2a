r"""Does a curve also grow before or after its rise? The shape with as much beside it as the data pay for.

A jump that is followed by slow growth is no saturating curve, and one that is fitted to it lies where the curve bends, or far
behind, the later the longer training goes on. Growth before or after a rise (:mod:`dynamics.emergence.shapes`) is taken
into the model where it lowers

.. math:: R / \hat c + k \ln n

for k parameters, the Bayesian criterion (Schwarz 1978) with the overdispersion :math:`\hat c` of the model that leaves least
(quasi-likelihood: Burnham and Anderson 2002, section 2.5): where training itself is noisy, a wiggle is no growth. The rise has to
pay for itself too: a curve that only bends, from one growth into another, has none. Where two models are about as good, an
interval is the hull of theirs: what the choice between them would decide is not known.
"""

from __future__ import annotations

import math

from scipy.special import chdtrc

from dynamics.emergence.columns import Shape, Side, gain, gain_beside, gain_of_growth, growths, widest
from dynamics.emergence.noise import Noise
from dynamics.emergence.shapes import NOT_BY_CHANCE, ShapeFit, fit_shape
from dynamics.numerics.arrays import FloatArray

__all__ = ["parameters", "rise_with_growth"]


SIDES: tuple[Side, ...] = ("before", "after")

GROWTHS: tuple[tuple[Side, ...], ...] = ((), ("after",), ("before",), SIDES)
"""What may be beside a rise."""

EVEN = 2.0
"""A difference in the criterion that is "not worth more than a bare mention" (Kass and Raftery 1995): both models are kept."""


def parameters(growth: tuple[Side, ...]) -> int:
    """Free parameters of a shape with growth beside it: floor, rise, location, scale and one rate for every side."""
    return 4 + len(growth)


def rise_with_growth(
    shape: Shape, x: FloatArray, values: FloatArray, noise: Noise, *, level: float = 0.95
) -> tuple[ShapeFit, ...]:
    """The best fit, with the growth that is worth its parameters, and those that are nearly as good.

    Growth is looked for where there are two checkpoints for every parameter; not only where the shape alone leaves more than noise
    does, because few checkpoints do not show that, and an interval that took it for certain would be too short.

    Args:
        shape: which one.
        x: (checkpoint,) log10(step + 1).
        values: (checkpoint,) finite, turned so that emergence is a rise.
        noise: of the curve.
        level: of the fits' intervals.
    """
    n = x.size
    tried = [growth for growth in GROWTHS if n >= 2 * parameters(growth)]
    if len(tried) < 2:
        return (fit_shape(shape, x, values, noise, level=level),)
    plain = fit_shape(shape, x, values, noise, ranges=False)
    locations, scales, shapes = widest(shape, x)
    beside = dict(zip(SIDES, growths(shape, x, locations, scales, SIDES), strict=True))
    weight = 1.0 / noise.scale(plain.mean) ** 2
    share = weight / weight.sum()
    total = float((weight * (values - values @ share) ** 2).sum())
    left, alone = {}, {}
    for growth in tried:
        if not growth:
            left[growth], alone[growth] = total - float(gain(values[None], weight, shapes).max()), math.inf
            continue
        grown = [beside[side] for side in growth]
        left[growth] = total - float(gain_beside(shape, values[None], weight, shapes, grown, scales).max())
        alone[growth] = total - float(gain_of_growth(values[None], weight, grown).max())
    best = min(tried, key=lambda growth: left[growth])
    degrees = n - parameters(best)
    spread = max(1.0, left[best] / degrees) if chdtrc(degrees, max(left[best], 0.0)) < NOT_BY_CHANCE else 1.0
    # The rise between two growths has to be worth its parameter too.
    worth = [growth for growth in tried if (alone[growth] - left[growth]) / spread > math.log(n)]
    cost = {growth: left[growth] / spread + parameters(growth) * math.log(n) for growth in worth}
    kept = [growth for growth in sorted(worth, key=cost.__getitem__) if cost[growth] - min(cost.values()) <= EVEN]
    return tuple(fit_shape(shape, x, values, noise, growth=growth, level=level) for growth in kept)
