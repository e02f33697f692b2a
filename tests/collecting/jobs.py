"""A training job that saves checkpoints into a folder, and a run that follows it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from checkpoints import FolderConfig
from dynamics.runs.config import ProbeEntry, Run


def run(folder: Path, job: Path) -> Run:
    prompts = folder / "prompts.jsonl"
    prompts.write_text('{"text": "36+59=", "answer": "0"}\n')
    return Run(series=FolderConfig(path=job), probes={"sums": ProbeEntry(file=prompts, sites=("resid_post",))})


def saved(series: Path) -> list[Path]:
    return sorted((p for p in series.iterdir() if p.is_dir()), key=lambda p: int(p.name.removeprefix("step")))


def give(job: Path, source: Path, series: Path) -> None:
    """What a training job does when it saves."""
    shutil.copytree(source, job / source.name)
    for file in series.iterdir():
        if file.is_file() and "token" in file.name:
            shutil.copy(file, job / source.name / file.name)


def script(*actions: Callable[[], None]) -> Callable[[float], None]:
    """A sleep during which the job goes on."""
    waiting = list(actions)

    def sleep(_seconds: float) -> None:
        if waiting:
            waiting.pop(0)()

    return sleep
