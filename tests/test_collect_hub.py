"""Collecting from a hub on loopback: what is good is collected, what is bad is masked or failed with its own reason."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as hf
from click.testing import CliRunner
from safetensors.torch import save

import dynamics
from checkpoints import UserError
from checkpoints.hub import HubConfig, HubSeries
from checkpoints.organism import build_tokenizer
from checkpoints.series import Checkpoint
from dynamics.cli import cli
from dynamics.config import ProbeEntry, Run
from dynamics.estimating import estimate
from dynamics.progress import Reporter
from dynamics.store import Trace
from tests.loopback import Hub, connected

REPO = "lab/tiny-pythia"
STEPS = [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, *range(1000, 21000, 1000)]
"""31 of them, spaced as Pythia's."""


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setattr("checkpoints.hub.retry._pause", lambda failures, wait: 0.0)
    with connected(tmp_path) as running:
        yield running


def config() -> hf.GPTNeoXConfig:
    size = len(build_tokenizer())
    return hf.GPTNeoXConfig(
        vocab_size=size,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
        bos_token_id=0,
        eos_token_id=0,
    )


def trained() -> dict[int, dict[str, torch.Tensor]]:
    """Weights that walk: every checkpoint is nearest to its neighbours; 0 and 1 are the same, as in Pythia."""
    torch.manual_seed(0)
    model = hf.GPTNeoXForCausalLM(config())
    now = {name: value.clone() for name, value in model.state_dict().items()}
    towards = {name: torch.randn_like(value) * 0.1 for name, value in now.items()}
    result = {}
    for step in STEPS:
        rate = 0.0 if step <= 1 else 0.05
        now = {n: v + rate * (towards[n] + torch.randn_like(v) * 0.02) for n, v in now.items()}
        result[step] = {n: v.clone() for n, v in now.items()}
    return result


def files(tensors: dict[str, torch.Tensor]) -> dict[str, bytes | str]:
    return {"config.json": config().to_json_string(), "model.safetensors": save(tensors), "README.md": "# tiny"}


def sharded(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> dict[str, bytes | str]:
    """Two shards: the first half of the tensors of ``one``, the second of ``other``."""
    names = sorted(one)
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    index = {"metadata": {}, "weight_map": {n: file for file, part in parts.items() for n in part}}
    result: dict[str, bytes | str] = {
        "config.json": config().to_json_string(),
        "model.safetensors.index.json": json.dumps(index),
    }
    for source, (file, part) in zip((one, other), parts.items(), strict=True):
        result[file] = save({n: source[n] for n in part})
    return result


def published(hub: Hub, tmp_path: Path) -> dict[int, dict[str, torch.Tensor]]:
    """A clean series: every step a branch, ``main`` the last one with a tokenizer."""
    weights = trained()
    repo = hub.repo(REPO)
    for step, tensors in weights.items():
        repo.branch(f"step{step}", files(tensors))
    folder = tmp_path / "tokenizer"
    build_tokenizer().save_pretrained(folder)
    tokenizer = {p.name: p.read_bytes() for p in folder.iterdir()}
    repo.branch("main", {**files(weights[STEPS[-1]]), **tokenizer})
    return weights


def run(tmp_path: Path, **series: object) -> Run:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"text": "36+59=", "answer": "0"}\n{"text": "12+34=", "answer": "0"}\n')
    return Run(
        series=HubConfig.model_validate({"repo": REPO, **series}),
        probes={"sums": ProbeEntry(file=prompts, sites=("resid_post",))},
    )


def weight_bytes(cache: Path) -> int:
    """Bytes of weights in the cache now."""
    return sum(
        p.stat().st_size for p in cache.rglob("*") if p.is_file() and p.stat().st_size > 4000 and "token" not in p.name
    )


