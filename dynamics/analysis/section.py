"""What an analysis says: a section with curves, notes, definitions and arrays; and the summary that is made of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from checkpoints.errors import UnknownNameError, UserError, nearest
from checkpoints.paths import as_text

from ..emergence import Mirage, mirage
from ..names import CHECKPOINT
from ..notebook import box, details, one_line, table
from ..store import Trace
from ..store.results import FINDINGS
from .curves import Curve
from .findings import Definition, Finding, findings_html, findings_text
from .returned import instances_of
from .tables import findings_dataframe, findings_dataset

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Section", "Summary"]

_SECTION = "write da.Section(findings=[curve], notes=['text'], definitions=[da.Definition('term', 'text')])"


@dataclass
class Section:
    """What an analysis, or a part of one, found in a trace. Sections add up: ``circuit + direction``.

    Attributes:
        findings: curves; where an analysis needed to know when one emerged, its finding.
        notes: what a reader must know to judge the figures, among them what could not be measured.
        definitions: every metric with its source; said once, however many analyses repeat it.
        arrays: arrays behind the figures, as :class:`xarray.Dataset` takes them: name to (dimensions, values).
        coords: coordinates of their dimensions; ``step`` is there of itself.
    """

    findings: list[Curve | Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    definitions: tuple[Definition, ...] = ()
    arrays: dict[str, Any] = field(default_factory=dict)
    coords: dict[str, Any] = field(default_factory=dict)

    def __add__(self, other: Section) -> Section:
        return Section(
            [*self.findings, *other.findings],
            [*self.notes, *other.notes],
            tuple(dict.fromkeys((*self.definitions, *other.definitions))),
            self.arrays | other.arrays,
            self.coords | other.coords,
        )

    def assessed(self, trace: Trace) -> dict[str, Finding]:
        """Its findings by key; curves are assessed in place, so that it is done once.

        Raises:
            UserError: when there is something else among them, or the numbers of one do not fit the trace.
        """
        given: list[Curve | Finding] = instances_of(
            (Curve, Finding), self.findings, "`findings` of the section is", remedy=_SECTION
        )
        found = [finding.assessed(trace) if isinstance(finding, Curve) else finding for finding in given]
        self.findings = [*found]
        return {finding.key: finding for finding in found}

    def summary(self, trace: Trace, *, analysis: str, title: str, question: str) -> Summary:
        """The summary of a whole analysis: every curve assessed, keys and names of samples begun with its name.

        Raises:
            UserError: when two findings have one key, one names a twin that is not there, or something in the section
                is not what belongs there.
        """
        by_key = self.assessed(trace)
        if len(by_key) < len(self.findings):
            twice = sorted(f.key for f in self.findings if by_key[f.key] is not f)
            raise UserError(
                f"analysis {analysis!r} has two findings with the key {twice[0]!r}",
                expected="keys that are unique in the analysis",
                remedy="give each curve a key of its own",
            )

        def named(key: str) -> str:
            return f"{analysis}.{key}" if key else ""

        findings = []
        for finding in by_key.values():
            survives = finding.mirage
            if finding.twin and survives is None:
                if finding.twin not in by_key:
                    raise UserError(
                        f"the curve {finding.key!r} of analysis {analysis!r} names the twin {finding.twin!r}",
                        expected=f"the key of another curve in the section; there are: {', '.join(by_key)}",
                        remedy="add the twin to the section, or leave `twin` out",
                    )
                survives = _mirage(finding, by_key[finding.twin])
            named_key, sample, twin = (named(name) for name in (finding.key, finding.sample, finding.twin))
            findings.append(replace(finding, key=named_key, sample=sample, twin=twin, mirage=survives, drawn=None))
        return Summary(
            analysis=analysis,
            title=title,
            question=question,
            findings=tuple(sorted(findings, key=lambda finding: not finding.headline)),
            definitions=tuple(
                instances_of((Definition,), self.definitions, "`definitions` of the section is", remedy=_SECTION)
            ),
            notes=tuple(instances_of((str,), self.notes, "`notes` of the section is", remedy=_SECTION)),
            data=self._data(trace),
        )

    def _data(self, trace: Trace) -> xr.Dataset:
        expected = f"name to (dimensions, values); `{CHECKPOINT}` is {len(trace.steps)} long"
        try:
            data = xr.Dataset(self.arrays, coords={"step": (CHECKPOINT, trace.steps), **self.coords})
        except (ValueError, TypeError, AttributeError) as error:
            raise UserError(
                f"`arrays` of the section cannot be put together: {error}",
                expected=expected,
                remedy="write section.arrays['name'] = (('checkpoint', 'layer'), values)",
            ) from error
        if FINDINGS in data.variables:
            raise UserError(
                f"an array of the section is called {FINDINGS!r}",
                expected="another name: the curves are stored under this one",
                remedy=f"call it otherwise in section.arrays (or coords), such as 'my_{FINDINGS}'",
            )
        for name, array in data.data_vars.items():
            if array.dtype.kind == "O":
                raise UserError(
                    f"the array {name!r} of the section is of type {array.dtype}",
                    expected=f"numbers; {expected}",
                    remedy="put names of rows and columns into section.coords",
                )
        return data


@dataclass(frozen=True)
class Summary:
    """What one analysis found in one trace; figures are drawn from it alone.

    Attributes:
        analysis: its name.
        title: its title.
        question: the question it answers, in a sentence or two.
        findings: headline findings first; their keys begin with the analysis's name and a dot.
        definitions: every metric with its source.
        notes: what a reader must know to judge the figures, among them what could not be measured.
        data: arrays behind the figures (heat maps over layers and heads), over ``checkpoint`` with ``step``.
    """

    analysis: str
    title: str
    question: str
    findings: tuple[Finding, ...]
    definitions: tuple[Definition, ...] = ()
    notes: tuple[str, ...] = ()
    data: xr.Dataset = field(default_factory=xr.Dataset)

    def __repr__(self) -> str:
        head = f"Summary({one_line(self.analysis)!r}: {len(self.findings)} findings)"
        return f"{head}\n{findings_text(self.findings)}" if self.findings else head

    def _repr_html_(self) -> str:
        shown = [f for f in self.findings if f.headline]
        others = [f for f in self.findings if not f.headline]
        terms = table(["term", "definition", "source"], [(d.term, d.text, d.source) for d in self.definitions])
        return box(
            self.title,
            self.question,
            findings_html(shown) if shown else "",
            details(f"{len(others)} more findings", findings_html(others)) if others else "",
            details(f"{len(self.notes)} notes", table([], [[note] for note in self.notes])) if self.notes else "",
            details(f"{len(self.definitions)} definitions", terms) if self.definitions else "",
        )

    def finding(self, key: str) -> Finding:
        """The finding ``<analysis>.<key>``, by its key with or without the analysis's name.

        Raises:
            UnknownNameError: when there is none; a KeyError too.
        """
        known = self.by_key
        short = as_text(key, "key").removeprefix(f"{self.analysis}.")
        if short not in known:
            raise UnknownNameError(
                f"analysis {self.analysis!r} has no finding {key!r}",
                expected="the key of one of its findings",
                remedy=nearest(short, known),
            )
        return known[short]

    def to_dataframe(self) -> pd.DataFrame:
        """One row per finding, as :meth:`Results.to_dataframe`."""
        return findings_dataframe(self.findings)

    def to_xarray(self) -> xr.Dataset:
        """Curves, bands, nulls and onsets of its findings, as :meth:`Results.to_xarray`; ``data`` has its other arrays."""
        return findings_dataset(self.findings)

    @property
    def by_key(self) -> dict[str, Finding]:
        """All findings by their key without the analysis's name."""
        return {finding.key.removeprefix(f"{self.analysis}."): finding for finding in self.findings}

    def to_json(self) -> dict[str, Any]:
        """Everything but the arrays, as JSON values."""
        return {
            "analysis": self.analysis,
            "title": self.title,
            "question": self.question,
            "findings": [f.to_json() for f in self.findings],
            "definitions": [{"term": d.term, "text": d.text, "source": d.source} for d in self.definitions],
            "notes": list(self.notes),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], arrays: xr.Dataset) -> Summary:
        """The inverse of :meth:`to_json`, with the arrays."""
        return cls(
            analysis=data["analysis"],
            title=data["title"],
            question=data["question"],
            findings=tuple(Finding.from_json(f) for f in data["findings"]),
            definitions=tuple(Definition(**d) for d in data["definitions"]),
            notes=tuple(data["notes"]),
            data=arrays,
        )


def _mirage(finding: Finding, twin: Finding) -> Mirage:
    """Whether the sharpness of a thresholded metric survives in its twin, both beyond what their nulls reached."""
    values, loss = np.array(finding.values), finding.emergence.loss
    if loss is not None and loss.after is not None:  # the sharpness of a transient rise is that of the rise
        values[np.array(finding.steps) > loss.after] = np.nan
    return mirage(
        finding.steps,
        values,
        twin.values,
        draws=finding.drawn,
        twin_draws=twin.drawn,
        direction=finding.emergence.direction,
        twin_direction=twin.emergence.direction,
        null=finding.null_mean,
        twin_null=twin.null_mean,
    )
