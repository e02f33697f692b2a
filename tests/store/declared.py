"""A declared trace with every kind of variable, and numbers to fill it with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from checkpoints.series import Checkpoint
from dynamics.store import Group, TraceDeclaration, TraceWriter
from dynamics.store.variable import Variable

CHECKPOINTS = (
    Checkpoint(0, "step0", None, ""),
    Checkpoint(10, "step10", 1000, "warm-up"),
    Checkpoint(200, "a/βranch", 20_000, "训练"),
)
TEXT = ("plain", 'quote " and <b>', "ünïcode 数学 🙂", "")


def declare(**changes: Any) -> TraceDeclaration:
    """One probe with every kind of variable."""
    variables = (
        Variable(
            "resid_post",
            ("prompt", "position", "layer", "d_model"),
            (4, 2, 3, 5),
            "activation",
            "activations",
            coords={"position": ("last", "größe")},
        ),
        Variable("pattern", ("prompt", "layer", "head", "key"), (4, 3, 2, 6), "activation", "pattern", padded=True),
        Variable("answer_logprob", ("prompt",), (4,), "float", "log-probability", "nat"),
        Variable("predicted", ("prompt",), (4,), "int", "token id"),
    )
    group = Group("mine", "a probe", {"text": TEXT, "number": (1, 2, 3, 4), "share": (0.5, 1.0, 2.0, 4.0)}, variables)
    other = Group(
        "other", "", {"text": ("x",)}, (Variable("token_loss", ("prompt", "token"), (1, 7), "float", "loss", "nat"),)
    )
    content: dict[str, Any] = {
        "checkpoints": CHECKPOINTS,
        "groups": (group, other),
        "attributes": {"dtype": "float32", "tokenizer_digest": "t", "model_config": {"layers": 3}, "run": "r"},
    }
    return TraceDeclaration(**(content | changes))


def values(declaration: TraceDeclaration, index: int) -> dict[str, dict[str, np.ndarray]]:
    """Other numbers for every checkpoint, group and variable."""
    rng = np.random.default_rng(index)
    return {
        g.name: {
            v.name: rng.integers(0, 1000, v.shape) if v.kind == "int" else rng.normal(size=v.shape).astype(np.float32)
            for v in g.variables
        }
        for g in declaration.groups
    }


def fill(path: Path, declaration: TraceDeclaration, indices: tuple[int, ...] = (0, 2)) -> TraceWriter:
    """A trace with the checkpoints of these indices complete."""
    writer = TraceWriter(path, declaration)
    for index in indices:
        for group, content in values(declaration, index).items():
            writer.write(index, group, content)
        writer.commit(index, digest=f"digest{index}", stored_dtype="float32")
    return writer


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file and its content."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
