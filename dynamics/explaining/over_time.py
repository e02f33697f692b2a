"""Where the checkpoints are on the page's slider, and the chart of the probabilities of answer and foil over training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .display import short_step
from .drawing import step_axis
from .schema import ExplainedCheckpoint, Explanation

__all__ = ["chart", "height_of", "slider_ticks"]

_CHART_WIDTH, _CHART_HEIGHT = 460.0, 150.0
_CHART_LEFT, _CHART_RIGHT, _CHART_TOP, _CHART_BOTTOM = 34.0, 12.0, 8.0, 34.0


def slider_ticks(checkpoints: Sequence[ExplainedCheckpoint]) -> list[tuple[float, str]]:
    """Labels under the slider, where all checkpoints are equally far apart: (percent, step)."""
    last = len(checkpoints) - 1
    stride = max(1, -(-last // 8))
    shown = [i for i in range(0, last + 1, stride) if i == last or last - i >= stride * 0.85] + [last]
    return [(round(100 * i / max(last, 1), 2), short_step(checkpoints[i].step)) for i in dict.fromkeys(shown)]


def height_of(probability: float | None) -> float | None:
    """Height of a probability in the chart."""
    inside = _CHART_HEIGHT - _CHART_TOP - _CHART_BOTTOM
    return None if probability is None else round(_CHART_TOP + (1 - probability) * inside, 1)


def chart(e: Explanation) -> dict[str, Any]:
    """Probabilities of answer and foil over training, as paths; a line is interrupted where there is no number."""
    axis = step_axis([c.step for c in e.checkpoints])
    inside = _CHART_WIDTH - _CHART_LEFT - _CHART_RIGHT
    across = [_CHART_LEFT + inside * x for x in axis.positions]

    def path(values: Sequence[float | None]) -> str:
        parts, drawing = [], False
        for x, value in zip(across, values, strict=True):
            y = height_of(value)
            if y is not None:
                parts.append(f"{'L' if drawing else 'M'}{x:.1f} {y:g}")
            drawing = y is not None
        return "".join(parts)

    return {
        "width": _CHART_WIDTH,
        "height": _CHART_HEIGHT,
        "left": _CHART_LEFT,
        "right": _CHART_WIDTH - _CHART_RIGHT,
        "bottom": _CHART_HEIGHT - _CHART_BOTTOM,
        "across": across,
        "levels": [(height_of(p), text) for p, text in ((0.0, "0"), (0.5, "0.5"), (1.0, "1"))],
        "ticks": [(round(_CHART_LEFT + inside * x, 1), text) for x, text in axis.ticks],
        "answer": path([c.answer_probability for c in e.checkpoints]),
        "foil": path([c.foil_probability for c in e.checkpoints]),
        "points": [
            (round(x, 1), height_of(c.answer_probability))
            for x, c in zip(across, e.checkpoints, strict=True)
            if c.answer_probability is not None
        ],
    }
