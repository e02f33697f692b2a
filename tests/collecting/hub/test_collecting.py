"""Collecting from a hub on loopback: what is good is collected, what is bad fails with its own reason, nothing else stays."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.torch import save

import dynamics
from checkpoints import UserError
from checkpoints.hub import HubSeries
from checkpoints.series import Checkpoint
from dynamics.cli import cli
from dynamics.collecting.estimating import estimate
from dynamics.store import Trace
from tests.collecting.hub.publishing import REPO, STEPS, config, files, published, run, sharded, trained, weight_bytes
from tests.loopback import Hub


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


def test_a_dry_run_downloads_no_weights(hub: Hub, tmp_path: Path) -> None:
    published(hub, tmp_path)
    hub.repo(REPO).branch("step32", {"config.json": config().to_json_string()})
    guess = estimate("dry", run=run(tmp_path), traces=tmp_path)
    size = len(hub.repo(REPO).commits[hub.repo(REPO).branches["step64"]]["model.safetensors"])  # type: ignore[arg-type]
    assert guess.todo == guess.checkpoints == len(STEPS) - 1
    assert set(guess.masked) == {32}
    assert size * (len(STEPS) - 1) <= guess.download_bytes < size * len(STEPS)
    assert guess.seconds is not None and guess.seconds > 0
    assert "random weights" in guess.basis
    assert not hub.asked(".safetensors")


@pytest.mark.slow
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


def test_a_shard_index_cannot_name_files_outside_its_checkpoint(hub: Hub, tmp_path: Path) -> None:
    weights = published(hub, tmp_path)
    first = STEPS[0]
    (tmp_path / "secret.safetensors").write_bytes(save(weights[STEPS[-1]]))
    outside = "/".join([".."] * 20) + str(tmp_path / "secret.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(weights[first], outside)}
    hub.repo(REPO).branch(
        f"step{first}",
        {
            "config.json": config().to_json_string(),
            "model.safetensors.index.json": json.dumps(index),
            "model-00001-of-00001.safetensors": save(weights[first]),
        },
    )
    crooked = dynamics.collect("crooked", run=run(tmp_path), traces=tmp_path)
    assert set(crooked.failed) == {first} and "secret.safetensors" in crooked.failed[first]
    trace = Trace(crooked.trace)
    assert trace.status == ["failed"] + ["complete"] * (len(STEPS) - 1)
    assert np.isnan(trace.values("sums", "answer_logprob")[0]).all()


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


def test_a_repository_that_is_not_there_is_a_wrong_request(hub: Hub, tmp_path: Path) -> None:
    runs = tmp_path / "runs.yaml"
    runs.write_text("x:\n  series: {kind: hub, repo: nobody/nothing}\n  analyses: [induction]\n")
    for verb in (["collect", "x"], ["audit", "x"], ["collect", "x", "--dry-run"]):
        result = CliRunner().invoke(cli, [*verb, "--runs", str(runs), "--traces", str(tmp_path)])
        assert result.exit_code != 0
        assert "there is no repository 'nobody/nothing'" in str(result.exception)


def test_a_checkpoint_that_waits_for_the_trace_to_gain_a_probe_stays_pinned(hub: Hub, tmp_path: Path) -> None:
    weights = published(hub, tmp_path)
    repo = hub.repo(REPO)
    first = run(tmp_path).model_copy(update={"exclude": (*STEPS[:-3], 20000)})
    dynamics.collect("waits", run=first, traces=tmp_path)
    more = {**first.probes, "again": first.probes["sums"].model_copy(update={"sites": ()})}
    wanted = first.model_copy(update={"probes": more, "exclude": tuple(STEPS[:-3])})
    hub.fail(REPO, "step18000", 503, what=("file",))
    done = dynamics.collect("waits", run=wanted, traces=tmp_path)
    assert (done.waiting, done.pending) == (["again"], [20000])
    before = repo.branches["step20000"]
    repo.branch("step20000", files({n: v * 1.0001 for n, v in weights[20000].items()}))
    hub.heal()
    done = dynamics.collect("waits", run=wanted, traces=tmp_path)
    trace = Trace(done.trace)
    assert done.waiting == [] and trace.status[-3:] == ["complete"] * 3 and done.collected == [20000]
    assert trace.tree.to_dataset()["revision"].values.tolist()[-1] == before
