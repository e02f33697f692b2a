"""Sums in pairs: with a twin that differs in the ones digit alone, and with donors from the other contexts.

In a pair, the second operand's ones digit is another one, so that everything but the ones digit of the sum stays: the
digits that are written already (carry, tens) are right for both, and the twin's ones digit is the foil. The twin of
every twin is thus the prompt.

For exchanges every sum is asked in every context. A donor is another sum, in the same context (``own``) or in another
one (``other``); of a control (``same``) the ones digit is the prompt's own, so that nothing should move.
"""

from __future__ import annotations

import numpy as np

from checkpoints.errors import UserError
from checkpoints.organism.worlds import addition as world
from dynamics.measurements import donor_label, target_label
from dynamics.probes import Label, Probe
from dynamics.probes.drawing import Prompt, to_probe

from .prompts import SumPrompts

__all__ = ["CONTEXTS", "DONORS", "EXCHANGE", "exchange_probe", "pair_probe_name", "pair_probes"]

CONTEXTS = world.CONTEXTS
EXCHANGE = "addition_exchange"
DONORS = ("own", "other", "same")

Triple = tuple[int, int, int]
"""First operand, second operand, second operand of the twin."""


def pair_probe_name(context: str) -> str:
    """The name of a context's probe."""
    return f"addition_pairs_{context}"


def pair_probes(sums: SumPrompts, per_context: int, seed: int) -> list[Probe]:
    """Sums with their twins, one probe per context, on different operands in each.

    For the organism neither a sum nor its twin occurs in training, in any context or order.

    Labels: ``operand_a``, ``operand_b``, ``operand_twin``, ``ones`` (last digit of the sum).
    """
    rng = np.random.default_rng(seed + 2)
    triples = _triples(sums, per_context * len(CONTEXTS), rng)
    probes = []
    for number, context in enumerate(CONTEXTS):
        mine = triples[number :: len(CONTEXTS)]
        rows = []
        for a, b, twin in mine:
            (text, right), (corrupted, wrong) = sums.last(a, b, context), sums.last(a, twin, context)
            labels = {"operand_a": a, "operand_b": b, "operand_twin": twin, "ones": (a + b) % 10}
            rows.append(Prompt(text, right, wrong, corrupted, labels))
        description = f"sums in context {context}; in the twin the second operand ends in another digit"
        probes.append(to_probe(pair_probe_name(context), rows, description))
    return probes


def exchange_probe(sums: SumPrompts, count: int, seed: int) -> Probe:
    """Sums, each in every context, with donors for ``Interchange``.

    The target is what the donor's sum is answered in the context of the prompt; that of the control ``same`` is the one
    of ``other``, so that both look for the same answer.

    Labels: ``context``, ``pair`` (number of the sum), ``ones``, and donors and targets of :data:`DONORS`.
    """
    rng = np.random.default_rng(seed + 3)
    chosen = _twice(sums, count, rng)
    outcome = np.array([(a + b) % sums.modulus for a, b in chosen])
    rows = [(item, context) for item in range(len(chosen)) for context in CONTEXTS]
    number = {row: i for i, row in enumerate(rows)}
    prompts = []
    for item, context in rows:
        others = [c for c in CONTEXTS if c != context]
        elsewhere = others[(item + CONTEXTS.index(context)) % len(others)]  # each in turn
        moved = int(rng.choice(np.flatnonzero(outcome != outcome[item])))
        alike = int(rng.choice(np.setdiff1d(np.flatnonzero(outcome == outcome[item]), [item])))
        donors = {"own": number[moved, context], "other": number[moved, elsewhere], "same": number[alike, elsewhere]}
        labels: dict[str, Label] = {"context": context, "pair": item, "ones": sum(chosen[item]) % 10}
        for donor, who in donors.items():
            labels |= {donor_label(donor): who, target_label(donor): number[moved, context]}
        prompts.append(Prompt(*sums.last(*chosen[item], context), labels=labels))
    return to_probe(EXCHANGE, prompts, "sums in every context, with donors of another ones digit and of the same")


def _triples(sums: SumPrompts, count: int, rng: np.random.Generator) -> list[Triple]:
    """Sums and twins, no two of which share operands, in no order."""
    known = set(sums.operands)
    every = [
        (a, b, twin)
        for a, b in sums.operands
        for twin in range(b - b % 10, b - b % 10 + 10)
        if twin != b and (a, twin) in known and (a + twin) // 10 == (a + b) // 10
    ]
    used: set[tuple[int, int]] = set()
    chosen: list[Triple] = []
    for i in rng.permutation(len(every)):
        a, b, twin = every[i]
        pairs = {(min(a, x), max(a, x)) for x in (b, twin)}
        if len(pairs) == 2 and not pairs & used:
            used |= pairs
            chosen.append((a, b, twin))
        if len(chosen) == count:
            return chosen
    raise UserError(
        f"{count} sums with twins were asked for, there are {len(chosen)}",
        remedy="lower `pairs_per_context`",
        expected="no more than there are sums with twins",
    )


def _twice(sums: SumPrompts, count: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Operands, at least two of every outcome."""
    by_outcome: dict[int, list[tuple[int, int]]] = {}
    for a, b in sums.operands:
        if a <= b:
            by_outcome.setdefault((a + b) % sums.modulus, []).append((a, b))
    wanted = max(2, count // 2)
    usable = [o for o, pairs in sorted(by_outcome.items()) if len(pairs) >= max(2, -(-count // wanted))]
    outcomes = rng.permutation(usable)[:wanted]
    chosen = []
    for i, outcome in enumerate(outcomes):
        size = count // len(outcomes) + (i < count % len(outcomes))
        pairs = by_outcome[int(outcome)]
        if size > len(pairs):
            raise UserError(
                f"{count} sums to exchange were asked for, there are fewer",
                remedy="lower `exchanged`",
                expected="no more than there are sums to exchange",
            )
        chosen += [pairs[i] for i in rng.permutation(len(pairs))[: max(2, size)]]
    return chosen
