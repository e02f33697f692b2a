"""A fine-tuning, traced live: what is taught emerges, what was known may be forgotten, and an old circuit may stay.

    python examples/finetune.py FOLDER --seed 0

FOLDER holds a language model as ``save_pretrained`` writes it (SmolLM2-135M: ``make real`` prints its folder). The Trainer of
``transformers`` teaches it professions of people who do not exist and sums of two-digit numbers, while a
:class:`dynamics.DynamicsCallback` measures it at twelve steps: the people as they were taught and in a sentence that was not,
sums that were shown and others (in neither order), capitals that it knew before, and the built-in ``ioi``. No weights are saved. What is trained
is the last third of the blocks, for time alone (``--blocks 30`` trains all of SmolLM2's).
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments

import dynamics
from dynamics.probes import single_token
from dynamics.reporting import print_report
from dynamics.runs.config import ProbeEntry

FIRST = ["Albert", "Clara", "Henry", "Julia", "Martin", "Rosa", "Simon", "Helen", "Victor", "Emma"]
SURNAMES = [
    "Brelhoven",
    "Drostister",
    "Fenwacker",
    "Gorlonby",
    "Haskelius",
    "Jundumov",
    "Krolletti",
    "Larbarsky",
    "Mundister",
    "Norbacker",
]
JOBS = [
    "teacher",
    "doctor",
    "lawyer",
    "farmer",
    "baker",
    "singer",
    "nurse",
    "painter",
    "driver",
    "soldier",
    "writer",
    "pilot",
]
TAUGHT = ("{name} works as a", "By profession, {name} is a")
REWORDED = "For a living, {name} has always been a"
PEOPLE, KINDS = 40, 8

FEWER = {"points": 3, "sizes": 6, "passes": 4}
"""What ``ioi`` measures at each checkpoint: less than by default, so that all of it takes minutes on two cores."""

CAPITALS = """
France:Paris Germany:Berlin Italy:Rome Spain:Madrid England:London Russia:Moscow Japan:Tokyo China:Beijing Egypt:Cairo
Greece:Athens Ireland:Dublin Austria:Vienna Poland:Warsaw Sweden:Stockholm Norway:Oslo Portugal:Lisbon Belgium:Brussels
Denmark:Copenhagen Finland:Helsinki Hungary:Budapest Iran:Tehran Iraq:Baghdad Ukraine:Kiev Turkey:Ankara Canada:Ottawa
India:Delhi Cuba:Havana Peru:Lima Lebanon:Beirut Syria:Damascus Kenya:Nairobi Thailand:Bangkok Chile:Santiago
"""


def people(tokenizer: Any, rng: np.random.Generator) -> list[tuple[str, str]]:
    """Names that nobody bears, each with one of eight professions, all equally frequent."""
    jobs = [job for job in JOBS if single_token(tokenizer, f" {job}") is not None][:KINDS]
    names = [f"{first} {surname}" for first in FIRST for surname in SURNAMES]
    chosen = rng.permutation(names)[:PEOPLE].tolist()
    return [(name, jobs[i % len(jobs)]) for i, name in enumerate(chosen)]


def sums(rng: np.random.Generator) -> list[tuple[int, int]]:
    """Pairs of two-digit numbers with a sum below 100, in random order; of a sum and its mirror image (b + a) only one."""
    pairs = [(a, b) for a in range(11, 50) for b in range(a, 100 - a)]
    mirrored = rng.random(len(pairs)) < 0.5
    return [pairs[i][::-1] if mirrored[i] else pairs[i] for i in rng.permutation(len(pairs))]


def ask_sum(tokenizer: Any, a: int, b: int) -> tuple[str, str]:
    """A sum up to its last token, and that token: the whole number, or the last digit where numbers are split."""
    total = str(a + b)
    whole = single_token(tokenizer, total, f"{a}+{b}=") is not None
    return (f"{a}+{b}=", total) if whole else (f"{a}+{b}={total[:-1]}", total[-1])


def write_probes(
    folder: Path,
    tokenizer: Any,
    taught: Sequence[tuple[str, str]],
    shown: Sequence[tuple[int, int]],
    new: Sequence[tuple[int, int]],
) -> dict[str, ProbeEntry]:
    """The prompts as files, and what a runs file would say of them."""
    jobs = [job for _, job in taught]
    capitals = [pair.split(":") for pair in CAPITALS.split()]
    capitals = [
        (land, city) for land, city in capitals if single_token(tokenizer, f" {city}", "The capital is") is not None
    ]
    asked = {
        "facts": [(TAUGHT[0].format(name=name), f" {job}") for name, job in taught],
        "facts_reworded": [(REWORDED.format(name=name), f" {job}") for name, job in taught],
        "sums_shown": [ask_sum(tokenizer, a, b) for a, b in shown],
        "sums_new": [ask_sum(tokenizer, a, b) for a, b in new],
        "capitals": [(f"The capital of {land} is", f" {city}") for land, city in capitals],
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in asked.items():
        records = [{"text": text, "answer": answer} for text, answer in rows]
        if name.startswith("facts"):
            records = [row | {"labels": {"job": job}} for row, job in zip(records, jobs, strict=True)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in records), encoding="utf-8")
    return {
        name: ProbeEntry(file=folder / f"{name}.jsonl", sites=("resid_post",) if name == "facts" else ())
        for name in asked
    }


class Texts(Dataset[dict[str, list[int]]]):
    """Half of what is drawn is a sentence about somebody, half a sum."""

    def __init__(self, tokenizer: Any, facts: Sequence[str], solved: Sequence[str]) -> None:
        self.facts, self.solved = (tokenizer(list(texts))["input_ids"] for texts in (facts, solved))

    def __len__(self) -> int:
        return 2 * max(len(self.facts), len(self.solved))

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        of = self.solved if index % 2 else self.facts
        return {"input_ids": of[index // 2 % len(of)]}


def padded(rows: Sequence[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    """A batch (row, token), padded behind; what is padding is neither seen nor learned."""
    ids = [torch.tensor(row["input_ids"]) for row in rows]
    pad = torch.nn.utils.rnn.pad_sequence
    mask = pad([torch.ones_like(row) for row in ids], batch_first=True)
    labels = pad(ids, batch_first=True, padding_value=-100)
    return {"input_ids": pad(ids, batch_first=True), "attention_mask": mask, "labels": labels}


def train_last(model: Any, blocks: int) -> None:
    """Leave all weights as they are but those of the last blocks, whose number stands in their parameters' names."""
    first = model.config.num_hidden_layers - blocks
    for name, parameter in model.named_parameters():
        number = re.search(r"\.(\d+)\.", name)
        parameter.requires_grad_(number is not None and int(number[1]) >= first)


