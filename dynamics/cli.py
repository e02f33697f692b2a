"""The command ``dynamics``: every verb is a Python function of the same name (``import dynamics``)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click
from rich.console import Console

from checkpoints.errors import StoppedError, UserError
from checkpoints.paths import absolute

from .collecting.commands import REPORTS, RUNS, TRACES, submit
from .listing import each_cell
from .progress import Reporter, give_up_output, make_writable

if TYPE_CHECKING:
    from .collecting.estimating import Estimate

__all__ = ["cli", "main"]


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="circuit-dynamics", prog_name="dynamics")
def cli() -> None:
    """Trace when circuits form in the training of a language model."""


cli.add_command(submit)


@cli.command()
@RUNS
def runs(runs: Path | None) -> None:
    """List the runs that the runs file declares."""
    from .listing import print_runs
    from .runs.config import load_runs

    print_runs(load_runs(runs))


@cli.command()
@click.argument("model")
@click.option("--python", is_flag=True, help="Print the table alone, as a module that a run can name.")
def sites(model: str, python: bool) -> None:
    """Say which sites and which wiring MODEL has, or propose them.

    MODEL is the folder of a checkpoint or of a series, a config.json, or a model type of transformers. Either table is checked on a small
    model with random weights.
    """
    from .describing import describe_sites

    described = describe_sites(model)
    click.echo(described.python() if python else described.text())


@cli.command()
@click.argument("name", required=False)
def series(name: str | None) -> None:
    """List the published series, or describe the one called NAME."""
    from .listing import print_catalogue, print_entry

    if name is None:
        print_catalogue()
    else:
        print_entry(name)


@cli.command()
@click.argument("run")
@RUNS
@TRACES
@click.option("--weights", is_flag=True, help="Fetch and read every checkpoint; otherwise the listing and the trace.")
def audit(run: str, runs: Path | None, traces: Path, weights: bool) -> None:
    """Find checkpoints of RUN that are not what their label says. Exit code 1 if there are any."""
    from .auditing.audit import audit as function
    from .listing import print_audit

    found = function(run, runs=runs, traces=traces, weights=weights, reporter=Reporter())
    print_audit(found, table=weights)
    if found.unreadable or any(f.mask for f in found.findings):
        sys.exit(1)


@cli.command()
@click.argument("run", required=False)
@RUNS
@TRACES
@click.option("--dry-run", is_flag=True, help="Say how many checkpoints, GB and hours; no weights, no trace.")
@click.option("--device", help="cpu, cuda, cuda:N or mps, instead of what the run says.")
@click.option("--schedule", type=click.Choice(["dense", "log", "adaptive"]), help="Instead of what the run says.")
@click.option("--keep-going", is_flag=True, help="Record local checkpoints with bad files as failed.")
@click.option("--include-masked", is_flag=True, help="Also checkpoints that are known or found to be wrong.")
@click.option("--shard", metavar="K/N", help="Begin with part K of N; N processes write one trace.")
@click.option("--workers", type=click.IntRange(min=1), metavar="N", help="Compute in N processes on this machine.")
@click.option("--scheduler", metavar="ADDRESS", help="Compute on the workers of a scheduler of dask.")
@click.option("--watch", type=click.Path(path_type=Path), metavar="FOLDER", help="Follow a training job's checkpoints.")
@click.option("--poll", type=click.FloatRange(min=0.1), default=10.0, show_default=True, help="Seconds between looks.")
@click.option("--until", type=int, metavar="STEP", help="With --watch: end when this step is collected.")
@click.option("--patience", type=float, metavar="MINUTES", help="With --watch: end after so long without a change.")
@click.option("--analyses", help="For a series that no runs file mentions: which, separated by commas.")
@each_cell
def collect(
    run: str | None,
    runs: Path | None,
    traces: Path,
    dry_run: bool,
    device: str | None,
    schedule: str | None,
    keep_going: bool,
    include_masked: bool,
    watch: Path | None,
    poll: float,
    until: int | None,
    patience: float | None,
    analyses: str | None,
    **ways: Any,
) -> Estimate | None:
    """Measure every checkpoint of RUN and write its trace. Kill it at any time; the same command goes on.

    RUN is a run of the runs file (of a sweep all its cells), a published series (`dynamics series`), or the path of a folder.
    """
    from .collecting.rounds import collect as function
    from .listing import print_collected, print_estimate, require_watch
    from .runs.lookup import find_run

    if run is None and watch is None:
        raise click.UsageError("Missing argument 'RUN'.")
    require_watch(watch, dry_run, [f"--{name}" for name, value in ways.items() if value is not None])
    wanted = [a.strip() for a in analyses.split(",") if a.strip()] if analyses else []
    if run is None:
        assert watch is not None
        run = str(absolute(watch))
        Path(run).mkdir(parents=True, exist_ok=True)
    name, declared = find_run(run, runs=runs, traces=traces, analyses=wanted)
    changed = {k: v for k, v in (("device", device), ("schedule", schedule)) if v is not None}
    declared = declared.model_copy(update=changed | ({"include_masked": True} if include_masked else {}))
    if dry_run:
        from .collecting.estimating import estimate
        from .collecting.sharding import parse_shard

        part = None if ways["shard"] is None else parse_shard(ways["shard"])
        guess = estimate(name, run=declared, traces=traces, keep_going=keep_going, reporter=Reporter())
        print_estimate(name, declared, guess, shards=None if part is None else part[1])
        return guess
    if watch is not None:
        from .collecting.watching import watch as follow

        times: dict[str, Any] = {"poll": poll, "until": until, "patience": None if patience is None else patience * 60}
        done = follow(name, run=declared, folder=watch, traces=traces, reporter=Reporter(), **times)
    else:
        done = function(name, traces=traces, run=declared, keep_going=keep_going, reporter=Reporter(), **ways)
    print_collected(done)
    if done.failed or done.missing:
        sys.exit(1)
    return None


@cli.command()
@click.argument("run")
@RUNS
@TRACES
@each_cell
def status(run: str, runs: Path | None, traces: Path) -> None:
    """What of RUN is complete, failed or masked, and how long is left."""
    from .collecting.upkeep import status as function
    from .listing import print_status

    state = function(run, runs=runs, traces=traces)
    print_status(run, state)


@cli.command()
@click.argument("run")
@click.argument("dictionaries", nargs=-1)
@RUNS
@TRACES
@click.option("--fresh", is_flag=True, help="Read the prompts again even if that was done.")
@each_cell
def learn(run: str, dictionaries: tuple[str, ...], runs: Path | None, traces: Path, fresh: bool) -> None:
    """Learn the sparse features of RUN, and which its prompts have.

    All its DICTIONARIES, unless some are named. Needs the trace and the weights. Kill it at any time; the same command goes on. An organism's run that declares no
    dictionaries gets one, called main.
    """
    from .learning.learn import learn as function
    from .listing import print_learned

    print_learned(function(run, dictionaries, runs=runs, traces=traces, fresh=fresh, reporter=Reporter()))


@cli.command()
@click.argument("run")
@click.argument("analyses", nargs=-1)
@RUNS
@TRACES
@each_cell
def analyse(run: str, analyses: tuple[str, ...], runs: Path | None, traces: Path) -> None:
    """Compute the curves of RUN and when they emerged, into its trace.

    All its ANALYSES, unless some are named.
    """
    from .analyser import analyse as function
    from .listing import print_findings

    print_findings(function(run, analyses, runs=runs, traces=traces, reporter=Reporter()).findings)


@cli.command()
@click.argument("run")
@RUNS
@TRACES
@REPORTS
@each_cell
def report(run: str, runs: Path | None, traces: Path, reports: Path | None) -> None:
    """Write the report of RUN and print its table of circuits.

    The report is a page (HTML), the same as JSON, and the figures.
    """
    from .reporting import print_report
    from .reporting import report as function

    written = function(run, runs=runs, traces=traces, reports=reports, reporter=Reporter())
    if written.content["emergence"]:
        print_report(written.content)
    else:
        click.echo(
            f"{run}: no curves: the run names no analyses, and its probes have neither answers nor labels to decode"
        )
    click.echo(f"\n{written.folder / 'index.html'}")


@cli.command()
@click.argument("names", metavar="RUN...", nargs=-1, required=True)
@RUNS
@TRACES
@REPORTS
@click.option(
    "--repeats", metavar="KEY", multiple=True, help="Where repeats differ beside series.seed, such as series.path."
)
def compare(
    names: tuple[str, ...], runs: Path | None, traces: Path, reports: Path | None, repeats: tuple[str, ...]
) -> None:
    """Compare onsets between runs, and say what moved them.

    Shifts are against the first RUN. Runs that differ in their seed alone are repeats, by which effects are told from chance.
    """
    from .comparing import compare as function
    from .comparing import print_compared

    done = function(names, repeats=repeats, runs=runs, traces=traces, reports=reports, reporter=Reporter())
    print_compared(done.content)
    click.echo(f"\n{done.folder / 'index.html'}")


@cli.command()
@click.argument("run")
@click.argument("prompt", required=False)
@click.option(
    "--prompts", type=click.Path(path_type=Path), metavar="FILE", help="Explain every prompt of a file instead."
)
@RUNS
@TRACES
@REPORTS
@click.option("--answer", help="What should follow, one token.  [default: the final checkpoint's first choice]")
@click.option("--foil", help="What it is compared with, one token.  [default: the first choice for the twin]")
@click.option("--corrupted", help="A twin, as many tokens long.  [default: one of the same kind is found]")
@click.option("--begun", help="How the answer begins, in a run that asks as a chat (`template: chat`).")
@click.option("--random-tokens", is_flag=True, help="Compare with eight prompts of random tokens instead.")
@click.option("--share", type=float, default=0.8, show_default=True, help="Share of the logit difference to explain.")
@click.option("--checkpoints", type=int, help="At most this many.  [default: all that the trace holds]")
@click.option("--figure-step", type=int, help="Checkpoint of the SVG figure.  [default: the last]")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the random tokens.")
@click.option("--features", metavar="DICTIONARY", help="Show features of this dictionary too, at its checkpoints.")
@click.option("--neuronpedia", is_flag=True, help="Also write a graph for Neuronpedia at every checkpoint.")
@click.option("--ablate", metavar="PARTS", multiple=True, help="See the answer without L1H2, L1M@5, L1H2+L0M, `drawn`.")
@click.option("--scale", type=float, help="Multiply what they write by this.  [default: take it from the twin]")
@click.option("--attention", is_flag=True, help="Say why the strongest attention looks where it does.")
def explain(run: str, prompt: str | None, prompts: Path | None, **options: Any) -> None:
    """Draw what the model of RUN computes on PROMPT.

    At every checkpoint, as one page; with --prompts, for every prompt of a file (as of a probe), with a page that leads to all.
    """
    from .explaining import explain_and_print

    if not explain_and_print(run, prompt, prompts, reporter=Reporter(), **options):
        sys.exit(1)


@cli.command()
@click.argument("run")
@RUNS
@TRACES
@click.option("--repair", is_flag=True, help="Measure or derive again what is damaged.")
@click.option("--prune", is_flag=True, help="Delete what was measured and is not asked for any more.")
@each_cell
def verify(run: str, runs: Path | None, traces: Path, repair: bool, prune: bool) -> None:
    """Hold every file of RUN's trace against what was written."""
    from .collecting.verifying import verify as function
    from .listing import print_damage

    damage = function(run, runs=runs, traces=traces, repair=repair, prune=prune, reporter=Reporter())
    if not print_damage(run, damage, repair=repair):
        sys.exit(1)


