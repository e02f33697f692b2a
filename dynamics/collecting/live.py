"""Collecting while a model trains, without saving weights: the same trace as from stored checkpoints.

A plain training loop needs three lines::

    live = LiveCollector("my-run", model, tokenizer, analyses=["induction"], steps=log_steps(10_000))
    for step in range(10_001):
        live.step(step)
        ...  # forward, backward, optimizer.step()

The Hugging Face Trainer takes :class:`dynamics.collecting.callback.DynamicsCallback`. What is wrong before the first step is
raised; whatever goes wrong in collecting is said and recorded, and training goes on, with the same random numbers as without.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from checkpoints.errors import UserError, first_line
from checkpoints.loading import stored_dtype
from checkpoints.paths import StrPath, as_flag, as_mapping, as_number, as_numbers, as_path, as_texts
from checkpoints.series import Checkpoint
from checkpoints.wrappers import plain, unwrapped

from ..auditing.masking import weight_findings
from ..models.architecture import Adapter, adapted, tokenizer_of
from ..models.trained import check_parameters, measurable
from ..notebook import box, facts, status_strip, table
from ..progress import EVERY, Reporter
from ..runs.config import AnalysisEntry, LiveConfig, ProbeEntry, Run, explain
from ..runs.naming import check_name
from ..runs.plan import built_in
from ..runs.resolve import Model, Resolved, describe_model, plan_run
from ..runs.schedule import log_steps
from ..store import Trace, TraceWriter, writer_lock
from ..store.journal import write_journal
from ..store.lock import say_doing
from ..store.paths import trace_path
from ..store.unused import discard_unused
from .arguments import in_arguments
from .gains import require_same_groups
from .measuring import shortest, try_out, write_checkpoint

if TYPE_CHECKING:
    import torch

__all__ = ["LiveCollector", "log_steps"]


class LiveCollector:
    """Collects a run from a model that is being trained, at chosen steps.

    Args:
        name: the run's name; its trace is ``NAME.zarr``.
        model: the model itself: of ``transformers``, or any module with an ``adapter``. Wrappers of data-parallel
            training and of ``torch.compile`` are looked through; layers with adapters of ``peft`` are measured with
            the adapter merged into a copy of the layer.
        tokenizer: a fast tokenizer; an adapter has its own.
        steps: optimizer steps at which to collect, known beforehand; None collects at every call of :meth:`step`, and
            the trace grows.
        analyses: names of analyses; if there are no ``probes`` either: every built-in one that fits.
        probes: the user's own prompts.
        tokens_per_step: tokens in one optimizer step, if that is constant.
        adapter: describes a module of the user's own.
        traces: folder of traces.
        resume: this training goes on with an earlier one, whose trace is there.
        settings: any other field of :class:`dynamics.runs.config.Run` (``trace_dtype``, ``batch_tokens``, ...); its
            ``analyses`` are names or entries with options, and take the place of the argument.
        say: called with each message; standard error if None.

    Attributes:
        name: the run's name.
        path: the trace, which is there from the first collected step on.
        collected: steps that are in the trace.
        failed: step to what went wrong.

    Raises:
        UserError: when something is wrong before training starts: a misspelt analysis, prompts that do not fit, a
            model that cannot be measured, a trace of that name that belongs to another training.
    """

    def __init__(
        self,
        name: str,
        model: torch.nn.Module,
        tokenizer: Any = None,
        *,
        steps: Collection[int] | None = None,
        analyses: Sequence[str] = (),
        probes: Mapping[str, ProbeEntry] | None = None,
        tokens_per_step: int | None = None,
        adapter: Adapter | None = None,
        traces: StrPath = "traces",
        resume: bool = False,
        settings: Mapping[str, Any] | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.collected: list[int] = []
        self.failed: dict[int, str] = {}
        check_name(name)
        traces, analyses = as_path(traces, "traces"), as_texts(analyses, "analyses")
        resume, probes = as_flag(resume, "resume"), as_mapping(probes or {}, "probes")
        settings = as_mapping(settings or {}, "settings")
        self._say = say or Reporter().say
        self._stack, self._resumed = ExitStack(), False
        self._planned: Sequence[int] | None = None
        self.name, self.path = name, trace_path(traces, name)
        self._active = self._main = _is_main_process()
        if not self._main:
            return
        self._tokens_per_step = tokens_per_step
        self._writer: TraceWriter | None = None
        entries = tuple(AnalysisEntry(name=a) for a in analyses)
        if not entries and not probes:
            entries = tuple(AnalysisEntry(name=a, optional=True) for a in built_in())
        fields = {"analyses": entries, "probes": probes, **settings}
        try:
            self._planned = None if steps is None else as_numbers(steps, "steps")
            if tokens_per_step is not None:
                as_number(tokens_per_step, "tokens_per_step", least=1)
            self._model: Any = unwrapped(model)
            with plain(self._model):
                self._begin(fields, tokenizer, adapter)
            with measurable(self._model, self._resolved.model.architecture, shortest(self._resolved)):
                if adapter is None and self._run.sites is None:
                    check_parameters(self._model, self._model.config)
                try_out(self._resolved, self._model)
            with ExitStack() as stack:  # closed where it fails, or the next attempt would find the trace locked
                stack.enter_context(writer_lock(self.path))
                self._take_up(resume)
                self._stack = stack.pop_all()
        except UserError as error:
            for part in ("observed", "expected", "remedy"):
                setattr(error, part, in_arguments(getattr(error, part)))
            raise

    def __repr__(self) -> str:
        return f"LiveCollector({self.name!r}: {self._said()})"

    def _repr_html_(self) -> str:
        steps = sorted({*self.collected, *self.failed, *(self._planned or ())})
        states = ["complete" if s in self.collected else "failed" if s in self.failed else "pending" for s in steps]
        failed = [(f"step {step}", reason) for step, reason in sorted(self.failed.items())]
        strip = status_strip(states) if steps else ""
        problems = table(["failed", "because"], failed) if failed else ""
        return box(f"{self.name}: {self._said()}", strip, facts({"trace": str(self.path)}), problems)

    def _said(self) -> str:
        """How far it is, in a few words."""
        if not self._main:
            return "another process of this training collects"
        later = [s for s in self._planned or () if s > max(self.collected, default=-1) and s not in self.failed]
        state = (f", next at step {later[0]}" if later else "") if self._active else ", closed"
        return self._counted("") + state

    def _counted(self, where: str) -> str:
        planned = "" if self._planned is None else f" of {len(self._planned)} planned"
        failed = f", {len(self.failed)} failed" if self.failed else ""
        return f"{len(self.collected)}{planned} checkpoints{where}{failed}"

    def due(self, step: int) -> bool:
        """Whether :meth:`step` would collect now."""
        if not self._active or step in self.collected:
            return False
        return self._planned is None or step in self._planned

    def step(self, step: int, tokens: int | None = None) -> None:
        """Collect if this step is due: the model as it is now is the checkpoint after ``step`` optimizer steps.

        Never raises: what goes wrong is said and recorded, and training goes on. After the last of the planned steps
        the trace is closed.

        Args:
            step: optimizer steps done.
            tokens: tokens seen, where they are counted (without ``steps`` only).
        """
        try:
            step = as_number(step, "step", least=0)
        except UserError as error:
            self._say(f"dynamics: nothing was collected: {first_line(error)}; training goes on")
            return
        try:
            if self._active and self._resumed:
                self._go_on(step)
            if self.due(step):
                self._collect(step, tokens)
        except Exception as error:
            reason = first_line(error)
            self.failed[step] = reason
            self._say(f"dynamics: step {step} was not collected: {reason}; training goes on")
            if self._active and step not in self.collected:  # what is there, or another training's, stays as it is
                self._record_failure(step, reason)
        if self._active and self._planned and step >= self._planned[-1]:
            self.close()  # nothing is due any more: others may read the trace, and store what they find in it

    def close(self) -> None:
        """Training has ended: compare the checkpoints' weights, release the trace, and say where it is. Never raises."""
        try:
            if self._active and self._writer is not None:
                # a label cannot be wrong here: what looks odd is the training's own doing, and stays
                for finding in weight_findings(self._writer, self._resolved.declaration.checkpoints):
                    self._say(f"dynamics: step {finding.step}: {finding.reason}")
        except Exception as error:
            self._say(f"dynamics: {error}")
        if self._active:
            where = self.path if self.path.exists() else "no trace"
            self._say(f"dynamics: {self._counted(f' are in {where}')}")
        self._active = False
        self._stack.close()

    def __enter__(self) -> LiveCollector:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def _begin(self, fields: Mapping[str, Any], tokenizer: Any, adapter: Adapter | None) -> None:
        """Plan everything, from the plain model."""
        dtype = str(next(self._model.parameters()).dtype).removeprefix("torch.")
        try:
            self._run = Run(series=LiveConfig(), **{"dtype": dtype, **fields})
        except ValidationError as error:
            raise UserError(
                f"the settings of live run {self.name!r} are wrong: {explain(error.errors()[0])}",
                expected="fields of dynamics.runs.config.Run; weights in float32, float16 or bfloat16",
                remedy="correct the arguments of `LiveCollector` or of the callback",
            ) from error
        self._described = self._describe(tokenizer, adapter)
        self._resolved = self._plan([self._checkpoint(s) for s in self._planned or ()])

    def _describe(self, tokenizer: Any, adapter: Adapter | None) -> Model:
        if adapter is not None:
            tensors = self._model.state_dict()
            found = adapted(adapter, tensors)
            return Model(tokenizer_of(adapter, tensors), found, {"adapter": type(adapter).__name__}, adapter)
        config = getattr(self._model, "config", None)
        if config is None or not hasattr(config, "model_type"):
            raise UserError(
                f"a {type(self._model).__name__} cannot be measured as it is",
                expected="a model of transformers, or an `adapter` (dynamics.models.architecture.Adapter)",
                remedy="give `adapter=`, or pass the model itself, without what holds it",
            )
        if not getattr(tokenizer, "is_fast", False):
            raise UserError(
                "there is no tokenizer" if tokenizer is None else f"a {type(tokenizer).__name__} is no fast tokenizer",
                expected="a fast tokenizer of transformers (AutoTokenizer.from_pretrained(...))",
                remedy="give it as `tokenizer`; the Trainer hands on its `processing_class`",
            )
        return describe_model(config, tokenizer, self._run.sites)

    def _checkpoint(self, step: int, tokens: int | None = None) -> Checkpoint:
        if tokens is None and self._tokens_per_step is not None:
            tokens = self._tokens_per_step * step
        return Checkpoint(step, "live", tokens)

    def _plan(self, checkpoints: Sequence[Checkpoint]) -> Resolved:
        return plan_run(
            self.name, self._run, None, tuple(checkpoints), self._described, "training that was watched", self._say
        )

    def _take_up(self, resume: bool) -> None:
        """Go on with the trace that is there."""
        discard_unused(self.path, self._resolved.declaration)
        if not self.path.exists():
            if self._planned:
                self._writer = TraceWriter(self.path, self._resolved.declaration, durable=self._run.durable)
            return
        before = Trace(self.path)
        if before.complete.any() and not resume:
            raise UserError(
                f"{self.path} holds {int(before.complete.sum())} checkpoints of an earlier training",
                expected="a trace of this training",
                remedy="choose another name, move the trace away, or say resume=True if this training goes on with it",
            )
        # what the trace has positions for stays planned; more can only follow at its end
        known = list(before.checkpoints())
        if self._planned is not None:
            more = [s for s in self._planned if s > known[-1].step]
            known += [self._checkpoint(s) for s in more]
            self._planned = [c.step for c in known]
        declaration = replace(self._resolved.declaration, checkpoints=tuple(known))
        self._resolved = replace(self._resolved, declaration=declaration)
        if before.complete.any():
            require_same_groups(self.path, declaration, int(before.complete.sum()))
        self._writer = TraceWriter(self.path, self._resolved.declaration, durable=self._run.durable)
        self.collected = [int(s) for s in before.steps[before.complete]]
        self._resumed = bool(self.collected)

    def _grown(self, step: int, tokens: int | None) -> TraceWriter:
        """The writer of a trace that has a position for this step."""
        known = self._resolved.declaration.checkpoints
        if self._writer is None or step not in [c.step for c in known]:
            if known and step < known[-1].step:
                raise UserError(
                    f"step {step} comes after step {known[-1].step}: a trace grows at its end only",
                    expected=f"a step after {known[-1].step}",
                    remedy="trace the training that begins anew under another name",
                )
            more = (*known, self._checkpoint(step, tokens))
            declaration = replace(self._resolved.declaration, checkpoints=more)
            if self._writer is None:
                self._writer = TraceWriter(self.path, declaration, durable=self._run.durable)
            else:
                self._writer.grow(declaration)
            self._resolved = replace(self._resolved, declaration=declaration)
        return self._writer

    def _go_on(self, step: int) -> None:
        """The first step of a training that was resumed: what the trace has of later steps is of the earlier attempt."""
        self._resumed = False
        assert self._writer is not None
        steps = [c.step for c in self._resolved.declaration.checkpoints]
        with plain(self._model):
            same = step not in self.collected or self._writer.digest(steps.index(step)) == _digest(_state(self._model))
        if not same:
            self._active = False
            self._stack.close()  # nothing more is written: others may
            raise UserError(
                f"step {step} of {self.path} has other weights: it is the trace of another training, which is kept",
                expected="the training that this one goes on with",
                remedy="choose another name",
            )
        later = [s for s in self.collected if s > step]
        if later:
            self.collected = [s for s in self.collected if s <= step]
            self._say(f"dynamics: training goes on from step {step}: {len(later)} later checkpoints are collected anew")

    def _collect(self, step: int, tokens: int | None) -> None:
        began = time.perf_counter()
        writer = self._grown(step, tokens)
        index = [c.step for c in self._resolved.declaration.checkpoints].index(step)
        try:
            with measurable(self._model, self._resolved.model.architecture, shortest(self._resolved)):
                tensors = _state(self._model)
                broken = write_checkpoint(
                    self._resolved,
                    writer,
                    self._model,
                    index,
                    digest=_digest(tensors),
                    stored_dtype=stored_dtype(tensors),
                    said=self._progress(step),
                )
        finally:
            say_doing(self.path, "")
        if broken:
            self._say(f"dynamics: step {step}: the model returned {broken} values that are not finite")
        self.collected.append(step)
        self.failed.pop(step, None)
        write_journal(self.path, "complete", step=step, seconds=time.perf_counter() - began)

    def _progress(self, step: int) -> Callable[[str], None]:
        """What is told of a step that takes long: every ten seconds a line, and `dynamics status` at once."""
        last = time.monotonic()

        def said(what: str) -> None:
            nonlocal last
            say_doing(self.path, f"step {step}, {what}")
            if time.monotonic() - last >= EVERY:
                last = time.monotonic()
                self._say(f"dynamics: step {step}, {what}")

        return said

    def _record_failure(self, step: int, reason: str) -> None:
        try:
            steps = [c.step for c in self._resolved.declaration.checkpoints]
            if self._writer is not None and step in steps:
                self._writer.mark(steps.index(step), "failed", reason)
            write_journal(self.path, "failed", step=step, reason=reason)
        except Exception as error:  # the disk that is full for the data is full for this, too
            self._say(f"dynamics: nor could that be recorded: {error}")


def _is_main_process() -> bool:
    from torch import distributed

    return not (distributed.is_available() and distributed.is_initialized() and distributed.get_rank() != 0)


def _state(model: Any) -> dict[str, torch.Tensor]:
    return {name: value.detach() for name, value in model.state_dict().items()}


def _digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """sha256 of names and values, which stands for the weight file that there is none of."""
    import torch

    total = hashlib.sha256()
    for name in sorted(tensors):
        total.update(name.encode())
        total.update(tensors[name].cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()
