"""What analyses found in a trace, as it is read in a notebook: by name, as a table, as arrays, as curves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr

from checkpoints.errors import UnknownNameError, UserError, nearest
from checkpoints.paths import StrPath, as_path, as_text

from ..notebook import box, details, one_line
from ..store import Trace, read_result
from ..store.results import stored_results
from .findings import Finding, findings_html, findings_text
from .section import Summary
from .tables import findings_dataframe, findings_dataset

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Results", "open_results"]


class Results(Mapping[str, Summary]):
    """What analyses found in one trace: a mapping from an analysis's name to its :class:`Summary`.

    :func:`dynamics.open_results` reads what is stored, :func:`dynamics.analyse` computes it.

    Args:
        summaries: one for each analysis.
        path: the trace.
        outdated: names of analyses that were made before the trace had all that it has.
        unread: names of analyses whose stored results cannot be read.

    Attributes:
        path: the trace that they were found in.
        name: its name, which is the run's.
        outdated: names of analyses whose results are older than the trace (checkpoints or probes came since).
        unread: names of analyses whose stored results cannot be read: damaged, or of another version.

    Example::

        results = dynamics.open_results("traces/organism.zarr")
        results["addition"]                                  # one analysis
        results.finding("addition.digit.ones").plot()        # one curve
        table = results.to_dataframe()
        table[table.headline & (table.state == "emerged")].sort_values("onset_by")
    """

    def __init__(
        self, summaries: Iterable[Summary], *, path: StrPath, outdated: Iterable[str] = (), unread: Iterable[str] = ()
    ) -> None:
        self._summaries = {summary.analysis: summary for summary in summaries}
        self.path: Path = as_path(path, "path")
        self.name: str = self.path.name.removesuffix(".zarr")
        self.outdated: tuple[str, ...] = tuple(outdated)
        self.unread: tuple[str, ...] = tuple(unread)

    def __getitem__(self, analysis: str) -> Summary:
        """The summary of one analysis.

        Raises:
            UnknownNameError: when there is none of that name; a KeyError too.
        """
        if as_text(analysis, "analysis") not in self._summaries:
            raise UnknownNameError(
                f"{self.path} has no results of an analysis {analysis!r}",
                expected="the name of an analysis that has run",
                remedy=nearest(analysis, self._summaries),
            )
        return self._summaries[analysis]

    def __iter__(self) -> Iterator[str]:
        return iter(self._summaries)

    def __len__(self) -> int:
        return len(self._summaries)

    def _ipython_key_completions_(self) -> list[str]:
        return list(self._summaries)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The findings of all analyses."""
        return tuple(finding for summary in self._summaries.values() for finding in summary.findings)

    @property
    def headlines(self) -> tuple[Finding, ...]:
        """Those that are in the report's table."""
        return tuple(finding for finding in self.findings if finding.headline)

    def finding(self, key: str) -> Finding:
        """The finding with this key, ``<analysis>.<curve>``.

        Raises:
            UnknownNameError: when there is none; a KeyError too.
        """
        known = {finding.key: finding for finding in self.findings}
        if as_text(key, "key") not in known:
            raise UnknownNameError(
                f"there is no finding {key!r} in {self.path}",
                expected="<analysis>.<curve>",
                remedy=nearest(key, known),
            )
        return known[key]

    def to_dataframe(self) -> pd.DataFrame:
        """One row per finding, indexed by its key.

        Steps are optimizer steps, as floats. An interval is two columns, (after, by]; NaN is a side that is open: without
        ``onset_after`` it was there from the first checkpoint on, without ``onset_by`` it did not emerge.

        Returns:
            With the columns of :data:`dynamics.analysis.tables.COLUMNS`.
        """
        return findings_dataframe(self.findings)

    def to_xarray(self) -> xr.Dataset:
        """Curves, bands, bounds of nulls and onsets as variables.

        Returns:
            ``value``, ``low``, ``high``, ``null_mean``, ``null_upper`` (finding, checkpoint), in each finding's own units;
            ``onset_after``, ``onset_by``, ``state`` and the other columns of :meth:`to_dataframe` (finding,); ``onset_draw``
            (finding, draw), the onset of every bootstrap draw: infinite where it never rose, NaN where there is none.
            ``finding`` and ``step`` are indexes.

        Example::

            found = results.to_xarray()
            found.value.sel(finding="addition.digit.ones").plot(x="step", xscale="symlog")
        """
        return findings_dataset(self.findings).assign_attrs(trace=str(self.path))

    def __repr__(self) -> str:
        shown, rest = self.headlines, len(self.findings) - len(self.headlines)
        head = f"Results({str(self.path)!r}: {', '.join(self) or 'no analysis'})"
        more = [f"  and {rest} findings that are no headlines"] if rest else []
        return "\n".join([head, *([findings_text(shown)] if shown else []), *more, *self._older(one_line)])

    def _repr_html_(self) -> str:
        parts: list[str] = [*self._older(str)]
        for summary in self._summaries.values():
            shown = [f for f in summary.findings if f.headline]
            inside = findings_html(shown) if shown else "no headline"
            parts.append(
                details(f"{summary.title}: {len(shown)} of {len(summary.findings)} findings", inside, opened=True)
            )
        return box(f"{self.name}: what {len(self)} analyses found", *parts)

    def _older(self, written: Any) -> list[str]:
        anew = f"(dynamics analyse {self.name} makes them anew)"
        said = (("older than the trace", self.outdated), ("cannot be read", self.unread))
        return [written(f"  {what}: {', '.join(names)} {anew}") for what, names in said if names]


def open_results(path: StrPath) -> Results:
    """Read what analyses found in a trace, as ``dynamics analyse`` or ``dynamics report`` stored it; no torch, nothing computed.

    Args:
        path: the trace.

    Raises:
        UserError: when it is no trace, or holds no results.
    """
    trace = Trace(path)
    summaries, outdated, unread = [], [], []
    for analysis in _in_order(trace):
        stored = read_result(trace.path, analysis)
        if stored is None:  # damaged: a report derives it again
            unread.append(analysis)
            continue
        dataset, said = stored
        try:
            summary, current = Summary.from_json(said["summary"], dataset), _is_current(trace, said.get("inputs", {}))
        except Exception:  # of another version, or written by another program
            unread.append(analysis)
            continue
        summaries.append(summary)
        if not current:
            outdated.append(analysis)
    if not summaries:
        name = trace.path.name.removesuffix(".zarr")
        raise UserError(
            f"{trace.path} holds no results of analyses"
            + (f" that can be read, of {', '.join(unread)}" if unread else ""),
            expected="results that `dynamics analyse` or `dynamics report` stored",
            remedy=f"dynamics analyse {name} (or, in Python, dynamics.analyse({name!r}))",
        )
    return Results(summaries, path=trace.path, outdated=outdated, unread=unread)


def _in_order(trace: Trace) -> list[str]:
    """The analyses whose results are stored, in the order of the run."""
    stored = stored_results(trace.path)
    listed = [entry["name"] for entry in trace.attributes["run_config"]["analyses"]]
    return [*(name for name in dict.fromkeys(listed) if name in stored), *(n for n in stored if n not in listed)]


def _is_current(trace: Trace, inputs: Mapping[str, Any]) -> bool:
    """Whether results were made from all that the trace has."""
    complete = [int(step) for step in trace.steps[trace.complete]]
    return inputs.get("complete") == complete and inputs.get("fingerprint") == trace.attributes.get("fingerprint")