@cli.command()
@RUNS
@TRACES
@REPORTS
@click.option(
    "--allow-explain", is_flag=True, help="Also offer to explain prompts, which loads weights and writes pages."
)
def mcp(runs: Path | None, traces: Path, reports: Path | None, allow_explain: bool) -> None:
    """Serve reports to an assistant, reading only.

    Over standard input and output, by the Model Context Protocol; needs the extra `mcp`.
    """
    from .serving import mcp as function

    function(runs=runs, traces=traces, reports=reports, allow_explain=allow_explain)


@cli.command()
@click.option("--curves", type=click.IntRange(min=1), default=60, show_default=True, help="Curves per scenario.")
@click.option(
    "--circuits",
    type=click.IntRange(min=0),
    default=40,
    show_default=True,
    help="Series with a known circuit, and without.",
)
@click.option("--organisms", type=click.IntRange(min=0), default=3, show_default=True, help="Organisms to train.")
@click.option("--quick", is_flag=True, help="A few scenarios, curves and circuits, no organism: a minute.")
@TRACES
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="The page.  [default: docs/validation.md, beside the folder of traces]",
)
def validate(traces: Path, output: Path | None, **options: Any) -> None:
    """Hold the tracer against planted truth and write what came of it. Exit code 1 if anything was found wrongly."""
    from .store.paths import beside_traces
    from .validating.page import write_validation
    from .validating.validate import validate as function

    found = function(traces=traces, reporter=Reporter(), **options)
    page = write_validation(found)
    output = output or beside_traces(traces, "docs/validation.md")
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(page, encoding="utf-8")
    click.echo(page)
    click.echo(output)
    if not found.sound:
        sys.exit(1)


