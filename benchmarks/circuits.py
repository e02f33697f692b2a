"""What does attributing every edge cost, and does the attribution rank edges as cutting each of them does?

    python benchmarks/circuits.py [--quick]
    python benchmarks/circuits.py --shapes
    python benchmarks/circuits.py --real PROMPTS

With ``--shapes``: passes and CPU seconds of ``Circuit`` and ``SourceEffects`` together on untrained GPT-NeoX models that
have as many parameters in their blocks, with few and many heads and layers; with ``--real`` the same on SmolLM2-135M (see
``make real``) and that many prompts of the analysis ``ioi``. The unit is one bare forward pass through the same prompts; a
pass with gradients counts as three. A circuit is searched for, whether or not prompts and twins differ beyond noise.

Otherwise, on the organism (trained first where it is not yet), with 100 prompts of two tasks: a repeated word's successor (the
prompts of the analysis ``induction``), and the ones digit of a sum, whose twin has another one and the same carry.

1. Time and memory of EAP-IG on 100 prompts over 10, 20 and 40 checkpoints, weights read from disk: each in a process of
   its own, whose largest resident size is the operating system's. The floor is one bare forward pass of the same
   prompts; attribution needs two, and a forward and a backward pass for each of its five points.
2. Spearman's correlation of scores with the exact effect of cutting each edge alone, at the final checkpoint: over the
   200 edges with the largest scores, over all edges, and over those whose effect is not next to nothing. Points of the
   path from the twin's embeddings to the prompt's: ``k/steps`` for k = 1 .. steps (Hanna et al. 2024, what this project
   uses), the middles ``(k - 1/2)/steps``, which weigh both ends alike, or the last tenth of the path only. With one step
   the first is plain attribution patching at the prompt.
3. Seconds of ``explain`` per checkpoint.

Seconds depend on the machine and on who else computes on it.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import transformers
from scipy.stats import spearmanr

import dynamics.measurements.circuit
from analyses.induction.pairs import pair_probe
from analyses.ioi.prompts import ioi_probe
from checkpoints.ahead import ReadAhead
from checkpoints.organism.worlds import addition as world
from checkpoints.series import Checkpoint, Series
from dynamics.circuits.attribution import attribute, logit_difference
from dynamics.circuits.wired import Metric, Wired
from dynamics.collecting.opening import resident_for
from dynamics.explaining.checkpoint import explain_checkpoint
from dynamics.explaining.prompts import ask
from dynamics.measurements import Circuit, SourceEffects
from dynamics.measurements.forward import measure
from dynamics.models.architecture import Architecture, architecture
from dynamics.probes import LAST, Probe, TokenizedProbe, tokenize
from dynamics.probes.sources import plain_words
from dynamics.runs.config import Run, load_run
from dynamics.runs.resolve import Model, open_model
from dynamics.runs.schedule import scheduled

PROMPTS = 100
TOP = 200
LARGE = 0.05
"""Logits: effects that one would call one."""
SUM = "46+39=08"


class Task:
    """Prompts, twins and metric as tensors."""

    def __init__(self, probe: Probe, model: Model) -> None:
        shape = model.architecture.shape
        found = tokenize(probe, model.tokenizer, vocab=shape.vocab, context=shape.context)
        assert found.corrupted_ids is not None and found.answer_ids is not None and found.foil_ids is not None
        self.ids = torch.from_numpy(np.stack(found.ids))
        self.twins = torch.from_numpy(np.stack(found.corrupted_ids))
        self.last = torch.from_numpy(found.positions[LAST])
        self.metric: Metric = logit_difference(torch.from_numpy(found.answer_ids), torch.from_numpy(found.foil_ids))


def digit_probe(prompts: int, seed: int = 0) -> Probe:
    """The ones digit of sums; the twin's second number has another ones digit, but the same carry."""
    rng = np.random.default_rng(seed)
    text, answer, foil, corrupted = [], [], [], []
    while len(text) < prompts:
        a, b = (int(n) for n in rng.integers(10, 100, 2))
        others = [c for c in range(b - b % 10, b - b % 10 + 10) if c != b and (a + c) // 10 == (a + b) // 10]
        if not others:
            continue
        prompt, right = world.prompt(a, b, "plain", "ones")
        twin, wrong = world.prompt(a, int(rng.choice(others)), "plain", "ones")
        if prompt not in text:
            text.append(prompt)
            answer.append(right)
            corrupted.append(twin)
            foil.append(wrong)
    return Probe("digits", tuple(text), answer=tuple(answer), foil=tuple(foil), corrupted=tuple(corrupted))


def median(call: Callable[[], object], rounds: int) -> float:
    """Seconds."""
    call()
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def scores_along(wired: Wired, task: Task, points: list[float]) -> np.ndarray:
    """(source, reader) attribution with the gradient's mean over these points of the path."""
    clean, twin = wired.written(task.ids), wired.written(task.twins)
    gradient = sum(
        wired.gradients(task.ids, task.last, task.metric, twin[0] + at * (clean[0] - twin[0])).readers for at in points
    )
    assert isinstance(gradient, torch.Tensor)
    scores = (clean - twin).flatten(1) @ gradient.flatten(1).T / (len(points) * len(task.ids))
    return np.where(wired.graph.edges, scores.numpy(), 0.0)


def correlations(wired: Wired, task: Task, rounds: tuple[int, ...]) -> None:
    """Print Spearman's correlation for each rule and number of steps."""
    graph = wired.graph
    base, twin = task.metric(wired.logits(task.ids, task.last).float()), wired.written(task.twins)
    exact = np.zeros(graph.edges.shape)
    for source, reader in np.argwhere(graph.edges):  # each edge alone is cut
        cut = torch.zeros(graph.edges.shape)
        cut[source, reader] = 1
        without = task.metric(wired.patched(task.ids, task.last, twin, cut).float())
        exact[source, reader] = (base - without).mean()
    sizes = np.abs(exact[graph.edges])
    print(
        f"  exact effects (logits): median {np.median(sizes):.4f}, ninth decile {np.quantile(sizes, 0.9):.4f}, "
        f"largest {sizes.max():.2f}; {(sizes >= LARGE).sum()} edges of {LARGE} or more"
    )
    rules: dict[str, Callable[[int], list[float]]] = {
        "k/steps": lambda steps: [k / steps for k in range(1, steps + 1)],
        "middles": lambda steps: [(k - 0.5) / steps for k in range(1, steps + 1)],
        "last tenth": lambda steps: [1 - 0.1 * k / steps for k in range(steps)],
    }
    for rule, points in rules.items():
        for steps in rounds:
            if rule == "last tenth" and steps == 1:
                continue  # the prompt itself, as above
            scores = scores_along(wired, task, points(steps))
            order = np.argsort(-np.abs(scores), axis=None)[:TOP]
            top = np.unravel_index(order, scores.shape)
            own, true = scores[top], exact[top]
            large = np.abs(exact) >= LARGE
            print(
                f"    {rule:<10} {steps:>2} steps   top {TOP}: signed {rank(own, true):.2f}, "
                f"by size {rank(np.abs(own), np.abs(true)):.2f}   all edges: by size "
                f"{rank(np.abs(scores[graph.edges]), sizes):.2f}   effects of {LARGE} or more: signed "
                f"{rank(scores[large], exact[large]):.2f}, by size {rank(np.abs(scores[large]), np.abs(exact[large])):.2f}",
                flush=True,
            )


def rank(scores: np.ndarray, effects: np.ndarray) -> float:
    """Spearman's correlation."""
    return float(spearmanr(scores, effects).statistic)


def sweep(run: Run, series: Series, model: Model, checkpoints: list[Checkpoint], steps: int) -> list[float]:
    """Seconds of each checkpoint, with reading its weights."""
    task = Task(pair_probe(plain_words(model.tokenizer), PROMPTS, 8, 0), model)
    resident = resident_for(run, model)
    seconds = []
    with ReadAhead(series, checkpoints, series.read) as ahead:
        for _ in checkpoints:
            began = time.perf_counter()
            resident.install(ahead.take())
            ahead.release()
            wired = Wired(resident.model, model.architecture)
            attribute(wired, task.ids, task.twins, task.last, task.metric, steps=steps)
            seconds.append(time.perf_counter() - began)
    return seconds


def chosen(series: Series, count: int) -> list[Checkpoint]:
    """As many checkpoints, evenly on a log scale."""
    places = scheduled([c.step for c in series.checkpoints], "log", count)
    return [series.checkpoints[i] for i in places]


SHAPES = ((3, 4, 512), (3, 16, 512), (3, 32, 512), (12, 4, 256), (12, 16, 256), (12, 32, 256))
"""Layers, heads, width: 9.4 million parameters in the blocks of each."""


def priced(model: torch.nn.Module, described: Architecture, probe: TokenizedProbe, name: str) -> None:
    """Print what a circuit and the effects of its sources cost."""
    wired, passed = Wired(model, described), 0
    dynamics.measurements.circuit.NOISE = 0.0

    def count(_module: object, _args: object, output: torch.Tensor) -> None:
        nonlocal passed
        passed += output.shape[0] * output.shape[1] * (3 if torch.is_grad_enabled() else 1)

    def bare() -> None:
        for rows in probe.batches(8192):
            wired.logits(
                torch.from_numpy(np.stack([probe.ids[r] for r in rows])), torch.from_numpy(probe.positions[LAST][rows])
            )

    bare()
    times = []
    for _ in range(5):
        began = time.process_time()
        bare()
        times.append(time.process_time() - began)
    for layer in range(wired.graph.layers):
        block = model.get_submodule(described.table.block.format(layer))
        block.get_submodule(wired.wiring.out).register_forward_hook(count)
    began = time.process_time()
    found = measure(model, probe, (Circuit(), SourceEffects()), architecture=described)
    seconds = time.process_time() - began
    whole = int(probe.lengths.sum()) * wired.graph.layers
    patched = int(np.isfinite(found["source_effect"]).all(0).sum())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(
        f"  {name:<34} {wired.graph.edges.sum():>7,} edges   {patched:>3} of {len(wired.graph.sources):>3} sources patched   "
        f"{passed / whole:5.1f} passes   {seconds:6.1f} s CPU   {seconds / statistics.median(times):5.1f} bare passes   "
        f"peak {peak / 2**20:,.0f} MiB",
        flush=True,
    )


def shapes() -> None:
    """Models of equal parameters."""
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 1000, (40, 12))
    twins = ids.copy()
    twins[:, 3:6] = rng.integers(0, 1000, (40, 3))
    answers, last = rng.integers(0, 1000, 40), np.full(40, 11)
    probe = TokenizedProbe(
        Probe("random", tuple(map(str, range(40)))),
        tuple(ids),
        answers,
        (answers + 1) % 1000,
        tuple(twins),
        {LAST: last},
        {},
    )
    for layers, heads, width in SHAPES:
        torch.manual_seed(0)
        config = transformers.GPTNeoXConfig(
            vocab_size=1000,
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            intermediate_size=4 * width,
            max_position_embeddings=64,
        )
        model = transformers.AutoModelForCausalLM.from_config(config).eval()
        priced(model, architecture(config), probe, f"{layers} layers of {heads} heads, width {width}")


