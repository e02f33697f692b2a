"""What ``explain`` makes of a run: checkpoints that cannot be explained, questions asked again, all files or none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from checkpoints import UserError
from checkpoints.tokenizing import word_tokenizer
from dynamics.circuits.wired import Wired
from dynamics.explaining import check_explanation, explain
from dynamics.explaining.checkpoint import explain_checkpoint
from tests.circuits.handmade import Toy, induction_toy
from tests.explaining.toys import ADAPTER, PROMPT, TWIN, toy_run


def test_a_run_of_hand_made_checkpoints_is_explained_as_the_circuit_forms(tmp_path: Path) -> None:
    half = induction_toy()
    half.unembed.weight.data *= 0.5
    broken = induction_toy()
    broken.unembed.weight.data[0, 0] = float("nan")
    run = toy_run(tmp_path, {0: Toy(2), 10: half, 20: broken, 30: induction_toy()})
    done = explain(
        "toys", PROMPT, run=run, corrupted=TWIN, answer="d", share=0.99, traces=tmp_path, reports=tmp_path / "out"
    )
    content = done.content
    check_explanation(json.loads((done.folder / "explanation.json").read_text()))
    assert content["guessed"] == ["foil"] and content["answer"]["text"] == "d" and content["foil"]["text"] != "d"
    assert [c["state"] for c in content["checkpoints"]] == ["not measurable", "explained", "failed", "explained"]
    named = [node["id"] for node in content["nodes"]]
    assert set(named) == {"embed@2", "L0H1@3", "L1H0@6", "logits@6"}
    for checkpoint in (content["checkpoints"][1], content["checkpoints"][3]):
        assert {(named[s], named[t], port) for s, t, port, _ in checkpoint["edges"]} == {
            ("embed@2", "L0H1@3", "v"),
            ("L0H1@3", "L1H0@6", "k"),
            ("L1H0@6", "logits@6", "in"),
        }
    weak, strong = (content["checkpoints"][i]["logit_difference"] for i in (1, 3))
    assert strong == pytest.approx(2 * weak, rel=1e-3)
    page = (done.folder / "index.html").read_text()
    assert "foil guessed from the final checkpoint" in page and "both guessed" not in page
    assert sorted(p.name for p in done.folder.iterdir()) == ["explanation.json", "explanation.svg", "index.html"]


def test_an_adapter_without_wiring_is_refused(tmp_path: Path) -> None:
    run = toy_run(tmp_path, {0: Toy(2), 30: induction_toy()}, "UNWIRED")
    with pytest.raises(UserError, match="nothing in it can be patched"):
        explain("toys", PROMPT, run=run, traces=tmp_path, reports=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_final_checkpoint_of_nan_cannot_be_asked_for_its_choice(tmp_path: Path) -> None:
    broken = induction_toy()
    broken.unembed.weight.data[0, 0] = float("nan")
    run = toy_run(tmp_path, {0: induction_toy(), 30: broken})
    with pytest.raises(UserError, match="not finite, so that nothing can be guessed"):
        explain("toys", PROMPT, run=run, traces=tmp_path, reports=tmp_path / "out")
    done = explain("toys", PROMPT, run=run, answer="d", foil="b", traces=tmp_path, reports=tmp_path / "out")
    assert [c["state"] for c in done.content["checkpoints"]] == ["explained", "failed"]


def test_one_checkpoint_is_enough(tmp_path: Path) -> None:
    run = toy_run(tmp_path, {30: induction_toy()})
    done = explain("toys", PROMPT, run=run, answer="d", foil="b", traces=tmp_path, reports=tmp_path / "out")
    assert [c["state"] for c in done.content["checkpoints"]] == ["explained"]


def test_other_questions_about_a_prompt_have_folders_of_their_own(tmp_path: Path) -> None:
    run = toy_run(tmp_path, {30: induction_toy()})

    def folder(**given: Any) -> str:
        return explain("toys", PROMPT, run=run, traces=tmp_path, reports=tmp_path / "out", **given).folder.name

    asked_of = [{}, {"answer": "d"}, {"foil": "d"}, {"answer": "d", "foil": "b"}, {"share": 0.5}, {"corrupted": TWIN}]
    folders = [folder(**given) for given in asked_of]
    assert len(set(folders)) == len(folders)
    assert folder(answer="d") == folders[1]


def test_a_rerun_replaces_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = toy_run(tmp_path, {30: induction_toy()})

    def again() -> Path:
        return explain("toys", PROMPT, run=run, answer="d", foil="b", traces=tmp_path, reports=tmp_path / "out").folder

    folder = again()
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    toy_run(tmp_path, {30: Toy(2)})
    written = Path.write_text

    def full(self: Path, text: str, **how: Any) -> int:
        if self.name.startswith("index.html"):
            raise OSError(28, "No space left on device")
        return written(self, text, **how)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_text", full)
        with pytest.raises(UserError, match="No space left on device"):
            again()
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    again()
    assert {p.name for p in folder.iterdir()} == set(before)
    assert (folder / "explanation.json").read_bytes() != before["explanation.json"]


def test_graphs_of_an_earlier_explanation_go_and_other_files_stay(tmp_path: Path) -> None:
    run = toy_run(tmp_path, {30: induction_toy()})

    def graphs(neuronpedia: bool) -> set[str]:
        done = explain("toys", PROMPT, run=run, answer="d", foil="b", neuronpedia=neuronpedia, traces=tmp_path,
                       reports=tmp_path / "out")  # fmt: skip
        folder = done.folder / "neuronpedia"
        found = {p.name for p in folder.iterdir()}
        for name in ("step7.json", "mine.json"):
            (folder / name).write_text("{}")
        return found

    assert graphs(True) == {"step30.json"}
    assert graphs(True) == {"step30.json", "mine.json"}
    assert graphs(False) == {"mine.json"}


def test_interrupting_writes_nothing_and_closes_the_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    run = toy_run(tmp_path, {step: induction_toy() for step in (0, 10, 20, 30)})
    seen = []

    def stop(wired: Wired, *rest: Any) -> Any:
        seen.append(1)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return explain_checkpoint(wired, *rest)

    monkeypatch.setattr("dynamics.explaining.computing.explain_checkpoint", stop)
    before = set(threading.enumerate())
    with pytest.raises(KeyboardInterrupt):
        explain("toys", PROMPT, run=run, answer="d", foil="b", traces=tmp_path, reports=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    for thread in set(threading.enumerate()) - before:  # those that read ahead end with what they are doing
        thread.join(10)
        assert not thread.is_alive()


def test_memory_that_runs_out_stops_without_a_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from checkpoints.errors import StoppedError

    def exhausted(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr("dynamics.explaining.computing.explain_checkpoint", exhausted)
    run = toy_run(tmp_path, {30: induction_toy()})
    with pytest.raises(StoppedError, match="out of memory"):
        explain("toys", PROMPT, run=run, answer="d", foil="b", traces=tmp_path, reports=tmp_path / "out")


def test_text_of_any_kind_is_shown_as_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tokenizer that knows markup, emoji and text that runs the other way."""
    words = ["<script>alert(1)</script>", "\U0001f600", "שלום", "\u202e", "</script>", "e", "f", "&amp;"]
    monkeypatch.setattr(ADAPTER, "tokenizer", lambda: word_tokenizer(words))
    run = toy_run(tmp_path, {0: Toy(2), 30: induction_toy()})
    prompt = f"{words[0]} {words[1]}\n{words[2]} {words[3]} {words[4]} {words[5]} {words[2]}"
    done = explain("toys", prompt, run=run, traces=tmp_path, reports=tmp_path / "out")
    page = (done.folder / "index.html").read_text()
    assert "<script>alert" not in page and "\u202e" not in page and page.count("</script>") == 2
    assert done.content["answer"]["text"] == "\u202e"
    check_explanation(json.loads((done.folder / "explanation.json").read_text()))


def test_the_counterpart_is_found_by_exchanging_one_word(tmp_path: Path) -> None:
    """Of an induction prompt: the word that is to be said, where it first stood; the foil is what then is said."""
    run = toy_run(tmp_path, {0: induction_toy(), 30: induction_toy()})
    done = explain("toys", PROMPT, run=run, traces=tmp_path, reports=tmp_path / "out")
    content = done.content
    assert content["corrupted"]["how"] == "likely word" and content["guessed"] == ["answer", "foil"]
    (twin,) = content["corrupted"]["texts"]
    changed = [i for i, (a, b) in enumerate(zip(PROMPT.split(), twin.split(), strict=True)) if a != b]
    answer, foil = content["answer"]["text"].strip(), content["foil"]["text"].strip()
    assert len(changed) == 1 and PROMPT.split()[changed[0]] == answer and twin.split()[changed[0]] == foil
    other = explain("toys", PROMPT, run=run, random_tokens=True, traces=tmp_path, reports=tmp_path / "out")
    assert other.content["corrupted"]["how"] == "random tokens" and other.folder != done.folder
