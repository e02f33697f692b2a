"""What collecting costs: against the floor (bare forward passes) and against a plain ``transformers`` loop.

    python benchmarks/collection.py [RUN] [--checkpoints 8]

The plain loop is what a user would write: ``from_pretrained`` for every checkpoint, hidden states and attentions of
padded batches of 32 prompts, kept as one ``.npz`` file a checkpoint. It stores the same residual streams and answers,
but neither the per-head scores nor the neurons' selectivity. The floor is the forward passes alone, with the weights
in memory, in the same batches as the collector's. Run it with ``OMP_NUM_THREADS=1``: what is printed are CPU seconds of all threads.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import dynamics
from checkpoints.loading import ResidentModel, prepare
from checkpoints.tokenizing import load_tokenizer
from dynamics.runs.config import Run, load_run
from dynamics.runs.resolve import Resolved, resolve


def floor(resolved: Resolved, steps: list[int]) -> float:
    """CPU seconds of the forward passes alone."""
    import torch

    assert resolved.series is not None
    resident = ResidentModel()
    chosen = [c for c in resolved.series.checkpoints if c.step in steps]
    model = resident.install(prepare(resolved.series.fetch(chosen[0])))
    batches = [
        torch.from_numpy(np.stack([probe.ids[row] for row in rows]))
        for _, probe in resolved.probes
        for rows in probe.batches(resolved.run.batch_tokens)
    ]
    started = time.process_time()
    with torch.inference_mode():
        for _ in chosen:
            for ids in batches:
                model(input_ids=ids, use_cache=False, logits_to_keep=1)
    return time.process_time() - started


def plain(resolved: Resolved, steps: list[int], folder: Path) -> float:
    """CPU seconds of the loop that a user would write."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    assert resolved.series is not None
    tokenizer = load_tokenizer(resolved.series.tokenizer_folder)
    tokenizer.padding_side = "left"
    texts = [text for plan, _ in resolved.probes for text in plan.probe.text]
    started = time.process_time()
    for checkpoint in resolved.series.checkpoints:
        if checkpoint.step not in steps:
            continue
        model: Any = AutoModelForCausalLM.from_pretrained(
            resolved.series.fetch(checkpoint), dtype=torch.float32, attn_implementation="eager"
        ).eval()
        kept = []
        with torch.no_grad():
            for start in range(0, len(texts), 32):
                batch = tokenizer(texts[start : start + 32], return_tensors="pt", padding=True)
                batch.pop("token_type_ids", None)
                output = model(**batch, output_hidden_states=True, output_attentions=True)
                hidden = torch.stack(output.hidden_states[1:], 1)[:, :, -1]
                kept.append((hidden.numpy(), output.logits[:, -1].log_softmax(-1).numpy()))
        np.savez(folder / f"{checkpoint.step}.npz", hidden=np.concatenate([k[0] for k in kept]))
    return time.process_time() - started


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", nargs="?", default="organism")
    parser.add_argument("--checkpoints", type=int, default=8, help="at least 2")
    arguments = parser.parse_args()
    run: Run = load_run(arguments.run)
    resolved = resolve(arguments.run, run)
    all_steps = [c.step for c in resolved.declaration.checkpoints]
    steps = all_steps[-arguments.checkpoints :]
    with tempfile.TemporaryDirectory() as folder:
        floor(resolved, steps[:1])  # warm-up
        bare = floor(resolved, steps)
        loop = plain(resolved, steps, Path(folder))
        spent = []
        for some in (steps[:1], steps):  # a trace is begun once, whatever the number of its checkpoints
            partial = run.model_copy(update={"exclude": tuple(s for s in all_steps if s not in some)})
            began = time.process_time()
            dynamics.collect(arguments.run, run=partial, traces=Path(folder))
            spent.append(time.process_time() - began)
    n = len(steps)
    begun, more = spent[0], spent[1] / (n - 1)
    print(
        f"{n} checkpoints of {arguments.run}, {sum(len(p.ids) for _, p in resolved.probes)} prompts each; CPU seconds"
    )
    print(f"bare forward passes      {bare / n:6.2f} a checkpoint   1.00")
    print(f"dynamics collect         {more:6.2f} a further checkpoint   {more * n / bare:.2f} x the floor")
    print(f"                         {begun:6.2f} the first one, with making the trace")
    print(f"plain transformers loop  {loop / n:6.2f} a checkpoint   {loop / bare:.2f} x the floor")
    print(f"collect against the plain loop: {more * n / loop:.2f} of its time")


if __name__ == "__main__":
    main()