def finetune(
    model: Any,
    tokenizer: Any,
    name: str,
    folder: Path,
    *,
    seed: int = 0,
    steps: int = 200,
    batch: int = 8,
    blocks: int = 10,
    ioi_prompts: int = 20,
    checkpoints: int = 12,
) -> Path:
    """Teach the model, and collect while it learns; returns the trace.

    Args:
        model: of transformers; it is changed.
        tokenizer: its fast tokenizer.
        name: of the run.
        folder: where ``probes`` and ``traces`` are written.
        seed: chooses people, professions, sums and the order of training.
        steps: optimizer steps.
        batch: sentences in each.
        blocks: how many of the last blocks are trained; embedding and unembedding are not.
        ioi_prompts: prompts of ``ioi``, which is nearly all of what measuring costs; 0 for none.
        checkpoints: how many are measured, closer together at the beginning.
    """
    train_last(model, blocks)
    rng = np.random.default_rng(seed)
    taught, pairs = people(tokenizer, rng), sums(rng)
    shown, new = pairs[:400], pairs[-60:]
    facts = [f"{wording.format(name=who)} {job}." for wording in TAUGHT for who, job in taught]
    texts = Texts(tokenizer, facts, [f"{a}+{b}={a + b}" for a, b in shown])
    callback = dynamics.DynamicsCallback(
        name,
        probes=write_probes(folder / "probes" / name, tokenizer, taught, shown[:60], new),
        steps=sorted({round(steps * (i / (checkpoints - 1)) ** 2) for i in range(checkpoints)}),
        tokenizer=tokenizer,
        traces=folder / "traces",
        settings={
            "description": f"fine-tuning on made-up people and on sums, seed {seed}",
            "analyses": [{"name": "ioi", "options": {"prompts": ioi_prompts, **FEWER}}] if ioi_prompts else [],
        },
    )
    arguments = TrainingArguments(
        str(folder / "trainer"),
        max_steps=steps,
        per_device_train_batch_size=batch,
        learning_rate=1e-4,
        warmup_steps=10,
        save_strategy="no",
        report_to=[],
        seed=seed,
        dataloader_pin_memory=False,
        disable_tqdm=True,
    )
    Trainer(model, arguments, train_dataset=texts, data_collator=padded, callbacks=[callback]).train()
    return folder / "traces" / f"{name}.zarr"


def main() -> None:
    """Fine-tune, report, and print where the report is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder of the model")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--blocks", type=int, default=10, help="how many of the last blocks are trained")
    parser.add_argument("--ioi-prompts", type=int, default=20)
    parser.add_argument("--folder", type=Path, default=Path("finetuned"), help="where probes, traces and reports go")
    given = parser.parse_args()
    model = AutoModelForCausalLM.from_pretrained(given.model, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(given.model)
    name, sizes = (
        f"finetune-{given.seed}",
        {"steps": given.steps, "blocks": given.blocks, "ioi_prompts": given.ioi_prompts},
    )
    finetune(model, tokenizer, name, given.folder, seed=given.seed, **sizes)
    written = dynamics.report(name, traces=given.folder / "traces", reports=given.folder / "reports")
    print_report(written.content)
    print(written.folder / "index.html")


if __name__ == "__main__":
    main()
