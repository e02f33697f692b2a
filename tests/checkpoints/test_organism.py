"""The organism: a series that follows from its configuration alone, however often its training was interrupted."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from importlib import import_module
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from checkpoints import UserError
from checkpoints.organism import (
    Entry,
    OrganismConfig,
    build_tokenizer,
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
from checkpoints.organism.curriculum import batch
from checkpoints.organism.tokenizer import SEPARATOR, require_world, token_ids
from checkpoints.organism.worlds import all_worlds, vocabulary, world_names
from checkpoints.organism.worlds.addition import CONTEXTS, DIGITS, prompt

SMALL = OrganismConfig(steps=10, checkpoints=5, layers=1, d_model=16, heads=2, batch=4)
LATE = OrganismConfig(
    steps=40,
    batch=16,
    curriculum={
        "english": Entry(share=0.5),
        "addition": Entry(share=0.2, from_step=7),
        "french": Entry(share=0.2, from_step=20),
        "induction": Entry(share=0.1, from_step=39),
    },
)
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


# --- tokenizer


def test_the_tokenizer_gives_back_the_tokens_of_every_document() -> None:
    tokenizer = build_tokenizer(world_names())
    rng = np.random.default_rng(0)
    for world in all_worlds().values():
        for _ in range(100):
            document = world.document(rng)
            ids = tokenizer(" ".join(document))["input_ids"]
            assert tokenizer.convert_ids_to_tokens(ids) == [SEPARATOR, *document]
            assert tokenizer.decode(ids, skip_special_tokens=True) == " ".join(document)


def test_the_tokenizer_reads_prompts_as_documents_are_written() -> None:
    tokenizer = build_tokenizer()
    for context in CONTEXTS:
        for digit in DIGITS:
            text, answer = prompt(86, 59, context, digit)
            whole = tokenizer(text + answer)["input_ids"]
            assert whole == [*tokenizer(text)["input_ids"], token_ids()[answer]]
            assert tokenizer.unk_token_id not in whole


def test_a_saved_tokenizer_is_the_same_tokenizer(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    build_tokenizer().save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert speaks(again)
    assert again("36+59=095 big groß")["input_ids"] == build_tokenizer()("36+59=095 big groß")["input_ids"]
    assert again.is_fast


def test_the_organisms_that_name_no_task_are_those_that_there_were_before_tasks() -> None:
    """A trained organism in somebody's cache is found again, and old traces still fit."""
    assert OrganismConfig().digest() == "e08b86e3f6c8"
    text = build_tokenizer().backend_tokenizer.to_str()
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "361c7309af48d00b"


def test_an_organism_that_names_a_task_knows_its_words_shown_or_not() -> None:
    plain = OrganismConfig(steps=40, curriculum={"english": Entry(share=1)})
    knows = plain.model_copy(update={"curriculum": {**plain.curriculum, "years": Entry(share=0)}})
    assert model_config(knows).vocab_size == model_config(plain).vocab_size + len(years_words())
    np.testing.assert_array_equal(batch(knows, 3), batch(plain, 3))
    assert knows.digest() != plain.digest()
    assert truth(knows)["absent"] == ["addition", "french", "german", "induction", "years"]
    assert list(truth(knows)["worlds"]) == ["english"]
    require_world(build_tokenizer(knows.curriculum), "years")
    with pytest.raises(UserError, match=r"the words of world 'years' \(lasted, from, to, \.\.\.\)") as refused:
        require_world(build_tokenizer(plain.curriculum), "years")
    assert "`share: 0`" in str(refused.value)
    assert speaks(build_tokenizer(plain.curriculum)) and speaks(build_tokenizer(knows.curriculum))


def years_words() -> set[str]:
    """The words that only the world ``years`` has."""
    return set(all_worlds()["years"].words) - set(vocabulary())


def test_a_word_that_no_world_has_is_unknown() -> None:
    tokenizer = build_tokenizer()
    assert tokenizer("xylophone")["input_ids"] == [token_ids()[SEPARATOR], tokenizer.unk_token_id]


def test_only_the_organisms_own_tokenizer_speaks_its_language() -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = list(token_ids())
    for other in (words[:-1], words[::-1]):
        core = Tokenizer(models.WordLevel({w: i for i, w in enumerate(other)}, unk_token="<|unknown|>"))
        assert not speaks(PreTrainedTokenizerFast(tokenizer_object=core))


# --- configuration and batches


def test_a_batch_is_a_function_of_the_configuration_and_the_step_alone() -> None:
    first = [batch(SMALL, step) for step in range(5)]
    np.random.seed(0)  # noqa: NPY002 (a global state that must not matter)
    again = [batch(SMALL.model_copy(), step) for step in reversed(range(5))][::-1]
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)
    assert not np.array_equal(first[0], first[1])
    assert not np.array_equal(first[0], batch(SMALL.model_copy(update={"seed": 1}), 0))
    assert batch(SMALL, 0).shape == (SMALL.batch, SMALL.context)


def test_the_order_in_which_a_curriculum_is_written_does_not_matter() -> None:
    turned = LATE.model_copy(update={"curriculum": dict(reversed(LATE.curriculum.items()))})
    np.testing.assert_array_equal(batch(LATE, 25), batch(turned, 25))


