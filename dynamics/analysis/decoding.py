"""Can a label be read off activations, layer by layer?"""

from __future__ import annotations

import numpy as np

from ..numerics.decoding import ClassDecoder, folds_of
from ..probes import LAST
from ..store import Trace

__all__ = ["decoded_by_layer"]


def decoded_by_layer(
    trace: Trace,
    probe: str,
    label: str,
    *,
    position: str = LAST,
    clusters: np.ndarray | None = None,
    shuffles: int = 40,
) -> tuple[np.ndarray, np.ndarray]:
    """Cross-validated linear classifier of a label of the prompts, as :func:`.best_layer` takes it.

    Args:
        trace: with ``Activations("resid_post", (position,))`` of the probe.
        probe: its name.
        label: the label to decode.
        position: at which named position.
        clusters: (prompt,) labels of prompts that are kept together in a fold; None for every prompt by itself.
        shuffles: of the labels.

    Returns:
        (checkpoint, layer, prompt) whether each prompt was classified rightly, NaN where it was not measured; and the null
        (checkpoint, layer, shuffle), accuracies with shuffled labels.
    """
    labels = trace.label(probe, label)
    fold = folds_of(np.arange(len(labels)) if clusters is None else clusters)
    layers = int(trace.probe(probe).sizes["layer"])
    hits = np.full((len(trace.steps), layers, len(labels)), np.nan)
    null = np.full((len(trace.steps), layers, shuffles), np.nan)
    decoder = ClassDecoder(labels, fold, np.zeros(len(labels)), shuffles=shuffles)
    for index, values in trace.each(probe, "resid_post", position=position):
        for layer in range(layers):
            right, shuffled = decoder.hits(values[:, layer])
            hits[index, layer], null[index, layer] = right[0], shuffled[0].mean(0)
    return hits, null
