"""The organism: a series that follows from its configuration alone, however often its training was interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from checkpoints import UserError
from checkpoints.organism import (
    OrganismConfig,
    is_trained,
    model_config,
    open_organism,
    organism_folder,
    read_truth,
    schedule,
    speaks,
    train,
    truth,
)
from checkpoints.organism.tokenizer import token_ids
from tests.checkpoints.organisms import LATE, SMALL

training = import_module("checkpoints.organism.train")  # the package's attribute of that name is the function


class Stopped(Exception):
    """Stands for whatever interrupts a training."""


def weights(folder: Path) -> dict[str, bytes]:
    """Every weight file of a series."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*.safetensors"))}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache for one test."""
    monkeypatch.setenv("DYNAMICS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The weights of SMALL, trained in one go."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DYNAMICS_CACHE", str(tmp_path_factory.mktemp("uninterrupted")))
        return weights(train("small", SMALL))


def test_another_configuration_is_another_folder(cache: Path) -> None:
    others = [
        SMALL.model_copy(update=change)
        for change in ({}, {"seed": 1}, {"steps": 11}, {"learning_rate": 1e-4}, {"curriculum": LATE.curriculum})
    ]
    assert len({organism_folder("x", other) for other in others}) == len(others)
    assert organism_folder("x", SMALL) == organism_folder("x", SMALL.model_copy())
    assert organism_folder("x", SMALL).is_relative_to(cache)


def test_a_trained_organism_is_an_ordinary_series(tiny_series: Path) -> None:
    stated = read_truth(tiny_series)
    assert stated is not None
    config = OrganismConfig.model_validate(stated["config"])
    series = open_organism("tiny", config)
    assert [c.step for c in series.checkpoints] == stated["steps"] == schedule(config)
    assert [c.tokens for c in series.checkpoints] == [s * config.tokens_per_step for s in schedule(config)]
    assert series.name == "tiny"
    assert Path(series.origin) == tiny_series
    assert is_trained("tiny", config)
    assert is_trained("tinier", config)  # runs of one configuration share their weights
    assert not is_trained("tiny", config.model_copy(update={"seed": 987_654}))  # other tests share the cache
    assert {p.name for p in tiny_series.iterdir()} <= {*(f"step{s}" for s in schedule(config)), "truth.json", ".lock"}
    assert stated["digest"] == config.digest()


def test_a_folder_without_truth_is_no_organism(tmp_path: Path) -> None:
    assert read_truth(tmp_path) is None


def test_checkpoints_of_an_organism_are_read_by_plain_transformers(tiny_series: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    stated = read_truth(tiny_series)
    assert stated is not None
    for step in stated["steps"]:
        folder = tiny_series / f"step{step}"
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
        assert not info["missing_keys"]
        assert not info["unexpected_keys"]
        assert speaks(tokenizer)
        with torch.no_grad():
            logits = model(**tokenizer("36+59=", return_tensors="pt", return_token_type_ids=False)).logits
        assert logits.shape == (1, 7, len(token_ids()))
        assert torch.isfinite(logits).all()


def test_the_weights_of_step_0_are_those_of_the_seed_and_training_changes_them(tiny_series: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, GPTNeoXForCausalLM

    stated = read_truth(tiny_series)
    assert stated is not None
    config = OrganismConfig.model_validate(stated["config"])
    torch.manual_seed(config.seed)
    fresh = GPTNeoXForCausalLM(model_config(config)).state_dict()
    first = AutoModelForCausalLM.from_pretrained(tiny_series / "step0").state_dict()
    last = AutoModelForCausalLM.from_pretrained(tiny_series / f"step{config.steps}").state_dict()
    assert all(torch.equal(first[name], value) for name, value in fresh.items())
    assert all(not torch.equal(last[name], value) for name, value in fresh.items())


def test_training_lowers_the_loss_and_reports_every_step(cache: Path) -> None:
    seen: list[tuple[int, int, float]] = []
    config = SMALL.model_copy(update={"steps": 60, "checkpoints": 2, "learning_rate": 1e-2, "warmup": 5})
    train("reported", config, progress=lambda *report: seen.append(report))
    assert [(done, total) for done, total, _ in seen] == [(i + 1, 60) for i in range(60)]
    assert seen[0][2] == pytest.approx(np.log(len(token_ids())), abs=0.2)
    assert np.mean([loss for *_, loss in seen[-5:]]) < seen[0][2] - 0.5


def test_training_twice_gives_the_same_bits(cache: Path, uninterrupted: dict[str, bytes]) -> None:
    assert weights(train("small", SMALL)) == uninterrupted
    assert set(uninterrupted) == {f"step{s}/model.safetensors" for s in schedule(SMALL)}


def test_a_trained_organism_is_not_trained_again(cache: Path, uninterrupted: dict[str, bytes]) -> None:
    folder = train("small", SMALL)

    def never(*_: object) -> None:
        raise AssertionError("it was trained again")

    assert train("small", SMALL, progress=never) == folder


@pytest.mark.parametrize("remembers", [True, False], ids=["state remembered", "no state yet"])
@pytest.mark.parametrize("stop", [1, 4, 5, 9, 10])
def test_training_that_was_interrupted_ends_with_the_same_bits(
    cache: Path,
    uninterrupted: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
    stop: int,
    remembers: bool,
) -> None:
    monkeypatch.setattr(training, "STATE_SECONDS", 0.0 if remembers else 1e9)
    folder = organism_folder("small", SMALL)

    def interrupt(done: int, _total: int, _loss: float) -> None:
        if done == stop:
            raise Stopped

    with pytest.raises(Stopped):
        train("small", SMALL, progress=interrupt)
    assert not is_trained("small", SMALL)
    assert (folder / "training_state.pt").is_file() == remembers
    done: list[int] = []
    train("small", SMALL, progress=lambda step, *_: done.append(step))
    assert weights(folder) == uninterrupted
    assert done[0] == (min(stop, SMALL.steps - 1) + 1 if remembers else 1)
    assert not (folder / "training_state.pt").exists()
    assert not [*folder.glob("*.partial"), *folder.glob("*.old")]
    assert is_trained("small", SMALL)


def test_training_interrupted_between_two_remembered_states_ends_with_the_same_bits(
    cache: Path, uninterrupted: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "STATE_SECONDS", 0.0)

    def interrupt(done: int, _total: int, _loss: float) -> None:
        if done == 2:
            monkeypatch.setattr(training, "STATE_SECONDS", 1e9)
        if done == 8:
            raise Stopped

    with pytest.raises(Stopped):
        train("small", SMALL, progress=interrupt)
    assert training.saved_steps(organism_folder("small", SMALL), SMALL)[-1] > 2  # saved after the remembered state
    assert weights(train("small", SMALL)) == uninterrupted


@pytest.mark.slow
def test_training_killed_by_the_system_ends_with_the_same_bits(
    tmp_path: Path, uninterrupted: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DYNAMICS_CACHE", str(tmp_path))
    code = f"""