def real_model(prompts: int) -> None:
    """SmolLM2-135M."""
    from tests import real

    if reason := real.why_not():
        raise SystemExit(reason)
    folder = real.model_folder()
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer, described = transformers.AutoTokenizer.from_pretrained(folder), architecture(model.config)
    probe = tokenize(ioi_probe(tokenizer, prompts, 0), tokenizer, vocab=described.shape.vocab)
    priced(model, described, probe, f"SmolLM2-135M, {prompts} prompts of ioi")


def main() -> None:
    """Print everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", default="organism", help="an organism of the runs file")
    parser.add_argument("--quick", action="store_true", help="fewer checkpoints and steps")
    parser.add_argument("--only", type=int, help="attribute this many checkpoints and print seconds and bytes")
    parser.add_argument("--shapes", action="store_true", help="what circuits cost on models of equal parameters")
    parser.add_argument("--real", type=int, metavar="PROMPTS", help="what circuits cost on SmolLM2-135M")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.shapes or arguments.real:
        print("Circuit and SourceEffects at their defaults")
        if arguments.shapes:
            shapes()
        if arguments.real:
            real_model(arguments.real)
        return
    run = load_run(arguments.run, Path(__file__).parents[1] / "runs.yaml")
    series, model = open_model(arguments.run, run)
    if arguments.only is not None:
        seconds = sweep(run, series, model, chosen(series, arguments.only), 5)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(len(seconds), sum(seconds), statistics.median(seconds), peak)
        return
    load = os.getloadavg()[0]
    print(f"{PROMPTS} prompts, 5 steps, {torch.get_num_threads()} threads, load before {load:.1f}")
    for count in (5, 10) if arguments.quick else (10, 20, 40):
        command = [sys.executable, __file__, arguments.run, "--only", str(count), "--threads", str(arguments.threads)]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        visited, (total, middle, used) = int(said[0]), map(float, said[1:])
        print(
            f"  {visited:>3} checkpoints   {total:6.1f} s   {total / visited:5.2f} s each (median {middle:.2f})   "
            f"peak {used / 2**20:,.0f} MiB"
        )
    final = series.checkpoints[-1]
    resident = resident_for(run, model)
    resident.install(series.read(series.fetch(final)))
    wired = Wired(resident.model, model.architecture)
    tasks = {
        "a repeated word's successor": Task(pair_probe(plain_words(model.tokenizer), PROMPTS, 8, 0), model),
        "the ones digit of a sum": Task(digit_probe(PROMPTS), model),
    }
    for name, task in tasks.items():
        rounds = 3 if arguments.quick else 9
        bare = median(lambda task=task: wired.logits(task.ids, task.last), rounds)  # type: ignore[misc]
        attributed = median(
            lambda task=task: attribute(wired, task.ids, task.twins, task.last, task.metric),  # type: ignore[misc]
            rounds,
        )
        base = float(task.metric(wired.logits(task.ids, task.last)).mean())
        twin = float(task.metric(wired.logits(task.twins, task.last)).mean())
        print(
            f"\n{name}: {task.ids.shape[1]} tokens, {int(wired.graph.edges.sum())} edges, step {final.step}, "
            f"logit difference {base:+.2f} (twins {twin:+.2f})"
        )
        print(f"  bare pass {bare:.3f} s, attribution {attributed:.3f} s: {attributed / bare:.1f} x")
        print(f"  Spearman with exact patching, {TOP} edges with the largest scores")
        correlations(wired, task, (1, 5) if arguments.quick else (1, 5, 10))
    print("\nexplain, seconds per checkpoint (flowchart, ablations, lens; without loading)")
    for prompt in (SUM, pair_probe(plain_words(model.tokenizer), 1, 8, 0).text[0]):
        seconds = []
        for checkpoint in chosen(series, 4 if arguments.quick else 10):
            resident.install(series.read(series.fetch(checkpoint)))
            wired = Wired(resident.model, model.architecture)
            question = ask(model.tokenizer, model.architecture.shape, prompt)
            top = wired.logits(torch.from_numpy(question.ids)[None], torch.tensor([len(question.ids) - 1]))[0]
            answer, foil = (int(i) for i in top.argsort(descending=True)[:2])
            began = time.perf_counter()
            explain_checkpoint(wired, model.tokenizer, question, answer, foil, checkpoint, 0.8)
            seconds.append(time.perf_counter() - began)
        print(
            f"  {prompt!r}, {len(question.ids)} tokens: median {statistics.median(seconds):.2f}, most {max(seconds):.2f}"
        )
    print(f"load after {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
