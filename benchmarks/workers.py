"""How much faster are several local workers than one process, and is it the same trace?

    python -m benchmarks.workers --workers 2 --checkpoints 12

A series of the blocks of Pythia-70m (6 layers of 512, 8 heads) with random weights, one thread a process: one process collects it, then
`--workers N`, then both traces are compared byte for byte. Printed are seconds by the clock, of the whole call (with the start
of workers, and what each imports) and a checkpoint once all of them are at work, by the journal; and CPU seconds of all processes.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from importlib import import_module
from pathlib import Path

from benchmarks.kill_resume import _compare, _snapshot

__all__ = ["main"]

WORDS = [*(f"w{i}" for i in range(400)), "yes", "no"]


def make(folder: Path, count: int) -> None:
    """A series of so many checkpoints."""
    import torch
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    from checkpoints.tokenizing import word_tokenizer

    torch.manual_seed(0)
    config = GPTNeoXConfig(
        vocab_size=len(WORDS) + 2,
        hidden_size=512,
        num_hidden_layers=6,
        num_attention_heads=8,
        intermediate_size=2048,
        max_position_embeddings=128,
    )
    model = GPTNeoXForCausalLM(config)
    for index in range(count):
        with torch.no_grad():
            for value in model.parameters():
                value += 0.01 * torch.randn_like(value)
        model.save_pretrained(folder / "series" / f"step{index}")
    word_tokenizer(WORDS).save_pretrained(folder / "series")


def used() -> float:
    """CPU seconds of this process and those that it started and that have ended."""
    total = 0.0
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        found = resource.getrusage(who)
        total += found.ru_utime + found.ru_stime
    return total


def main() -> None:
    """Print a line for each, and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--checkpoints", type=int, default=12)
    parser.add_argument("--prompts", type=int, default=200)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    import_module("torch").set_num_threads(1)
    import dynamics
    from dynamics.runs.config import Run
    from dynamics.store.journal import read_journal

    import_module("dynamics.runs.resolve").__dict__["provenance"] = lambda: {"versions": {}, "commit": None}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        os.environ["DYNAMICS_CACHE"] = str(folder / "cache")
        make(folder, options.checkpoints)
        texts = [" ".join(f"w{(7 * i + j) % 400}" for j in range(60)) for i in range(options.prompts)]
        rows = [json.dumps({"text": text, "answer": " yes"}) for text in texts]
        (folder / "words.jsonl").write_text("\n".join(rows), encoding="utf-8")
        probes = {"words": {"file": str(folder / "words.jsonl"), "sites": ["resid_post"]}}
        series = {"kind": "folder", "path": str(folder / "series")}
        run = Run.model_validate({"series": series, "probes": probes, "device": "cpu"})
        seconds: dict[int | None, tuple[float, float]] = {}
        for workers in (None, options.workers):
            traces = folder / ("one" if workers is None else "many")
            began, before = time.perf_counter(), used()
            done = dynamics.collect("shape", run=run, traces=traces, workers=workers)
            whole = time.perf_counter() - began
            times = sorted(e["time"] for e in read_journal(done.trace) if e.get("event") == "complete")
            first = 0 if workers is None else workers - 1  # the checkpoint after which all have begun
            each = (times[-1] - times[first]) / (len(times) - 1 - first)
            seconds[workers] = (whole, each)
            name = "one process" if workers is None else f"{workers} workers"
            print(
                f"{name:<12} {whole:6.1f} s, then {each:6.2f} s a checkpoint, CPU {used() - before:6.1f} s", flush=True
            )
        differences = _compare(_snapshot(folder / "one"), _snapshot(folder / "many"))
        one, many = seconds[None], seconds[options.workers]
        print(
            f"{one[0] / many[0]:.2f} x as fast; once at work {one[1] / many[1]:.2f} x; {len(differences)} files differ"
        )


if __name__ == "__main__":
    main()
