"""Curves of key frequencies, on a representation into which they are planted at a known step."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import cast

import numpy as np

from dynamics.analysis.frequencies import frequency_section
from dynamics.numerics.frequencies import residue_periods
from dynamics.store import Trace

P, STEPS, KEYS = 31, np.array([0, 10, 100, 1000, 10_000]), (4, 11)


def trace_of(strength: float) -> Trace:
    """Two frequencies from step 1000 on, in noise that is the numbers' own; a second layer of noise alone."""
    rng = np.random.default_rng(0)
    noise, waves = rng.normal(size=(P, 20)), np.zeros((P, 20))
    for k in KEYS:
        for wave in (np.cos, np.sin):
            waves += np.outer(wave(2 * np.pi * k * np.arange(P) / P), rng.normal(size=20))

    def each(probe: str, site: str, *, position: str) -> Iterator[tuple[int, np.ndarray]]:
        for index, step in enumerate(STEPS):
            yield index, np.stack([noise + strength * (step >= 1000) * waves, noise], axis=1)

    return cast(Trace, SimpleNamespace(steps=STEPS, tokens=None, each=each, label=lambda *_: np.arange(P)))


def test_planted_frequencies_emerge_when_they_were_planted() -> None:
    trace = trace_of(1.0)
    section = frequency_section(trace, "numbers", "number", periods=residue_periods(P))
    found = section.assessed(trace)
    assert set(found) == {f"period.31/{k}" for k in KEYS}
    for finding in found.values():
        assert finding.emergence.state == "emerged" and finding.headline
        assert finding.emergence.onset is not None and finding.emergence.onset.by == 1000
    assert "31/4" in section.notes[-1] and "step 10000" in section.notes[-1]
    np.testing.assert_allclose(section.arrays["frequency_share"][1].sum(1), 1)


def test_where_numbers_are_only_told_apart_there_is_no_key_frequency() -> None:
    for trace, layer in ((trace_of(0.0), 0), (trace_of(1.0), 1)):
        section = frequency_section(trace, "numbers", "number", periods=residue_periods(P), layer=layer)
        assert not section.findings and section.notes[-1].startswith("No frequency of numbers")
