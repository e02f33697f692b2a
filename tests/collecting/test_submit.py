"""Scripts of a batch system: they say what was asked, a shell accepts them, and a batch system gets them in their order."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import dynamics
from checkpoints.errors import UserError
from dynamics.cli import main
from tests.conftest import runs_file

FAKE = """#!/bin/bash
echo "$PWD $0 $*" >> "{log}"
[ -n "${{REFUSE:-}}" ] && {{ echo "sbatch: error: invalid partition" >&2; exit 1; }}
echo "$((100 + $(wc -l < "{log}")))${{SUFFIX:-}}"
"""


@pytest.fixture
def place(tiny_series: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder, whose name has a blank, with a runs file and a fake ``sbatch`` and ``qsub`` on the path."""
    folder = tmp_path / "a folder"
    (folder / "bin").mkdir(parents=True)
    runs_file(folder, tiny_series, analyses="[induction]")
    for program in ("sbatch", "qsub"):
        (folder / "bin" / program).write_text(FAKE.format(log=folder / "log"))
        (folder / "bin" / program).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(folder)
    return folder


def shellcheck(*scripts: Path) -> None:
    """No complaint but that a file of the user's, which is sourced, is not there."""
    program = Path(sys.executable).with_name("shellcheck")
    done = subprocess.run(
        [str(program), "-s", "bash", "-e", "SC1091", *map(str, scripts)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_jobs_of_slurm_are_handed_in_one_after_the_other(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--shards", "3", "--time", "1-02:00:00", "--memory", "24G", "--partition", "gpu", "--gpus", "1"]
    options += ["--line", "#SBATCH --account=mine", "--activate", "source env/bin/activate", "--go"]
    main(["submit", "mine", "--slurm", *options])
    assert "jobs: collect 101, analyse 102, report 103" in capsys.readouterr().out
    jobs = place / "jobs/mine"
    shellcheck(*jobs.glob("*.sh"))
    said = [line.partition("sbatch ")[2] for line in (place / "log").read_text().splitlines()]
    assert said == [
        "--parsable collect.sh",
        "--parsable --dependency=afterany:101 analyse.sh",
        "--parsable --dependency=afterany:102 report.sh",
    ]
    collect = (jobs / "collect.sh").read_text().splitlines()
    for line in (
        "#SBATCH --array=1-3",
        "#SBATCH --time=1-02:00:00",
        "#SBATCH --mem=24G",
        "#SBATCH --partition=gpu",
        "#SBATCH --gres=gpu:1",
        "#SBATCH --account=mine",
        f'#SBATCH --output="{jobs}/collect-%A-%a.log"',
        "source env/bin/activate",
    ):
        assert line in collect
    heads = [i for i, line in enumerate(collect) if line.startswith("#SBATCH")]
    assert heads == list(range(1, len(heads) + 1))  # Slurm reads no further than the first command
    assert "--gres" not in (jobs / "report.sh").read_text()


@pytest.mark.parametrize("system", ["slurm", "pbs"])
def test_what_a_job_runs_is_a_shard_of_the_run(place: Path, system: str) -> None:
    done = dynamics.submit("mine", system=system, shards=2)  # type: ignore[arg-type]
    shellcheck(*done.scripts)
    assert done.jobs == ()
    assert not (place / "log").exists()
    index = {"slurm": "SLURM_ARRAY_TASK_ID", "pbs": "PBS_ARRAY_INDEX"}[system]
    environment = os.environ | {index: "2", "PYTHONPATH": str(Path(dynamics.__file__).parents[1])}
    script = place / "jobs/mine/collect.sh"
    shown = script.read_text().replace("exec ", 'printf "%s\\n" ')  # what it would run, as the shell splits it
    words = subprocess.run(
        ["bash", "-c", shown], env=environment, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert words == [
        sys.executable,
        "-m",
        "dynamics",
        "collect",
        "mine",
        "--traces",
        str(place / "traces"),
        "--shard",
        "2/2",
    ]
    assert f"cd {shlex.quote(str(place))}" in script.read_text()


def test_jobs_of_pbs_wait_for_each_other(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUFFIX", "[].server")
    done = dynamics.submit("mine", system="pbs", shards=4, memory="8GB", partition="long", gpus=2, go=True)
    assert done.jobs == ("101[].server", "102[].server", "103[].server")
    shellcheck(*done.scripts)
    said = [line.partition("qsub ")[2].strip() for line in (place / "log").read_text().splitlines()]
    assert said == [
        "collect.sh",
        "-W depend=afterany:101[].server analyse.sh",
        "-W depend=afterany:102[].server report.sh",
    ]
    collect = (done.folder / "collect.sh").read_text()
    for line in (
        "#PBS -J 1-4",
        "#PBS -q long",
        "#PBS -l walltime=12:00:00",
        "#PBS -l select=1:ncpus=1:mem=8gb:ngpus=2",
    ):
        assert f"{line}\n" in collect


def test_a_cluster_of_slurm_may_name_itself(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUFFIX", ";east")
    assert dynamics.submit("mine", go=True).jobs == ("101", "102", "103")


@pytest.mark.parametrize(
    ("options", "observed"),
    [
        ({"time": "soon"}, "time 'soon' is none that sbatch knows"),
        ({"memory": "much"}, "memory 'much' is none that sbatch knows"),
        ({"system": "lsf"}, "the batch system 'lsf' is not known"),
        ({"lines": ["#SBATCH -A x\nrm -r /"]}, "has more than one line"),
        ({"shards": 0}, "shards"),
    ],
)
def test_what_a_batch_system_would_not_understand_is_refused(
    place: Path, options: dict[str, object], observed: str
) -> None:
    with pytest.raises(UserError, match=observed):
        dynamics.submit("mine", **options)  # type: ignore[arg-type]
    assert not (place / "jobs").exists()


def test_a_refusal_of_the_batch_system_is_told(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFUSE", "yes")
    with pytest.raises(UserError, match=r"sbatch refused the jobs in .*: .*invalid partition"):
        dynamics.submit("mine", partition="nowhere", go=True)
    for program in ("sbatch", "qsub"):
        (place / "bin" / program).unlink()
    with pytest.raises(UserError, match="there is no sbatch here"):
        dynamics.submit("mine", go=True)
    assert (place / "jobs/mine/submit.sh").exists()


def test_an_estimate_says_what_a_shard_takes(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["collect", "mine", "--dry-run", "--shard", "1/4"])
    printed = capsys.readouterr().out
    assert "each of 4 shards: at most 2 checkpoints" in printed
    dynamics.collect("mine")
    trace = place / "traces/mine.zarr"
    assert dynamics.estimate("mine").objects == sum(_of_one_checkpoint(p) for p in trace.rglob("*") if p.is_file())


def _of_one_checkpoint(file: Path) -> bool:
    """Whether a file of a trace is a chunk of one checkpoint."""
    array = next(p for p in file.parents if (p / "zarr.json").exists())
    node = json.loads((array / "zarr.json").read_text())
    if file.name in ("zarr.json", "root.json") or node["node_type"] != "array":
        return False
    chunk = node["chunk_grid"]["configuration"]["chunk_shape"]
    return node["dimension_names"][:1] == ["checkpoint"] and chunk[0] == 1
