"""What is known about published series of checkpoints: which there are, how their revisions are named, what is wrong.

One file per family in ``data/``; facts were read in November 2026 from model cards, papers, issues and other people's
code, and nothing was checked against the hub itself. So an entry says how far to trust it (:attr:`Entry.evidence`,
:attr:`Entry.unsure`), and where a list of refs can be had, that list counts and not the schedule given here.

Not catalogued, though their checkpoints are public, are series whose branch names say no step: Baichuan 2,
RedPajama-INCITE, OpenCoder and Lucie (labels in tokens or of their own kind), the FineWeb ablations (many short runs),
MAP-Neo (folders within one revision) and Pico (commits). A pattern of names cannot order them by optimizer step. Nor are
series here that transformers does not load.
"""

from __future__ import annotations

from .entry import Entry, EqualByDesign, KnownFault, Label, StepRange
from .families import catalogue, find_entry

__all__ = ["Entry", "EqualByDesign", "KnownFault", "Label", "StepRange", "catalogue", "find_entry"]
