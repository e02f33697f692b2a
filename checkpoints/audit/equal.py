"""Several checkpoints hold the same weights: which of the labels can be right?

One label belongs to the weights, and the question is what is known about that. What the last step and the branch main
hold is published and used, so it is believed: a group with those weights is stale but for the last step. Weights that
neither of them holds could be any member's. And some are equal for a reason: a warm-up that starts at zero makes the
first update with a learning rate of zero, and step 1 is step 0 (EleutherAI/pythia issue 83).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from ..catalogue.entry import EqualByDesign
from .findings import AuditFinding, Kind, name_steps

__all__ = ["FIRST_UPDATE", "Judge"]

FIRST_UPDATE = EqualByDesign(
    steps=(0, 1),
    reason="the first update is made with a learning rate of zero where a warm-up starts at zero",
    source="https://github.com/EleutherAI/pythia/issues/83",
)
"""Holds for every series that begins with steps 0 and 1."""


@dataclass(frozen=True)
class Judge:
    """What the members of a group of equal checkpoints are judged by.

    Attributes:
        labels: label of every step of the series, by step.
        last: the last step of the training run, whether listed or not.
        main_is_last: whether the branch main is meant to hold the last step, rather than a model trained further.
        main_differs: whether main is known to hold other weights than the last step.
        design: what is equal on purpose, besides :data:`FIRST_UPDATE`.
    """

    labels: Mapping[int, str]
    last: int
    main_is_last: bool = True
    main_differs: bool = False
    design: tuple[EqualByDesign, ...] = ()

    @property
    def series(self) -> list[int]:
        """All steps, in order."""
        return list(self.labels)

    def designed(self, members: Collection[int]) -> EqualByDesign | None:
        """What explains that members are equal, or None if nothing explains more than one of them."""
        known = (*self.design, FIRST_UPDATE) if self.series[:2] == [0, 1] else self.design
        best = max(known, key=lambda d: len({*d.steps} & {*members}), default=None)
        return best if best is not None and len({*best.steps} & {*members}) > 1 else None

    def findings(
        self, members: Collection[int], *, equals_main: bool = False, at_fault: Collection[int] = ()
    ) -> list[AuditFinding]:
        """What to say about steps that hold the same weights.

        Args:
            members: the steps; a single one if only main holds its weights too.
            equals_main: whether main holds these weights.
            at_fault: members known to be out of place, where the weights themselves have been looked at.
        """
        design = self.designed(members)
        explained = {*design.steps} & {*members} if design is not None else set[int]()
        final = {self.last} & {*members} if self.main_is_last or not equals_main else set[int]()
        stale = False
        if {*at_fault} and {*members} - {*at_fault}:
            believed = {*members} - {*at_fault}
        elif equals_main or final:
            stale = True
            believed = explained if final & explained else final
        else:
            believed = explained
        wrong = {*members} - believed
        if stale:
            kind, reason = self._stale(wrong, members, equals_main)
        else:
            kind, reason = self._shared(members, believed)
        found = [AuditFinding(step, self.labels[step], kind, reason, True) for step in wrong]
        for step in believed:
            if design is not None and len(explained & believed) > 1 and step in explained:
                reason = f"{self._named(explained)} hold the same weights, as they should: {design.reason}"
                found.append(AuditFinding(step, self.labels[step], "equal by design", reason, False, design.source))
            elif wrong and (step != self.last or self.main_differs):
                reason = f"{self._named(wrong)} {'holds' if len(wrong) == 1 else 'hold'} its weights, too"
                reason += ", and main holds others" if step == self.last else ""
                found.append(AuditFinding(step, self.labels[step], "shared weights", reason, False))
        return sorted(found, key=lambda f: f.step)

    def _stale(self, wrong: Collection[int], members: Collection[int], equals_main: bool) -> tuple[Kind, str]:
        """What to say of members whose weights are main's or the last step's; the same for all, so that it groups."""
        whose = ["main"] * equals_main
        if self.last in wrong:
            whose = ["main, a model trained further"]
        elif self.last in members:
            whose.append(f"the last step, {self.last}")
        reason = f"serves the weights of {' and of '.join(whose)}"
        reason += f"; the last step, {self.last}, does not" if equals_main and self.main_differs else ""
        return "stale", reason

    def _shared(self, members: Collection[int], believed: Collection[int]) -> tuple[Kind, str]:
        """What to say of members whose weights are others', or of all if it is not known whose."""
        own = f"those of {self._named(believed)}" if believed else "and at most one label can be right"
        return "shared weights", f"{self._named(members)} hold the same weights, {own}"

    def _named(self, steps: Collection[int]) -> str:
        return name_steps(steps, self.series)
