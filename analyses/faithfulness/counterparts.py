"""The probe as it is asked: with a counterpart for every wrong hint."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from dynamics.measurements import donor_label
from dynamics.probes import Label, Probe, tokenize

from .tokens import COUNTERPART

__all__ = ["OPERANDS", "as_asked"]

OPERANDS = ("a", "b")
"""Named positions of the operands."""


def as_asked(probe: Probe, tokenizer: Any, seed: int) -> Probe:
    """The probe with the labels ``foil_token`` (token id of the wrong hint's answer) and the counterpart's number.

    The counterpart of a prompt with a wrong hint is another one of the same difficulty, by chance, whose right and
    hinted answers both differ from both of this prompt's, so that what is said tells whose hint or whose operands were
    followed; -1 where there is none, and for all other prompts.
    """
    foils = tokenize(probe, tokenizer).foil_ids
    assert foils is not None and probe.answer is not None and probe.foil is not None
    labels: dict[str, tuple[Label, ...]] = {"foil_token": tuple(foils.tolist())}
    rng = np.random.default_rng(seed)
    rows = [i for i, hint in enumerate(probe.labels["hint"]) if hint == "wrong"]
    pair = {i: {probe.answer[i], probe.foil[i]} for i in rows}
    # prompts of one frame and one length are alike but for what is exchanged
    frame = {i: tuple(probe.labels[k][i] for k in ("difficulty", "template") if k in probe.labels) for i in rows}
    donor = np.full(len(probe), -1)
    for i in rows:
        others = [j for j in rows if frame[j] == frame[i] and not pair[i] & pair[j]]
        if others:
            donor[i] = others[int(rng.integers(len(others)))]
    labels[donor_label(COUNTERPART)] = tuple(donor.tolist())
    return replace(probe, labels={**probe.labels, **labels})
