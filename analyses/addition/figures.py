"""Figures of addition."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dynamics.analysis.circuit_figures import circuit_figures
from dynamics.analysis.figures import COLOURS, curve_grid, draw_line, heat_maps, new_figure, training_axes

from .feature_figures import feature_figures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from dynamics.analysis import Summary

__all__ = ["figures"]


def figures(summary: Summary) -> dict[str, Figure]:
    """``behaviour``, ``structure`` and ``layers``; of the causal half ``same_parts``, ``exchange`` and each context's circuit;
    of dictionaries ``features`` and operand plots."""
    found = summary.by_key
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
    maps = [
        ("Ones digit, same context", data["ones_by_layer"].values.T),
        ("Ones digit, other contexts", data["ones_across_by_layer"].values.T),
        ("Sum before the answer (R²)", data["sum_by_layer"].values.T),
        ("Periods 2, 5, 10 (raw R², null not taken off)", data["fourier_by_layer"].values.T),
    ]
    causal = _causal(summary) if "same_parts" in found else {}
    return {
        "behaviour": curve_grid(panels),
        "structure": curve_grid(structure),
        "layers": heat_maps(
            maps,
            data["step"].values,
            rows=data["layer"].values,
            row_title="layer",
            value_title="accuracy or R²",
            alike=False,
        ),
        **causal,
        **feature_figures(summary),
    }


def _causal(summary: Summary) -> dict[str, Figure]:
    """Circuits per context and what they share; parts exchanged between contexts."""
    data, found = summary.data, summary.by_key
    steps, rows = data["step"].values, data["source"].values[1:]
    contexts = [k.removesuffix("_done") for k in found if k.endswith("_done")]
    exchanges = [
        (
            "Ones digit moves with the largest part",
            [("another context", found["exchange"]), ("own context", found["exchange_own"])],
        ),
        (
            "The donor's digit is said then",
            [("another context", found["exchange_said"]), ("own context", found["exchange_own_said"])],
        ),
    ]
    donors = (("other", "another context"), ("own", "own context"), ("same", "control: same ones digit"))
    maps = [(f"From {words}", data[f"exchange_{donor}"].values[:, 1:].T) for donor, words in donors]
    streams = [(f"Donor's digit, from {words}", data[f"exchange_{donor}_layers"].values.T) for donor, words in donors]
    figures = {
        "same_parts": _same_parts(summary),
        "circuits": curve_grid(
            [
                ("Ones digit right, by context", [(c, found[f"{c}_done"]) for c in contexts]),
                ("Parts of the final circuit used", [(c, found[f"{c}_used"]) for c in contexts]),
            ]
        ),
        "circuit_sources": heat_maps(
            [(f"In context '{c}'", data[f"{c}_source_effect"].values[:, 1:].T) for c in contexts],
            steps,
            rows=rows,
            row_title="head or MLP",
            value_title="effect of patching (logits)",
            columns=3,
        ),
        "exchange": curve_grid(exchanges),
        "exchange_parts": heat_maps(
            maps, steps, rows=rows, row_title="head or MLP", value_title="gain of the donor's digit (logits)", columns=3
        ),
        "exchange_layers": heat_maps(
            streams,
            steps,
            rows=data["layer"].values,
            row_title="stream after layer",
            value_title="share",
            columns=3,
        ),
    }
    for context in contexts:
        own = circuit_figures(summary, f"{context}_", context)
        figures |= {f"{context}_{name}": own[f"{context}_{name}"] for name in ("identity", "faithfulness")}
    return figures


def _same_parts(summary: Summary) -> Figure:
    """What the contexts' circuits share between its null and its ceiling; nodes and edges of the smallest circuits."""
    data = summary.data
    steps = data["step"].values
    figure = new_figure(8.6, 2.9)
    left, right = figure.subplots(1, 2)

    def line(axes: Axes, values: np.ndarray, colour: str, label: str, style: str = "-", width: float = 1.6) -> None:
        draw_line(axes, steps, values, colour, label, ls=style, lw=width, marker="")

    finding = summary.finding("same_parts")
    line(left, np.array(finding.values), COLOURS[0], "mean of pairs of contexts")
    for i, name in enumerate(data["contexts"].values):
        line(left, data["same_parts_by_pair"].values[:, i], COLOURS[i + 1], str(name), width=0.9)
    line(left, data["same_parts_ceiling"].values, "#888888", "two samples of one context", "--")
    for i, task in enumerate(data["task"].values):
        line(left, data["same_parts_tasks"].values[:, i], "#888888", f"with {task}", "-" if i == 0 else "-.", width=0.9)
    line(left, data["same_parts_flipped"].values, "#bbbbbb", "nothing asked", width=0.9)
    if finding.emergence.null_upper:
        line(left, np.array(finding.emergence.null_upper), COLOURS[0], "bound of the null", ":")
    training_axes(left, steps, "Same parts: shared attribution", "share")
    for i, name in enumerate(("edges", "nodes")):
        line(right, data[f"same_parts_{name}"].values, COLOURS[i], name)
        line(right, data[f"same_parts_{name}_null"].values, COLOURS[i], f"{name}, 95% of circuits dealt anew", ":")
    training_axes(right, steps, "Same parts: smallest circuits (Jaccard)")
    left.set_ylim(-0.25, 1.02)
    right.set_ylim(0, 1.02)
    for axes in (left, right):
        axes.legend(frameon=False, fontsize=7)
    return figure
