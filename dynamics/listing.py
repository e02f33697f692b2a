"""What the command line says about series, audits, and what a collection would take or did."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource
from rich.console import Console
from rich.table import Table

from checkpoints.catalogue import Entry, catalogue, find_entry
from checkpoints.errors import StoppedError, UserError
from checkpoints.paths import cache_folder

from .wording import duration, grouped, left_out_lines, steps_text

if TYPE_CHECKING:
    from .analysis.findings import Finding
    from .auditing.audit import Audit
    from .collecting.collector import Collected
    from .collecting.estimating import Estimate
    from .collecting.upkeep import RunStatus
    from .learning.learn import Learned
    from .runs.config import Run
    from .store.damage import Damage

__all__ = [
    "each_cell",
    "print_audit",
    "print_catalogue",
    "print_collected",
    "print_damage",
    "print_entry",
    "print_estimate",
    "print_findings",
    "print_learned",
    "print_runs",
    "print_status",
    "require_watch",
]


def each_cell(command: Callable[..., Any]) -> Callable[..., Any]:
    """Let a command take the name of a sweep: it is carried out for every cell, and what it would cost is added up.

    A cell that ends with an exit code, or with a mistake, does not keep the others from their turn; the largest code is that of the
    command.
    """

    @wraps(command)
    def each(run: str | None = None, **options: Any) -> Any:
        from .runs.lookup import find_cells

        # a job that is followed, or a folder, is one run
        names = [run] if run is None or options.get("watch") else find_cells(run, runs=options["runs"])
        if len(names) == 1:
            return command(run=names[0], **options)
        found, worst = [], 0
        for number, name in enumerate(names, 1):
            click.echo(f"{name}, {number} of {len(names)}")
            try:
                found.append(command(run=name, **options))
            except SystemExit as end:
                worst = max(worst, int(end.code or 0))
            except StoppedError:  # a full disk is that of the others, too
                raise
            except UserError as error:
                click.echo(f"error: {name}: {error}", err=True)
                worst = max(worst, error.exit_code)
        if options.get("dry_run"):
            _print_total(found)
        if worst:
            sys.exit(worst)
        return found

    return each


def _print_total(guesses: Sequence[Estimate]) -> None:
    """What the cells of a sweep take together."""
    todo, steps = sum(g.todo for g in guesses), sum(g.to_train for g in guesses)
    click.echo(f"together: {todo} checkpoints still to do in {len(guesses)} runs")
    if steps:
        click.echo(f"  {steps} optimizer steps to train first")
    download, size = sum(g.download_bytes for g in guesses), sum(g.trace_bytes for g in guesses)
    click.echo(f"  download: {download / 1e9:.3g} GB; traces: {size / 1e9:.3g} GB")
    unknown = sum(g.seconds is None for g in guesses)
    known = duration(sum(g.seconds or 0.0 for g in guesses))
    more = f", without {unknown} whose time is unknown" if unknown else ""
    click.echo(f"  time for collecting: {'unknown' if unknown == len(guesses) else known + more}")


def print_catalogue() -> None:
    """One line per series, family by family; plain text, so that it can be searched."""
    entries = list(catalogue().values())
    family = ""
    width = max(len(entry.name) for entry in entries)
    click.echo(f"  {'name':<{width}}  {'size':>5}  {'checkpoints':>11}  {'steps':<16}  repository")
    for entry in entries:
        if entry.family != family:
            family = entry.family
            click.echo(family)
        expected = entry.expected_steps
        count = str(len(expected)) if expected else "as listed"
        span = f"{expected[0]}–{expected[-1]}" if expected else ""
        faults = sum(len(f.all_steps) for f in entry.known_faults if f.mask)
        text = f"  {entry.name:<{width}}  {entry.size:>5}  {count:>11}  {span:<16}  {entry.repo}"
        click.echo(text + (f"  ({faults} known to be wrong)" if faults else ""))
    click.echo(f"{len(entries)} series; `dynamics series NAME` describes one, `dynamics collect NAME` traces it")


def print_entry(name: str) -> None:
    """Everything that the catalogue knows about one series.

    Raises:
        UserError: when there is no such series.
    """
    entry = find_entry(name)
    expected = entry.expected_steps
    rows = [
        ("family", " ".join(filter(None, (entry.family, entry.size)))),
        ("repository", entry.repo + (" (gated: log in and accept its terms)" if entry.gated else "")),
        ("architecture", entry.architecture),
        ("revisions", entry.revisions),
        ("stage", entry.stage),
        ("checkpoints", f"{len(expected)} published" if expected else "as the hub lists them"),
        ("steps", steps_text(list(expected)) if expected else ""),
        ("counted in", entry.counts if entry.counts != "optimizer steps" else ""),
        ("tokens per step", f"{entry.tokens_per_step:,}" if entry.tokens_per_step else "not constant, or not known"),
        ("main", _MAIN[entry.main]),
        ("tokenizer", entry.tokenizer),
        ("evidence", entry.trust),
    ]
    click.echo(entry.name)
    for title, text in rows:
        if text:
            click.echo(f"  {title:<16}{text}")
    for title, lines in _paragraphs(entry):
        click.echo(f"  {title}")
        for line in lines:
            click.echo(f"    {line}")


_MAIN = {
    "last step": "the last step",
    "later": "a model trained further",
    "no weights": "no weights",
    "unknown": "not known",
}


def _paragraphs(entry: Entry) -> list[tuple[str, list[str]]]:
    faults = [
        f"{steps_text(sorted(f.all_steps))}: {f.reason} ({f.source}, {f.dated:%B %Y}); "
        + ("masked in collection" if f.mask else "collected all the same")
        for f in entry.known_faults
    ]
    equal = [f"steps {', '.join(map(str, e.steps))}: {e.reason}" for e in entry.equal_by_design]
    paragraphs = [
        ("known faults", faults),
        ("equal by design", equal),
        ("notes", list(entry.notes)),
        ("less sure", list(entry.unsure)),
        ("sources", list(entry.sources)),
    ]
    return [(title, lines) for title, lines in paragraphs if lines]


def print_audit(audit: Audit, *, table: bool = False) -> None:
    """Findings grouped by what they say, then, if wanted, the table of weights."""
    click.echo(f"{audit.name}: {audit.checkpoints} checkpoints of {audit.origin}")
    compared = (
        f"weights of {audit.weights} compared" if audit.weights else "weights not compared (--weights reads them)"
    )
    click.echo(f"listing compared; {compared}")
    for masked, title in ((True, "at fault"), (False, "remarks")):
        reasons: dict[tuple[str, str], list[int]] = {}
        for finding in audit.findings:
            if finding.mask == masked:
                source = f" ({finding.source})" if finding.source else ""
                reasons.setdefault((finding.kind, finding.reason + source), []).append(finding.step)
        if reasons:
            click.echo(f"{title}:")
            for (kind, reason), steps in reasons.items():
                click.echo(f"  {kind}: {steps_text(steps)}: {reason}")
    for line in left_out_lines(audit.left_out):
        click.echo(line)
    for step, reason in audit.unreadable.items():
        click.echo(f"  step {step} could not be read: {reason}")
    if table and audit.table:
        lines = Table(box=None, pad_edge=False)
        for column in audit.table:
            title = column if column in ("step", "norm", "nonfinite") else f"cosine with {column}"
            lines.add_column(title, justify="right")
        for row in zip(*audit.table.values(), strict=True):
            lines.add_row(*(f"{v:d}" if isinstance(v, int) else f"{v:.4f}" for v in (x.item() for x in row)))
        Console(highlight=False).print(lines)
    if not any(f.mask for f in audit.findings) and not audit.unreadable:
        click.echo("no checkpoint contradicts its label")


def print_collected(done: Collected) -> None:
    """What a collection did, and what of the series it left out."""
    from .store.mirror import place_of

    now = {*done.collected} - {*done.pending}
    total = len(now) + len(done.gained) + len(done.already)
    gained = f", {len(done.gained)} of them with more than before" if done.gained else ""
    click.echo(
        f"{place_of(done.trace)}: {total} checkpoints complete ({len(now)} now, {duration(done.seconds)}){gained}, "
        f"{len(done.failed)} failed, {len(done.masked)} masked"
    )
    if done.shard:
        click.echo(f"  that is what shard {done.shard} did, and of its part found done")
    if done.others:
        click.echo(f"  still at work: {', '.join(done.others)}; the last to end masks, and lists new probes")
    for trace, taken in done.taken.items():
        where = f"the trace of {trace}" if trace else "what was measured before"
        click.echo(f"  measurements at {len(taken)} checkpoints were taken over from {where}")
    if done.waiting:
        click.echo(
            f"  not in the trace yet: {', '.join(done.waiting)}; what was there before is, until they are at each of its "
            "checkpoints (steps that cannot be measured any more can be left out with `exclude`)"
        )
    if done.pending:
        click.echo(f"  {steps_text(sorted(done.pending))}: measured, and pending until then")
    for what, reasons in (("failed", done.failed), ("not collected", done.missing), ("masked", done.masked)):
        for steps, reason in grouped(reasons):
            click.echo(f"  {steps} {what}: {reason}")
    for step, count in done.nonfinite.items():
        click.echo(f"  step {step}: the model returned {count} values that are not finite; they are kept as they are")


def print_estimate(name: str, run: Run, guess: Estimate, *, shards: int | None = None) -> None:
    """How much a collection would visit, download and take; and each of so many shards of it."""
    from .collecting.estimating import ASSUMED_BANDWIDTH

    if guess.to_train:
        click.echo(f"{name}: the organism has to be trained first, {guess.to_train} optimizer steps")
    most = "" if guess.first is None else "at most "
    click.echo(
        f"{name}: {most}{guess.checkpoints} of {guess.of} checkpoints, {guess.todo} still to do, {guess.prompts} prompts each"
    )
    if guess.first is not None:
        click.echo(
            f"  {guess.first} first, then round by round those that narrow onsets: sizes and times are the most that it can take"
        )
    for steps, reason in grouped(guess.masked):
        click.echo(f"  {steps} masked: {reason}")
    for line in guess.gains:
        click.echo(f"  {line}")
    if guess.gains:
        click.echo(f"  for that, the weights of {guess.revisited} complete checkpoints are read again")
    local = "" if guess.download_bytes else " (the weights are local)"
    click.echo(f"download: {guess.download_bytes / 1e9:.3g} GB{local}; trace: {guess.trace_bytes / 1e9:.3g} GB")
    if guess.seconds is None:
        click.echo(f"time for collecting: unknown ({guess.basis or 'there is no checkpoint to time yet'})")
    else:
        click.echo(f"time for collecting: {duration(guess.seconds)} ({guess.basis})")
    if run.series.kind == "hub":
        click.echo(f"what the hub lists, its config and tokenizer are kept in {cache_folder() / 'hub'}")
    if guess.download_bytes:
        rate = f"{ASSUMED_BANDWIDTH / 1e6:.0f} MB/s"
        click.echo(f"time for downloading: {duration(guess.download_seconds)} at {rate}, while the model computes")
    click.echo(
        f"files of the trace: {guess.objects:,}; memory for weights: {guess.memory_bytes / 1e9:.3g} GB a process "
        "(the model, and two checkpoints that are read ahead)"
    )
    if shards is not None:
        visits = guess.todo + guess.revisited
        largest = -(-visits // shards)
        share = largest / visits if visits else 0.0
        time = "an unknown time" if guess.seconds is None else duration(guess.seconds * share)
        click.echo(
            f"each of {shards} shards: at most {largest} checkpoints, {time}, {guess.download_bytes * share / 1e9:.3g} GB to download"
        )


def print_status(run: str, state: RunStatus) -> None:
    """What of a run is complete, failed or masked, and how long is left."""
    from .store.mirror import place_of

    for line in left_out_lines(state.left_out):
        click.echo(line)
    if state.trace is None:
        click.echo(f"{run}: not started; `dynamics collect {run}` starts it")
        return
    doing = f" ({state.doing})" if state.doing else ""
    if state.shards:
        doing = f" by {len(state.shards)} process{'es' if len(state.shards) > 1 else ''}"
    click.echo(f"{place_of(state.trace)}{f': being collected now{doing}' if state.collecting else ''}")
    for name in ("complete", "pending", "failed", "masked", "not scheduled"):
        steps = state.steps.get(name, [])
        if steps:
            shown = ", ".join(map(str, steps[:8])) + (f", ... {steps[-1]}" if len(steps) > 8 else "")
            click.echo(f"  {name:<14}{len(steps):>4}  steps {shown}")
    for line in (*state.shards, *state.unlisted):
        click.echo(f"  {line}")
    for shown, reason in grouped(state.reasons):
        click.echo(f"  {shown}: {reason}")
    for number, purposes in enumerate(state.rounds, 1):
        click.echo(f"  round {number}: {steps_text(sorted(purposes))}")
        for step, keys in sorted(purposes.items()):
            click.echo(f"    step {step} narrows {', '.join(keys)}")
    if state.seconds_left:
        click.echo(f"  about {duration(state.seconds_left)} left at {state.seconds_per_checkpoint:.1f} s a checkpoint")


def print_findings(findings: Iterable[Finding]) -> None:
    """One line per curve: whether it emerged, and when."""
    for finding in findings:
        onset = finding.emergence.onset
        when = f"  onset {onset}" if onset is not None and finding.emergence.state != "not emerged" else ""
        click.echo(f"{finding.key:<40} {finding.emergence.state:<19}{when}")


def print_damage(run: str, damage: Sequence[Damage], *, repair: bool) -> bool:
    """What is wrong with a trace, what was mended, and how to mend the rest; whether nothing is left."""
    left = [item for item in damage if not item.repaired]
    for item in damage:
        of = "" if item.step is None else f"step {item.step} "
        click.echo(f"  {of}{item.variable}: {item.problem}{' (mended)' if item.repaired else ''}")
    if not damage:
        click.echo(f"{run}: intact: every file of its trace is what was written")
    elif repair:
        steps = {item.step for item in damage if item.step is not None and item.repaired}
        click.echo(f"{run}: measured {len(steps)} checkpoints again; {len(damage) - len(left)} of {len(damage)} mended")
    if left:
        features = sum(item.variable.startswith("features/") for item in left)
        remedies = [f"`dynamics learn {run} --fresh` makes features again"] if features else []
        if features < len(left) and not repair:
            remedies.append(f"`dynamics verify {run} --repair` mends what can be measured or derived again")
        click.echo("; ".join([f"{run}: {len(left)} damaged", *remedies]))
    return not left


def print_learned(dictionaries: Iterable[Learned]) -> None:
    """What was done about each dictionary, and what to know about it."""
    for done in dictionaries:
        what = "learned" if done.anew else "measured" if done.measured else "up to date"
        click.echo(f"{done.name}: {what} ({done.folder})")
        for remark in done.remarks:
            click.echo(f"  {remark}")


def print_runs(declared: Mapping[str, Run]) -> None:
    """One line per run of a runs file."""
    width = max(map(len, declared), default=0)
    for name, run in declared.items():
        analyses = ", ".join(entry.name for entry in run.analyses)
        cells = math.prod(map(len, run.sweep.values()))
        sweep = f"  {cells} cells" if run.sweep else ""
        click.echo(f"{name:<{width}}  {run.series.kind:<9} {run.description}  [{analyses}]{sweep}")


def require_watch(watch: Path | None, dry_run: bool, ways: Sequence[str] = ()) -> None:
    """Refuse options of `collect` that would be ignored."""
    given = click.get_current_context().get_parameter_source
    options = [f"--{name}" for name in ("poll", "until", "patience") if given(name) is ParameterSource.COMMANDLINE]
    if watch is None and options:
        raise UserError(
            f"{' and '.join(options)} without --watch",
            expected="--watch FOLDER with them, or none of them",
            remedy="dynamics collect --watch FOLDER follows a training job",
        )
    if watch is not None and ways:
        raise UserError(
            f"{ways[0]} and --watch together",
            expected="one of the two: how many checkpoints a training job will write is not known, so they have no parts",
            remedy="leave one of the two out: one process follows the job, or several collect what it has written",
        )
    if watch is not None and dry_run:
        raise UserError(
            "--dry-run and --watch together",
            expected="one of the two: what a training job will still write cannot be known",
            remedy="leave one of the two out",
        )
