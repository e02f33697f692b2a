"""Do the reported onsets agree with a dense evaluation by plain ``transformers``?

    python benchmarks/against_plain.py [RUN]

Every checkpoint is loaded with ``from_pretrained``, and prompts are answered one by one, without any code of the
collector. From those curves the step is read off as one would by eye: the first checkpoint from which accuracy stays
above the best accuracy that shuffled answers ever reach at any checkpoint (for induction: from which the second copy
stays cheaper than the first by more than it ever is on unrelated halves). The reported onset interval, widened by its
bootstrap range, must contain that step; half-rise steps are compared with the reported midpoint interval.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from checkpoints.organism import open_organism
from checkpoints.organism.curriculum import OrganismConfig
from dynamics.runs.config import load_run
from dynamics.store import Trace
from dynamics.store.paths import beside_traces

KEYS = {
    "addition.accuracy": "held-out sums",
    "shared_concepts.transfer": "held-out transfer",
    "induction.copying": "induction",
}


def evaluate(folder: Path, steps: list[int], trace: Trace) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """(curve, level that chance reaches) of each circuit, one prompt at a time."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    torch.set_num_threads(1)  # single prompts: threads would only wait for one another
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    tokenizer = AutoTokenizer.from_pretrained(folder / f"step{steps[0]}")
    rng = np.random.default_rng(5)

    def prompts(probe: str) -> tuple[list[Any], list[int]]:
        texts, answers = trace.label(probe, "text"), trace.label(probe, "answer")
        ids = [tokenizer(str(t), return_tensors="pt")["input_ids"] for t in texts]
        return ids, [tokenizer(str(a), add_special_tokens=False)["input_ids"][0] for a in answers]

    sums, sum_answers = prompts("addition_sums")
    pair = trace.label("addition_sums", "pair")
    kind = np.array(
        [
            f"{c}/{d}"
            for c, d in zip(trace.label("addition_sums", "context"), trace.label("addition_sums", "digit"), strict=True)
        ]
    )
    concepts, concept_answers = prompts("concept_antonyms")
    held = np.flatnonzero(trace.label("concept_antonyms", "split") == "held out")
    language = trace.label("concept_antonyms", "language")
    repeats = [tokenizer(str(t), return_tensors="pt")["input_ids"] for t in trace.label("induction_repeats", "text")]
    unrelated = [tokenizer(str(t), return_tensors="pt")["input_ids"] for t in trace.label("induction_control", "text")]
    period = int(trace.label("induction_repeats", "period")[0])

    curves: dict[str, list[tuple[float, float]]] = {key: [] for key in KEYS}
    for step in steps:
        model: Any = AutoModelForCausalLM.from_pretrained(folder / f"step{step}", dtype=torch.float32).eval()
        with torch.no_grad():
            said = np.array([int(model(ids).logits[0, -1].argmax()) for ids in sums])
            heard = np.array([int(model(concepts[i]).logits[0, -1].argmax()) for i in held])

            def saved(ids: Any, model: Any = model) -> float:
                loss = torch.nn.functional.cross_entropy(model(ids).logits[0, :-1], ids[0, 1:], reduction="none")
                return float(loss[-2 * period + 1 : -period].mean() - loss[-period + 1 :].mean())

            copied = [saved(ids) for ids in repeats]
            misled = [saved(ids) for ids in unrelated]
        right = said == np.array(sum_answers)
        exact = [right[pair == p].all() for p in np.unique(pair)]
        chance = []
        for _ in range(20):
            shuffled = np.array(sum_answers)
            for k in np.unique(kind):
                rows = np.flatnonzero(kind == k)
                order = rng.permutation(len(rows))
                shuffled[rows] = shuffled[rows][order]
            hits = said == shuffled
            chance.append(np.mean([hits[pair == p].all() for p in np.unique(pair)]))
        curves["addition.accuracy"].append((float(np.mean(exact)), float(np.max(chance))))
        target = np.array(concept_answers)[held]
        chance = []
        for _ in range(20):
            shuffled = target.copy()
            for name in np.unique(language[held]):
                rows = np.flatnonzero(language[held] == name)
                shuffled[rows] = shuffled[rng.permutation(rows)]
            chance.append(float(np.mean(heard == shuffled)))
        curves["shared_concepts.transfer"].append((float(np.mean(heard == target)), float(np.max(chance))))
        noise = 2 * float(np.std(copied)) / np.sqrt(len(copied))
        curves["induction.copying"].append((float(np.mean(copied)), max(0.0, float(np.mean(misled))) + noise))
    return {k: (np.array([v for v, _ in c]), np.array([n for _, n in c])) for k, c in curves.items()}


def stays(above: np.ndarray, steps: list[int]) -> int | None:
    """The first step from which ``above`` holds to the end."""
    below = np.flatnonzero(~above)
    first = int(below[-1]) + 1 if len(below) else 0
    return steps[first] if first < len(steps) else None


def main() -> None:
    """Print the comparison; exit code 1 if any reported interval misses."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", nargs="?", default="organism")
    parser.add_argument("--traces", type=Path, default=Path("traces"))
    parser.add_argument("--reports", type=Path)
    arguments = parser.parse_args()
    config = load_run(arguments.run).series
    assert isinstance(config, OrganismConfig)
    series = open_organism(arguments.run, config)
    trace = Trace(arguments.traces / f"{arguments.run}.zarr")
    steps = trace.steps.tolist()
    reports = arguments.reports or beside_traces(arguments.traces, "reports")
    report = json.loads((reports / arguments.run / "report.json").read_text(encoding="utf-8"))
    findings = {f["key"]: f for a in report["analyses"] for f in a["findings"]}
    curves = evaluate(series.fetch(series.checkpoints[0]).parent, steps, trace)
    missed = 0
    for key, title in KEYS.items():
        curve, chance = curves[key]
        onset = stays(curve > chance.max() if key != "induction.copying" else curve > chance, steps)
        half = stays(curve > (curve[0] + curve[-1]) / 2, steps)
        e = findings[key]["emergence"]
        wide, middle = e["onset_range"] or e["onset"], e["midpoint_interval"]
        fits = onset is not None and (wide["after"] or -1) < onset <= (wide["by"] or np.inf)
        fits_half = (
            half is not None and middle is not None and (middle["after"] or -1) < half <= (middle["by"] or np.inf)
        )
        missed += (not fits) + (not fits_half)
        print(
            f"{title:<18} {e['state']:<12} onset by eye {onset}, reported ({e['onset']['after']}, {e['onset']['by']}] within "
            f"({wide['after']}, {wide['by']}]: {'agrees' if fits else 'MISSES'}; half-rise by eye {half}, reported "
            f"({middle['after']}, {middle['by']}]: {'agrees' if fits_half else 'MISSES'}"
        )
    largest = np.nanmax(np.abs(np.array(findings["addition.accuracy"]["values"]) - curves["addition.accuracy"][0]))
    print(f"largest difference between the two accuracy curves of sums: {largest:.4f}")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
