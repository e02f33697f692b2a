"""When does each key frequency of a network's numbers get its power?

The key frequencies are those of the last measured checkpoint (:func:`dynamics.numerics.frequencies.key_frequencies`). Each has a curve: its
share of the power of the number representations. Null: the largest share of any frequency where the numbers are renamed, the same
renamings at every checkpoint; that the frequency was chosen at the end gains nothing by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from ..numerics.draws import DRAWS
from ..numerics.frequencies import FrequencyFits, key_frequencies
from ..store import Trace
from .curves import Curve, CurveSpec, Null
from .findings import Definition
from .section import Section

__all__ = ["frequency_section"]


def frequency_section(
    trace: Trace,
    probe: str,
    label: str,
    *,
    periods: Sequence[float | Fraction],
    site: str = "resid_post",
    position: str = "last",
    layer: int = 0,
    linear: bool = False,
) -> Section:
    """Curves of the key frequencies of a probe whose prompts are numbers.

    Args:
        trace: in which ``Activations`` of the site were measured.
        probe: of numbers.
        label: of the number of each prompt.
        periods: to look for; :func:`dynamics.numerics.frequencies.residue_periods` are those of addition modulo p.
        site, position, layer: of the representation; a site without layers (``embed``) has none to choose.
        linear: whether a linear term is taken away first.

    Returns:
        A headline for each key frequency, a note with their periods, and the share of every frequency, ``frequency_share``
        (checkpoint, frequency).
    """
    numbers = trace.label(probe, label)
    fits = FrequencyFits(numbers, periods, linear=linear, draws=DRAWS)
    n = len(trace.steps)
    share, null = np.full((n, len(fits.periods)), np.nan), np.full((n, DRAWS), np.nan)
    last: np.ndarray | None = None
    for index, values in trace.each(probe, site, position=position):
        x = values if values.ndim == 2 else values[:, layer]
        if np.isfinite(x).all():
            share[index], null[index], last = fits.share(x), fits.null(x), x
    names = [str(period) for period in fits.periods]
    section = Section(definitions=(_DEFINITION,), coords={"frequency_period": names})
    section.arrays["frequency_share"] = (("checkpoint", "frequency_period"), share)
    if last is None:
        section.notes.append("Frequencies: not measurable, the representations of numbers are not finite.")
        return section
    keys = np.flatnonzero(key_frequencies(last, numbers, periods=periods, linear=linear).key)
    where = f"{site} at {position!r}" + (f", layer {layer}" if site not in ("embed", "ln_final") else "")
    if not len(keys):
        section.notes.append(f"No frequency of numbers ({where}) has more power than those of numbers renamed.")
    for k in keys:
        section.findings.append(
            Curve(
                f"period.{names[k]}",
                f"numbers: period {names[k]}",
                share[:, k],
                None,
                Null(null, "largest share of any frequency, numbers renamed"),
                CurveSpec(
                    "share of power",
                    "numbers",
                    headline=True,
                    limits=(0.0, 1.0),
                    definition=f"share of the variance of number representations ({where}) explained by cos, sin of 2πn/T, "
                    f"T = {names[k]}" + (", beyond a linear term" if linear else ""),
                ),
            )
        )
    if len(keys):
        order = keys[np.argsort(-share[np.flatnonzero(np.isfinite(share[:, 0]))[-1], keys])]
        known = int(np.flatnonzero(np.isfinite(share[:, 0]))[-1])
        listed = ", ".join(f"{names[k]} ({share[known, k]:.0%})" for k in order)
        section.notes.append(
            f"Key periods of numbers ({where}) at step {int(trace.steps[known])}, share of power: {listed}."
        )
    return section


_DEFINITION = Definition(
    "share of power, key frequency",
    "Share of the variance of number representations over numbers explained by cos and sin of 2πn/T. Key at the last checkpoint: more "
    "than the largest share of any frequency of the numbers renamed (99%), found one by one in what the others leave over, and at "
    "least 1%. Null of the curves: the largest share of any frequency, numbers renamed.",
    "Nanda et al. 2023; Zhou et al. 2024",
)
