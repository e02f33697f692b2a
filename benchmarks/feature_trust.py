"""How far can births, deaths and effects of features be trusted? Held against another seed, stillness, and ablation.

    python benchmarks/feature_trust.py [--features 512] [--steps 600] [--quick]

*Seeds*: two crosscoders over the organism's checkpoints differ in their seed only. Features are matched one to one by
their decoders at all checkpoints together; of those that are born in one, it prints how many have a match, how many of
these are born in the other too, and how many within one checkpoint of it, beside the same with births dealt anew.

*Stillness*: a crosscoder of a series of which every checkpoint is the final one; each birth or death there is false.

*Effects*: the estimated effect of features at the final checkpoint, beside removing each in turn and running the model;
and what the gradient at the activations as they are (attribution patching) would have said.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr
from torch import split

from checkpoints.configs import read_config
from checkpoints.organism import OrganismConfig, open_organism
from checkpoints.series import Checkpoint, Series
from dynamics.learning.coder import Coder
from dynamics.learning.corpora import organism_rows
from dynamics.learning.dictionary import evaluate
from dynamics.learning.effects import loss_and_gradient, measure_effects, removed
from dynamics.learning.matching import match_decoders
from dynamics.learning.quality import Held, read_rows
from dynamics.learning.readings import installed
from dynamics.learning.site import SiteAt
from dynamics.learning.tracks import Tracks, follow
from dynamics.learning.training import Material, make
from dynamics.models.architecture import architecture
from dynamics.runs.dictionaries import DictionaryConfig

LAYER, HELD, CUT = 2, 64, 16
REMOVED = 50


@dataclass(frozen=True)
class Learned:
    """A crosscoder, the held-out rows that it was measured on, and what became of its features."""

    material: Material
    place: SiteAt
    coder: Coder
    held: Held
    tracks: Tracks

    def __str__(self) -> str:
        found, born, died = self.tracks.found.sum(), len(self.tracks.births), len(self.tracks.deaths)
        return f"{found} features found, {born} born, {died} die"


def learned(
    series: Series, checkpoints: Sequence[Checkpoint], organism: OrganismConfig, config: DictionaryConfig
) -> Learned:
    """Train one, and follow its features."""
    rows = organism_rows(organism, config.rows + HELD)
    shape = architecture(read_config(series.config_folder))
    material = Material(series, checkpoints, shape, rows[:-HELD], LAYER, "cpu", "float32", None, 8192)

    def told(*_: Any) -> None:
        return None

    with tempfile.TemporaryDirectory() as folder:
        coder = make(Path(folder) / "made", "benchmark", config, material, told)
    place, dictionary = SiteAt(shape, config.site, LAYER), coder.dictionaries[0]
    held = read_rows(series, checkpoints, material.resident(), place, rows[-HELD:], skip=0, batch_tokens=8192)
    fit = evaluate(dictionary, split(held.activations, 512, dim=1))
    tracks = follow(
        [c.step for c in checkpoints],
        dictionary.decoder.cpu().numpy(),
        variance=dictionary.variance.cpu().numpy(),
        error=fit.error,
        dimensions=fit.dimensions,
    )
    return Learned(material, place, coder, held, tracks)


def agreement(one: Learned, other: Learned) -> str:
    """What the other seed says of the births of one."""
    mine, theirs = (np.asarray(x.coder.dictionaries[0].decoder.cpu().numpy()) for x in (one, other))
    match = match_decoders(mine.reshape(len(mine), -1), theirs.reshape(len(theirs), -1), method="assignment")
    partner, births = match.one.partner, one.tracks.births
    matched = births[partner[births] >= 0]
    here, there = one.tracks.born[matched, 1], other.tracks.born[partner[matched], 1]
    rng, any_of = np.random.default_rng(0), other.tracks.born[partner[partner >= 0], 1]
    dealt = np.array([rng.permutation(any_of)[: len(matched)] for _ in range(1000)])

    def near(at: np.ndarray) -> np.ndarray:
        return np.asarray((at >= 0) & (np.abs(at - here) <= 1))

    return (
        f"{len(births)} births, {len(matched)} of features that the other has; {(there >= 0).sum()} of these are born there "
        f"too ({(dealt >= 0).sum(axis=1).mean():.1f} by chance), {near(there).sum()} within one checkpoint "
        f"({near(dealt).sum(axis=1).mean():.1f} by chance)"
    )


def effects(one: Learned) -> str:
    """The estimate at the final checkpoint against exact removal, of the features with the largest estimates."""
    last, rows = len(one.material.checkpoints) - 1, one.held.rows
    cuts = [slice(start, start + CUT) for start in range(0, len(rows), CUT)]
    wide = rows.shape[1]
    decoder = one.coder.decoder(last)

    def codes(number: int) -> Any:
        cut = cuts[number]
        return one.coder.sparse(one.held.activations[:, cut.start * wide : cut.stop * wide], last)

    for _, model in installed(one.material.series, one.material.checkpoints[-1:], one.material.resident()):
        said = measure_effects(model, one.place, rows, 0, cuts, codes, decoder)
        some = np.argsort(-np.abs(said.effect))[:REMOVED]
        exact, first_order = np.zeros((2, len(some)))
        for number, cut in enumerate(cuts):
            code, shape = codes(number).tocsc(), (len(rows[cut]), wide, -1)
            before, gradient = loss_and_gradient(model, one.place, rows[cut], 0)
            every = removed(gradient.reshape(-1, gradient.shape[-1]), code, decoder.vectors)
            first_order += np.asarray(every.sum(axis=0)).ravel()[some]
            for place, feature in enumerate(some):
                part = np.asarray((code[:, [feature]] @ decoder.vectors[[feature]]).reshape(shape), dtype=np.float32)
                exact[place] += loss_and_gradient(model, one.place, rows[cut], 0, less=part)[0] - before
        exact /= rows.size - len(rows)
    estimate, error = said.effect[some], said.effect_error[some]
    return (
        f"the {len(some)} largest at the final checkpoint: rank correlation with removal {spearmanr(estimate, exact)[0]:.2f}, "
        f"estimate over removal {np.median(estimate / exact):.2f} in the median, "
        f"{np.mean(np.abs(estimate - exact) < 2 * error):.0%} within two standard errors; of the gradient alone "
        f"{spearmanr(first_order, exact)[0]:.2f}"
    )


def main() -> None:
    """Print all three."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--features", type=int, default=512)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--quick", action="store_true", help="100 batches of 64 features")
    arguments = parser.parse_args()
    features, steps = (64, 100) if arguments.quick else (arguments.features, arguments.steps)
    organism = OrganismConfig()
    series = open_organism("organism", organism)
    config = DictionaryConfig(features=features, k=min(16, features // 4), steps=steps)
    print(f"{len(series.checkpoints)} checkpoints, {features} features of layer {LAYER}, {steps} batches", flush=True)
    first = learned(series, series.checkpoints, organism, config)
    print(f"seed 0: {first}\neffects: {effects(first)}", flush=True)
    second = learned(series, series.checkpoints, organism, config.model_copy(update={"seed": 1}))
    print(
        f"seed 1: {second}\nseed 0 against 1: {agreement(first, second)}\nseed 1 against 0: {agreement(second, first)}"
    )
    final = series.checkpoints[-1]
    still = [replace(final, step=checkpoint.step) for checkpoint in series.checkpoints]
    print(f"every checkpoint the final one: {learned(series, still, organism, config)}", flush=True)


if __name__ == "__main__":
    main()
