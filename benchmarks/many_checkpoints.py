"""What does a series of thousands of checkpoints cost: does any verb take time or memory that grows faster than their number?

    python benchmarks/many_checkpoints.py [--checkpoints 100 300 1000 3000] [--verbs collect audit ...]

A drifting random walk of the weights of a two-layer GPT-NeoX (3,856 parameters) stands for a training, one folder a
checkpoint, as ``save_pretrained`` writes it; one probe of eight prompts, one curve. Every verb is a process of its own, as a user
calls it. Printed are CPU seconds and peak memory; ``again`` is a collection that has nothing left to do.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from multiprocessing import get_context
from pathlib import Path

VERBS = ("collect", "again", "status", "verify", "audit", "analyse", "report")
WORDS = [*(f"w{i}" for i in range(60)), "yes", "no"]
RUNS = """many:
  series: {kind: folder, path: series}
  analyses: [preference]
  probes:
    words: {file: words.jsonl}
  device: cpu
"""
ANALYSIS = """from dynamics import analysis as da

TITLE = "Answer against foil"


def plan(context, options):
    return [da.Request(context.probe("words"), (da.Answers(),))]


def summarise(trace, options):
    difference = trace.values("words", "answer_logprob") - trace.values("words", "foil_logprob")
    null = da.Null(da.sign_flip_null(difference), "no difference")
    spec = da.CurveSpec("logit difference (nat)", "words", headline=True)
    return da.Section([da.from_units("preference", "right answer preferred", difference, null, spec)])
"""


def make(folder: Path, count: int) -> None:
    """A runs file and a series of as many checkpoints."""
    import torch
    from safetensors.torch import save_file
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    from checkpoints.tokenizing import word_tokenizer

    torch.manual_seed(0)
    config = GPTNeoXConfig(
        vocab_size=len(WORDS) + 2,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=64,
    )
    model = GPTNeoXForCausalLM(config)
    weights = {name: value.detach().clone() for name, value in model.state_dict().items()}
    drift = {name: 0.01 * torch.randn_like(value) for name, value in weights.items()}
    for index in range(count):
        at = folder / "series" / f"step{index}"
        at.mkdir(parents=True)
        config.architectures = ["GPTNeoXForCausalLM"]
        config.save_pretrained(at)
        for name, value in weights.items():
            value += drift[name] / (1 + index / 30) + 0.003 * torch.randn_like(value)
        save_file(weights, at / "model.safetensors", metadata={"format": "pt"})
    word_tokenizer(WORDS).save_pretrained(folder / "series")
    rows = [{"text": f"w{i} w{i + 1} w{i}", "answer": f" w{i + 1}", "foil": " no"} for i in range(8)]
    (folder / "words.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    (folder / "preference.py").write_text(ANALYSIS, encoding="utf-8")
    (folder / "runs.yaml").write_text(RUNS, encoding="utf-8")


def call(folder: Path, verb: str) -> tuple[float, float]:
    """CPU seconds and peak memory in MiB of one verb."""
    name = "collect" if verb == "again" else verb
    code = (
        "import resource, sys\n"
        "from dynamics.cli import cli\n"
        "try:\n"
        f"    cli([{name!r}, 'many'], standalone_mode=False)\n"
        "finally:\n"
        "    used = resource.getrusage(resource.RUSAGE_SELF)\n"
        "    print('used', used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)\n"
    )
    root = str(Path(__file__).resolve().parents[1])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": root, "DYNAMICS_CACHE": str(folder / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{name} ended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    _, seconds, memory = done.stdout.strip().splitlines()[-1].split()
    return float(seconds), float(memory)


def main() -> None:
    """Print a line per number of checkpoints and verb."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoints", type=int, nargs="+", default=[100, 300, 1000, 3000])
    parser.add_argument("--verbs", nargs="+", choices=VERBS, default=list(VERBS))
    parser.add_argument("--folder", type=Path, help="Keep the series and traces in this folder.")
    arguments = parser.parse_args()
    print(f"{'checkpoints':>11}  " + "  ".join(f"{verb:>15}" for verb in arguments.verbs), flush=True)
    for count in arguments.checkpoints:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) if arguments.folder is None else arguments.folder / str(count)
            if not folder.exists() or not any(folder.iterdir()):
                # elsewhere: a process begins with the peak of the one that started it
                maker = get_context("spawn").Process(target=make, args=(folder, count))
                maker.start()
                maker.join()
            print(f"{count:>11,}", end="", flush=True)
            for verb in arguments.verbs:
                seconds, memory = call(folder, verb)
                print(f"  {seconds:6.1f} s {memory:5.0f} M", end="", flush=True)
            print(flush=True)


if __name__ == "__main__":
    main()