def main(arguments: list[str] | None = None) -> Any:
    """Entry point: exit code 0 done, 1 some checkpoints failed, 2 wrong request, 130 interrupted."""
    make_writable()
    errors = Console(stderr=True, highlight=False)

    def say(error: UserError) -> NoReturn:
        errors.print(f"error: {error}", style="red", markup=False, soft_wrap=True)
        sys.exit(error.exit_code)

    try:
        if (here := str(Path.cwd())) not in sys.path:
            sys.path.append(here)  # analyses and site tables of the user's own; last, so that they hide nothing
        try:
            return cli.main(args=arguments, prog_name="dynamics", standalone_mode=False)
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()  # at the end of the process nobody could say what is wrong with it
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except UserError as error:
        say(error)
    except OSError as error:  # what no verb expected of the machine: whose file it is, or that it is the output
        if error.filename is None:
            give_up_output()
        where = "what this command says cannot be written" if error.filename is None else str(error.filename)
        say(
            StoppedError(
                f"{where}: {error.strerror or error}",
                expected="files, folders and an output that can be used",
                remedy="make room or allow it, then run the same command again; what is complete stays",
            )
        )
    except MemoryError:
        say(StoppedError("the memory is full", expected="more of it", remedy="close others, or lower `batch_tokens`"))
    except (KeyboardInterrupt, click.Abort):
        errors.print("\ninterrupted; what is complete stays. Run the same command again to go on.", style="yellow")
        sys.exit(130)
