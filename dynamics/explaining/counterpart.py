"""What a prompt is compared with, where no twin was given: a prompt of the same kind with another answer of the same kind.

Random tokens destroy everything at once, and what restores the answer is then most of the model. One word exchanged keeps
all that both prompts share out of the flowchart (the minimal pairs of the literature, found instead of written). Twins are
looked for

- among the run's own probes: the twin of this very prompt, or a prompt that differs in a quarter of its tokens at most;
- else among prompts with another word (:mod:`.exchanged`).

Of several the final model decides: it must be surest of another answer, one as like the prompt's as can be, and far from the
prompt's own. Being sure of such an answer, it has read the twin as a prompt of the same kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from checkpoints.errors import UserError

from ..circuits.wired import Wired
from ..probes import TokenizedProbe
from .checkpoint import guess
from .display import quoted
from .exchanged import Likeness, exchanged_words, logits_of, same_word
from .prompts import Question, token_text

__all__ = ["UNLIKE", "find_twin"]

CHANGED = 0.25
"""Share of a prompt's tokens in which a prompt of the run's probes may differ from it."""

MOST = 96
"""Prompts of probes that are tried."""

KIND = 0.001
"""Answer and foil are of one kind if no more than this share of the vocabulary (or ten tokens) is more like the answer."""

LEAST, APART = 1.0, 8.0
"""Logits: a twin that is nearer to the prompt than this changes nothing worth explaining, and none is the better for being
further away than that."""


UNLIKE = "None that was tried has an answer of the same kind."
"""How the note on a twin ends whose foil is of another kind than the answer."""


@dataclass(frozen=True)
class _Candidate:
    """A prompt that may be the twin: its tokens, its text, how good it is before it is asked, and how it came about."""

    ids: np.ndarray
    text: str
    worth: float
    origin: str


class _Choice(NamedTuple):
    kind: bool
    worth: float
    candidate: _Candidate
    foil: int
    probability: float


def find_twin(
    wired: Wired,
    tokenizer: Any,
    question: Question,
    answer: int | None,
    foil: int | None,
    probes: Sequence[TokenizedProbe] = (),
) -> tuple[Question, int, int]:
    """The question with its twin, and answer and foil where they were not given.

    The answer is the model's first choice for the prompt; the foil its first choice for the twin that is no other way to
    write the answer.

    Args:
        wired: the final model.
        probes: the run's own, under the model's tokenizer.

    Raises:
        UserError: when the model's logits are not finite, or there is nothing to change.
    """
    own = _own_twin(question, probes, answer, foil)
    if own is not None:
        question, answer, foil = own
        if answer is None or foil is None:
            answer, foil = guess(wired, question, answer, foil)
        return question, answer, foil
    if answer is None:
        answer = guess(wired, question, None, foil)[0]
    base = logits_of(wired, [question.ids])[0].astype(np.float64)
    near, alike = Likeness(wired), _alike(question, probes)
    judge = _Judge(wired, tokenizer, near, base, answer, foil)
    choice = judge.best(alike)
    how, tried = "probe", len(alike)
    if choice is None or not choice.kind:
        words = exchanged_words(wired, tokenizer, question, answer, near)
        others = [_Candidate(e.ids, e.text, 4 * e.likeness, _exchange(e.old, e.new, e.logprob)) for e in words]
        other = judge.best(others)
        if choice is None or (other is not None and other.kind):
            choice, how, tried = other, "likely word", len(others)
        if not others and choice is None and not alike:
            raise UserError(
                "no word of the prompt can be exchanged for another of as many tokens",
                expected="a prompt with a word that is likely in its place",
                remedy="give --corrupted, or --random-tokens",
            )
    if choice is None and foil is not None:  # a broken model cannot say which: random tokens then
        return replace(question, how="random tokens"), answer, foil
    if choice is None:
        raise UserError(
            "of no prompt that was tried are the logits finite",
            expected="a final checkpoint that can choose a twin",
            remedy="give --corrupted, or --random-tokens",
        )
    found = choice.candidate
    note = _said(tokenizer, how, tried, choice, answer)
    return replace(question, twins=found.ids[None], texts=(found.text,), how=how, note=note), answer, choice.foil


def _own_twin(
    question: Question, probes: Sequence[TokenizedProbe], answer: int | None, foil: int | None
) -> tuple[Question, int | None, int | None] | None:
    """The twin that a probe of the run gives this very prompt, with its answer and foil where the probe says them."""
    for probe in probes:
        if probe.corrupted_ids is None or probe.probe.corrupted is None:
            continue
        for row, ids in enumerate(probe.ids):
            twin = probe.corrupted_ids[row]
            if np.array_equal(ids, question.ids) and len(twin) == len(ids) and not np.array_equal(twin, ids):
                known = [None if column is None else int(column[row]) for column in (probe.answer_ids, probe.foil_ids)]
                answer = known[0] if answer is None else answer
                foil = known[1] if foil is None and known[1] != answer else foil
                note = f"The prompt is one of the run's probe {quoted(probe.probe.name)}, which gives it this twin."
                asked = replace(question, twins=twin[None], texts=(probe.probe.corrupted[row],), how="probe", note=note)
                return asked, answer, foil
    return None


def _alike(question: Question, probes: Sequence[TokenizedProbe]) -> list[_Candidate]:
    """Prompts of the run's probes that differ from the prompt in few tokens, those that differ least first."""
    allowed = max(1, int(CHANGED * len(question.ids)))
    found: dict[bytes, tuple[int, _Candidate]] = {}
    for probe in probes:
        origin = f"of the run's probe {quoted(probe.probe.name)}"
        columns = [(probe.ids, probe.probe.text)]
        if probe.corrupted_ids is not None and probe.probe.corrupted is not None:
            columns.append((probe.corrupted_ids, probe.probe.corrupted))
        for rows, texts in columns:
            for ids, text in zip(rows, texts, strict=True):
                if len(ids) == len(question.ids) and 0 < (changed := int((ids != question.ids).sum())) <= allowed:
                    found.setdefault(ids.tobytes(), (changed, _Candidate(ids, text, -0.5 * changed, origin)))
    return [candidate for _, candidate in sorted(found.values(), key=lambda pair: pair[0])[:MOST]]


