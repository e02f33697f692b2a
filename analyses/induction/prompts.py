"""Random token sequences written twice, and a control whose second half is unrelated."""

from __future__ import annotations

from dynamics.probes import Probe
from dynamics.probes.sources import PlainWords
from dynamics.probes.sources import repeat_probes as _repeat_probes

__all__ = ["CONTROL", "REMEDY", "REPEATS", "repeat_probes"]

REPEATS, CONTROL = "induction_repeats", "induction_control"
REMEDY = "lower the option `period`, as in `{name: induction, options: {period: 8}}`, or leave out `induction`"
"""What to do where a tokenizer has too few words."""


def repeat_probes(words: PlainWords, prompts: int, period: int, seed: int) -> tuple[Probe, Probe]:
    """Sequences of ``period`` distinct random tokens, twice; and the same first halves before unrelated second halves."""
    return _repeat_probes((REPEATS, CONTROL), words, prompts, period, seed, what="tokens", remedy=REMEDY)
