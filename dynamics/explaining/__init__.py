"""What the model computed on one prompt, checkpoint by checkpoint: the computation, the format, the page, the figure."""

from __future__ import annotations

from .batch import ExplainedPrompts, explain_and_print, explain_prompts
from .computing import Explained, explain
from .neuronpedia import neuronpedia_graphs
from .page import explanation_page, explanation_svg
from .printing import print_explained
from .schema import Explanation, check_explanation

__all__ = [
    "Explained",
    "ExplainedPrompts",
    "Explanation",
    "check_explanation",
    "explain",
    "explain_and_print",
    "explain_prompts",
    "explanation_page",
    "explanation_svg",
    "neuronpedia_graphs",
    "print_explained",
]
