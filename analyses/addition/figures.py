"""Figures of addition."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dynamics.figures import curve_grid, heat_maps

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dynamics.findings import Summary

__all__ = ["figures"]


def figures(summary: Summary) -> dict[str, Figure]:
    """``behaviour``, ``structure`` and ``layers``."""
    found = {f.key.removeprefix("addition."): f for f in summary.findings}
    contexts = [(k.removeprefix("accuracy."), f) for k, f in found.items() if k.startswith("accuracy.")]
    digits = [(name, found[f"digit.{name}"]) for name in ("carry", "tens", "ones") if f"digit.{name}" in found]
    panels = [("Sums answered, by context", contexts)]
    if digits:
        panels.append(("Digit by digit, all contexts", digits))
    panels += [
        ("All sums", [("accuracy", found["accuracy"])]),
        ("Continuous twin", [("log-probability", found["logprob"])]),
    ]
    structure = [
        (
            "Ones digit of the sum, decoded",
            [("same context", found["ones_decodable"]), ("other contexts", found["ones_across"])],
        ),
        ("Sum, decoded before the answer", [("sum", found["sum_decodable"])]),
        ("Structure of numbers", [("periods 2, 5, 10", found["fourier"]), ("magnitude", found["magnitude"])]),
        ("Ones-digit neurons shared by contexts", [("shared", found["shared_neurons"])]),
    ]
    data = summary.data
    layers = [f"{layer}" for layer in data["layer"].values]
    maps = [
        ("Ones digit, same context", data["ones_by_layer"].values.T),
        ("Ones digit, other contexts", data["ones_across_by_layer"].values.T),
        ("Sum before the answer (R²)", data["sum_by_layer"].values.T),
        ("Periods 2, 5, 10 (raw R², null not taken off)", data["fourier_by_layer"].values.T),
    ]
    return {
        "behaviour": curve_grid(panels),
        "structure": curve_grid(structure),
        "layers": heat_maps(
            maps,
            data["step"].values.tolist(),
            rows=layers,
            row_title="layer",
            value_title="accuracy or R²",
            limits=(0.0, 1.0),
        ),
    }
