"""The format of ``report.json``: what it has to hold, for programs that read it.

``docs/report-format.md`` describes it in prose, ``docs/_static/report.schema.json`` is the JSON schema of these models. A number
that was not measured is ``null``; steps are optimizer steps unless ``series.step_counts`` says otherwise.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from checkpoints.errors import UserError

from ..emergence.mirage import MirageVerdict
from ..emergence.types import State, Trend

__all__ = ["FORMAT", "ReportFile", "check_report", "report_schema"]

FORMAT = 4
"""Of ``report.json``: 2 adds ``order``, and to every finding its onsets by all definitions and its continuous twin; 3 calls
pairs in order at a ``false_discovery_rate``, where 2 had a ``level`` for each pair alone; 4 adds ``story``."""

Tokens = tuple[int | None, int | None]
Range = tuple[float | None, float | None]
Numbers = list[float | None]
ORDERS = Literal["before", "after", "cannot be ordered"]


class _Value(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class BetweenValue(_Value):
    """The half-open interval (after, by] between two measured checkpoints; ``null`` is an end that was not seen."""

    after: int | None
    by: int | None


class EmergenceValue(_Value):
    """The statistics of one curve."""

    state: State
    null: str = Field(description="name of the null that the curve was held against")
    null_upper: Numbers = Field(description="the null's simultaneous bound at every checkpoint")
    direction: Trend
    reason: str = Field(description="why it is not measurable; else empty")
    onset: BetweenValue | None = Field(description="last checkpoint not above the null, first above it")
    onset_range: BetweenValue | None = Field(description="95% bootstrap interval of the onset")
    onset_tokens: Tokens | None = Field(description="the onset in tokens seen")
    midpoint: float | None = Field(description="step at half of the rise")
    midpoint_interval: BetweenValue | None
    completion: BetweenValue | None = Field(description="90% of the rise reached for good")
    loss: BetweenValue | None = Field(description="of a transient curve: when it was lost")
    width_decades: float | None = Field(description="log10(step + 1) at 90% minus that at 10% of the rise")
    confidence: float | None = Field(description="share of bootstrap draws with the same state")
    episodes: int
    floor: float | None
    plateau: float | None
    peak: float | None
    final: float | None
    fall: float | None


class OnsetValue(_Value):
    """The onset of a curve by one definition of emergence."""

    definition: str
    state: State
    step: float | None
    between: BetweenValue | None
    range: BetweenValue | None
    tokens: Tokens | None
    width_decades: float | None
    width_range: Range | None
    loss: BetweenValue | None
    p_value: float | None
    weights: dict[str, float]
    overdispersion: float
    reach: float | None
    reason: str


class AgreementValue(_Value):
    """How far the definitions agree about a curve."""

    unanimous: bool
    agreeing: list[tuple[str, str]]
    disagreeing: list[tuple[str, str]]
    spread_decades: float | None
    sentence: str


class MirageValue(_Value):
    """Whether a sharp rise is as sharp in the continuous twin of its metric."""

    verdict: MirageVerdict
    width: float | None
    width_range: Range | None
    twin_width: float | None
    twin_range: Range | None
    ratio_range: Range | None
    moved_before: float | None
    sentence: str


class FindingValue(_Value):
    """One curve over the checkpoints, and when it emerged."""

    key: str = Field(description="<analysis>.<curve>, unique in a report")
    title: str
    metric: str = Field(description="what the values are, with their unit")
    unit: str = Field(description="what the bootstrap resamples")
    headline: bool
    definition: str
    sample: str
    twin: str
    holds: float | None = Field(description="share of looks with other prompts, nulls, checkpoints that say the same")
    steps: list[int]
    values: Numbers
    low: Numbers = Field(description="lower end of the pointwise 95% interval")
    high: Numbers
    null_mean: Numbers
    emergence: EmergenceValue
    onsets: list[OnsetValue]
    definitions_agree: AgreementValue | None
    onset_by: list[int | Literal["unusable"] | None] = Field(
        description="of every bootstrap draw the step by which it was above its null; null: never"
    )
    mirage: MirageValue | None


class DefinitionValue(_Value):
    """A term of an analysis, what it means, and where that comes from."""

    term: str
    text: str
    source: str


class AnalysisValue(_Value):
    """What one analysis found."""

    analysis: str
    title: str
    question: str
    findings: list[FindingValue]
    definitions: list[DefinitionValue]
    notes: list[str]


class TableOnset(_Value):
    """One definition's onset, as text."""

    definition: str
    state: str
    between: str
    range: str
    estimate: str
    width: str
    reason: str


