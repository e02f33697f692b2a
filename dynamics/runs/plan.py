"""What an analysis is, what it asks for, and how the requests of several analyses become one plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from pydantic import ValidationError

from checkpoints.errors import UserError, nearest
from checkpoints.foreign import truth_for_number

from ..analysis.base import Analysis, AnalysisOptions, Request
from ..measurements import Activations, Answers, Measurement
from ..models.importing import import_own
from ..probes import Probe

__all__ = ["ProbePlan", "built_in", "find_analysis", "merge"]


@dataclass(frozen=True)
class ProbePlan:
    """One probe with every distinct measurement that is wanted on it.

    Attributes:
        probe: the prompts.
        measurements: what is measured on them.
        asked: who wants that, in words.
    """

    probe: Probe
    measurements: tuple[Measurement, ...]
    asked: tuple[str, ...] = ()


def built_in() -> list[str]:
    """The analyses in the package ``analyses``, sorted."""
    import pkgutil

    return sorted(m.name for m in pkgutil.iter_modules(import_module("analyses").__path__))


def find_analysis(name: str, options: Mapping[str, Any] | None = None) -> tuple[Analysis, AnalysisOptions]:
    """An analysis and its validated options.

    A plain name means the module of that name in the package ``analyses``, if there is one; any other, dotted or not, is a
    module of the user's own, installed or beside the runs file.

    Raises:
        UserError: when there is no such module, it cannot be imported, it is no analysis, or the options are wrong.
    """
    known = built_in()
    dotted = f"analyses.{name}" if name in known else name
    if not all(part.isidentifier() for part in dotted.split(".")):
        raise UserError(
            f"{name!r} cannot name an analysis",
            expected="a name, or the dotted name of a module of yours",
            remedy="correct the name in `analyses`",
        )
    try:
        module = import_own(dotted, f"analysis {name!r}")
    except ModuleNotFoundError as error:
        raise UserError(
            f"there is no analysis {name!r}",
            expected=f"one of {', '.join(known)}, or the name of a module of yours, beside the runs file or installed",
            remedy=nearest(name, known),
        ) from error
    missing = [part for part in ("TITLE", "plan", "summarise") if not hasattr(module, part)]
    missing += [f"function {part}" for part in ("plan", "summarise") if not callable(getattr(module, part, print))]
    if missing:
        raise UserError(
            f"the module {dotted} is no analysis: it has no {', '.join(missing)}",
            expected="TITLE, plan and summarise (see dynamics.analysis.Analysis)",
            remedy=f"write them in {module.__file__}, or name another module",
        )
    analysis = Analysis(name.rpartition(".")[2], module)
    if not (isinstance(analysis.options, type) and issubclass(analysis.options, AnalysisOptions)):
        raise UserError(
            f"`Options` of the module {dotted} is {analysis.options!r}",
            expected="a class derived from AnalysisOptions, with a field for each option",
            remedy="class Options(da.AnalysisOptions): prompts: int = 8",
        )
    try:
        made = analysis.options.model_validate(dict(options or {}))
        if (truth := truth_for_number(dict(options or {}), made.model_dump())) is not None:
            raise UserError(
                f"analysis {name!r}: option {truth!r} is true or false",
                expected="a number",
                remedy="write the number; YAML reads yes and on as true, no and off as false",
            )
        return analysis, made
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(map(str, problem["loc"]))
        if problem["type"] == "extra_forbidden":
            remedy = nearest(key, analysis.options.model_fields)
            raise UserError(
                f"analysis {name!r} has no option {key!r}",
                remedy=remedy,
                expected=f"one of {', '.join(analysis.options.model_fields) or 'none: it takes no options'}",
            ) from error
        raise UserError(
            f"analysis {name!r}: option {key!r}: {problem['msg']}",
            expected="a value that the option takes",
            remedy="correct it in the run, or leave it out where it has a default",
        ) from error


def merge(requests: Sequence[Request]) -> list[ProbePlan]:
    """One entry per probe; equal measurements once; activations of one probe at the union of their positions, and
    answers with candidates where any request asks for them.

    Raises:
        UserError: when two different probes have one name.
    """
    probes: dict[str, Probe] = {}
    wanted: dict[str, dict[Measurement, None]] = {}
    for request in requests:
        known = probes.setdefault(request.probe.name, request.probe)
        if known != request.probe:
            raise UserError(
                f"there are two different probes named {request.probe.name!r}",
                remedy="rename yours; analyses' own probes are called <analysis>_...",
                expected="a name for each",
            )
        wanted.setdefault(known.name, {}).update(dict.fromkeys(request.measurements))
    plans = []
    for name, measurements in wanted.items():
        activations = [m for m in measurements if isinstance(m, Activations)]
        positions = tuple(dict.fromkeys(p for m in activations for p in m.positions))
        merged = dict.fromkeys(
            Activations(m.site, positions) if isinstance(m, Activations) else m for m in measurements
        )
        if Answers(candidates=True) in merged:  # it writes all that the other does
            merged.pop(Answers(), None)
        plans.append(ProbePlan(probes[name], tuple(merged)))
    return plans
