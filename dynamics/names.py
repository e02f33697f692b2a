"""The one vocabulary of dimensions, sites and states; every other module takes its words from here."""

from __future__ import annotations

from typing import Literal, get_args

__all__ = ["CHECKPOINT", "DIMENSIONS", "LAYER", "POSITION", "PROMPT", "SITES", "Site", "Status"]

CHECKPOINT = "checkpoint"
PROMPT = "prompt"
POSITION = "position"
LAYER = "layer"

DIMENSIONS = {
    CHECKPOINT: "checkpoints of the series, by increasing optimizer step",
    PROMPT: "prompts of one probe",
    POSITION: "named token positions of a probe",
    LAYER: "transformer blocks, 0 is nearest to the input",
    "head": "attention heads within one layer",
    "d_model": "residual stream",
    "d_mlp": "MLP neurons within one layer",
    "d_head": "one attention head's output before the output projection",
    "key": "token positions attended to",
    "vocab": "token ids",
    "token": "token positions in a prompt, 0 is the first",
    "candidate": "the distinct answers of a probe",
    "group": "values of the label by which prompts are grouped",
    "group_of_prompts": "groups of a probe's prompts: the first half of them rank edges, the others check the circuit",
    "permutation": "0 is the real labels, the others are shuffled labels",
    "rank": "0 is the highest",
    "source": "what writes to the residual stream: embed, heads L0H0, MLPs L0M",
    "reader": "what reads from it: heads' inputs L0H0.q, L0H0.k, L0H0.v, MLPs L0M, logits",
    "half": "0 is the prompts that rank edges, 1 those that check the circuit",
    "size": "numbers of edges that were kept",
    "donor": "prompts whose parts are put into another prompt's run, by what they are to it",
    "exchanged": "named token positions at which parts are exchanged",
    "direction": "directions in the stream: true, fitted to shuffled labels, random",
    "steered": "those directions that are steered along or ablated",
    "strength": "multiples of the difference between class means that are added to the stream",
    "token_group": "groups of a prompt's tokens; rest is all others",
    "counterpart": "prompts whose tokens are put into another prompt, by what they are to it",
    "token_set": "sets of tokens whose probabilities are added up",
    "feature": "features of a dictionary",
    "snapshot": "checkpoints that a dictionary covers, by optimizer step",
    "example": "tokens on which a feature fires most, the strongest first",
    "window": "tokens around an example",
    "known_token": "token ids that examples mention",
    "logit_rank": "tokens by what a feature does to their logits: most promoted first, most suppressed last",
    "bound": "the two ends of an interval",
    "transition": "pairs of neighbouring snapshots, by the step of the later one",
    "sample": "a fixed sample of the weights' coordinates",
}
"""Dimension name to meaning."""

Site = Literal[
    "embed",
    "resid_pre",
    "resid_mid",
    "resid_post",
    "attn_out",
    "mlp_out",
    "z",
    "pattern",
    "mlp_post",
    "ln_final",
    "logits",
]
SITES: tuple[str, ...] = get_args(Site)
"""Named places in a model, in TransformerLens' terms without the block prefix."""

Status = Literal["pending", "complete", "failed", "masked"]
"""States of one checkpoint in a trace."""
