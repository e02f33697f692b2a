"""``dynamics explain``: nonsense is refused in one sentence, and the page says what the run's model says."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file

from checkpoints.organism import build_tokenizer
from dynamics.explaining import check_explanation
from tests.cli.commands import Dynamics, Said, command_line

SUM = "46+39=08"


@pytest.fixture
def project(
    tmp_path: Path, tiny_series: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Dynamics:
    """``project(*arguments)``: the command line in a folder with a run of six checkpoints."""
    shutil.copytree(tiny_series, tmp_path / "series")
    (tmp_path / "runs.yaml").write_text(
        "mine:\n  series: {kind: folder, path: series}\n  analyses: [induction]\n  device: cpu\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return command_line(capsys)


def refused(said: Said, *parts: str) -> None:
    """Exit code 2, one message, no traceback, nothing written."""
    assert said.code == 2, said
    assert said.err.startswith("error: ") and "Traceback" not in said.err and said.out == ""
    for part in parts:
        assert part in said.err, said.err
    assert not Path("reports").exists()


def written() -> tuple[Path, dict[str, Any]]:
    (folder,) = Path("reports/mine").iterdir()
    content = json.loads((folder / "explanation.json").read_text())
    check_explanation(content)
    return folder, content


def test_nonsense_is_refused_without_a_traceback(project: Dynamics) -> None:
    refused(project("explain", "mien", SUM), "there is no run 'mien'", "did you mean 'mine'")
    refused(project("explain", "mine", ""), "the prompt is empty")
    refused(project("explain", "mine", SUM, "--answer", "zebra"), "zebra")
    refused(project("explain", "mine", SUM, "--answer", "5", "--foil", "5"), "answer and foil are the same token")
    refused(project("explain", "mine", SUM, "--corrupted", "46+3=08"), "tokens long, its corrupted twin")
    for share, said in (("0", "the share is 0.0"), ("1.5", "the share is 1.5"), ("nan", "`share` is nan")):
        refused(project("explain", "mine", SUM, "--share", share), said)
    refused(project("explain", "mine", SUM, "--checkpoints", "0"), "0 checkpoints were asked for")
    refused(project("explain", "mine", SUM, "--figure-step", "5"), "step 5 is not among those explained")
    refused(project("explain", "mine", "1" * 100), "tokens long, but the model reads")
    refused(project("explain", "mine", "a \udcff b"), "half characters")
    refused(project("explain", "mine", "<script>alert(1)</script>"), "unknown to the tokenizer")
    refused(project("explain", "mine", "\u202e\U0001f600"), "unknown to the tokenizer")


def test_the_page_the_numbers_and_the_figure_are_written(project: Dynamics) -> None:
    said = project("explain", "mine", SUM, "--checkpoints", "3")
    assert said.code == 0 and "both guessed from the final checkpoint" in said.out
    folder, content = written()
    assert {p.name for p in folder.iterdir()} == {"index.html", "explanation.json", "explanation.svg"}
    assert f"{folder / 'index.html'}" in said.out.replace("\n", "")
    assert len(content["checkpoints"]) == 3 and content["prompt"] == SUM
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    assert project("explain", "mine", SUM, "--checkpoints", "3").code == 0
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before  # the same question, the same answer
    assert project("explain", "mine", SUM, "--checkpoints", "1", "--figure-step", "12").code == 0
    assert len(written()[1]["checkpoints"]) == 1


def test_a_checkpoint_that_cannot_be_loaded_is_in_the_page(project: Dynamics) -> None:
    steps = sorted(int(p.name.removeprefix("step")) for p in Path("series").glob("step*"))
    file = Path("series") / f"step{steps[2]}" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-64])
    said = project("explain", "mine", SUM)
    assert said.code == 0, said
    folder, content = written()
    assert [c["state"] == "failed" for c in content["checkpoints"]] == [i == 2 for i in range(len(steps))]
    assert (
        content["checkpoints"][2]["reason"]
        and content["checkpoints"][2]["reason"] in (folder / "explanation.json").read_text()
    )
    assert content["checkpoints"][3]["lens"] is not None


def test_a_final_checkpoint_that_cannot_be_loaded_cannot_guess(project: Dynamics) -> None:
    steps = sorted(int(p.name.removeprefix("step")) for p in Path("series").glob("step*"))
    (Path("series") / f"step{steps[-1]}" / "model.safetensors").write_bytes(b"no weights")
    refused(project("explain", "mine", SUM), f"step {steps[-1]}, by which answer and foil are guessed", "give --answer")
    assert project("explain", "mine", SUM, "--answer", "5", "--foil", "4").code == 0
    assert written()[1]["checkpoints"][-1]["state"] == "failed"


def test_a_checkpoint_of_another_architecture_failed(project: Dynamics) -> None:
    steps = sorted(int(p.name.removeprefix("step")) for p in Path("series").glob("step*"))
    place = Path("series") / f"step{steps[2]}"
    config = json.loads((place / "config.json").read_text())
    config["num_attention_heads"] = 2 * config["num_attention_heads"]  # the same tensors, read otherwise
    (place / "config.json").write_text(json.dumps(config))
    assert project("explain", "mine", SUM, "--answer", "5", "--foil", "4").code == 0
    found = written()[1]["checkpoints"]
    assert [c["state"] == "failed" for c in found] == [i == 2 for i in range(len(steps))]
    assert "its config is that of another model: heads 4, not 2" in found[2]["reason"]


def test_only_what_the_trace_holds_is_explained(project: Dynamics) -> None:
    steps = sorted(int(p.name.removeprefix("step")) for p in Path("series").glob("step*"))
    with Path("runs.yaml").open("a") as stream:
        stream.write(f"  exclude: [{steps[1]}]\n")
    assert project("explain", "mine", SUM, "--answer", "5", "--foil", "4").code == 0
    assert steps[1] not in [c["step"] for c in written()[1]["checkpoints"]]
    file = Path("series") / f"step{steps[2]}" / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-64])
    assert project("collect", "mine", "--keep-going").code == 1
    file.write_bytes(whole)
    assert project("explain", "mine", SUM, "--answer", "5", "--foil", "4").code == 0
    held = [c["step"] for c in written()[1]["checkpoints"]]
    assert held == [s for i, s in enumerate(steps) if i not in (1, 2)]


def test_weights_of_nan_failed_and_the_others_are_there(project: Dynamics) -> None:
    steps = sorted(int(p.name.removeprefix("step")) for p in Path("series").glob("step*"))
    file = Path("series") / f"step{steps[1]}" / "model.safetensors"
    tensors = load_file(file)
    save_file({name: tensor * float("nan") for name, tensor in tensors.items()}, file, metadata={"format": "pt"})
    assert project("explain", "mine", SUM).code == 0
    found = written()[1]["checkpoints"]
    assert found[1]["state"] == "failed" and "not finite" in found[1]["reason"]
    assert "failed" not in {c["state"] for i, c in enumerate(found) if i != 1}


def test_where_nothing_can_be_written_is_said_before_anything_is_computed(
    project: Dynamics, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("taken").write_text("a file")
    loaded: list[Any] = []
    monkeypatch.setattr("dynamics.explaining.computing._explanation", lambda *given: loaded.append(given))
    refused(project("explain", "mine", SUM, "--reports", "taken"), "taken is a file", "--reports")
    monkeypatch.setattr("os.access", lambda *_: False)
    refused(project("explain", "mine", SUM), "is read-only", "--reports")
    assert not loaded


def test_a_model_that_fills_in_masks_is_refused(project: Dynamics) -> None:
    tokenizer = build_tokenizer()
    config = hf.BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=32,
    )
    shutil.rmtree("series")
    for step in (0, 1):
        hf.BertForMaskedLM(config).save_pretrained(f"series/step{step}")
        tokenizer.save_pretrained(f"series/step{step}")
    refused(project("explain", "mine", SUM), "what reads and writes where is not known of this architecture")


def test_the_model_is_the_runs(project: Dynamics) -> None:
    """What the page calls most probable is what plain transformers says."""
    assert project("explain", "mine", SUM, "--checkpoints", "2").code == 0
    tokenizer = build_tokenizer()
    for found in written()[1]["checkpoints"]:
        model: Any = hf.AutoModelForCausalLM.from_pretrained(f"series/step{found['step']}").eval()
        with torch.no_grad():
            own = model(torch.tensor([tokenizer(SUM)["input_ids"]])).logits[0, -1].softmax(-1)
        assert found["top"][0]["probability"] == pytest.approx(float(own.max()), rel=1e-4)
        assert found["lens"]["top"][-1][-1][1] == pytest.approx(float(own.max()), rel=1e-4)
