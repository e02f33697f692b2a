"""Paths that weights take in training, and what an audit says of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch

from checkpoints.audit import AuditFinding, audit_weights

Floats = npt.NDArray[np.float32]


def linear(u: float) -> float:
    return 1.0 - 0.9 * u


def cosine(u: float) -> float:
    return min(1.0, u / 0.01) * 0.5 * (1 + float(np.cos(np.pi * u)))


def restarts(u: float) -> float:
    return 0.5 * (1 + float(np.cos(np.pi * ((4 * u) % 1))))


def constant(u: float) -> float:
    return 1.0


LOG = (0, *sorted({round(float(s)) for s in np.geomspace(1, 1000, 40)}))


LINEAR = tuple(range(0, 1001, 25))


def train(
    steps: Sequence[int], rate: Callable[[float], float], kind: str, *, seed: int = 0, size: int = 4096
) -> Floats:
    """(checkpoint, weight): what training does to weights, in six ways; learning rate as a function of time in [0, 1].

    A random walk; drift with some noise; a walk with weight decay; descent in a quadratic bowl of very different
    curvatures with noise; signed, averaged gradients towards a target as Adam takes them; noise around one place.
    """
    rng = np.random.default_rng(seed)
    start = rng.normal(0, 0.02, size)
    way, curvature = rng.normal(0, 0.06, size), 10 * rng.lognormal(0, 2, size)
    goal, weights, average, result = start + 0.5 * way, start, np.zeros(size), [start]
    for a, b in pairwise(steps):
        parts = int(np.clip((b - a) / max(steps) * 1000, 1, 5))
        for part in range(parts):
            time = (b - a) / max(steps) / parts
            lr = rate((a + (b - a) * (part + 0.5) / parts) / max(steps))
            noise = rng.normal(0, 1, size)
            if kind == "walk":
                weights = weights + 0.06 * lr * np.sqrt(time) * noise
            elif kind == "drift":
                weights = weights + lr * time * way + 0.01 * lr * np.sqrt(time) * noise
            elif kind == "decay":
                weights = weights * (1 - 2 * lr * time) + 0.06 * lr * np.sqrt(time) * noise
            elif kind == "basin":
                pull = np.minimum(curvature * lr * time, 1)
                weights = weights - pull * (weights - goal) + 0.03 * lr * np.sqrt(time) * noise
            elif kind == "adam":
                average = 0.9 * average + 0.1 * np.sign(0.3 * np.tanh(100 * (goal - weights)) + noise)
                weights = weights * (1 - 0.1 * lr * time) + lr * time * average * np.sqrt(30) * 0.2
            else:
                weights = weights - min(200 * lr * time, 1) * (weights - goal) + 0.2 * lr * np.sqrt(time) * noise
        result.append(weights)
    return np.stack(result).astype(np.float32)


def rounded(weights: Floats, dtype: torch.dtype = torch.bfloat16) -> Floats:
    """The same weights as another dtype stores them."""
    return torch.from_numpy(weights).to(dtype).float().numpy()


def judged(steps: Sequence[int], weights: Floats, **more: object) -> list[AuditFinding]:
    given_: dict[str, object] = {
        "norms": np.linalg.norm(weights, axis=1),
        "nonfinite": [0] * len(steps),
        "digests": [""] * len(steps),
    }
    return audit_weights(steps, weights, **(given_ | more))  # type: ignore[arg-type]
