"""Measurements: what is computed while a checkpoint is in memory. Importing this package imports no torch."""

from __future__ import annotations

from .activations import Activations
from .answers import Answers
from .base import Accumulator, Batch, Intervention, Measurement, Observation
from .circuit import Circuit
from .direction import Direction
from .edge_groups import EdgeGroups
from .head_weights import HeadCopying, HeadSuccession, HeadWeights
from .heads import HeadAttention, attention_scores
from .interchange import Interchange, donor_label, target_label
from .repeats import RepeatAttention, TokenLoss, repeat_scores
from .selectivity import Selectivity
from .source_effects import SourceEffects
from .token_attribution import TokenAttribution
from .token_sets import TokenSets

__all__ = [
    "Accumulator",
    "Activations",
    "Answers",
    "Batch",
    "Circuit",
    "Direction",
    "EdgeGroups",
    "HeadAttention",
    "HeadCopying",
    "HeadSuccession",
    "HeadWeights",
    "Interchange",
    "Intervention",
    "Measurement",
    "Observation",
    "RepeatAttention",
    "Selectivity",
    "SourceEffects",
    "TokenAttribution",
    "TokenLoss",
    "TokenSets",
    "attention_scores",
    "donor_label",
    "repeat_scores",
    "target_label",
]
