"""Parts of a hub's, of a training of several stages: what is known of them only after they were listed is handed on."""

from __future__ import annotations

from pathlib import Path

import pytest

from checkpoints.staged import Stage, StagedSeries
from tests.checkpoints.hub.conftest import REPO, Opened, model, series_of, weights
from tests.loopback import Hub


@pytest.fixture
def staged(hub: Hub, opened: Opened, tmp_path: Path) -> StagedSeries:
    """Two parts of one repository: their own checkpoints are equal, and one cannot be listed."""
    series_of(hub, 1, 3)
    hub.repo(REPO).branch("step2", model(2) | {"model_ema.safetensors": weights(9)})
    hub.fail(REPO, "step3", 503)
    return StagedSeries([Stage("base", opened(), 0), Stage("sft", opened(), 10)], name="mine", tokenizer=tmp_path)


def test_what_lies_beside_the_weights_of_a_part_is_said_once_it_was_listed(staged: StagedSeries) -> None:
    seen: list[tuple[int, int]] = []
    listed = staged.all_files(progress=lambda done, of: seen.append((done, of)))
    assert [c.step for c in listed] == [1, 2, 11, 12] and seen[-1] == (6, 6)
    beside = {name: reason for name, reason in staged.left_out.items() if "model_ema" in name}
    assert beside == {
        f"{stage}: step2/model_ema.safetensors": "the weights are read from model.safetensors"
        for stage in ("base", "sft")
    }
    assert [c.step for c in staged.unlisted] == [3, 13]
    assert all("HTTP 503 after 5 tries" in error.observed for error in staged.unlisted.values())
    late = [c for c in staged.checkpoints if c.step in (11, 13)]
    assert list(staged.all_files(late)) == late[:1] and list(staged.unlisted) == late[1:]


def test_what_could_not_be_looked_at_in_a_part_is_said_of_the_whole(
    staged: StagedSeries, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub_series = type(staged._parts[1].series)
    monkeypatch.setattr(hub_series, "contradictions", lambda self: (self.all_files(), {self.checkpoints[0]: "odd"})[1])
    assert {c.step: said for c, said in staged.contradictions().items()} == {1: "odd", 11: "odd"}
    assert [c.step for c in staged.unlisted] == [3, 13]