def test_a_clean_series_is_collected_and_nothing_is_suspected(hub: Hub, tmp_path: Path) -> None:
    published(hub, tmp_path)
    done = dynamics.collect("clean", run=run(tmp_path), traces=tmp_path)
    assert done.collected == STEPS
    assert done.failed == done.masked == {}
    found = dynamics.audit("clean", run=run(tmp_path), traces=tmp_path)
    assert not [f for f in found.findings if f.mask]
    assert {f.step for f in found.findings if f.kind == "equal by design"} <= {0, 1}
    assert any("0" in f.reason for f in found.findings if f.kind == "equal by design")
    assert found.weights == len(STEPS)


def test_the_trace_says_which_commits_it_was_made_of(hub: Hub, tmp_path: Path) -> None:
    published(hub, tmp_path)
    trace = Trace(dynamics.collect("pinned", run=run(tmp_path), traces=tmp_path).trace)
    root = trace.tree.to_dataset()
    repo = hub.repo(REPO)
    assert root["label"].values.tolist() == [f"step{s}" for s in STEPS]
    assert root["revision"].values.tolist() == [repo.branches[f"step{s}"] for s in STEPS]
    assert trace.attributes["origin"] == f"{hub.url}/{REPO}"


def test_at_most_two_checkpoints_are_on_disk_and_none_stays(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    published(hub, tmp_path)
    one = len(hub.repo(REPO).commits[hub.repo(REPO).branches["step64"]]["model.safetensors"])  # type: ignore[arg-type]
    cache, most = tmp_path / "cache", []
    fetch = HubSeries.fetch

    def watched(self: HubSeries, checkpoint: Checkpoint) -> Path:
        folder = fetch(self, checkpoint)
        most.append(weight_bytes(cache))
        return folder

    monkeypatch.setattr(HubSeries, "fetch", watched)
    dynamics.collect("disk", run=run(tmp_path), traces=tmp_path)
    assert len(most) == len(STEPS)
    assert one <= max(most) <= 2 * one
    assert weight_bytes(cache) == 0
    assert list((tmp_path / "home").iterdir()) == []  # the user's own cache


def test_kept_checkpoints_stay_and_serve_offline(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published(hub, tmp_path)
    kept = run(tmp_path, keep=True)
    dynamics.collect("kept", run=kept, traces=tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    before = len(hub.requests)
    done = dynamics.collect("again", run=kept, traces=tmp_path)
    assert done.collected == STEPS
    assert len(hub.requests) == before


def test_everything_good_is_collected_and_everything_bad_has_its_reason(hub: Hub, tmp_path: Path) -> None:
    weights = published(hub, tmp_path)
    repo = hub.repo(REPO)
    final = STEPS[-1]
    for step in (16, 3000):  # stale copies of the final model
        repo.branch(f"step{step}", files(weights[final]))
    repo.branch("step4000", {"config.json": config().to_json_string()})
    repo.branch("step5000", sharded(weights[5000], weights[5000]))
    repo.branch("step6000", sharded(weights[5000], weights[6000]))  # a shard of another step
    repo.branch(
        "step7000", {**files(weights[7000]), "model.safetensors": save(weights[7000])[:-900]}
    )  # cut when uploaded
    hub.truncate(REPO, "step8000", "model.safetensors", after=3000)
    hub.fail(REPO, "step9000", 429, times=2, retry_after=1)
    hub.fail(REPO, "step10000", 503, what=("file",))
    hub.corrupt(REPO, "step11000", "model.safetensors")
    done = dynamics.collect("bad", run=run(tmp_path), traces=tmp_path)
    assert set(done.masked) == {16, 3000, 4000, 5000, 6000}
    assert "no weight" in done.masked[4000]
    assert "serves the weights of" in done.masked[16]
    assert done.masked[16] == done.masked[3000]
    assert "6000" in done.masked[5000] and "5000" in done.masked[6000]
    assert set(done.failed) == {7000, 8000, 10000, 11000}
    assert "cannot be read as weights" in done.failed[7000]
    assert "downloaded" in done.failed[8000]
    assert "503" in done.failed[10000]
    assert "damaged" in done.failed[11000]
    assert set(done.collected) == set(STEPS) - set(done.masked) - set(done.failed)
    trace = Trace(done.trace)
    states = dict(zip(trace.steps.tolist(), trace.status, strict=True))
    assert states[16] == "masked" and states[7000] == "failed" and states[9000] == "complete"
    assert trace.reasons[STEPS.index(16)] == done.masked[16]

    hub.heal()
    again = dynamics.collect("bad", run=run(tmp_path), traces=tmp_path)
    assert set(again.collected) == {8000, 10000, 11000}
    assert set(again.failed) == {7000}


def test_the_command_ends_with_1_when_a_checkpoint_failed(hub: Hub, tmp_path: Path) -> None:
    published(hub, tmp_path)
    hub.fail(REPO, "step2000", 503, what=("file",))
    (tmp_path / "prompts.jsonl").write_text('{"text": "36+59=", "answer": "0"}\n')
    runs = tmp_path / "runs.yaml"
    runs.write_text(
        f"mine:\n  series: {{kind: hub, repo: {REPO}}}\n  probes: {{sums: {{file: prompts.jsonl}}}}\n"
        "  schedule: log\n  checkpoints: 40\n"
    )
    result = CliRunner().invoke(cli, ["collect", "mine", "--runs", str(runs), "--traces", str(tmp_path)])
    assert result.exit_code == 1, result.output
    assert "step 2000 failed: " in result.output


def test_masked_checkpoints_can_be_included_and_left_out_again(hub: Hub, tmp_path: Path) -> None:
    weights = published(hub, tmp_path)
    hub.repo(REPO).branch("step32", files(weights[STEPS[-1]]))
    wanted = run(tmp_path)
    assert set(dynamics.collect("mask", run=wanted, traces=tmp_path).masked) == {32}
    every = dynamics.collect("mask", run=wanted.model_copy(update={"include_masked": True}), traces=tmp_path)
    assert every.collected == [32]
    assert every.masked == {}
    assert Trace(every.trace).status == ["complete"] * len(STEPS)
    last = dynamics.collect("mask", run=wanted, traces=tmp_path)
    assert set(last.masked) == {32}
    assert last.collected == []


def test_what_was_collected_stays_pinned_when_a_branch_moves(hub: Hub, tmp_path: Path) -> None:
    weights = published(hub, tmp_path)
    repo = hub.repo(REPO)
    before = repo.branches["step64"]
    first = run(tmp_path).model_copy(update={"exclude": (128,)})
    dynamics.collect("moved", run=first, traces=tmp_path)
    repo.branch("step64", files({n: v * 1.001 for n, v in weights[64].items()}))
    repo.branch("step128", files({n: v * 1.0001 for n, v in weights[128].items()}))
    done = dynamics.collect("moved", run=run(tmp_path), traces=tmp_path)
    assert done.collected == [128]
    revisions = Trace(done.trace).tree.to_dataset()["revision"].values.tolist()
    assert revisions[STEPS.index(64)] == before
    assert revisions[STEPS.index(128)] == repo.branches["step128"]


def test_the_situation_of_pythia_2_8b_is_seen_before_any_download(hub: Hub, tmp_path: Path) -> None:
    """In small: most early branches serve the final weights, a few another late file."""
    weights = published(hub, tmp_path)
    repo = hub.repo(REPO)
    stale = [s for s in STEPS if s <= 8000 or s in (10000, 13000)]
    other = [9000, 11000, 12000]
    for step in stale:
        repo.branch(f"step{step}", files(weights[STEPS[-1]]))
    late = {n: v * 1.01 for n, v in weights[STEPS[-1]].items()}
    for step in (*other, STEPS[-1]):
        repo.branch(f"step{step}", files(late))
    found = dynamics.audit("stale", run=run(tmp_path), traces=tmp_path)
    assert {f.step for f in found.findings if f.mask} == {*stale, *other}
    assert not [r for r in hub.requests if r.path.endswith(".safetensors")]
    result = CliRunner().invoke(cli, ["audit", "x", "--runs", str(_runs(tmp_path)), "--traces", str(tmp_path)])
    assert result.exit_code == 1
    assert f"{len(stale)} steps 0, 1, 2, 4, 8, 16, ... 13000" in result.output


def _runs(folder: Path) -> Path:
    file = folder / "runs.yaml"
    file.write_text(f"x:\n  series: {{kind: hub, repo: {REPO}}}\n  analyses: [induction]\n")
    return file


def test_weights_that_were_stored_anew_are_found_when_they_are_read(hub: Hub, tmp_path: Path) -> None:
    """The final weights in another dtype: another file, so that only the weights give it away."""
    weights = published(hub, tmp_path)
    half = {n: v.half().float() for n, v in weights[STEPS[-1]].items()}
    hub.repo(REPO).branch("step1000", files(half))
    listing = dynamics.audit("stored", run=run(tmp_path), traces=tmp_path)
    assert not [f for f in listing.findings if f.mask]
    read = dynamics.audit("stored", run=run(tmp_path), traces=tmp_path, weights=True)
    assert {f.step for f in read.findings if f.mask} == {1000}
    assert read.table["step"].tolist() == STEPS
    assert weight_bytes(tmp_path / "cache" / "hub") == 0
    asked = len(hub.asked(".safetensors"))
    dynamics.audit("stored", run=run(tmp_path), traces=tmp_path, weights=True)
    assert len(hub.asked(".safetensors")) == asked  # the sketches were kept
    done = dynamics.collect("stored", run=run(tmp_path), traces=tmp_path)
    assert set(done.masked) == {1000}
    trace = Trace(done.trace)
    assert trace.status[STEPS.index(1000)] == "masked"
    assert np.isnan(trace.values("sums", "answer_logprob")[STEPS.index(1000)]).all()


def test_a_dry_run_downloads_no_weights(hub: Hub, tmp_path: Path) -> None:
    published(hub, tmp_path)
    hub.repo(REPO).branch("step32", {"config.json": config().to_json_string()})
    guess = estimate("dry", run(tmp_path), traces=tmp_path)
    size = len(hub.repo(REPO).commits[hub.repo(REPO).branches["step64"]]["model.safetensors"])  # type: ignore[arg-type]
    assert guess.todo == guess.checkpoints == len(STEPS) - 1
    assert set(guess.masked) == {32}
    assert size * (len(STEPS) - 1) <= guess.download_bytes < size * len(STEPS)
    assert guess.seconds is not None and guess.seconds > 0
    assert "random weights" in guess.basis
    assert not hub.asked(".safetensors")


def test_a_killed_run_leaves_nothing_that_the_next_one_does_not_clear(hub: Hub, tmp_path: Path) -> None:
    published(hub, tmp_path)
    code = (
        "import os, sys; from checkpoints.hub import *; s = HubSeries(HubConfig(repo=sys.argv[1]));"
        "s.fetch(s.checkpoints[3]); print(s.checkpoints[3].revision, flush=True); os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run([sys.executable, "-c", code, REPO], capture_output=True, text=True, check=False)
    assert killed.returncode == -9, killed.stderr
    assert weight_bytes(tmp_path / "cache") > 0
    dynamics.collect("next", run=run(tmp_path), traces=tmp_path)
    assert weight_bytes(tmp_path / "cache") == 0


def test_another_repository_under_the_same_name_is_refused(hub: Hub, tmp_path: Path) -> None:
    published(hub, tmp_path)
    mine = run(tmp_path).model_copy(update={"exclude": tuple(STEPS[5:])})
    dynamics.collect("mixed", run=mine, traces=tmp_path)
    other = hub.repo("lab/other")
    for name, commit in hub.repo(REPO).branches.items():
        other.branch(name, hub.repo(REPO).commits[commit])  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"collected with other settings(.|\n)*lab/other"):
        dynamics.collect("mixed", run=run(tmp_path, repo="lab/other"), traces=tmp_path)


def test_a_branch_that_vanished_does_not_block_its_trace(hub: Hub, tmp_path: Path) -> None:
    """Also where names say more than the step: what was collected keeps its tokens."""
    weights = trained()
    published(hub, tmp_path)
    repo = hub.repo(REPO)
    for step in STEPS:
        repo.branch(f"stage1-step{step}-tokens{step}B", files(weights[step]))
    pattern = r"(?P<stage>stage\d)-step(?P<step>\d+)-tokens(?P<tokens>\d+)B"
    wanted = run(tmp_path, revisions=pattern)
    dynamics.collect("olmo", run=wanted.model_copy(update={"exclude": (20000,)}), traces=tmp_path)
    del repo.branches["stage1-step512-tokens512B"]
    done = dynamics.collect("olmo", run=wanted, traces=tmp_path)
    assert done.collected == [20000]
    assert Trace(done.trace).complete.all()


def test_a_config_of_another_model_fails_that_checkpoint_alone(hub: Hub, tmp_path: Path) -> None:
    """Also one that claims so large a model that building it would end the process."""
    weights = published(hub, tmp_path)
    claims = '{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}'
    hub.repo(REPO).branch("step7000", {"config.json": claims, "model.safetensors": save(weights[7000])})
    done = dynamics.collect("claims", run=run(tmp_path), traces=tmp_path)
    assert set(done.failed) == {7000}
    assert "d_model 4096, not 16" in done.failed[7000]
    assert len(done.collected) == len(STEPS) - 1


def test_whatever_a_config_holds_fails_its_checkpoint_alone(hub: Hub, tmp_path: Path) -> None:
    weights = published(hub, tmp_path)
    good = json.loads(config().to_json_string())
    bad = {
        "null": "null",
        "a number": "5",
        "nested": "[" * 50_000,
        "t5": '{"model_type": "t5"}',
        "a word for a size": json.dumps({**good, "hidden_size": "x"}),
        "no heads": json.dumps({**good, "num_attention_heads": 0}),
        "a list for the rotation": json.dumps({**good, "rope_parameters": [1]}),
        "quantised": json.dumps({**good, "quantization_config": {"quant_method": "gptq", "bits": 4}}),
        "quantised by a number": json.dumps({**good, "quantization_config": 5}),
    }
    steps = dict(zip(bad, STEPS[5:], strict=False))
    assert len(steps) == len(bad)
    for name, content in bad.items():
        hub.repo(REPO).branch(
            f"step{steps[name]}", {"config.json": content, "model.safetensors": save(weights[steps[name]])}
        )
    done = dynamics.collect("configs", run=run(tmp_path), traces=tmp_path)
    assert set(done.failed) == set(steps.values())
    assert len(done.collected) == len(STEPS) - len(bad)
    for reason in done.failed.values():
        assert "/commits/" not in reason and "  " not in reason and len(reason) > 20, reason


def test_a_shard_index_cannot_name_other_files_than_the_verified_ones(hub: Hub, tmp_path: Path) -> None:
    weights = published(hub, tmp_path)
    first = STEPS[0]
    straight = dynamics.collect("straight", run=run(tmp_path), traces=tmp_path)
    (tmp_path / "secret.safetensors").write_bytes(save(weights[STEPS[-1]]))
    outside = "/".join([".."] * 20) + str(tmp_path / "secret.safetensors")
    hub.repo(REPO).branch(
        f"step{first}",
        {
            "config.json": config().to_json_string(),
            "model.safetensors.index.json": json.dumps(
                {"metadata": {}, "weight_map": dict.fromkeys(weights[first], outside)}
            ),
            "model-00001-of-00001.safetensors": save(weights[first]),
        },
    )
    crooked = dynamics.collect("crooked", run=run(tmp_path), traces=tmp_path)
    assert not crooked.failed
    one, other = (Trace(done.trace) for done in (straight, crooked))
    probe = one.probes[0]
    variable = next(name for name in one.probe(probe).data_vars if "checkpoint" in one.probe(probe)[name].dims)
    np.testing.assert_array_equal(one.values(probe, variable)[0], other.values(probe, variable)[0])
    assert not np.array_equal(one.values(probe, variable)[0], one.values(probe, variable)[-1])


def test_code_beside_the_weights_is_never_run_nor_asked_about(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = published(hub, tmp_path)
    evil = '{"model_type": "evil", "auto_map": {"AutoConfig": "evil.C"}}'
    hub.repo(REPO).branch("step8000", {"config.json": evil, "evil.py": "1/0", "model.safetensors": save(weights[8000])})
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("somebody was asked"))
    done = dynamics.collect("evil", run=run(tmp_path), traces=tmp_path)
    assert set(done.failed) == {8000}
    assert "/commits/" not in done.failed[8000]  # a folder that is gone by now


def test_weights_that_are_named_otherwise_in_some_files_are_not_suspected(hub: Hub, tmp_path: Path) -> None:
    weights = published(hub, tmp_path)
    for step in (8, 3000, 4000):
        renamed = {n.replace("lm_head.", "embed_out."): v for n, v in weights[step].items()}
        hub.repo(REPO).branch(f"step{step}", files(renamed))
    done = dynamics.collect("renamed", run=run(tmp_path), traces=tmp_path)
    assert done.masked == done.failed == {}


def test_a_repaired_branch_is_read_anew_by_the_audit(hub: Hub, tmp_path: Path) -> None:
    weights = published(hub, tmp_path)
    half = {n: v.half().float() for n, v in weights[STEPS[-1]].items()}
    hub.repo(REPO).branch("step1000", files(half))
    assert set(dynamics.collect("mend", run=run(tmp_path), traces=tmp_path).masked) == {1000}
    hub.repo(REPO).branch("step1000", files(weights[1000]))
    mended = dynamics.audit("mend", run=run(tmp_path), traces=tmp_path, weights=True)
    assert not [f for f in mended.findings if f.mask]


def test_a_repository_that_is_not_there_is_a_wrong_request(hub: Hub, tmp_path: Path) -> None:
    runs = tmp_path / "runs.yaml"
    runs.write_text("x:\n  series: {kind: hub, repo: nobody/nothing}\n  analyses: [induction]\n")
    for verb in (["collect", "x"], ["audit", "x"], ["collect", "x", "--dry-run"]):
        result = CliRunner().invoke(cli, [*verb, "--runs", str(runs), "--traces", str(tmp_path)])
        assert result.exit_code != 0
        assert "there is no repository 'nobody/nothing'" in str(result.exception)


def test_a_step_stored_anew_beside_masked_steps_is_found_without_an_audit(hub: Hub, tmp_path: Path) -> None:
    """Its neighbours hold the final weights: what is between two equal steps is never loaded, and they are masked."""
    weights = published(hub, tmp_path)
    repo = hub.repo(REPO)
    for step in (256, 1000, 3000):
        repo.branch(f"step{step}", files(weights[STEPS[-1]]))
    repo.branch("step2000", files({n: v.half().float() for n, v in weights[512].items()}))
    wanted = run(tmp_path)
    done = dynamics.collect("beside", run=wanted, traces=tmp_path)
    assert set(done.masked) == {256, 512, 1000, 2000, 3000}
    assert done.masked[2000] == done.masked[512]
    assert done.masked[512] == (
        "steps 512 and 2000 hold the same weights up to rounding, and at most one label can be right"
    )
    audited = dynamics.audit("beside", run=wanted, traces=tmp_path, weights=True)
    assert {f.step for f in audited.findings if f.mask} == set(done.masked)
    repo.branch("step2000", files(weights[2000]))  # put right: what was masked is not pinned
    again = dynamics.collect("beside", run=wanted, traces=tmp_path)
    assert set(again.masked) == {256, 1000, 3000}
    assert again.collected == [2000]
    revisions = Trace(again.trace).tree.to_dataset()["revision"].values.tolist()
    assert revisions[STEPS.index(2000)] == repo.branches["step2000"]
    assert Trace(again.trace).status[STEPS.index(512)] == "complete"


def test_what_an_audit_of_the_weights_found_is_masked_by_the_next_collection(hub: Hub, tmp_path: Path) -> None:
    """Steps between a copy and its origin cannot be had when they are collected, but could be read by the audit."""
    weights = published(hub, tmp_path)
    repo = hub.repo(REPO)
    repo.branch("step3000", files({n: v.half().float() for n, v in weights[256].items()}))
    missing = (512, 1000, 2000)

    def unavailable() -> None:
        for step in missing:
            hub.fail(REPO, f"step{step}", 503, what=("file",))

    def state(step: int) -> str:
        return Trace(tmp_path / "kept.zarr").status[STEPS.index(step)]

    wanted = run(tmp_path)
    unavailable()
    first = dynamics.collect("kept", run=wanted, traces=tmp_path)
    assert set(first.failed) == set(missing)
    assert set(first.masked) == {256, 3000}  # one of the two, and nobody can say which
    hub.heal()
    audited = dynamics.audit("kept", run=wanted, traces=tmp_path, weights=True)
    assert {f.step for f in audited.findings if f.mask} == {3000}
    unavailable()
    assert set(estimate("kept", wanted, traces=tmp_path).masked) == {3000}
    second = dynamics.collect("kept", run=wanted, traces=tmp_path)
    assert second.masked == {3000: "holds the weights of step 256 up to rounding"}
    assert (state(256), state(3000)) == ("complete", "masked")
    every = wanted.model_copy(update={"include_masked": True})
    assert dynamics.collect("kept", run=every, traces=tmp_path).masked == {}
    assert state(3000) == "complete"
    assert set(dynamics.collect("kept", run=wanted, traces=tmp_path).masked) == {3000}

    shutil.rmtree(tmp_path / "cache" / "sketches")  # nobody knows any more what lies between
    assert set(dynamics.collect("kept", run=wanted, traces=tmp_path).masked) == {256, 3000}
    repo.branch("step3000", files(weights[3000]))
    last = dynamics.collect("kept", run=wanted, traces=tmp_path)
    assert (last.masked, last.collected) == ({}, [3000])
    assert (state(256), state(3000)) == ("complete", "complete")


def test_what_an_audit_found_is_masked_before_it_is_downloaded(hub: Hub, tmp_path: Path) -> None:
    weights = published(hub, tmp_path)
    hub.repo(REPO).branch("step1000", files({n: v.half().float() for n, v in weights[STEPS[-1]].items()}))
    dynamics.audit("before", run=run(tmp_path), traces=tmp_path, weights=True)
    asked = len(hub.asked(".safetensors"))
    done = dynamics.collect("before", run=run(tmp_path), traces=tmp_path)
    assert set(done.masked) == {1000}
    assert len(hub.asked(".safetensors")) - asked == 2 * (len(STEPS) - 1)  # each is asked for, and sent elsewhere


def test_checkpoints_that_cannot_be_listed_are_told(hub: Hub, tmp_path: Path) -> None:
    published(hub, tmp_path)
    hub.fail(REPO, "step64", 503, what=("tree",))
    said: list[str] = []
    reporter = Reporter(quiet=True)
    reporter.say = said.append  # type: ignore[method-assign]
    done = dynamics.collect("told", run=run(tmp_path), traces=tmp_path, reporter=reporter)
    assert [line for line in said if line.startswith("step 64: its files could not be listed: ")]
    assert set(done.failed) == {64}
    found = dynamics.audit("told", run=run(tmp_path), traces=tmp_path)
    assert set(found.unreadable) == {64}
