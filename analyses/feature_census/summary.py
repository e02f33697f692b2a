"""Census, enrichment and gallery of every dictionary of a trace."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import Field

from dynamics.analysis import AnalysisOptions, Definition, Section, Trace
from dynamics.analysis.features import HINT, FeatureReader, feature_readers, leading

from .census import census
from .effects import effects
from .gallery import ShownFeature, chosen, gallery, in_words, spaced
from .labels import Enriched, enriched

__all__ = ["Options", "summarise"]


class Options(AnalysisOptions):
    """Options of this analysis."""

    draws: int = Field(499, ge=99, description="Labels dealt anew behind the p values of enrichment.")
    gallery: int = Field(12, ge=0, le=60, description="Features of each dictionary that are shown with examples.")


def summarise(trace: Trace, options: Options) -> Section:
    """Census, enrichment and gallery from the trace alone; see the package's docstring for definitions."""
    readers = feature_readers(trace)
    if not readers:
        return Section(notes=[HINT])
    section = Section(definitions=_DEFINITIONS)
    for reader in readers:
        headline = reader.name == leading(readers)
        section += census(reader, headline) + effects(reader) + _labelled(reader, options, headline)
    return section


def _labelled(reader: FeatureReader, options: Options, headline: bool) -> Section:
    """Which labels features stand out for, and the gallery of those that do most."""
    labels = list(enriched(reader, options.draws))
    if not labels:
        return Section(notes=[f"Labels, dictionary {reader.name}: no analysis of the run reads prompts through it."])
    over = f"{reader.name}_label"
    features = gallery(reader, chosen(labels, options.gallery))
    return Section(
        notes=[_labels_note(reader.name, labels), *(in_words(f) for f in features if headline)],
        arrays={
            f"{reader.name}_enriched": (over, np.array([int(e.found.sum()) for e in labels])),
            f"{reader.name}_tested": (over, np.array([e.tested for e in labels])),
        },
        coords={over: [e.title for e in labels]},
    ) + _gallery(reader.name, features)


def _labels_note(name: str, labels: list[Enriched]) -> str:
    listed = "; ".join(f"{e.title} {int(e.found.sum())} of {e.tested}" for e in labels)
    return (
        f"Features that stand out for a value of a label, or follow a number, dictionary {name}, last checkpoint (found at a "
        f"false discovery rate of 5%, of those that answer at least 5 prompts): {listed}. A label can be found because it "
        "goes with another one."
    )


def _gallery(name: str, features: list[ShownFeature]) -> Section:
    """The gallery as arrays: one line of tokens after the other, each with its level and the feature that it is of."""
    if not features:
        return Section()
    lines = [
        (i, tokens, level) for i, f in enumerate(features) for tokens, level in zip(f.tokens, f.level, strict=True)
    ]
    coords: dict[str, Any] = {
        f"{name}_gallery": [f"feature {f.feature}: {f.title}" for f in features],
        f"{name}_logits": (f"{name}_gallery", ["   ".join(filter(None, (f.worth, _logits(f)))) for f in features]),
    }
    if not any(tokens for _, tokens, _ in lines):
        return Section(coords=coords)
    level = [value for _, _, levels in lines for value in levels]
    arrays = {
        f"{name}_token_line": (f"{name}_token", np.repeat(range(len(lines)), [len(tokens) for _, tokens, _ in lines])),
        f"{name}_token_level": (f"{name}_token", np.array(level, dtype=np.float32)),
        f"{name}_line_feature": (f"{name}_line", np.array([i for i, _, _ in lines])),
    }
    return Section(
        coords=coords | {f"{name}_token": [t for _, tokens, _ in lines for t in spaced(tokens)]}, arrays=arrays
    )


def _logits(shown: ShownFeature) -> str:
    return f"likelier: {'  '.join(shown.likelier)}   less likely: {'  '.join(shown.rarer)}" if shown.likelier else ""


_DEFINITIONS = (
    Definition(
        "present",
        "A feature of a crosscoder is present from its birth to its death: where its decoder is above a quarter of its largest "
        "length by more than its sampling error; of a chain, as long as mutual best matches hand its track on.",
        "crosscoders: Lindsey et al. 2024, 'Sparse Crosscoders for Cross-Layer Features and Model Diffing'",
    ),
    Definition(
        "born, dies",
        "Strength (decoder norm in a crosscoder, mean activation in a chain) leaves a quarter of its peak by more than its "
        "sampling error, by a bound that holds at all checkpoints together, after (before) it was shown to be less than half as "
        "strong; false discovery rate 5%. In a chain, a track whose tokens another feature had before is not born.",
    ),
    Definition(
        "effect",
        "Rise of the loss on held-out text, in nats per token, if the feature's part is taken out of the activations and all "
        "else stays; estimated with gradients along the way, a sixteenth of the features that fire in a row at a time. "
        "Intervals are over rows of text.",
        "integrated gradients: Sundararajan et al. 2017; of features: Marks et al. 2024, 'Sparse Feature Circuits'",
    ),
    Definition(
        "variance unexplained, loss recovered",
        "Squared error of the reconstruction over squared distance from the mean; 1 - (L* - L) / (L0 - L) with the site "
        "replaced by its reconstruction (L*) and by its mean (L0).",
        "Bricken et al. 2023; Gao et al. 2024",
    ),
    Definition(
        "turning point",
        "A transition at which the mean change of decoders, as a share of their largest length, exceeds the bound of the same "
        "changes shifted in time, each feature by itself.",
    ),
    Definition(
        "stands out for a value",
        "The prompts with one value of a label against all others explain more of the variance of a feature's answers than "
        "the best value of labels dealt anew; false discovery rate of 5% over features.",
        "Westfall and Young 1993; Benjamini and Hochberg 1995",
    ),
)
