"""Organisms that train in a moment, or whose worlds enter one after the other."""

from __future__ import annotations

from checkpoints.organism import OrganismConfig, WorldEntry

SMALL = OrganismConfig(steps=10, checkpoints=5, layers=1, d_model=16, heads=2, batch=4)
LATE = OrganismConfig(
    steps=40,
    batch=16,
    curriculum={
        "english": WorldEntry(share=0.5),
        "addition": WorldEntry(share=0.2, from_step=7),
        "french": WorldEntry(share=0.2, from_step=20),
        "induction": WorldEntry(share=0.1, from_step=39),
    },
)
