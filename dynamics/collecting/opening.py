"""What a collection begins with: the run's series beside what its trace already holds, and which checkpoints to visit."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from checkpoints.errors import CheckpointError, UserError
from checkpoints.hub.files import is_commit
from checkpoints.series import Checkpoint, Series
from checkpoints.sources import steps_to_train

from ..auditing.preflight import preflight
from ..models.architecture import architecture
from ..models.devices import usable_device
from ..progress import Reporter
from ..runs.config import Run
from ..runs.resolve import Model, Resolved, resolve
from ..runs.schedule import scheduled
from ..store import Trace
from ..store.format import array_of, open_group
from ..store.groups import listed_groups, records_of, shelf
from ..store.manifest import MANIFEST
from ..store.mirror import remote_url
from ..wording import left_out_lines

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from checkpoints.loading import ResidentModel

__all__ = [
    "Digests",
    "collected_pins",
    "open_run",
    "require_aim",
    "require_same_training",
    "require_same_weights",
    "require_some",
    "require_space",
    "resident_for",
    "training_bar",
    "unusable",
    "visited",
]


Digests = dict[tuple[str, ...], str]
"""Digests of weights that were read, by the state of their files (:meth:`checkpoints.series.Series.state`)."""


def require_aim(name: str, run: Run) -> None:
    """Refuse an adaptive schedule that has nothing to look for."""
    if run.schedule == "adaptive" and not run.analyses:
        raise UserError(
            f"run {name!r} cannot be collected adaptively: it has no analyses whose onsets could be narrowed",
            expected="`analyses`, or another schedule",
            remedy="name analyses in the run, or schedule: log",
        )


def collected_pins(run: Run, trace: Path) -> dict[int, Checkpoint]:
    """Step to checkpoint as it was collected, where the trace is there and the series has commits to go back to.

    Also of pending checkpoints, at which groups are whole already.
    """
    if not run.series.pinned or not trace.exists():
        return {}
    found = Trace(trace)
    listed = found.checkpoints()
    pins = {c.step: c for c, digest in zip(listed, found.digests, strict=True) if digest}
    pending = [i for i, state in enumerate(found.status) if state == "pending" and not found.digests[i]]
    growing: Mapping[str, str] = found.attributes.get("growing") or {}
    for folder in [
        *(trace / shelf(*group) for group in growing.items()),
        *(trace / name for name in listed_groups(trace)),
    ]:
        if not any((folder / MANIFEST / "c" / str(index)).is_file() for index in pending):
            continue
        records = records_of(folder)
        for index in pending:
            if revision := records.get(index, {}).get("revision"):
                pins.setdefault(listed[index].step, replace(listed[index], revision=str(revision)))
    return pins


@contextmanager
def training_bar(name: str, run: Run, reporter: Reporter) -> Iterator[Callable[[int, int, float], None] | None]:
    """A progress bar for the training that a run needs first, as a callback of it; None where it needs none."""
    steps = steps_to_train(name, run.series)
    if not steps:
        yield None
        return
    with reporter.bar(f"training {name}", steps, unit="steps") as bar:
        yield lambda done, _total, loss: bar.update(done, f"loss {loss:.2f}")


def open_run(
    name: str, run: Run, trace: Path, reporter: Reporter, *, train: bool = True, series: Series | None = None
) -> Resolved:
    """Resolve a run beside what its trace already says: collected commits stay pinned, unless they were masked."""
    pins = collected_pins(run, trace)
    if train:
        with training_bar(name, run, reporter) as training:
            resolved = resolve(name, run, series=series, pins=pins, training=training, say=reporter.once)
    else:
        resolved = resolve(name, run, series=series, pins=pins, train=False, say=reporter.once)
    if resolved.series is None:
        return resolved
    for line in left_out_lines(resolved.series.left_out):
        reporter.once(line)
    moved = {c.step: c.revision for c in resolved.series.moved}
    vanished = resolved.series.vanished
    anew: set[int] = set()
    if moved:
        # what was at fault may have been put right
        anew = {s for s, revision in moved.items() if is_commit(revision)} & Trace(trace).steps_of("masked")
        anew -= {*run.exclude}
    if anew:
        pins = {step: pin for step, pin in pins.items() if step not in anew}
        resolved = resolve(name, run, pins=pins, train=train)
        assert resolved.series is not None
        vanished = resolved.series.vanished
    for step in sorted(moved):
        what = "it was masked, so that one is taken" if step in anew else "the collected one is kept"
        reporter.once(f"step {step}: the hub has another commit by now; {what}")
    for checkpoint in vanished:
        reporter.once(f"step {checkpoint.step}: the hub does not list it any more; what was collected is kept")
    return resolved


def visited(resolved: Resolved, *, growing: bool = False) -> list[int]:
    """Indices of the checkpoints that a run's schedule visits, without those that it excludes.

    Raises:
        UserError: when it excludes what is not there (unless the series is ``growing``), or everything.
    """
    run, checkpoints = resolved.run, resolved.declaration.checkpoints
    unknown = set(run.exclude) - {c.step for c in checkpoints}
    if unknown and not growing:
        raise UserError(
            f"run {resolved.name!r} excludes step {min(unknown)}, which the series does not have",
            expected=f"steps from {checkpoints[0].step} to {checkpoints[-1].step}",
            remedy="take it out of `exclude`",
        )
    chosen = scheduled([c.step for c in checkpoints], run.schedule, run.checkpoints, run.budget)
    left = [i for i in chosen if checkpoints[i].step not in run.exclude]
    if not left:
        raise UserError(
            f"run {resolved.name!r} excludes every checkpoint",
            expected="at least one to measure",
            remedy="take some out of `exclude`, or visit more with `schedule`",
        )
    return left


def unusable(resolved: Resolved, indices: Sequence[int], *, keep_going: bool) -> dict[Checkpoint, str]:
    """Which of these checkpoints' files are bad, with the reasons.

    What a hub serves is not the user's to mend: it is recorded as failed when it comes.

    Raises:
        UserError: when there are any and they are not to be recorded as failed.
    """
    series, checkpoints = resolved.series, resolved.declaration.checkpoints
    if series is None or not series.local:
        return {}
    bad = preflight(series, [checkpoints[i] for i in indices])
    if bad and not keep_going:
        lines = [f"step {c.step}: {reason}" for c, reason in list(bad.items())[:6]]
        raise UserError(
            f"{len(bad)} of {len(indices)} checkpoints cannot be used:\n    " + "\n    ".join(lines),
            expected="the same complete set of tensors in every checkpoint",
            remedy="save them again, leave them out with `exclude` in the runs file, "
            "or record them as failed with --keep-going",
        )
    return bad


def require_some(name: str, run: Run, indices: Sequence[int], masked: Mapping[int, str]) -> None:
    """Refuse to visit nothing, where everything is masked."""
    if not indices:
        raise UserError(
            f"every checkpoint that run {name!r} visits{' first' if run.schedule == 'adaptive' else ''} is masked:\n    "
            + "\n    ".join(f"step {s}: {r}" for s, r in list(masked.items())[:6]),
            expected="at least one to measure",
            remedy="--include-masked collects those that are known or found to be wrong, too",
        )


def require_same_training(trace: Path, resolved: Resolved, indices: Sequence[int], digests: Digests) -> None:
    """Before a trace grows: refuse where its first or last complete checkpoint has other weights by now.

    Args:
        trace: the trace; there need be none.
        resolved: the run.
        indices: of the checkpoints that are visited and whose files are good.
        digests: of weights that were read before, to which these are added.
    """
    if not trace.exists() or resolved.series is None:
        return
    root = open_group(trace, mode="r")
    if not resolved.declaration.longer(dict(root.attrs)):
        return
    status, measured = array_of(root, "status"), array_of(root, "weights_digest")
    known = [i for i in indices if i < status.shape[0]]
    ends: dict[int, str] = {}
    with suppress(Exception):  # what cannot be read is damaged, which others say
        for order in (known, known[::-1]):
            ends |= {i: str(measured[i]) for i in islice((i for i in order if str(status[i]) == "complete"), 1)}
    for index, digest in ends.items():
        require_same_weights(trace, digest, resolved.series, resolved.declaration.checkpoints[index], digests)


def require_same_weights(trace: Path, known: str, series: Series, checkpoint: Checkpoint, digests: Digests) -> None:
    """Refuse to go on with other weights than a checkpoint was measured with; two hashes stand for all.

    Args:
        trace: the trace, for the message.
        known: digest of the weights that were measured.
        series: the checkpoints.
        checkpoint: which one.
        digests: of weights that were read before, to which this one is added.
    """
    if series.pinned:
        return
    state = series.state(checkpoint)
    found = digests.get(state, "") if state is not None else ""
    if not found:
        found = series.read(series.fetch(checkpoint)).digest
        if state is not None:
            digests[state] = found
    if known and known != found:
        raise UserError(
            f"the weights in {series.fetch(checkpoint)} are not those that {trace} was collected from",
            expected=f"sha256 {known[:12]}..., found {found[:12]}...",
            remedy="give back the old weights, or move the trace away and collect again (nothing was deleted)",
        )


def require_space(trace: Path, resolved: Resolved, count: int) -> None:
    """Refuse to begin a trace for which there is no room; in an object store there is."""
    if remote_url(trace):
        return
    folder = next(p for p in (trace.parent, *trace.parent.parents) if p.exists())
    needed = resolved.declaration.bytes_per_checkpoint() * count
    free = shutil.disk_usage(folder).free
    if not trace.exists() and needed > free:
        raise UserError(
            f"the trace needs {needed / 1e6:,.0f} MB, and {trace.parent} has {free / 1e6:,.0f} MB free",
            expected="as much space as the trace takes",
            remedy="choose another folder with --traces, trace_dtype: float16, or schedule: log",
        )


def resident_for(run: Run, model: Model) -> ResidentModel:
    """The model of a run, still without weights. Weights of another architecture are a ``CheckpointError``."""
    from checkpoints.loading import ResidentModel

    adapter, shape = model.adapter, model.architecture.shape

    def check(config: PretrainedConfig) -> None:
        try:
            mine = asdict(architecture(config, run.sites).shape)
        except UserError as error:  # the series is of a known family, or it would not have come here
            raise CheckpointError(
                f"its config is that of another model: {error.observed}",
                expected="one architecture in a series",
                remedy="keep other models in folders of their own",
            ) from error
        except (TypeError, ValueError, AttributeError, ArithmeticError) as error:
            raise CheckpointError(
                f"its config says nonsense: {type(error).__name__}: {error}",
                expected="the config of the series",
                remedy="save or copy it again",
            ) from error
        wrong = [f"{k} {mine[k]}, not {v}" for k, v in asdict(shape).items() if k != "context" and mine[k] != v]
        if wrong:
            raise CheckpointError(
                f"its config is that of another model: {', '.join(wrong)}",
                expected="one architecture in a series",
                remedy="keep other models in folders of their own",
            )

    return ResidentModel(usable_device(run.device), run.dtype, None if adapter is None else adapter.build, check)
