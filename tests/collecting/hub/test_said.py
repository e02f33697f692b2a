"""What checkpoints of a hub say of themselves is compared with their labels; adapters are recognised and merged, or refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

import dynamics
from checkpoints.errors import UserError
from checkpoints.local import FolderConfig
from checkpoints.organism import build_tokenizer
from dynamics.cli import cli
from dynamics.collecting.estimating import estimate
from dynamics.progress import Reporter
from dynamics.store import Trace
from tests.checkpoints.test_adapters import STEPS as ADAPTERS
from tests.checkpoints.test_adapters import trained as train_adapters
from tests.collecting.hub.publishing import REPO, STEPS, files, published, run, weight_bytes
from tests.collecting.trainings import fresh
from tests.loopback import Hub

pytestmark = pytest.mark.filterwarnings("ignore")  # peft, of older names
WRONG = 64


def tokenizer(change: Callable[[dict[str, object]], object] = lambda content: None) -> dict[str, bytes | str]:
    content = json.loads(build_tokenizer().backend_tokenizer.to_str())
    change(content)
    return {"tokenizer.json": json.dumps(content)}


OTHER = tokenizer(lambda content: content.update(normalizer={"type": "Lowercase"}))


def again(hub: Hub, step: int, weights: dict[str, torch.Tensor], more: dict[str, bytes | str]) -> None:
    hub.repo(REPO).branch(f"step{step}", files(weights) | more)


@pytest.mark.parametrize("how", ["step", "tokenizer"])
def test_a_branch_that_says_otherwise_is_masked_unless_the_run_says_which_holds(
    hub: Hub, tmp_path: Path, how: str
) -> None:
    weights = published(hub, tmp_path)
    again(hub, WRONG, weights[WRONG], OTHER if how == "tokenizer" else {"trainer_state.json": '{"global_step": 3}'})
    again(hub, 128, weights[128], {"trainer_state.json": '{"global_step": 128}', **tokenizer()})
    said = "its trainer_state.json says step 3"
    if how == "tokenizer":
        said = "it carries another tokenizer than the one of main (tokenizer.json), by which all prompts are read"
    found = dynamics.audit("said", run=run(tmp_path), traces=tmp_path)
    assert [(f.step, f.kind, f.mask, f.reason) for f in found.findings] == [
        (0, "equal by design", False, found.findings[0].reason),
        (1, "equal by design", False, found.findings[1].reason),
        (WRONG, "says otherwise", True, said),
    ]
    assert not hub.asked(".safetensors")
    assert set(estimate("said", run=run(tmp_path), traces=tmp_path).masked) == {WRONG}
    few = {"exclude": tuple(s for s in STEPS if s not in (32, WRONG, 128))}
    done = dynamics.collect("said", run=run(tmp_path).model_copy(update=few), traces=tmp_path)
    assert done.collected == [32, 128] and done.masked[WRONG] == said
    holds = {"revisions": r"step(?P<step>\d+)"} if how == "step" else {"tokenizer": str(tmp_path / "tokenizer")}
    last = dynamics.collect("said", run=run(tmp_path, **holds).model_copy(update=few), traces=tmp_path)
    assert last.collected == [WRONG]
    assert weight_bytes(tmp_path / "cache") == 0


def test_of_tokenizers_one_of_each_kind_is_fetched_and_none_that_is_the_same_file(hub: Hub, tmp_path: Path) -> None:
    weights = published(hub, tmp_path)
    same = {"tokenizer.json": (tmp_path / "tokenizer" / "tokenizer.json").read_bytes()}
    rewritten = tokenizer(lambda content: content.update(truncation={"direction": "Right", "max_length": 9, "strategy": "LongestFirst", "stride": 0}))  # fmt: skip
    for step in STEPS[5:]:
        again(hub, step, weights[step], same if step < 1000 else rewritten if step < 9000 else OTHER)
    found = dynamics.audit("kinds", run=run(tmp_path), traces=tmp_path)
    assert {f.step for f in found.findings if f.mask} == {s for s in STEPS if s >= 9000}
    commits = {r.path.split("/resolve/")[1][:40] for r in hub.asked("tokenizer.json")}
    assert len(commits) == 3  # main's, and the first of each other kind


def test_a_trainer_state_that_cannot_be_had_is_said(hub: Hub, tmp_path: Path) -> None:
    weights = published(hub, tmp_path)
    again(hub, WRONG, weights[WRONG], {"trainer_state.json": '{"global_step": 3}'})
    hub.fail(REPO, f"step{WRONG}", 503, what=("file",), file="trainer_state.json")
    lines: list[str] = []
    reporter = Reporter(quiet=True)
    reporter.say = lines.append  # type: ignore[method-assign]
    few = run(tmp_path).model_copy(update={"exclude": tuple(s for s in STEPS if s not in (32, WRONG))})
    done = dynamics.collect("unsaid", run=few, traces=tmp_path, reporter=reporter)
    assert done.collected == [32, WRONG]
    assert [line for line in lines if line.startswith(f"step {WRONG}: ") and "trainer_state.json" in line]
    assert set(dynamics.audit("unsaid", run=run(tmp_path), traces=tmp_path).unreadable) == {WRONG}


@pytest.fixture
def adapters(hub: Hub, tmp_path: Path) -> Path:
    """A repository of adapters, and that of their model."""
    model = fresh()
    model.save_pretrained(tmp_path / "base")
    build_tokenizer().save_pretrained(tmp_path / "base")
    hub.repo("lab/base").branch("main", tmp_path / "base")
    train_adapters(fresh(), tmp_path / "job")
    for step in ADAPTERS:
        hub.repo("lab/job").branch(f"step{step}", tmp_path / "job" / f"checkpoint-{step}")
    return tmp_path / "job"


ON_BASE = {"repo": "lab/job", "base": "lab/base"}


def test_adapters_on_a_hub_are_merged_into_the_model_that_the_run_names(
    hub: Hub, tmp_path: Path, adapters: Path
) -> None:
    told = estimate("adapted", run=run(tmp_path, **ON_BASE), traces=tmp_path).download_bytes
    done = dynamics.collect("adapted", run=run(tmp_path, **ON_BASE), traces=tmp_path)
    folders = (tmp_path / "base", *(adapters / f"checkpoint-{step}" for step in ADAPTERS))
    weights = sum(file.stat().st_size for folder in folders for file in folder.glob("*model.safetensors"))
    assert weights < told < weights + 20_000  # and their configs
    assert (done.collected, done.failed, done.masked) == (list(ADAPTERS), {}, {})
    local = run(tmp_path).model_copy(update={"series": FolderConfig(path=adapters, base=tmp_path / "base")})
    dynamics.collect("local", run=local, traces=tmp_path)
    one, other = Trace(tmp_path / "adapted.zarr"), Trace(tmp_path / "local.zarr")
    assert (one.values("sums", "resid_post") == other.values("sums", "resid_post")).all()
    assert one.digests == other.digests
    asked = len(hub.asked("model.safetensors"))
    assert dynamics.collect("adapted", run=run(tmp_path, **ON_BASE), traces=tmp_path).already == list(ADAPTERS)
    assert len(hub.asked("model.safetensors")) == asked
    hub.repo("lab/base").branch(
        "main", {**hub.repo("lab/base").commits[hub.repo("lab/base").branches["main"]], "x": "y"}
    )
    with pytest.raises(UserError, match=r"collected with other settings(.|\n)*lab/base@"):
        dynamics.collect("adapted", run=run(tmp_path, **ON_BASE), traces=tmp_path)


def test_adapters_on_a_hub_without_their_model_are_refused_by_what_they_are(
    hub: Hub, tmp_path: Path, adapters: Path
) -> None:
    for verb in (dynamics.collect, estimate):
        with pytest.raises(
            UserError, match=r"'lab/job' holds adapters without their model \(step10: adapter_model"
        ) as e:
            verb("alone", run=run(tmp_path, repo="lab/job"), traces=tmp_path)
        assert "the model that they were trained on" in e.value.expected and "`series.base`" in e.value.remedy
    runs = tmp_path / "runs.yaml"
    runs.write_text("x:\n  series: {kind: hub, repo: lab/job}\n  analyses: [induction]\n")
    result = CliRunner().invoke(cli, ["audit", "x", "--runs", str(runs), "--traces", str(tmp_path)])
    assert result.exit_code == 1
    assert "steps 10, 20: it holds an adapter without its model (adapter_model.safetensors)" in result.output
    for base, message in (
        ("lab/no", "lab/no"),
        ("lab/base@gone", "there is no revision"),
        ("lab/job", "there is no rev"),
    ):
        with pytest.raises(UserError, match=message) as e:
            dynamics.collect("alone", run=run(tmp_path, repo="lab/job", base=base), traces=tmp_path)
    hub.repo("lab/job").branch("main", {"README.md": "# adapters"})
    with pytest.raises(UserError, match="'lab/job' holds no model"):
        dynamics.collect("alone", run=run(tmp_path, repo="lab/job", base="lab/job"), traces=tmp_path)


def test_an_adapter_among_whole_checkpoints_is_masked_and_named(hub: Hub, tmp_path: Path, adapters: Path) -> None:
    published(hub, tmp_path)
    hub.repo(REPO).branch("step64", adapters / "checkpoint-10")
    few = run(tmp_path).model_copy(update={"exclude": tuple(s for s in STEPS if s not in (32, 64))})
    done = dynamics.collect("among", run=few, traces=tmp_path)
    assert done.collected == [32] and "it holds an adapter without its model" in done.masked[64]
    every = few.model_copy(update={"include_masked": True})
    failed = dynamics.collect("among", run=every, traces=tmp_path).failed
    assert set(failed) == {64} and "it holds an adapter without its model" in failed[64]


def test_what_lies_beside_the_weights_of_a_branch_is_said_once(hub: Hub, tmp_path: Path) -> None:
    weights = published(hub, tmp_path)
    for step in STEPS:
        hub.repo(REPO).branch(
            f"step{step}", files(weights[step]) | {"model_ema.safetensors": b"x", "adapter_model.bin": b"x"}
        )
    runs = tmp_path / "runs.yaml"
    runs.write_text(f"x:\n  series: {{kind: hub, repo: {REPO}}}\n  analyses: [induction]\n")
    names = [f"step0/{name} (and in 30 more)" for name in ("model_ema.safetensors", "adapter_model.bin")]
    line = f"{names[0]} and {names[1]} are left out: the weights are read from model.safetensors"
    for verb in (["audit", "x"], ["collect", "x", "--dry-run"]):
        result = CliRunner().invoke(cli, [*verb, "--runs", str(runs), "--traces", str(tmp_path)])
        assert result.output.count(line) == 1, result.output
    said: list[str] = []
    reporter = Reporter(quiet=True)
    reporter.say = said.append  # type: ignore[method-assign]
    few = run(tmp_path).model_copy(update={"exclude": tuple(STEPS[1:])})
    dynamics.collect("beside", run=few, traces=tmp_path, reporter=reporter)
    assert [text for text in said if "left out" in text] == [line]
