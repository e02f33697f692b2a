"""Verbs of the command line that hand a collection on to others, and options that all verbs have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

__all__ = ["REPORTS", "RUNS", "TRACES", "submit"]

RUNS = click.option("--runs", type=click.Path(path_type=Path), help="The runs file.  [default: runs.yaml]")
TRACES = click.option(
    "--traces",
    type=click.Path(path_type=Path),
    default=Path("traces"),
    show_default=True,
    help="Folder or URL of traces.",
)
REPORTS = click.option(
    "--reports",
    type=click.Path(path_type=Path),
    help="Folder of reports.  [default: reports, beside the folder of traces]",
)


@click.command()
@click.argument("run")
@RUNS
@TRACES
@click.option("--slurm", "system", flag_value="slurm", default="slurm", help="For Slurm.  [default]")
@click.option("--pbs", "system", flag_value="pbs", help="For PBS Pro or OpenPBS.")
@click.option("--shards", type=click.IntRange(min=1), default=16, show_default=True, help="Processes that collect.")
@click.option("--time", default="12:00:00", show_default=True, help="The longest that one of them may take.")
@click.option("--memory", default="32G", show_default=True, help="Of each.")
@click.option("--partition", help="Partition of Slurm, queue of PBS.")
@click.option("--gpus", type=click.IntRange(min=0), default=0, show_default=True, help="Of each that collects.")
@click.option("--line", "lines", multiple=True, help="A further line for the scripts' heads; may be repeated.")
@click.option(
    "--activate", metavar="COMMAND", help="Makes `dynamics` available.  [default: this interpreter is called]"
)
@click.option("--go", is_flag=True, help="Hand the jobs in.")
def submit(run: str, **options: Any) -> None:
    """Write the jobs of RUN for a batch system.

    An array of shards, then its analyses, then its report.

    The scripts lie in jobs/RUN, beside the folder of traces.
    """
    from .submitting import submit as function

    done = function(run, **options)
    for script in done.scripts:
        click.echo(script)
    if done.jobs:
        jobs = zip(("collect", "analyse", "report"), done.jobs, strict=True)
        click.echo("jobs: " + ", ".join(f"{verb} {job}" for verb, job in jobs))
    else:
        click.echo(f"nothing is handed in yet: {done.folder / 'submit.sh'} does it, or --go")
