"""The verb ``compare``: several runs side by side, and which choice about training moved which onset."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from checkpoints.errors import unwritable
from checkpoints.paths import StrPath, as_path, as_texts, replace_text

from ..progress import Reporter
from ..runs.lookup import find_cells, trace_name
from ..store.lock import alone
from ..store.paths import beside_traces
from .configs import design_of
from .content import compare_content
from .frames import effects_frame, onsets_frame
from .identity import identities
from .loading import load_compared
from .page import comparison_page

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Compared", "compare"]


@dataclass(frozen=True)
class Compared:
    """What was found, and where it was written.

    Attributes:
        folder: holds ``index.html`` and ``compare.json``.
        content: what ``compare.json`` says.
    """

    folder: Path
    content: dict[str, Any]

    @property
    def onsets(self) -> pd.DataFrame:
        """One row for each circuit and run: its onset, its levels of every factor, and its shift against the first run."""
        return onsets_frame(self.content)

    @property
    def effects(self) -> pd.DataFrame:
        """One row for each circuit and effect, in log2 steps; empty where no effect can be told."""
        return effects_frame(self.content)


def compare(
    names: Sequence[str],
    *,
    repeats: Sequence[str] = (),
    runs: StrPath | None = None,
    traces: StrPath = "traces",
    reports: StrPath | None = None,
    reporter: Reporter | None = None,
) -> Compared:
    """Compare the onsets of several runs and write ``reports/compare-.../``.

    Args:
        names: two or more runs; a sweep stands for all its cells. Shifts are against the first.
        repeats: keys of the configuration in which repeats differ, beside ``series.seed``: ``series.path`` where each seed has a
            folder of its own.
        runs: the runs file.
        traces: folder of traces; a run without one is read from its report.
        reports: folder of reports; without it, ``reports`` beside the folder of traces.
        reporter: messages.

    Raises:
        UserError: for fewer than two runs, for one that has neither a trace nor a report, for a key of ``repeats`` that no run has,
            and when nothing can be written.
        StoppedError: when the disk is full.
    """
    reporter = reporter or Reporter(quiet=True)
    names, repeats = as_texts(names, "names"), as_texts(repeats, "repeats")
    traces = as_path(traces, "traces")
    folder = beside_traces(traces, "reports") if reports is None else as_path(reports, "reports")
    file = None if runs is None else as_path(runs, "runs")
    chosen = [cell for name in names for cell in find_cells(name, runs=file)]
    found = load_compared(chosen, runs=file, traces=traces, reports=folder, reporter=reporter)
    content = compare_content(found, design_of(found, repeats), *identities(found))
    folder = folder / _called(list(names))
    page, text = comparison_page(content), json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    try:
        with alone(folder, f"the comparison in {folder}"):
            folder.mkdir(parents=True, exist_ok=True)
            replace_text(folder / "index.html", page)
            replace_text(folder / "compare.json", text)
    except OSError as error:
        raise unwritable(f"the comparison in {folder}", error, option="--reports") from error
    return Compared(folder, content)


def _called(names: Sequence[str]) -> str:
    """The name of a comparison's folder; that of many runs by what their names begin with, and a digest of all."""
    plain = "compare-" + "-".join(trace_name(name) for name in names)
    if len(plain) <= 80:
        return plain
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()[:8]
    return f"compare-{trace_name(names[0]).partition('@')[0][:40]}-{len(names)}-{digest}"
