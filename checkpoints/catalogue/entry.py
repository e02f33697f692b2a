"""What is known about one published series: where it is, how its revisions are named, and what is wrong with it."""

from __future__ import annotations

import re
from datetime import date
from decimal import Decimal
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, field_validator

from ..paths import step_pattern

__all__ = ["Entry", "EqualByDesign", "KnownFault", "Label", "StepRange"]

Evidence = Literal["primary", "third-party", "inferred", "unverified"]
"""How far a fact can be trusted: seen in a primary document, in third-party code or notes, arithmetic, or nothing."""

_TRUST: dict[Evidence, str] = {
    "primary": "as its publisher documents it",
    "third-party": "as other people's code and notes have it; the publisher's own documents were not seen",
    "inferred": "inferred, by arithmetic or from similar series",
    "unverified": "unverified",
}
_UNITS = {"K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}
_GROUPS = {"step", "tokens", "unit", "stage"}


class Label(NamedTuple):
    """What the name of a revision says: step, tokens (None if it says nothing) and stage (``""`` if there is one)."""

    step: int
    tokens: int | None
    stage: str


class StepRange(BaseModel):
    """Steps ``first``, ``first + by``, ... up to and including ``last``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    first: int = Field(ge=0)
    last: int = Field(ge=0)
    by: int = Field(1, ge=1)

    @property
    def steps(self) -> range:
        """All of them."""
        return range(self.first, self.last + 1, self.by)


class KnownFault(BaseModel):
    """Checkpoints that were found to hold other weights than their name says, or none."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: tuple[StepRange | int, ...] = Field(description="Steps concerned.")
    stage: str = Field("", description="Stage that the steps belong to.")
    reason: str = Field(description="What is wrong, as a clause: 'serves the weights of the final model'.")
    source: str = Field(description="Who says so: an issue, a model card.")
    dated: date = Field(description="When the source said so, or when it was read.")
    mask: bool = Field(True, description="Whether collection leaves these checkpoints out (false: only remarked).")

    @property
    def all_steps(self) -> frozenset[int]:
        """Every step concerned."""
        return frozenset(s for part in self.steps for s in ([part] if isinstance(part, int) else part.steps))


class EqualByDesign(BaseModel):
    """Checkpoints that hold the same weights, and should."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: tuple[int, ...] = Field(min_length=2)
    reason: str
    source: str = ""


class Entry(BaseModel):
    """One series: a model of one size and seed.

    ``revisions`` is a regular expression that the whole name of a branch or tag must match, with the group ``step``
    and optionally ``tokens`` (may have decimals), ``unit`` (of the tokens: K, M, B or T, where it differs between
    names; it replaces ``tokens_unit``) and ``stage``. Names that do not match are not part of the series.

    >>> entry = Entry(name="x", family="X", repo="a/b", revisions=r"step(?P<step>\\d+)-tokens(?P<tokens>\\d+)B",
    ...               tokens_unit=10**9)
    >>> entry.parse("step1000-tokens4B"), entry.parse("main")
    (Label(step=1000, tokens=4000000000, stage=''), None)
    >>> print(entry.trust)
    unverified; nothing was checked against the hub itself
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="How the command line calls it: pythia-410m.")
    family: str = Field(description="Pythia, OLMo 2, ...")
    size: str = Field("", description="Parameters, as the publisher says: 410m.")
    repo: str = Field(description="Repository; with one repository per checkpoint, the one of config and tokenizer.")
    revisions: str = Field(description="Pattern of branch and tag names, or of owner/name of `repositories`.")
    repositories: tuple[str, ...] = Field((), description="One repository per checkpoint: all of them, by step.")
    counts: Literal["optimizer steps", "checkpoints"] = Field(
        "optimizer steps", description="What the number in the name counts; checkpoints: the steps are not documented."
    )
    step_unit: int = Field(1, ge=1, description="The number in the name times this is the step.")
    tokens_unit: int = Field(1, ge=1, description="The number of tokens in the name times this.")
    tokens_per_step: int | None = Field(None, ge=1, description="Only where it was constant and is documented.")
    expected: tuple[StepRange | int, ...] = Field((), description="The published schedule, where one is known.")
    stage: str = Field("", description="Regular expression of the stages that make this series; empty: all.")
    main: Literal["last step", "later", "no weights", "unknown"] = Field(
        "unknown", description="What the branch `main` holds: the last step, a model trained further, no weights."
    )
    architecture: str = Field("", description="Class in transformers, as in config.json.")
    tokenizer: str = Field("", description="Repository of the tokenizer, if the series' own does not carry one.")
    tokenizer_revision: str = Field("main", description="Its revision.")
    gated: bool = Field(False, description="Whether the hub asks for a login and an agreement.")
    equal_by_design: tuple[EqualByDesign, ...] = ()
    known_faults: tuple[KnownFault, ...] = ()
    notes: tuple[str, ...] = Field((), description="Traps that a user should know.")
    evidence: Evidence = Field("unverified", description="How far the facts of this entry can be trusted.")
    sources: tuple[str, ...] = Field((), description="Where the facts were read: model cards, papers, code.")
    unsure: tuple[str, ...] = Field((), description="Facts of this entry that are less sure, with why.")

    @field_validator("revisions")
    @classmethod
    def _has_a_step(cls, value: str) -> str:
        return step_pattern(value, _GROUPS)

    def parse(self, revision: str) -> Label | None:
        """What a name says, or None if it does not belong to this series."""
        match = re.fullmatch(self.revisions, revision, re.ASCII)
        if match is None:
            return None
        named = match.groupdict()
        stage = named.get("stage") or ""
        if self.stage and not re.fullmatch(self.stage, stage):
            return None
        step = int(named["step"]) * self.step_unit
        tokens = None
        if named.get("tokens"):
            unit = _UNITS.get(named["unit"].upper()) if named.get("unit") else self.tokens_unit
            tokens = None if unit is None else int(Decimal(named["tokens"]) * unit)
        if tokens is None and self.tokens_per_step is not None:
            tokens = step * self.tokens_per_step
        return Label(step, tokens, stage)

    @property
    def expected_steps(self) -> tuple[int, ...]:
        """The published schedule, sorted; empty where none is known."""
        steps = {s for part in self.expected for s in ([part] if isinstance(part, int) else part.steps)}
        return tuple(sorted(steps))

    @property
    def trust(self) -> str:
        """How far to trust this entry, as a clause for the user; `unsure` says which facts are worse than that."""
        return f"{_TRUST[self.evidence]}; nothing was checked against the hub itself"
