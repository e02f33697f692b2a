"""A direction through training, from made-up traces: planted onsets are found, and what only looks like one is not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from checkpoints.series import Checkpoint
from dynamics.analysis import Finding
from dynamics.analysis.direction import DirectionTask, direction_measured, direction_section, order_note
from dynamics.analysis.direction_figures import direction_figures
from dynamics.measurements import Direction
from dynamics.models.architecture import ModelShape
from dynamics.numerics.ranking import resampled_counts, weighted_auroc
from dynamics.probes import LAST, Probe, TokenizedProbe
from dynamics.store import Group, Trace, TraceDeclaration, TraceWriter

STEPS = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
ITEMS, LAYERS = 40, 2
MEASURED = Direction("flattered", units="item", shuffled=8, random=8)
TASK = DirectionTask("pairs", "flattery", contrast="flattered", meaning="pairs", units="item", strata="control")
KIND = np.tile([1, 0], ITEMS)
HELD = np.repeat(np.arange(ITEMS) % 2, 2)
CONTROL = np.repeat(np.arange(ITEMS) // 2 % 2, 2)


def shape() -> ModelShape:
    return ModelShape(LAYERS, 2, 8, 4, 8, 50, 32)


def tokenized() -> TokenizedProbe:
    labels: dict[str, tuple[Any, ...]] = {
        "flattered": tuple(KIND.tolist()),
        "held_out": tuple(HELD.tolist()),
        "item": tuple(np.repeat(np.arange(ITEMS), 2).tolist()),
        "control": tuple(("other", "plain")[c] for c in CONTROL),
    }
    n = 2 * ITEMS
    probe = Probe("pairs", tuple(f"prompt {i}" for i in range(n)), labels=labels)
    return TokenizedProbe(probe, tuple(np.arange(3) for _ in range(n)), np.zeros(n, dtype=int), np.ones(n, dtype=int), None, {LAST: np.full(n, 2)}, {})  # fmt: skip


def made(
    folder: Path,
    *,
    read: float = 0.0,
    from_start: float = 0.0,
    only: str = "",
    slope: float = 0.0,
    random_slope: float = 0.05,
    lost: float = 0.0,
    since: tuple[int, int] = (6, 8),
    broken: bool = False,
    sign: tuple[int, int] = (1, 1),
) -> Trace:
    """A trace in which the classes lie ``read`` apart (against the kind ``only``) from checkpoint ``since[0]`` on, and
    steering does ``slope`` a strength and ablation takes ``lost`` from ``since[1]`` on."""
    rng = np.random.default_rng(0)
    probe = tokenized()
    variables = MEASURED.declare(probe, shape())
    prompts = {"text": probe.probe.text, **probe.probe.labels}
    path = folder / "toy.zarr"
    checkpoints = tuple(Checkpoint(step, str(step)) for step in STEPS)
    writer = TraceWriter(path, TraceDeclaration(checkpoints, (Group("pairs", "", prompts, tuple(variables)),)))
    n = 2 * ITEMS
    noise = rng.normal(size=(LAYERS, 17, n))
    wobble = rng.normal(size=(LAYERS, 7, n))
    random = random_slope * rng.normal(size=(LAYERS, 17))
    strengths = np.array(MEASURED.strengths)
    separated = KIND - 0.5
    if only:
        separated = np.where((("other", "plain").index(only) == CONTROL) | (KIND == 1), separated, 0.5)
    toward = np.where(KIND == 1, sign[1], sign[0])
    for index in range(len(STEPS)):
        size = from_start + (read if index >= since[0] else 0.0)
        values = {
            v.name: np.full(v.shape, -1 if v.kind == "int" else np.nan)
            if "said" in v.name or broken
            else np.zeros(v.shape)
            for v in variables
        }
        if not broken:
            values["direction_projection"] = noise + 0.05 * rng.normal(size=noise.shape)
            values["direction_projection"][:, 0] += size * separated
            steep = np.concatenate([[slope if index >= since[1] else 0.0], random[0, 1:]])
            values["steering_slope"] = toward * (steep[:, None] + 0.02 * noise)
            along = steep[[0, 1, 2, 9, 10, 11, 12]]  # the steered ones
            values["steering"] = toward * strengths[:, None, None] * (along[:, None] + 0.02 * wobble)[:, None]
            values["direction_base"] = toward * 2.0 * (KIND - 0.5)
            taken = np.zeros((7, n))
            taken[0] = -(lost if index >= since[1] else 0.0) * (KIND - 0.5) * toward
            values["ablation_everywhere"] = taken + 0.02 * wobble[0]
            values["ablation"] = np.stack([values["ablation_everywhere"]] * LAYERS)
            for name in ("ablation", "ablation_everywhere"):
                values[name][..., 1:3, :] = np.nan
        for name, value in values.items():
            if name not in ("direction_projection", "direction_norm"):
                value[..., HELD == 0] = np.nan if value.dtype.kind == "f" else -1
        writer.write(index, "pairs", values)
        writer.commit(index, digest=str(index), stored_dtype="float32")
    return Trace(path)


def found(trace: Trace, task: DirectionTask = TASK) -> dict[str, Finding]:
    return direction_section(trace, task).assessed(trace)


def onset(finding: Finding) -> tuple[int | None, int | None]:
    assert finding.emergence.onset is not None
    return finding.emergence.onset.after, finding.emergence.onset.by


def test_planted_onsets_are_found_where_they_were_planted_and_in_order(tmp_path: Path) -> None:
    trace = made(tmp_path, read=4.0, slope=0.6, lost=1.5)
    section = direction_section(trace, TASK)
    by = section.assessed(trace)
    assert onset(by["represented"]) == (16, 32)
    assert onset(by["used"]) == onset(by["needed"]) == (64, 128)
    assert by["used"].values[-1] == pytest.approx(0.6, abs=0.02)
    assert by["needed"].values[-1] == pytest.approx(1.5, abs=0.05)
    note = order_note("flattery", [by["represented"], by["used"]])
    assert "represented before used 1.00" in note and by["represented"].sample == by["used"].sample != ""
    text = " ".join(section.notes)
    assert "fitted on 40 prompts; everything about it is measured on 40 others (20 items)" in text
    assert "more strength does more, evenly in both directions" in text
    assert "differ by 2.00 logits, of which ablation at all layers takes 1.5" in text


def test_auroc_and_doses_are_those_of_the_asked_prompts(tmp_path: Path) -> None:
    trace = made(tmp_path, read=2.0, slope=0.6)
    arrays = direction_section(trace, replace(TASK, strata=None)).arrays
    along = trace.values("pairs", "direction_projection")[-1, :, 0][:, HELD == 1].astype(float)
    one = KIND[HELD == 1] == 1
    expected = [(row[one][:, None] > row[~one]).mean() for row in along]
    np.testing.assert_allclose(arrays["direction_auroc"][1][-1], expected)
    np.testing.assert_allclose(
        arrays["direction_dose"][1][-1, 0],
        trace.values("pairs", "steering")[-1, 0, :, 0][:, HELD == 1].mean(1),
        atol=1e-6,
    )
    low, high = (arrays[f"direction_dose_{end}"][1][-1] for end in ("low", "high"))
    assert (low <= high).all() and (high - low).max() < 0.1


def test_noise_is_neither_represented_nor_used_nor_needed(tmp_path: Path) -> None:
    by = found(made(tmp_path))
    assert {f.emergence.state for f in by.values()} == {"not emerged"}
    assert "left out: represented (not emerged), used (not emerged)" in order_note("x", [by["represented"], by["used"]])


def test_what_the_first_checkpoint_already_tells_apart_does_not_emerge(tmp_path: Path) -> None:
    by = found(made(tmp_path, from_start=1.5))
    assert by["represented"].values[-1] > 0.75
    assert by["represented"].emergence.state == "not emerged"


def test_telling_apart_one_kind_alone_is_not_enough(tmp_path: Path) -> None:
    trace = made(tmp_path, read=4.0, only="plain")
    assert found(trace)["represented"].emergence.state == "not emerged"
    assert found(trace, replace(TASK, strata=None))["represented"].emergence.state == "emerged"


def test_a_slope_that_random_directions_have_too_is_not_used(tmp_path: Path) -> None:
    by = found(made(tmp_path, slope=0.6, random_slope=0.6))
    assert by["used"].emergence.state == "not emerged"


def test_steering_that_should_lower_the_answer_of_one_class_counts_with_its_sign(tmp_path: Path) -> None:
    trace = made(tmp_path, slope=0.6, lost=1.5, sign=(-1, 1))
    turned = found(trace, replace(TASK, towards=(-1, 1)))
    assert turned["used"].values[-1] == pytest.approx(0.6, abs=0.02)
    assert turned["needed"].values[-1] == pytest.approx(1.5, abs=0.05)
    assert found(trace)["used"].values[-1] == pytest.approx(0, abs=0.02)


def test_a_broken_model_is_not_measurable(tmp_path: Path) -> None:
    trace = made(tmp_path, broken=True)
    section = direction_section(trace, TASK)
    assert {f.emergence.state for f in section.assessed(trace).values()} == {"not measurable"}
    assert any("no checkpoint has finite streams" in note for note in section.notes)
    assert direction_measured(trace, "pairs") and not direction_measured(trace, "others")


def test_figures_draw_what_was_found_and_what_was_not(tmp_path: Path) -> None:
    for broken in (False, True):
        folder = tmp_path / str(broken)
        folder.mkdir()
        trace = made(folder, read=4.0, slope=0.6, broken=broken)
        section = direction_section(trace, TASK)
        drawn = direction_figures(section.summary(trace, analysis="toy", title="Toy", question="?"))
        assert set(drawn) == {"direction", "auroc", "dose"}
        for figure in drawn.values():
            figure.savefig(folder / "figure.png")
        texts = [t.get_text() for axes in drawn["dose"].axes for t in axes.texts]
        assert ("not measurable" in texts) == broken


def test_weighted_auroc_is_that_of_repeated_prompts() -> None:
    rng = np.random.default_rng(0)
    scores, one = rng.integers(0, 5, 20).astype(float), np.arange(20) % 2 == 0
    counts = resampled_counts(20, clusters=np.arange(20) // 2, draws=10, share=0.5, seed=1)
    assert (counts.sum(1) == 10).all()
    for draw, area in zip(counts, weighted_auroc(scores, counts * one, counts * ~one), strict=True):
        up, down = (np.repeat(scores[side], draw[side].astype(int)) for side in (one, ~one))
        wins = (up[:, None] > down).mean() + 0.5 * (up[:, None] == down).mean()
        assert area == pytest.approx(wins)