import os, signal
from importlib import import_module
training = import_module("checkpoints.organism.train")
training.STATE_SECONDS = 0.0
save = training._save
def killed(model, config, folder, step):
    if step == {schedule(SMALL)[-2]}:  # in the middle of writing a checkpoint
        model.save_pretrained(folder / f"step{{step}}.partial")
        os.kill(os.getpid(), signal.SIGKILL)
    save(model, config, folder, step)
training._save = killed
training.train("small", training.OrganismConfig.model_validate_json({SMALL.model_dump_json()!r}))
"""
    killed = subprocess.run([sys.executable, "-c", code], env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False)
    assert killed.returncode == -signal.SIGKILL
    folder = organism_folder("small", SMALL)
    assert (folder / "training_state.pt").is_file()
    assert list(folder.glob("*.partial"))
    assert weights(train("small", SMALL)) == uninterrupted
    assert not [*folder.glob("*.partial"), *folder.glob("*.old")]


def test_an_organism_whose_truth_was_not_yet_written_is_finished(cache: Path, uninterrupted: dict[str, bytes]) -> None:
    folder = train("small", SMALL)
    (folder / "truth.json").unlink()
    assert not is_trained("small", SMALL)
    assert weights(train("small", SMALL)) == uninterrupted
    assert read_truth(folder) == truth(SMALL)


def test_a_second_trainer_of_the_same_organism_is_refused(cache: Path) -> None:
    def meanwhile(done: int, _total: int, _loss: float) -> None:
        if done == 3:
            with pytest.raises(UserError, match="is being trained by another process") as refused:
                train("small", SMALL)
            assert "wait until" in str(refused.value)
            train("other", SMALL.model_copy(update={"steps": 1, "checkpoints": 2}))  # another organism may

    train("small", SMALL, progress=meanwhile)
    assert is_trained("small", SMALL)


def test_a_cache_that_cannot_be_written_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("DYNAMICS_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match="cannot write the organism's weights") as refused:
        train("small", SMALL)
    assert "DYNAMICS_CACHE" in str(refused.value)


@pytest.mark.parametrize("at", [0, 3], ids=["writing weights", "remembering the state"])
def test_a_disk_that_fills_up_is_a_clear_error(cache: Path, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    resource = pytest.importorskip("resource")  # a limit on the size of files is as good as a full disk
    monkeypatch.setattr(training, "STATE_SECONDS", 0.0)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(done: int, _total: int, _loss: float) -> None:
        if done == at:
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))

    assert 4 not in schedule(SMALL)  # nothing but the state is written after step 3
    try:
        fill(0, 0, 0.0)
        with pytest.raises(UserError, match="cannot write the organism's weights") as refused:
            train("small", SMALL, progress=fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "DYNAMICS_CACHE" in str(refused.value)
    assert not is_trained("small", SMALL)
    train("small", SMALL)
    assert is_trained("small", SMALL)
