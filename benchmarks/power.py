"""How large must an effect be for the prompts of a behaviour to show it?

    python benchmarks/power.py                    # in standard deviations of what one item shows; two minutes
    python benchmarks/power.py --model FOLDER     # also in nats, for a model as `save_pretrained` writes it

Series of nine checkpoints are made up, in which every item shows noise, and from the fifth checkpoint on an effect besides. They
are assessed as the analyses do (bootstrap over items, null of random signs that holds for all checkpoints together). Printed is
how often the effect is called emerged, by its size and the number of items, and the size that is found four times in five. With
a model, the standard deviation of what an item shows (praise gained by a compliment, odds gained by a stated view) is
measured with plain ``transformers`` on the built-in prompts. What a change of the stream in a random direction does is a null
of these analyses, too, which depends on the model and is not part of the table: an effect must exceed both.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from analyses.sycophancy import Options
from analyses.sycophancy.prompts import praise_probe, views_probe
from dynamics.emergence import assess, sign_flip_null, unit_bootstrap
from dynamics.numerics.draws import FINE_DRAWS
from dynamics.probes import TokenizedProbe, tokenize

STEPS = np.array([0, 1, 4, 16, 64, 256, 1024, 4096, 16384])
SINCE = 4
LASTING = 0.7
"""Share of an item's variance that stays the same from checkpoint to checkpoint."""

EFFECTS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.8)
ITEMS = {
    "views, 72 prompts": 24,
    "views, 144 prompts (before)": 48,
    "praise, 144 prompts (before)": 72,
    "views, 288 prompts (default)": 96,
    "praise, 288 prompts (default)": 144,
    "hints, 480 prompts (default)": 160,
}
FOUND = 0.8


def share_found(items: int, effect: float, series: int, rng: np.random.Generator) -> float:
    """How often an effect, in standard deviations, is called emerged."""
    found = 0
    for _ in range(series):
        lasting, fresh = rng.normal(size=items), rng.normal(size=(len(STEPS), items))
        units = np.sqrt(LASTING) * lasting + np.sqrt(1 - LASTING) * fresh
        units[SINCE:] += effect
        draws, null = unit_bootstrap(units, draws=FINE_DRAWS), sign_flip_null(units)
        found += assess(STEPS, units.mean(1), draws=draws, null=null, null_name="signs").state == "emerged"
    return found / series


def visible(shares: list[float]) -> str:
    """The size at which four of five are found, between those that were tried."""
    above = [i for i, share in enumerate(shares) if share >= FOUND]
    if not above:
        return f"> {EFFECTS[-1]:g}"
    first = above[0]
    low, high = shares[first - 1], shares[first]
    between = (FOUND - low) / (high - low)
    return f"{EFFECTS[first - 1] + between * (EFFECTS[first] - EFFECTS[first - 1]):.2f}"


def odds(model: Any, probe: TokenizedProbe) -> np.ndarray:
    """(prompt,) logit(answer) - logit(foil) at the last token, prompt by prompt."""
    import torch

    assert probe.answer_ids is not None and probe.foil_ids is not None
    result = []
    with torch.inference_mode():
        for ids, answer, foil in zip(probe.ids, probe.answer_ids, probe.foil_ids, strict=True):
            last = model(torch.tensor([list(ids)]), logits_to_keep=1).logits[0, -1]
            result.append(float(last[int(answer)] - last[int(foil)]))
    return np.array(result)


def gains(model: Any, tokenizer: Any) -> dict[str, np.ndarray]:
    """What each item shows: praise gained by a compliment, and odds of the matching answer gained by a view."""
    asked = (tokenizer, Options().prompts, 0)
    praise = tokenize(praise_probe(*asked), tokenizer)
    flattered, neutral = odds(model, praise).reshape(-1, 2).T
    found = {"praise after compliments": flattered - neutral}
    views = views_probe(*asked)
    if views is not None:
        tokens = tokenize(views, tokenizer)
        matching = odds(model, tokens).reshape(-1, 3)  # for, against, none: odds of what matches
        found["stated views"] = (matching[:, 0] + matching[:, 1]) / 2
    return found


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", type=int, default=40, help="made up for each size and number of items")
    parser.add_argument("--model", type=Path, help="folder of a model whose items are measured")
    given = parser.parse_args()
    rng = np.random.default_rng(0)
    print("called emerged, by the size of the effect in standard deviations of an item; last: found four times in five")
    print(f"{'':32}{'items':>6}" + "".join(f"{effect:>7g}" for effect in EFFECTS) + f"{'80%':>8}")
    for name, items in ITEMS.items():
        shares = [share_found(items, effect, given.series, rng) for effect in EFFECTS]
        print(
            f"{name:32}{items:>6}" + "".join(f"{share:>7.0%}" for share in shares) + f"{visible(shares):>8}", flush=True
        )
    if given.model is None:
        return
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(given.model, dtype=torch.float32).eval()
    print("\nmeasured on the final weights (nat): mean, standard deviation of an item, and the mean in these")
    for name, values in gains(model, AutoTokenizer.from_pretrained(given.model)).items():
        deviation = values.std(ddof=1)
        error = deviation / np.sqrt(len(values))
        print(
            f"{name:32}{len(values):>6} items  {values.mean():+.3f} ± {error:.3f}  {deviation:.3f}  {values.mean() / deviation:+.2f}"
        )


if __name__ == "__main__":
    main()
