"""Sketches of weights: which coordinates they take, and what they say of the weights themselves."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from checkpoints import audit
from checkpoints.audit import Sketch
from checkpoints.audit.vectors import angles

sketch_module = import_module("checkpoints.audit.sketch")  # the package has a function of that name


# --- sketches


def sketch(tensors: dict[str, torch.Tensor], size: int = sketch_module.SAMPLE) -> Sketch:
    """A sketch of so many coordinates."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sketch_module, "SAMPLE", size)
        made: Sketch = sketch_module.sketch(tensors)
    return made


def some_weights(seed: int = 0) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return {
        "b.weight": torch.randn(300, 40),
        "a.weight": torch.randn(7),
        "c.bias": torch.randn(50, 2, 3),
        "attention.bias": torch.ones(8, 8, dtype=torch.bool),
    }


def test_a_sketch_takes_the_same_coordinates_whatever_the_order_the_dtype_and_the_values() -> None:
    tensors = some_weights()
    made = sketch(tensors, 500)
    assert made.values.shape == (500,) and made.values.dtype == np.float32
    turned = dict(reversed(tensors.items()))
    np.testing.assert_array_equal(sketch(turned, 500).values, made.values)
    halves = {name: t.to(torch.bfloat16) if t.is_floating_point() else t for name, t in tensors.items()}
    np.testing.assert_allclose(sketch(halves, 500).values, made.values, rtol=2**-8)
    places = {name: torch.arange(t.numel()).reshape(t.shape).double() for name, t in tensors.items()}
    others = {name: places[name] * 2 for name in places}
    np.testing.assert_array_equal(sketch(others, 500).values, 2 * sketch(places, 500).values)
    assert len(set(sketch({"b": places["b.weight"]}, 500).values.tolist())) == 500  # no coordinate twice


def test_a_sketch_gives_the_angles_between_the_weights_themselves() -> None:
    one = some_weights()
    other = {name: t + 0.3 * some_weights(1)[name] if t.is_floating_point() else t for name, t in one.items()}
    whole = [torch.cat([t.flatten() for t in w.values() if t.is_floating_point()]).numpy() for w in (one, other)]
    sampled = np.stack([sketch(w, 4000).values for w in (one, other)])
    assert angles(sampled)[0, 1] == pytest.approx(angles(np.stack(whole))[0, 1], rel=0.03)
    assert sketch(one).norm == pytest.approx(float(np.linalg.norm(whole[0])), rel=1e-6)


def test_buffers_and_integers_are_left_out_and_zeros_fill_up() -> None:
    tensors = {
        "w": torch.full((3,), 2.0),
        "n": torch.arange(5),
        "h.0.attn.bias": torch.ones(4),
        "my.buffer": torch.ones(2),
    }
    made = sketch(tensors, 8)
    assert sorted(made.values.tolist()) == [0, 0, 0, 1, 1, 2, 2, 2] and made.norm == pytest.approx(14**0.5)
    assert sorted(sketch(tensors, 7).values.tolist()) == [0, 0, 1, 1, 2, 2, 2]
    assert (sketch({}, 3).values.tolist(), sketch({}, 3).norm, sketch({}, 3).nonfinite) == ([0, 0, 0], 0, 0)


def test_what_is_not_finite_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sketch_module, "_CHUNK", 64)
    broken = some_weights()
    broken["b.weight"][3, :5] = float("nan")
    broken["c.bias"][0, 0, 0] = float("-inf")
    made = sketch(broken, 100)
    assert made.nonfinite == 6 and np.isnan(made.norm)
    assert sketch(some_weights(), 100).nonfinite == 0
    for value, dtype in ((6e4, torch.float16), (1e30, torch.float32), (1e30, torch.float64)):
        large = sketch({"w": torch.full((100,), value, dtype=dtype)}, 10)
        assert large.norm == pytest.approx(10 * value, rel=1e-3) and large.nonfinite == 0


@given(st.lists(st.integers(0, 10**6), max_size=30), st.integers(1, 10**4))
def test_coordinates_are_shared_out_in_proportion(sizes: list[int], total: int) -> None:
    counts = sketch_module._shares(sizes, total)
    assert sum(counts) == min(total, sum(sizes))
    assert all(0 <= count <= size for count, size in zip(counts, sizes, strict=True))
    exact = [size * total / max(1, sum(sizes)) for size in sizes]
    assert sum(sizes) <= total or all(abs(c - e) < 1 for c, e in zip(counts, exact, strict=True))


@given(st.integers(1, 10**9), st.integers(0, 300))
def test_coordinates_are_distinct_and_inside(size: int, count: int) -> None:
    count = min(count, size)
    where = sketch_module._coordinates("w", (size,), count)
    assert len(set(where.tolist())) == count and all(0 <= w < size for w in where)


# --- the package


def test_the_audit_is_imported_without_torch() -> None:
    code = "import sys, checkpoints.audit; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_is_exported_exists() -> None:
    assert all(hasattr(audit, name) for name in audit.__all__)
    assert Sketch(np.zeros(1, dtype=np.float32), 0.0, 0).nonfinite == 0
