"""How often is something reported that cannot be there? Series of untrained models, through the whole program.

    python benchmarks/false_emergence.py [--series 9]

Every "checkpoint" is a fresh random initialisation of the organism's architecture (standard deviation of the weights
0.02, 0.1 or 0.2), so that nothing can form. Each curve is expected to be called emerged or transient in about 5% of
the series at most. Three kinds of curves are expected to differ and are listed apart: those whose null is the first
checkpoint (another random model here, not an earlier state of the same one), ``sum_decodable`` (a random network
passes numbers on, and a linear read-out finds them: present from the start), and ``duplicate_token`` (of sixteen
random heads one does attend to equal tokens a little more).
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from pathlib import Path

import dynamics
from checkpoints.local import FolderConfig
from checkpoints.organism import OrganismConfig, build_tokenizer, model_config
from dynamics.analyser import analyse
from dynamics.runs.config import AnalysisEntry, Run

ANALYSES = ("addition", "shared_concepts", "induction")
EXPECTED = {
    "induction.step0_excess": "null is the first checkpoint",
    "induction.previous_token": "null is the first checkpoint",
    "addition.sum_decodable": "numbers pass through random networks",
    "induction.duplicate_token": "some random head attends to equal tokens",
}


def untrained_series(folder: Path, seed: int, scale: float, checkpoints: int = 12) -> FolderConfig:
    """A folder of independent random models."""
    import torch
    from transformers import GPTNeoXForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    config = model_config(OrganismConfig())
    config.initializer_range = scale
    for index in range(checkpoints):
        torch.manual_seed(1000 * seed + index)
        GPTNeoXForCausalLM(config).save_pretrained(folder / f"step{10 * index}")
    build_tokenizer().save_pretrained(folder)
    return FolderConfig(path=folder)


def main() -> None:
    """Print how many curves of untrained series were called emerged or transient."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--series", type=int, default=9)
    arguments = parser.parse_args()
    states: dict[str, Counter[str]] = {}
    for seed in range(arguments.series):
        with tempfile.TemporaryDirectory() as folder:
            config = untrained_series(Path(folder) / "series", seed, (0.02, 0.1, 0.2)[seed % 3])
            run = Run(series=config, analyses=tuple(AnalysisEntry(name=n) for n in ANALYSES))
            dynamics.collect("untrained", run=run, traces=Path(folder))
            for finding in analyse("untrained", run=run, traces=Path(folder)).findings:
                states.setdefault(finding.key, Counter())[finding.emergence.state] += 1
    usual = {k: c for k, c in states.items() if k not in EXPECTED}
    false = {k: c["emerged"] + c["transient"] + c["present from start"] for k, c in usual.items()}
    total = sum(sum(c.values()) for c in usual.values())
    print(f"{arguments.series} series of 12 untrained models, {len(states)} curves each")
    print(f"reported though nothing can be there: {sum(false.values())} of {total} ({sum(false.values()) / total:.1%})")
    for key, count in sorted(false.items()):
        if count:
            print(f"  {key}: {count}")
    print("expected to differ:")
    for key, why in EXPECTED.items():
        print(f"  {key}: {dict(states[key])} ({why})")


if __name__ == "__main__":
    main()
