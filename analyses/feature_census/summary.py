"""Census, enrichment and gallery of every dictionary of a trace."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from dynamics.analysis.features import HINT, leading, parts_of
from dynamics.analysis.findings import Definition, Finding, Summary
from dynamics.store import Trace

from .census import census_arrays, census_finding, census_notes
from .effects import effect_arrays, effect_labels, effect_note, strongest
from .gallery import ShownFeature, chosen, gallery, in_words, spaced
from .labels import Enriched, enriched

__all__ = ["summarise"]

Arrays = dict[str, Any]


def summarise(trace: Trace, draws: int, shown: int) -> Summary:
    """See the package's docstring for definitions."""
    every = parts_of(trace)
    findings: list[Finding] = []
    notes: list[str] = [] if every else [HINT]
    arrays: Arrays = {}
    coords: Arrays = {"step": ("checkpoint", trace.steps)}
    for parts in every:
        finding = census_finding(trace, parts, headline=parts.name == leading(every))
        findings += [] if finding is None else [finding]
        notes += census_notes(parts)
        arrays |= census_arrays(parts)
        if ranked := strongest(parts):
            notes.append(effect_note(parts, ranked))
            arrays |= effect_arrays(parts, ranked)
            coords[f"{parts.name}_top"] = effect_labels(parts, ranked)
        labels = list(enriched(parts, draws))
        if not labels:
            notes.append(f"Labels, dictionary {parts.name}: no analysis of the run reads prompts through it.")
            continue
        notes.append(_labels_note(parts.name, labels))
        arrays |= {
            f"{parts.name}_enriched": (f"{parts.name}_label", np.array([int(e.found.sum()) for e in labels])),
            f"{parts.name}_tested": (f"{parts.name}_label", np.array([e.tested for e in labels])),
        }
        coords[f"{parts.name}_label"] = [e.title for e in labels]
        features = gallery(parts, chosen(labels, shown))
        if parts.name == leading(every):
            notes += [in_words(f) for f in features]
        _keep(parts.name, features, arrays, coords)
    findings.sort(key=lambda f: not f.headline)
    return Summary(
        analysis="feature_census",
        title="Features",
        question="Which sparse features does the model have, when are they born, when do they die, and what are they for?",
        findings=tuple(findings),
        definitions=_DEFINITIONS if every else (),
        notes=tuple(notes),
        data=xr.Dataset(arrays, coords=coords),
    )


def _labels_note(name: str, labels: list[Enriched]) -> str:
    listed = "; ".join(f"{e.title} {int(e.found.sum())} of {e.tested}" for e in labels)
    return (
        f"Features that stand out for a value of a label, or follow a number, dictionary {name}, last checkpoint (found at a "
        f"false discovery rate of 5%, of those that answer at least 5 prompts): {listed}. A label can be found because it "
        "goes with another one."
    )


def _keep(name: str, features: list[ShownFeature], arrays: Arrays, coords: Arrays) -> None:
    """The gallery as arrays: one line of tokens after the other, each with its level and the feature that it is of."""
    if not features:
        return
    lines = [(i, e) for i, f in enumerate(features) for e in range(len(f.tokens))]
    tokens = [(row, t) for row, (i, e) in enumerate(lines) for t in range(len(features[i].tokens[e]))]
    coords |= {
        f"{name}_gallery": [f"feature {f.feature}: {f.title}" for f in features],
        f"{name}_logits": (
            f"{name}_gallery",
            ["   ".join(filter(None, (f.worth, _logits(f)))) for f in features],
        ),
    }
    if tokens:
        text = [spaced(features[i].tokens[e]) for i, e in lines]
        coords[f"{name}_token"] = [text[row][t] for row, t in tokens]
        arrays[f"{name}_token_line"] = (f"{name}_token", np.array([row for row, _ in tokens]))
        level = [features[lines[row][0]].level[lines[row][1]][t] for row, t in tokens]
        arrays[f"{name}_token_level"] = (f"{name}_token", np.array(level, dtype=np.float32))
        arrays[f"{name}_line_feature"] = (f"{name}_line", np.array([i for i, _ in lines]))


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
