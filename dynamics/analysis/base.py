"""What an analysis is, and what it asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from checkpoints.errors import UserError, nearest, shown

from ..measurements import Measurement
from ..models.importing import own_code
from ..probes import LAST, Probe
from ..probes.chat import Chat, as_turns
from .returned import instance_of, instances_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..store import Trace
    from .section import Summary

__all__ = ["Analysis", "AnalysisOptions", "Context", "Reading", "Request"]


class AnalysisOptions(BaseModel):
    """Options of an analysis: a model with a field for each; of one that has no model of its own, none."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class Context:
    """What an analysis may look at when it plans.

    Attributes:
        tokenizer: the series' tokenizer.
        probes: the user's own probes, from the runs file.
        wired: whether it is known what reads and writes where, so that edges can be attributed and patched.
        chat: the chat template by which the run wants its prompts rendered; None where they are asked as they are.
    """

    tokenizer: Any
    probes: Mapping[str, Probe] = field(default_factory=dict)
    wired: bool = True
    chat: Chat | None = None

    def asked(self, probe: Probe) -> Probe:
        """Built-in questions as this run asks them: as they are, or the turns of a chat (:func:`dynamics.probes.chat.as_turns`).

        Raises:
            UserError: where the chat template cannot render them.
        """
        return probe if self.chat is None else self.chat.probe(as_turns(probe))

    def probe(self, name: str) -> Probe:
        """A probe of the runs file.

        Raises:
            UserError: when the run has none of this name.
        """
        if name not in self.probes:
            raise UserError(
                f"the run has no probe {name!r}",
                expected=f"one of {', '.join(self.probes)}" if self.probes else "`probes` in the runs file",
                remedy=nearest(name, self.probes),
            )
        return self.probes[name]


@dataclass(frozen=True)
class Request:
    """One probe and the measurements wanted on it.

    Raises:
        UserError: for a probe or measurements of other types.
    """

    probe: Probe
    measurements: tuple[Measurement, ...]

    def __post_init__(self) -> None:
        instance_of(Probe, self.probe, "`probe` of a Request is", remedy="context.probe(name) is one of the runs file")
        given: Any = self.measurements
        fitting = isinstance(given, tuple | list)
        if not fitting or any(isinstance(m, type) or not hasattr(m, "declare") for m in given):
            raise UserError(
                f"`measurements` of the Request of probe {self.probe.name!r} is {shown(given)}",
                expected="a tuple of measurements",
                remedy="write them with their brackets and a comma: (da.Answers(),)",
            )


@dataclass(frozen=True)
class Reading:
    """Prompts that an analysis wants to see through the run's dictionaries (``dynamics learn``).

    Attributes:
        probe: the prompts.
        positions: named positions of their tokens.
    """

    probe: Probe
    positions: tuple[str, ...] = (LAST,)


@dataclass(frozen=True)
class Analysis:
    """An analysis module: one of ``analyses``, or the user's own.

    The module has at least

    - ``TITLE``: its title;
    - ``plan(context, options) -> Sequence[Request]``: which probes to measure, and what on them;
    - ``summarise(trace, options) -> Section``: curves, notes and arrays, from a trace alone (no weights);

    and may have

    - ``QUESTION``: the question it answers; else the first paragraph of its docstring;
    - ``Options``: a model of its options, derived from :class:`AnalysisOptions`;
    - ``figures(summary) -> Mapping[str, Figure]``: drawn from the summary alone; else every headline's curve;
    - ``readings(context, options) -> Sequence[Reading]``: prompts to read through the run's dictionaries;
    - ``PLANTED``: worlds of the organism to the key of the finding by which each shows, for ``dynamics validate``.

    Attributes:
        name: with which the keys of its findings begin.
        module: the module.
    """

    name: str
    module: Any

    @property
    def title(self) -> str:
        """Its title."""
        return str(self.module.TITLE)

    @property
    def question(self) -> str:
        """The question that it answers."""
        first = (self.module.__doc__ or "").strip().partition("\n\n")[0]
        return str(getattr(self.module, "QUESTION", " ".join(first.split())))

    @property
    def options(self) -> type[AnalysisOptions]:
        """The model of its options."""
        model: type[AnalysisOptions] = getattr(self.module, "Options", AnalysisOptions)
        return model

    @property
    def planted(self) -> Mapping[str, str]:
        """World of the organism to the key of a finding."""
        return {world: f"{self.name}.{key}" for world, key in getattr(self.module, "PLANTED", {}).items()}

    def plan(self, context: Context, options: AnalysisOptions) -> Sequence[Request]:
        """Probes and measurements that it needs."""
        with self._own("plan"):
            requests = self.module.plan(context, options)
        remedy = "return [da.Request(probe, (da.Answers(),))]"
        return instances_of((Request,), requests, f"plan of analysis {self.name!r} returned", remedy=remedy)

    def readings(self, context: Context, options: AnalysisOptions) -> Sequence[Reading]:
        """Prompts that it wants to read through the run's dictionaries."""
        wanted = getattr(self.module, "readings", None)
        if wanted is None:
            return ()
        what = f"readings of analysis {self.name!r} returned"
        with self._own("readings"):
            readings = wanted(context, options)
        return instances_of((Reading,), readings, what, remedy="return [da.Reading(probe)]")

    def summary(self, trace: Trace, options: AnalysisOptions) -> Summary:
        """What it finds in a trace."""
        from .section import Section

        what = f"summarise of analysis {self.name!r} returned"
        with self._own("summarise"):
            summarised = self.module.summarise(trace, options)
        section = instance_of(Section, summarised, what, remedy="return da.Section([curve])")
        return section.summary(trace, analysis=self.name, title=self.title, question=self.question)

    def figures(self, summary: Summary) -> Mapping[str, Figure]:
        """Figure name to figure."""
        if (own := getattr(self.module, "figures", None)) is not None:
            with self._own("figures"):
                drawn = own(summary)
            return self._drawn(drawn)
        from .figures import curve_grid

        panels = [(f.title, [(f.title, f)]) for f in summary.findings if f.headline]
        return {"curves": curve_grid(panels)} if panels else {}

    def _own(self, function: str) -> AbstractContextManager[None]:
        return own_code(f"{function} of analysis {self.name!r}", self.module.__name__)

    def _drawn(self, drawn: Any) -> Mapping[str, Figure]:
        from matplotlib.figure import Figure

        what, remedy = f"figures of analysis {self.name!r} returned", 'return {"curves": da.curve_grid(panels)}'
        if not isinstance(drawn, Mapping):
            raise UserError(f"{what} {shown(drawn)}", expected="a mapping: name to figure", remedy=remedy)
        for name, figure in drawn.items():
            if not isinstance(name, str) or not name or "/" in name:  # it names files
                raise UserError(f"{what} a figure named {shown(name)}", expected="a word", remedy=remedy)
            instance_of(Figure, figure, f"{what} for {name!r}", remedy=remedy)
        return drawn
