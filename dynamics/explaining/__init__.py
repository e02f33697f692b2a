"""What the model computed on one prompt, checkpoint by checkpoint: the computation, the format, the page, the figure."""

from __future__ import annotations

from .computing import Explained, explain
from .page import explanation_page, explanation_svg
from .printing import print_explained
from .schema import Explanation, check_explanation

__all__ = [
    "Explained",
    "Explanation",
    "check_explanation",
    "explain",
    "explanation_page",
    "explanation_svg",
    "print_explained",
]
