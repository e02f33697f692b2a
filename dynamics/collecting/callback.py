"""A callback for the Hugging Face Trainer: collect while it trains (see :mod:`dynamics.collecting.live`)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from transformers import TrainerCallback

from checkpoints.paths import StrPath, as_flag, as_mapping, as_number, as_numbers, as_path, as_texts

from ..models.architecture import Adapter
from ..progress import Reporter
from ..runs.config import ProbeEntry
from ..runs.naming import check_name
from ..runs.plan import find_analysis
from ..runs.schedule import log_steps
from .live import LiveCollector

__all__ = ["DynamicsCallback"]


class DynamicsCallback(TrainerCallback):  # type: ignore[misc]
    """Collects a trace of the training that the Trainer does; no weights are saved for it.

    Args:
        name: the run's name; its trace is ``NAME.zarr``.
        analyses: names of analyses; if there are no ``probes`` either: every built-in one that fits.
        probes: the user's own prompts.
        steps: optimizer steps at which to collect; None takes ``checkpoints`` of them, evenly spaced in log step.
        checkpoints: see ``steps``.
        tokens_per_step: tokens in one optimizer step, if that is constant.
        tokenizer: a fast tokenizer; None takes the Trainer's (``processing_class``).
        adapter: describes a module of the user's own.
        traces: folder of traces.
        resume: this training goes on with an earlier one, whose trace is there; a Trainer that resumes from a
            checkpoint says so itself.
        settings: any other field of :class:`dynamics.runs.config.Run`.

    Attributes:
        live: the collector, once training has begun.

    Raises:
        UserError: for what is wrong: a misspelt analysis at once, what only the Trainer knows (no tokenizer, a model
            that cannot be measured, a trace of an earlier training) when training begins, before its first step.

    Example::

        callback = DynamicsCallback("my-run", analyses=["induction"])
        Trainer(model, processing_class=tokenizer, callbacks=[callback], ...).train()
    """

    def __init__(
        self,
        name: str,
        *,
        analyses: Sequence[str] = (),
        probes: Mapping[str, ProbeEntry] | None = None,
        steps: Collection[int] | None = None,
        checkpoints: int = 20,
        tokens_per_step: int | None = None,
        tokenizer: Any = None,
        adapter: Adapter | None = None,
        traces: StrPath = "traces",
        resume: bool = False,
        settings: Mapping[str, Any] | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        check_name(name)
        traces, analyses = as_path(traces, "traces"), as_texts(analyses, "analyses")
        for analysis in analyses:
            find_analysis(analysis)
        self.live: LiveCollector | None = None
        self._say = say or Reporter().say
        self._name, self._tokenizer, self._resume = name, tokenizer, as_flag(resume, "resume")
        self._steps = None if steps is None else as_numbers(steps, "steps")
        self._checkpoints = as_number(checkpoints, "checkpoints", least=0)
        self._options: dict[str, Any] = {
            "analyses": analyses,
            "probes": as_mapping(probes or {}, "probes"),
            "tokens_per_step": None
            if tokens_per_step is None
            else as_number(tokens_per_step, "tokens_per_step", least=1),
            "adapter": adapter,
            "traces": traces,
            "settings": as_mapping(settings or {}, "settings"),
            "say": self._say,
        }

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Plan everything, and collect step 0 (or the step that training is resumed from)."""
        steps = log_steps(state.max_steps, self._checkpoints) if self._steps is None else self._steps
        tokenizer = self._tokenizer if self._tokenizer is not None else kwargs.get("processing_class")
        if self.live is not None:  # training was interrupted, and begins again
            self.live.close()
            self.live = None
        resume = self._resume or state.global_step > 0
        self.live = LiveCollector(self._name, model, tokenizer, steps=steps, resume=resume, **self._options)
        self.live.step(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Collect if this step is due."""
        if self.live is not None:
            self.live.step(state.global_step)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Release the trace."""
        if self.live is not None:
            self.live.close()
