"""The verb ``submit``: a run as jobs of a batch system, shards first, then analyses and the report.

Four scripts are written, which can be read, changed and handed in by hand: ``collect.sh`` (an array of shards), ``analyse.sh`` and
``report.sh``, and ``submit.sh``, which hands in the three. The later ones wait until the earlier have ended, however they ended:
what is complete is analysed, also where some checkpoints failed.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from checkpoints.errors import UserError, first_line, unwritable
from checkpoints.paths import StrPath, absolute, as_flag, as_number, as_text, as_texts, replace_text

from ..progress import Reporter
from ..runs.lookup import requested
from ..store.mirror import require_folder
from ..store.paths import beside_traces

__all__ = ["Submitted", "submit"]

System = Literal["slurm", "pbs"]

_TIME = re.compile(r"(\d+-)?\d{1,4}(:\d{2}){0,2}", re.ASCII)
_MEMORY = re.compile(r"\d+(\.\d+)?[KMGT]?B?", re.ASCII | re.IGNORECASE)
_PROGRAM = {"slurm": "sbatch", "pbs": "qsub"}


@dataclass(frozen=True)
class Submitted:
    """What was written and handed in.

    Attributes:
        folder: where the scripts are, and the jobs' output will be.
        scripts: the scripts.
        jobs: numbers of the jobs that collect, analyse and report; empty where they were not handed in.
    """

    folder: Path
    scripts: tuple[Path, ...]
    jobs: tuple[str, ...] = ()


def submit(
    name: str,
    *,
    runs: StrPath | None = None,
    traces: StrPath = "traces",
    system: System = "slurm",
    shards: int = 16,
    time: str = "12:00:00",
    memory: str = "32G",
    partition: str | None = None,
    gpus: int = 0,
    lines: Sequence[str] = (),
    activate: str | None = None,
    go: bool = False,
    reporter: Reporter | None = None,
) -> Submitted:
    """Write the jobs of a run for a batch system, and hand them in if that is asked.

    Args:
        name: a run of the runs file.
        runs: the runs file (``runs.yaml`` in the current folder if None).
        traces: folder of traces, which all nodes see; the scripts lie in ``jobs/NAME`` beside it.
        system: ``slurm``, or ``pbs`` (PBS Pro, OpenPBS).
        shards: how many processes collect.
        time: the longest that one of them may take, ``HOURS:MINUTES:SECONDS``.
        memory: of each, such as ``32G``.
        partition: of Slurm, or the queue of PBS.
        gpus: of each process that collects.
        lines: further lines for the head of each script, such as ``#SBATCH --account=mine``.
        activate: a command that makes ``dynamics`` available there; by default the interpreter that runs now is called.
        go: hand the jobs in.
        reporter: messages.

    Raises:
        UserError: when the request is wrong, the scripts cannot be written, or the batch system refuses them.
    """
    reporter = reporter or Reporter(quiet=True)
    shards, gpus = as_number(shards, "shards", least=1, most=100_000), as_number(gpus, "gpus", least=0, most=1024)
    lines, go = as_texts(lines, "lines"), as_flag(go, "go")
    time, memory = as_text(time, "time"), as_text(memory, "memory")
    partition = None if partition is None else as_text(partition, "partition")
    activate = None if activate is None else as_text(activate, "activate")
    given, (name, _, traces) = runs, requested(name, None, runs=runs, traces=traces)
    if system not in _PROGRAM:
        raise UserError(
            f"the batch system {system!r} is not known",
            expected="slurm or pbs",
            remedy="write the scripts for one of them, and change them",
        )
    for what, text, form, example in (("time", time, _TIME, "04:00:00"), ("memory", memory, _MEMORY, "32G")):
        if not form.fullmatch(text):
            raise UserError(
                f"{what} {text!r} is none that {_PROGRAM[system]} knows",
                expected=f"such as {example}",
                remedy=f"correct --{what}",
            )
    for text in (*lines, partition or "", activate or ""):
        if "\n" in text or "\r" in text:
            raise UserError(
                f"{text.splitlines()[0]!r} has more than one line",
                expected="one line at a time",
                remedy="give --line several times",
            )
    require_folder(traces, "sharing the checkpoints of a run out")
    folder = absolute(beside_traces(traces, f"jobs/{name}"))
    about = _Jobs(name, system, folder, shards, time, memory, partition, gpus, tuple(lines), activate)
    command = [] if given is None else ["--runs", str(absolute(Path(given)))]
    command += ["--traces", str(absolute(traces))]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        scripts = []
        for script, content in about.scripts(command).items():
            file = folder / script
            replace_text(file, content)
            file.chmod(0o755)
            scripts.append(file)
    except OSError as error:
        raise unwritable(str(folder), error, option="--traces") from error
    reporter.say(f"{folder}: {', '.join(script.name for script in scripts)}")
    return Submitted(folder, tuple(scripts), _handed_in(folder / "submit.sh", _PROGRAM[system]) if go else ())


@dataclass(frozen=True)
class _Jobs:
    name: str
    system: System
    folder: Path
    shards: int
    time: str
    memory: str
    partition: str | None
    gpus: int
    lines: tuple[str, ...]
    activate: str | None

    def scripts(self, options: Sequence[str]) -> dict[str, str]:
        """File to content."""
        index = "$SLURM_ARRAY_TASK_ID" if self.system == "slurm" else "$PBS_ARRAY_INDEX"
        return {
            "collect.sh": self._script("collect", options, f' --shard "{index}/{self.shards}"'),
            "analyse.sh": self._script("analyse", options),
            "report.sh": self._script("report", options),
            "submit.sh": self._submit(),
        }

    def _script(self, verb: str, options: Sequence[str], more: str = "") -> str:
        head = self._slurm(verb) if self.system == "slurm" else self._pbs(verb)
        program = ["dynamics"] if self.activate else [sys.executable, "-m", "dynamics"]
        command = shlex.join([*program, verb, self.name, *options]) + more
        begin = [*([self.activate] if self.activate else []), "set -euo pipefail", f"cd {shlex.quote(str(Path.cwd()))}"]
        return "\n".join(["#!/bin/bash", *head, *self.lines, "", *begin, f"exec {command}", ""])

    def _slurm(self, verb: str) -> list[str]:
        many = verb == "collect"
        options = {
            "job-name": f"{verb}-{self.name}",
            "array": f"1-{self.shards}" if many else None,
            "output": f"{self.folder}/{verb}-{'%A-%a' if many else '%j'}.log",
            "open-mode": "append",
            "time": self.time,
            "mem": self.memory,
            "partition": self.partition,
            "gres": f"gpu:{self.gpus}" if many and self.gpus else None,
        }
        return [f"#SBATCH --{key}={_quoted(value)}" for key, value in options.items() if value] + ["#SBATCH --requeue"]

    def _pbs(self, verb: str) -> list[str]:
        many = verb == "collect"
        select = f"select=1:ncpus=1:mem={self.memory.lower().removesuffix('b')}b"
        select += f":ngpus={self.gpus}" if many and self.gpus else ""
        options = {
            "-N": f"{verb}-{self.name}",
            "-J": f"1-{self.shards}" if many and self.shards > 1 else None,
            "-o": f"{self.folder}/",
            "-j": "oe",
            "-l": f"walltime={self.time}",
            "-q": self.partition,
            "-r": "y",
        }
        lines = [f"#PBS {key} {_quoted(value)}" for key, value in options.items() if value] + [f"#PBS -l {select}"]
        alone = ["PBS_ARRAY_INDEX=1  # an array of one is none"] if many and self.shards == 1 else []
        return lines + alone

    def _submit(self) -> str:
        if self.system == "slurm":
            first = 'job=$(sbatch --parsable {0} {1}.sh)\n{1}="${{job%%;*}}"'  # a cluster's name may follow
            wait = '--dependency="afterany:${0}"'
        else:
            first, wait = "{1}=$(qsub {0} {1}.sh)", '-W depend="afterany:${0}"'
        lines, before = ["#!/bin/bash", "set -euo pipefail", 'cd "$(dirname "$0")"'], ""
        for verb in ("collect", "analyse", "report"):
            lines.append(first.format(wait.format(before) if before else "", verb).replace("  ", " "))
            before = verb
        return "\n".join([*lines, 'echo "$collect $analyse $report"', ""])


def _quoted(value: str) -> str:
    """A value in the head of a script, where there is no shell: quotes only around what has blanks."""
    return f'"{value}"' if re.search(r"\s", value) else value


def _handed_in(script: Path, program: str) -> tuple[str, ...]:
    if shutil.which(program) is None:
        raise UserError(
            f"there is no {program} here; the scripts are in {script.parent}",
            expected="a machine from which jobs are handed in",
            remedy=f"run {script} there, or `dynamics submit` with --pbs or --slurm for the other batch system",
        )
    done = subprocess.run(["bash", str(script)], capture_output=True, text=True, check=False)
    jobs = tuple(done.stdout.split())
    if done.returncode or len(jobs) != 3:
        said = first_line(RuntimeError(done.stderr.strip() or done.stdout.strip() or "it said nothing"))
        raise UserError(
            f"{program} refused the jobs in {script.parent}: {said}",
            expected="numbers of three jobs",
            remedy="see which were taken (squeue, qstat), correct the options, and cancel those before you try again",
        )
    return jobs