class TableMirage(_Value):
    """What the continuous twin says of a rise."""

    verdict: MirageVerdict
    sentence: str
    width: float | None
    twin_width: float | None


class TableRow(_Value):
    """A headline finding as the table shows it: texts, rounded; ``–`` is nothing."""

    key: str
    title: str
    state: State
    onset: str
    range: str
    tokens: str
    midpoint: str
    completion: str
    width: str
    final: str
    metric: str
    null: str
    note: str
    onsets: list[TableOnset]
    definitions_agree: str
    mirage: TableMirage | None


class StoryPart(_Value):
    """The sentences about the headline findings of one analysis."""

    analysis: str
    title: str
    summary: list[str] = Field(description="a few sentences about all of them")
    circuits: list[str] = Field(description="a paragraph for each circuit with a date")


class StoryValue(_Value):
    """What was found, in sentences."""

    lead: list[str]
    analyses: list[StoryPart]


class SeriesValue(_Value):
    """The checkpoints."""

    origin: Any
    steps: list[int]
    tokens: list[int | None]
    status: list[str]
    step_counts: str


class ProblemValue(_Value):
    """A checkpoint that was left out, or whose numbers need care."""

    step: int
    status: str
    reason: str


class NamedCircuit(_Value):
    """A finding by key and title."""

    key: str
    title: str


class LeftOutCircuit(NamedCircuit):
    """A finding that cannot be put in order, and why."""

    reason: str


class OrderedPair(_Value):
    """Which of two circuits came first: shares of bootstrap draws, and what all pairs together let one say."""

    first: str
    second: str
    before: float
    after: float
    tied: float
    order: ORDERS
    paired: bool


class OrderValue(_Value):
    """The order of the headline findings."""

    false_discovery_rate: float
    circuits: list[NamedCircuit]
    pairs: list[OrderedPair]
    unresolved: int
    left_out: list[LeftOutCircuit]


class ApartValue(_Value):
    """A circuit on which the definitions do not agree."""

    title: str
    sentence: str
    spread_decades: float | None


class DefinitionsValue(_Value):
    """How far the definitions agree over all headline findings."""

    found: int
    agree: list[str]
    apart: list[ApartValue]


class ProbeValue(_Value):
    """Prompts that were run, and what was stored of them."""

    name: str
    description: str
    prompts: int
    examples: list[str]
    variables: dict[str, str]


class WorldValue(_Value):
    """Of an organism: from which step on a world was in the data; ``null``: never."""

    world: str
    from_step: int | None
    share: float


class ReportFile(_Value):
    """A whole ``report.json``."""

    model_config = ConfigDict(title="Report of a run")
    format: Literal[4]
    run: str
    description: str
    series: SeriesValue
    counts: dict[str, int]
    problems: list[ProblemValue]
    problem_texts: list[str]
    model: dict[str, Any]
    emergence: list[TableRow]
    story: StoryValue
    order: OrderValue
    definitions: DefinitionsValue
    analyses: list[AnalysisValue]
    probes: list[ProbeValue]
    truth: list[WorldValue]
    provenance: dict[str, Any]
    run_config: dict[str, Any] | None


def report_schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of ``report.json``."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | ReportFile.model_json_schema()


def check_report(content: Any) -> None:
    """Refuse what is not a report of this version.

    Raises:
        UserError: with the first thing that is wrong, and where.
    """
    found = content.get("format") if isinstance(content, dict) else None
    if found != FORMAT:
        raise UserError(
            f"a report of format {found!r}" if found is not None else "no report",
            expected=f"format {FORMAT}, as in docs/report-format.md",
            remedy="write it again with `dynamics report RUN`",
        )
    try:
        ReportFile.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(
            f"the report is wrong at {where}: {first['msg']}",
            expected="what docs/report-format.md says",
            remedy="write it again with `dynamics report RUN`",
        ) from error
