"""Features shared by languages: curves, and the words that concept features answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dynamics.analysis.figures import colour_bar, curve_grid, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dynamics.analysis import Summary

__all__ = ["feature_figures"]


def feature_figures(summary: Summary) -> dict[str, Figure]:
    """``features`` and, for each dictionary and position, ``features_<name>_<position>``; nothing without a dictionary."""
    curves = {key: f for key, f in summary.by_key.items() if key.startswith("features.")}
    names = list(dict.fromkeys(key.split(".")[1] for key in curves))
    if not names:
        return {}
    panels = [
        (
            f"Translations share features, dictionary {name}",
            [("at the answer", curves[f"features.{name}"]), ("at the word", curves[f"features.{name}.word"])],
        )
        for name in names
    ]
    figures = {"features": curve_grid(panels)}
    for name in (f"{name}_{position}" for name in names for position in ("last", "word")):
        if f"{name}_answers" in summary.data:
            figures[f"features_{name}"] = _concepts(summary.data, name)
    return figures


def _concepts(data: Any, name: str) -> Figure:
    """A row for each concept feature: what it answers in each language, and its decoder through training."""
    answers = data[f"{name}_answers"].values  # (feature, language, word)
    peak = np.maximum(np.abs(answers).max(axis=(1, 2), keepdims=True), 1e-9)
    level = answers / peak
    order = np.argsort(level.min(axis=1).argmax(axis=1), kind="stable")[::-1]  # a diagonal reads best
    labels = data[f"{name}_shown"].values[order]
    through = f"{name}_weight" in data  # only decoders of a crosscoder are followed through training
    figure = new_figure(11.5 if through else 9.0, max(2.2, 0.19 * len(labels) + 1.25))
    axes = figure.subplots(1, 4 if through else 3, sharey=True)
    words = data["word_of_concept"].values
    image: Any = None
    for column, language in enumerate(data["language"].values):
        image = axes[column].imshow(
            level[order, column], aspect="auto", origin="lower", cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest"
        )
        axes[column].set_title(str(language), loc="left")
        shown = range(0, len(words), 8)
        axes[column].set_xticks(list(shown), [str(words[w]) for w in shown], rotation=60, ha="right", fontsize=7)
    axes[0].set_yticks(range(len(labels)), [str(label) for label in labels], fontsize=7.5)
    axes[0].set_ylabel("feature and its words")
    figure.colorbar(image, ax=list(axes[:3]), label="answer, share of its largest", shrink=0.9, pad=0.01)
    if not through:
        return figure
    weight = data[f"{name}_weight"].values[order]
    covered = np.isfinite(weight).any(axis=0)
    steps = data["step"].values[covered]
    born = axes[3].imshow(weight[:, covered], aspect="auto", origin="lower", cmap="viridis", interpolation="nearest")
    axes[3].set_title("decoder through training", loc="left")
    some = sorted({*range(0, len(steps), max(1, len(steps) // 6)), len(steps) - 1})
    axes[3].set_xticks(some, [str(steps[i]) for i in some], rotation=60, ha="right", fontsize=7)
    axes[3].set_xlabel("optimizer step (one column a checkpoint)")
    colour_bar(figure, born, [axes[3]], "share of its largest length")
    return figure
