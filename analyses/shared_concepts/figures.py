"""Figures of shared concepts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dynamics.analysis.figures import curve_grid, heat_maps

from .feature_figures import feature_figures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dynamics.analysis import Finding, Summary

__all__ = ["figures"]


def figures(summary: Summary) -> dict[str, Figure]:
    """``behaviour``, ``sharing``, ``layers``; of the causal half ``exchange``, ``exchange_parts``, ``exchange_layers``; of
    dictionaries ``features`` and the words of concept features."""
    found = summary.by_key

    def by_language(prefix: str) -> list[tuple[str, Finding]]:
        return [
            (k.removeprefix(prefix), f) for k, f in found.items() if k.startswith(prefix) and not k.endswith("logprob")
        ]

    panels = (
        [("Antonyms answered", by_language("accuracy.") or [("all", found["accuracy"])])] if "accuracy" in found else []
    )
    if "transfer" in found:
        panels.append(("Held-out transfer", by_language("transfer.") or [("all", found["transfer"])]))
    twins = [(k.split(".")[0], f) for k, f in found.items() if k.endswith("logprob")]
    if twins:
        panels.append(("Continuous twins", twins))
    sharing = [
        (
            "Translations are nearest neighbours",
            [("where the answer is predicted", found["retrieval"]), ("at the word", found["retrieval.word"])],
        ),
        (
            "Translations are similar",
            [("where the answer is predicted", found["cosine"]), ("at the word", found["cosine.word"])],
        ),
    ]
    data = summary.data
    maps = [
        (f"{title} {where}", data[name].sel(position=position).values.T)
        for name, title in (("retrieval_by_layer", "retrieval@1"), ("cosine_by_layer", "concept cosine"))
        for position, where in (("word", "at the word"), ("last", "at the answer"))
    ]
    figures: dict[str, Figure] = {}
    if panels:
        figures["behaviour"] = curve_grid(panels)
    figures["sharing"] = curve_grid(sharing)
    figures["layers"] = heat_maps(
        maps,
        data["step"].values,
        rows=data["layer"].values,
        row_title="layer",
        value_title="share or cosine",
    )
    figures |= _exchange(summary) if "exchange" in found else {}
    return figures | feature_figures(summary)


def _exchange(summary: Summary) -> dict[str, Figure]:
    """Concepts from another language: how often the answer follows, and after which layer."""
    data, found = summary.data, summary.by_key
    kinds = (("", "in the question's language"), ("_tongue", "in the donor's language"), ("_control", "control"))

    def maps(part: str, position: str) -> list[tuple[str, np.ndarray]]:
        return [
            (f"{words}, at the {position} token", data[f"exchange{kind}_by_{part}"].sel(position=position).values.T)
            for kind, words in kinds
        ]

    common: dict[str, Any] = {"value_title": "share", "columns": 3}
    steps = data["step"].values
    names = (
        ("exchange", "another language, a part at the last token"),
        ("exchange_own", "same language, a part at the last token"),
        ("exchange.word", "another language, the stream at the word"),
    )
    return {
        "exchange": curve_grid(
            [
                ("The donor's concept is answered", [(label, found[key]) for key, label in names]),
                ("Gain of its antonym", [(label, found[f"{key}.gain"]) for key, label in names]),
            ]
        ),
        "exchange_parts": heat_maps(
            maps("source", "last"), steps, rows=data["source"].values, row_title="head or MLP", **common
        ),
        "exchange_layers": heat_maps(
            [*maps("layer", "last"), *maps("layer", "word")],
            steps,
            rows=data["layer"].values,
            row_title="stream after layer",
            **common,
        ),
    }
