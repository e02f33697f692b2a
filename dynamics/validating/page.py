"""What ``dynamics validate`` found, as a page in Markdown: first what fails, then the checks, then every scenario."""

from __future__ import annotations

from collections.abc import Sequence

from .calibration import Calibration, table
from .checks import COVERAGE, DECADES, FALSE, KNOWN, NOTHING, Check
from .validate import Validation

__all__ = ["write_validation"]

_MARKS = {"holds": "", "wide": " wide", "fails": " **fails**"}


def write_validation(found: Validation) -> str:
    """The page."""
    lines = [
        "# Validation",
        "",
        "Written by `dynamics validate`: the tracer against truth that was planted. The synthetic curves go through the "
        "code that makes the findings of reports.",
        "",
    ]
    if found.failed:
        lines += [f"**{len(found.failed)} of the checks below fail:**", "", *[f"- {line}" for line in found.failed]]
    else:
        lines += ["Every check below holds."]
    if any(check.table != "known" for check in found.checks):
        lines += ["", *_synthetic(found)]
    if known := [check for check in found.checks if check.table == "known"]:
        lines += ["", *_known(known)]
    if found.planted:
        lines += ["", *_organisms(found)]
    if found.rows:
        lines += ["", *_details(found.rows)]
    return "\n".join(lines) + "\n"


def _synthetic(found: Validation) -> list[str]:
    lines = [
        "## Synthetic curves",
        "",
        "Shapes, floors, rises, widths and numbers of prompts vary from curve to curve; onsets are at random.",
        "",
        "### Do 95% intervals hold the true onset?",
        "",
        f"Share of intervals that do, which should be {COVERAGE[0]:.0%} to {COVERAGE[1]:.0%}. A check *fails* where it is "
        "less by more than two standard errors of the simulation (one is behind each share); *wide* says that it is more: the "
        "interval holds what it promises, and a narrower one might have done. The onset of excess over null lies on checkpoints: "
        "where these are far apart, the gap that holds it does so nearly always, and there is no half gap.",
        "",
        *_matrix([c for c in found.checks if c.table == "coverage"]),
        "",
        "By the shape of the curve, where a definition has a true onset for it:",
        "",
        *_matrix([c for c in found.checks if c.table == "kinds"], by_column=True),
        "",
        "### Is anything found where nothing is?",
        "",
        f"Share of curves without a rise in which one was found; at most {FALSE:.0%} is right. A check *fails* where "
        "it is more by three standard errors of the simulation.",
        "",
        *_matrix([c for c in found.checks if c.table == "false"]),
    ]
    discovery = [c for c in found.checks if c.table == "discovery"]
    if discovery:
        false, power = discovery
        mark = "holds" if false.verdict == "holds" else "**fails**"
        lines += [
            "",
            f"Among many curves of which one in twenty rises ({false.count} curves in several repetitions, found at a false "
            f"discovery rate of {FALSE:.0%}), {false.value:.1%} ± {false.error:.1%} of those found were false ({mark}); "
            f"{power.value:.0%} of those that rise were found.",
        ]
    return lines


def _matrix(chosen: Sequence[Check], *, by_column: bool = False) -> list[str]:
    """A table of checks: definitions down and columns across, or the other way round."""
    down = list(dict.fromkeys(c.column if by_column else c.row for c in chosen))
    across = list(dict.fromkeys(c.row if by_column else c.column for c in chosen))
    cells = {(c.column, c.row) if by_column else (c.row, c.column): c for c in chosen}

    def shown(check: Check | None) -> str:
        if check is None:
            return "–"
        if check.column.endswith(DECADES):
            return f"{check.value:.2f}"
        return f"{check.value:.1%} ± {check.error:.1%}{_MARKS[check.verdict]}"

    lines = ["| | " + " | ".join(across) + " |", "|---|" + "---|" * len(across)]
    return lines + [
        f"| {one} | " + " | ".join(shown(cells.get((one, other))) for other in across) + " |" for one in down
    ]


def _known(checks: Sequence[Check]) -> list[str]:
    counts = {c.row: c.count for c in checks if c.column == "AUROC"}
    beside = {c.column for c in checks if c.column.endswith(DECADES) or NOTHING in c.column}
    return [
        "## Known circuits",
        "",
        "Small models whose weights were set by hand (`dynamics.validating.known`): noise that moves all along, distractors, and a "
        f"circuit that is faded in at a random step of {counts['all']} series, two heads that match and copy (an induction pair) or two MLPs one after the other; in as "
        "many series a distractor is faded in instead. *AUROC*: that a true edge has a larger attribution than another at the last "
        "checkpoint, and *F1* of as many edges as there are true ones, and of the smallest faithful circuit; means over series. "
        "*Onset*: share of series in which the 95% interval of *done* and *used* lies between two measured steps and meets the fiftieth of a decade "
        "in which it fades in. *None called*: share of series without a circuit in which none is said to have formed, or to have been "
        f"there from the start. Each must reach {KNOWN:.0%}.",
        "",
        *_matrix([c for c in checks if c.column not in beside]),
        "",
        "How much that says: the median *width* of the intervals that are closed, and the share of series, with a circuit and without one, in which "
        "*used* was *not measurable*, so that nothing could be called. Without a circuit prompts and twins differ by noise alone, "
        "which leaves none to patch.",
        "",
        *_matrix([c for c in checks if c.column in beside]),
    ]


def _organisms(found: Validation) -> list[str]:
    lines = [
        "## Organisms",
        "",
        "Small models trained on worlds that enter at random steps. Nothing may emerge before its world entered (*too "
        "early*) or although it never did (*false*); *missed* says that it entered and was not learned in this training, "
        "or not seen.",
        "",
        "| organism | world | entered | finding | state | onset | verdict |",
        "|---|---|---|---|---|---|---|",
    ]
    for p in found.planted:
        entered = "never" if p.entered is None else f"step {p.entered}"
        verdict = f"**{p.verdict}**" if p.verdict in ("too early", "false") else p.verdict
        lines.append(f"| {p.organism} | {p.world} | {entered} | {p.key} | {p.state} | {p.onset} | {verdict} |")
    right = sum(order.recovered for order in found.order)
    emerged = sum(p.by is not None for p in found.planted if p.entered is not None)
    shown = sum(p.entered is not None for p in found.planted)
    lines += [
        "",
        f"Of {shown} worlds that entered, {emerged} were seen to emerge. Where one entered clearly earlier than another and "
        f"both emerged, the order of their onsets is that of their entry in {right} of {len(found.order)}.",
    ]
    return lines


def _details(rows: Sequence[Calibration]) -> list[str]:
    return [
        "## Every scenario",
        "",
        "*found*: share of the curves in which the definition found a rise; *right state*: in which its state is the planted "
        "one; *does not fit*: of which the definition says so, and dates nothing; *judged*: curves with a true onset and an "
        "interval; *too late* (*too early*): intervals wholly after (before) "
        "the true onset; *bias*: median error in decades; *width*: median width of the interval in decades.",
        "",
        "<details><summary>All scenarios and definitions</summary>",
        "",
        table(rows),
        "",
        "</details>",
    ]
