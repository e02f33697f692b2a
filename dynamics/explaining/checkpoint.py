"""One checkpoint of an explanation: probabilities, logit lens, and the flowchart's numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from checkpoints.errors import UserError
from checkpoints.series import Checkpoint

from ..circuits.graph import Source
from .prompts import Question, token_text

if TYPE_CHECKING:
    from ..circuits.wired import Metric, Wired
    from .flow import Flow, NodeAt

__all__ = ["difference_of", "explain_checkpoint", "failed", "guess", "node"]

NOISE = 0.1
"""Logits: a difference between prompt and twin that is smaller is nothing to explain."""

ERRORS = 2.0
"""Standard errors of the twins' mean that the difference must exceed."""


def difference_of(answer: int, foil: int) -> Metric:
    """The metric: logit(answer) - logit(foil)."""
    return lambda logits: logits[:, answer] - logits[:, foil]


def guess(wired: Wired, question: Question, answer: int | None, foil: int | None) -> tuple[int, int]:
    """What was not given: the model's first choice for the prompt, and for the twin.

    Against random tokens, of which none is a twin, the foil is the second choice for the prompt.

    Raises:
        UserError: where its logits are not finite.
    """
    import torch

    def choices(ids: np.ndarray) -> list[int]:
        row = torch.from_numpy(ids)[None].to(wired.device)
        logits = wired.logits(row, torch.tensor([row.shape[1] - 1], device=wired.device))[0].float()
        if not bool(torch.isfinite(logits.amax())):  # -inf elsewhere: a token that cannot come
            raise UserError(
                "the final checkpoint's logits are not finite, so that nothing can be guessed",
                expected="a largest logit that is finite",
                remedy="give --answer and --foil",
            )
        return [int(i) for i in logits.argsort(descending=True)[:3]]

    if answer is None:
        answer = next(i for i in choices(question.ids) if i != foil)
    if foil is None:
        compared = question.twins[0] if question.how in ("given", "probe") else question.ids
        foil = next(i for i in choices(compared) if i != answer)
    return answer, foil


def explain_checkpoint(
    wired: Wired, tokenizer: Any, question: Question, answer: int, foil: int, checkpoint: Checkpoint, share: float
) -> tuple[dict[str, Any], Flow | None]:
    """One checkpoint without its nodes and edges, and the flowchart that they come from, if there is one."""
    import torch

    from .flow import find_flow
    from .lens import logit_lens

    ids = torch.from_numpy(question.ids)[None].to(wired.device)
    twins = torch.from_numpy(question.twins).to(wired.device)
    last = torch.full((len(twins),), ids.shape[1] - 1, device=wired.device)

    metric = difference_of(answer, foil)
    logits = wired.logits(ids, last[:1]).float()
    base = float(logits[0, answer] - logits[0, foil])
    if not (np.isfinite(base) and bool(torch.isfinite(logits.amax()))):  # -inf elsewhere: a token that cannot come
        return failed(checkpoint, "the model's logits are not finite"), None
    probabilities = logits.softmax(-1)[0]
    other = metric(wired.logits(twins, last).float()).double().cpu().numpy()
    if not np.isfinite(other).all():
        return failed(checkpoint, "the model's logits for the corrupted prompts are not finite"), None
    low = float(other.mean())
    lens = logit_lens(wired, ids, answer)
    part = {
        **_about(checkpoint),
        "state": "not measurable",
        "reason": _too_close(base, other),
        "answer_probability": float(probabilities[answer]),
        "foil_probability": float(probabilities[foil]),
        "answer_rank": int((logits[0] > logits[0, answer]).sum()),
        "top": [
            {"text": token_text(tokenizer, int(i)), "probability": float(probabilities[i])}
            for i in logits[0].argsort(descending=True)[:5]
        ],
        "logit_difference": base,
        "corrupted_difference": low,
        "faithfulness": None,
        "edges_kept": None,
        "edges_total": None,
        "nodes": [],
        "edges": [],
        "lens": {
            "top": [
                [[token_text(tokenizer, t), _finite(p)] for t, p in zip(row_t, row_p, strict=True)]
                for row_t, row_p in zip(lens.token.tolist(), lens.probability.tolist(), strict=True)
            ],
            "answer": [[_finite(p) for p in row] for row in lens.answer.tolist()],
        },
    }
    if part["reason"]:
        return part, None
    flow = find_flow(wired, ids, twins, metric, difference=base - low, low=low, share=share)
    if not np.isfinite(flow.faithfulness):
        return failed(checkpoint, "the attribution of the model's logits is not finite"), None
    reason = "" if flow.reached else _not_reached(flow, share)
    return part | {
        "state": "explained" if flow.reached else "not reached",
        "reason": reason,
        "faithfulness": flow.faithfulness,
        "edges_kept": len(flow.edges),
        "edges_total": flow.total,
    }, flow


def _not_reached(flow: Flow, share: float) -> str:
    """How far the kept edges come, and where the rest is."""
    kept = len(flow.edges)
    said = f"the {kept} strongest edges explain {flow.faithfulness:.0%} of the difference, not {share:.0%}; they hold "
    said += f"{flow.held:.0%} of the sizes of all attributions, {flow.total - kept:,} others the rest"
    if flow.faithfulness < 0:
        said += ", and together they do the opposite of what is attributed to each"
    return said


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _too_close(base: float, other: np.ndarray) -> str:
    """Why prompt and twins cannot be told apart; empty if they can."""
    difference = abs(base - float(other.mean()))
    error = float(other.std(ddof=1) / np.sqrt(len(other))) if len(other) > 1 else 0.0
    if difference > max(NOISE, ERRORS * error):
        return ""
    bound = (
        f"{NOISE} logits" if error * ERRORS <= NOISE else f"{ERRORS:g} standard errors ({ERRORS * error:.2f} logits)"
    )
    return f"prompt and corrupted prompts differ by {difference:.2f} logits, which is within {bound}"


def _about(checkpoint: Checkpoint) -> dict[str, Any]:
    return {
        "step": checkpoint.step,
        "tokens": checkpoint.tokens,
        "stage": checkpoint.stage,
        "label": checkpoint.label or f"step {checkpoint.step}",
    }


def failed(checkpoint: Checkpoint, reason: str) -> dict[str, Any]:
    """A checkpoint of which nothing is known."""
    nothing = ("answer_probability", "foil_probability", "answer_rank", "logit_difference", "corrupted_difference")
    empty = ("faithfulness", "edges_kept", "edges_total", "lens")
    return {
        **_about(checkpoint),
        "state": "failed",
        "reason": reason,
        **dict.fromkeys((*nothing, *empty)),
        "top": [],
        "nodes": [],
        "edges": [],
    }


def node(sources: Sequence[Source], at: NodeAt) -> dict[str, Any]:
    """A node of the flowchart, as JSON values."""
    source, position = at
    name, kind, layer, head = "logits", "logits", None, None
    if source < len(sources):
        name, layer, head = sources[source].name, sources[source].layer, sources[source].head
        kind = "embed" if layer is None else "mlp" if head is None else "head"
    return {"id": f"{name}@{position}", "kind": kind, "layer": layer, "head": head, "position": position}