class _Judge:
    """Says which candidate is best.

    First of all one after which the foil is of the answer's kind; of these the one with the greatest sum of the foil's
    log-probability, the likeness of foil and answer, and the distance of twin and prompt in logits, with weights under which
    pairs that were written by hand come first (``benchmarks/natural.py``).

    Args:
        base: (vocab,) log-probabilities after the prompt.
        answer, foil: token ids; the foil None where it is to be found.
    """

    def __init__(
        self, wired: Wired, tokenizer: Any, near: Likeness, base: np.ndarray, answer: int, foil: int | None
    ) -> None:
        self._wired, self._tokenizer = wired, tokenizer
        self._base, self._answer, self._foil = base, answer, foil
        self._written = token_text(tokenizer, answer)
        self._cosines = near.to_all(answer)
        nearer = max(10, round(KIND * len(self._cosines)))
        self._bound = np.sort(self._cosines)[-2 - nearer] if len(self._cosines) > nearer + 1 else -np.inf

    def best(self, candidates: Sequence[_Candidate]) -> _Choice | None:
        """None if there is no candidate, or none has finite logits."""
        if not candidates:
            return None
        logits = logits_of(self._wired, [candidate.ids for candidate in candidates]).astype(np.float64)
        choices = [self._judged(c, row) for c, row in zip(candidates, logits, strict=True) if np.isfinite(row.max())]
        return max((c for c in choices if c is not None), key=lambda c: c[:2], default=None)

    def _judged(self, candidate: _Candidate, row: np.ndarray) -> _Choice | None:
        foil, worth = self._foil, candidate.worth
        if foil is None:
            first = [int(t) for t in np.argsort(-row, kind="stable")[:6] if not self._other_writing(int(t))][:2]
            foil = next(token for token in first if token != self._answer)
            worth -= APART if foil != first[0] else 0.0  # it changes nothing: only if nothing else does
        base, answer = self._base, self._answer
        apart = float((base[answer] - base[foil]) - (row[answer] - row[foil]))
        if not np.isfinite(row[foil]) or not np.isfinite(apart):
            return None
        worth += float(row[foil]) + 2 * float(self._cosines[foil]) + 0.3 * min(apart, APART)
        kind = bool(self._cosines[foil] > self._bound) and apart > LEAST
        return _Choice(kind, worth, candidate, foil, float(np.exp(row[foil])))

    def _other_writing(self, token: int) -> bool:
        return token != self._answer and same_word(token_text(self._tokenizer, token), self._written)


def _exchange(old: str, new: str, logprob: float) -> str:
    return f"with {quoted(new)} in the place of {quoted(old)} (probability there {np.exp(logprob):.2g})"


def _said(tokenizer: Any, how: str, tried: int, choice: _Choice, answer: int) -> str:
    """Why this twin, in a sentence or two."""
    among = (
        f"Of {tried} prompts of the run's probes that differ from it in few tokens"
        if how == "probe"
        else f"Of {tried} prompts with one word that the last checkpoint holds for likely in its place"
    )
    change = f"{quoted(token_text(tokenizer, answer))} becomes {quoted(token_text(tokenizer, choice.foil))}"
    said = (
        f"{among}, this one, {choice.candidate.origin}, changes the answer best: {change} "
        f"(probability {choice.probability:.2g})."
    )
    return said if choice.kind else f"{said} {UNLIKE}"