def test_a_batch_is_documents_behind_separators() -> None:
    tokens = list(token_ids())
    separator = token_ids()[SEPARATOR]
    only = OrganismConfig(batch=64, curriculum={"english": Entry(share=1.0)})
    known = {tuple(all_worlds()["english"].document(np.random.default_rng(i))) for i in range(5000)}
    complete = 0
    for row in batch(only, 3):
        assert row[0] == separator
        starts = [*np.flatnonzero(row == separator), only.context]
        documents = [tuple(tokens[i] for i in row[a + 1 : b]) for a, b in pairwise(starts)]
        assert set(documents[:-1]) <= known
        assert any(whole[: len(documents[-1])] == documents[-1] for whole in known)  # cut at the end of the row
        complete += len(documents)
    assert complete > 3 * only.batch
    assert complete == (batch(only, 3) == separator).sum()


@pytest.mark.parametrize("world", [name for name, entry in LATE.curriculum.items() if entry.from_step])
def test_a_world_is_in_no_batch_before_it_enters(world: str) -> None:
    others = {w for n in LATE.curriculum if n not in (world, "induction") for w in all_worlds()[n].words}
    words = set(vocabulary()) if world == "induction" else set(all_worlds()[world].words)
    marks = [token_ids()[w] for w in words - others]
    enters = LATE.curriculum[world].from_step
    assert all(not np.isin(batch(LATE, step), marks).any() for step in range(enters))
    assert np.isin(batch(LATE, enters), marks).any()


def test_worlds_are_drawn_by_their_shares() -> None:
    config = OrganismConfig(
        batch=200, context=400, curriculum={"english": Entry(share=0.6), "addition": Entry(share=0.2)}
    )
    rows = batch(config, 0)
    english = np.isin(rows, [token_ids()["opposite"], token_ids()["not"]]).sum()
    sums = np.isin(rows, [token_ids()[w] for w in ("+", "sum", "volume")]).sum()
    assert english / (english + sums) == pytest.approx(0.75, abs=0.03)


@pytest.mark.parametrize(("steps", "count"), [(1, 2), (12, 6), (100, 8), (1400, 40), (30, 200)])
def test_checkpoints_are_scheduled_from_step_0_to_the_last(steps: int, count: int) -> None:
    planned = schedule(OrganismConfig(steps=steps, checkpoints=count))
    assert planned[0] == 0
    assert planned[-1] == steps
    assert planned == sorted(set(planned))
    assert len(planned) >= min(count, steps + 1)
    assert len(planned) <= count + 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"curriculum": {"adition": Entry(share=1)}}, "did you mean 'addition'"),
        ({"curriculum": {"english": Entry(share=1, from_step=3)}}, "nothing to train on"),
        ({"curriculum": {}}, "nothing to train on"),
        (
            {"steps": 5, "curriculum": {"english": Entry(share=1), "french": Entry(share=1, from_step=5)}},
            "french would enter after the last step 5",
        ),
        (
            {
                "curriculum": {
                    "english": Entry(share=1),
                    "french": Entry(share=1, from_step=5),
                    "german": Entry(share=1),
                }
            },
            "'german' hold words of world 'french', which has not entered at step 0",
        ),
        (
            {"curriculum": {"english": Entry(share=1), "german": Entry(share=1)}},
            "'german' hold words of world 'french'",
        ),
        ({"curriculum": {"english": Entry(share=0)}}, "nothing to train on"),
        (
            {"curriculum": {"english": Entry(share=0), "french": Entry(share=1)}},
            "'french' hold words of world 'english', which has not entered",
        ),
        ({"curriculum": {"english": {"share": 0, "from_step": 3}}}, "share 0 is never shown"),
        ({"d_model": 30, "heads": 4}, "not a multiple of heads"),
        ({"learningrate": 1}, "Extra inputs are not permitted"),
    ],
)
def test_a_configuration_that_cannot_be_trained_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        OrganismConfig.model_validate(change)


def test_another_configuration_is_another_folder(cache: Path) -> None:
    others = [
        SMALL.model_copy(update=change)
        for change in ({}, {"seed": 1}, {"steps": 11}, {"learning_rate": 1e-4}, {"curriculum": LATE.curriculum})
    ]
    assert len({organism_folder("x", other) for other in others}) == len(others)
    assert organism_folder("x", SMALL) == organism_folder("x", SMALL.model_copy())
    assert organism_folder("x", SMALL).is_relative_to(cache)


def test_the_truth_says_what_can_have_formed_when() -> None:
    stated = truth(LATE)
    assert stated["steps"] == schedule(LATE)
    assert {name: world["entry_step"] for name, world in stated["worlds"].items()} == {
        "addition": 7,
        "english": 0,
        "french": 20,
        "induction": 39,
    }
    assert stated["absent"] == ["german"]
    assert stated["tokens_per_step"] == LATE.batch * LATE.context
    assert json.loads(json.dumps(stated)) == stated
    for name, world in stated["worlds"].items():
        assert world["share"] == LATE.curriculum[name].share
        assert world["rule"]


# --- training


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
    assert not is_trained("tiny", config.model_copy(update={"seed": config.seed + 1}))
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
    assert not list(folder.glob("*.partial"))
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
    assert not list(folder.glob("*.partial"))


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


def test_every_world_that_mixes_with_no_other_can_be_the_only_one() -> None:
    for name in set(world_names()) - {"french", "german"}:
        assert batch(OrganismConfig(curriculum={name: Entry(share=1.0)}, batch=2), 0).shape == (2, 24)
