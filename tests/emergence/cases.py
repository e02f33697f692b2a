"""Curves with a planted truth and their nulls."""

from __future__ import annotations

from typing import Any

import numpy as np

from dynamics.emergence import Emergence, assess, unit_bootstrap

STEPS = np.array([0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000, 2000, 4000, 9000, 33000, 63000, 103000, 143000])


X = np.log10(STEPS + 1.0)


def binomial_case(rate: np.ndarray, units: int, *, chance: float = 0.1, seed: int = 0) -> dict[str, Any]:
    """Prompts answered right with a known rate, and a null at chance with as many prompts."""
    rng = np.random.default_rng(seed)
    correct = rng.random((len(rate), units)) < rate[:, None]
    null = rng.binomial(units, chance, size=(len(rate), 200)) / units
    return {"values": correct.mean(axis=1), "draws": unit_bootstrap(correct, seed=seed), "null": null}


def gaussian_case(curve: np.ndarray, noise: float, *, seed: int = 0) -> dict[str, Any]:
    """A curve of 30 noisy heads whose means have standard error ``noise``, and a null around 0."""
    rng = np.random.default_rng(seed)
    heads = curve[:, None] + rng.normal(scale=noise * np.sqrt(30), size=(len(curve), 30))
    return {
        "values": heads.mean(axis=1),
        "draws": unit_bootstrap(heads, seed=seed),
        "null": rng.normal(scale=noise, size=(len(curve), 200)),
    }


def found(case: dict[str, Any], steps: np.ndarray = STEPS, **more: Any) -> Emergence:
    return assess(steps, **case, null_name="chance", **more)


def quiet(values: Any, **more: Any) -> Emergence:
    """A curve without bootstrap draws against a null of mean 0 and standard deviation 0.01 (bound about 0.025)."""
    curve = np.asarray(values, dtype=float)
    null = np.random.default_rng(0).normal(scale=0.01, size=(len(curve), 2000))
    return assess(10 * np.arange(len(curve)), curve, null=null, null_name="noise", **more)
