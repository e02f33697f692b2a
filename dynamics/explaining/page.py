"""The page of an explanation, and a figure of one of its checkpoints.

The page is one HTML text that needs nothing else: no network, no font, no library. Its policy
(``Content-Security-Policy``) forbids every request and lets only the page's own script and style run, known by their
hashes; whatever a prompt or a token holds, it is text. What does not change with the checkpoint is drawn here; the
script shows, hides and weighs it.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt
from textwrap import wrap
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from checkpoints.errors import UserError

from ..charting import content_hash, inert_json, source
from .display import guessed_in_words, number, percent, quoted, short_step, shorten, visible, visible_prose
from .drawing import (
    TOKEN_SIZE,
    Drawing,
    ablated_in_words,
    crossing_edges,
    draw,
    says,
    sign_of,
    site_in_words,
    size_of,
    splits,
)
from .over_time import chart, height_of, slider_ticks
from .schema import Example, ExplainedCheckpoint, Explanation, Feature, Lens, ShownAttention, check_explanation

__all__ = ["explanation_page", "explanation_svg"]

_SCRIPTS = (
    "flow.js",
    "features.js",
    "panels.js",
    "ablations.js",
    "attention.js",
    "groups.js",
    "changes.js",
    "page.js",
    "fragment.js",
)
"""Joined in this order into one function, so that they share names with each other and with nothing else; without
``features.js``, ``ablations.js`` and ``attention.js`` on pages that show none."""

_BEFORE, _AFTER = 26, 12
"""Characters that are shown before and after a token on which a feature fires."""


def explanation_page(explanation: Mapping[str, Any]) -> str:
    """A self-contained HTML page with a slider over the checkpoints.

    Args:
        explanation: as in ``docs/explain-format.md``.

    Raises:
        UserError: when ``explanation`` does not follow the format.
    """
    checked = check_explanation(explanation)
    drawing = draw(checked)
    environment = _environment()

    def joined(*names: str) -> str:
        without = {
            "features": checked.dictionary is None,
            "ablations": checked.ablation is None,
            "attention": checked.format < 4,
        }
        kept = [name for name in names if not without.get(name.partition(".")[0], False)]
        return "\n".join(source("dynamics.explaining", name) for name in kept)

    style = joined("page.css", "groups.css", "features.css", "ablations.css", "attention.css")
    script = f'"use strict";\n(() => {{\n{joined(*_SCRIPTS)}\n}})();\n'
    return environment.get_template("page.html.j2").render(
        e=checked,
        drawing=drawing,
        chart=chart(checked),
        ticks=slider_ticks(checked.checkpoints),
        scale=_scale(drawing.strongest),
        data=inert_json(_payload(checked, drawing)),
        style=Markup(style),
        script=Markup(script),
        style_hash=content_hash(style),
        script_hash=content_hash(script),
    )


def explanation_svg(explanation: Mapping[str, Any], checkpoint: int) -> str:
    """The flowchart of one checkpoint as an SVG picture for a paper.

    Sign is shown by colour, dashes and the numbers' signs, so that it survives a print in grey.

    Args:
        checkpoint: index into the explanation's checkpoints; negative ones count from the last.

    Raises:
        UserError: when ``explanation`` does not follow the format, or has no such checkpoint.
    """
    checked = check_explanation(explanation)
    count = len(checked.checkpoints)
    if not -count <= checkpoint < count:
        raise UserError(
            f"there is no checkpoint number {checkpoint}",
            expected=f"a number from 0 to {count - 1}",
            remedy="count the checkpoints of the explanation from 0",
        )
    index = checkpoint % count
    drawing = draw(checked)
    shown = checked.checkpoints[index]
    scores = drawing.scores[index]
    width = max(drawing.layout.width, 560.0)
    strongest = max((size_of(score) for _, score in scores), default=0.0)
    return (
        _environment()
        .get_template("figure.svg.j2")
        .render(
            e=checked,
            drawing=drawing,
            checkpoint=shown,
            nodes=[(drawing.nodes[i], score) for i, score in shown.nodes],
            edges=[
                (drawing.edges[i], score, _stroke_width(score, drawing.strongest), _opacity(score, strongest))
                for i, score in scores
            ],
            labels=[
                (label, _edge_label(drawing.edges[label.edge].port, dict(scores)[label.edge]))
                for label in drawing.labels[index]
            ],
            width=width,
            message=wrap(says(shown), int(width / 9)),
            caption=wrap(_caption(checked, shown), int(width / 5.4)),
            scale=_scale(drawing.strongest),
        )
    )


def _caption(e: Explanation, c: ExplainedCheckpoint) -> str:
    tokens = f", {_tokens(c.tokens)} tokens" if c.tokens is not None else ""
    split = f"{splits(e, c)} " if e.dictionary is not None else ""
    return (
        f"{visible(e.run)}, step {c.step:,}{tokens}: {quoted(e.answer.text)} against {quoted(e.foil.text)}. {says(c)} {split}"
        f"Numbers: attribution in logits of {visible(e.metric)}. Corrupted: {visible(e.corrupted.note)}"
    )


def _edge_label(port: str, score: float | None) -> str:
    return number(score, sign=True) + ("" if port == "in" else f" {port}")


def _opacity(score: float | None, strongest: float) -> float:
    """Weak edges are faded, on the checkpoint's own scale."""
    return round(0.16 + 0.74 * sqrt(size_of(score) / (strongest or 1.0)), 2)


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("dynamics.explaining"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "guessed": guessed_in_words,
        "number": number,
        "percent": percent,
        "prose": visible_prose,
        "quoted": quoted,
        "visible": visible,
        "short_step": short_step,
        "sign": sign_of,
    }
    environment.globals |= {
        "ablated_in_words": ablated_in_words,
        "stroke_width": _stroke_width,
        "says": says,
        "site_in_words": site_in_words,
        "token_size": TOKEN_SIZE,
    }
    return environment


def _stroke_width(score: float | None, strongest: float) -> float:
    """Width of an edge: proportional to its attribution on a scale that all checkpoints share, and never invisible."""
    return round(0.7 + 5.3 * size_of(score) / (strongest or 1.0), 2)


def _scale(strongest: float) -> tuple[float, ...]:
    """Attributions that the legend shows the width of.

    >>> _scale(3.17)
    (0.3, 1.0, 3.0)
    """
    if not strongest:
        return ()
    digits = f"{strongest:.0e}"
    top = float(digits) if float(digits) <= strongest else float(digits) - float("1e" + digits.partition("e")[2])
    top = top or strongest
    return tuple(float(f"{top / part:.1g}") for part in (10, 3, 1))


def _payload(e: Explanation, drawing: Drawing) -> dict[str, Any]:
    """What the script needs, as flat as it can be: lists of pairs are written one after the other."""
    vocabulary: dict[str, int] = {}
    checkpoints = [_checkpoint(e, drawing, index, c, vocabulary) for index, c in enumerate(e.checkpoints)]
    return (
        {
            "nodes": [[node.name, node.id] for node in drawing.nodes],
            "edges": [[edge.source, edge.target, edge.port, edge.curve.path] for edge in drawing.edges],
            "strongest": _short(drawing.strongest),
            "checkpoints": checkpoints,
            "positions": [f"{i} {quoted(token)}" for i, token in enumerate(e.tokens)],
            "layers": e.layers,
            "answer": quoted(e.answer.text),
            "across": [round(x, 1) for x in chart(e)["across"]],
            "vocabulary": list(vocabulary),
        }
        | _features(e, drawing)
        | _ablations(e)
    )


def _ablations(e: Explanation) -> dict[str, Any]:
    """What the script needs of all ablations: their names, and what was done, in words."""
    if e.ablation is None:
        return {}
    return {"ablations": [visible(name) for name in e.ablation.names], "ablated_in_words": ablated_in_words(e)}


def _features(e: Explanation, drawing: Drawing) -> dict[str, Any]:
    """What the script needs of a dictionary: what each feature is, and which edges its features split."""
    if e.dictionary is None:
        return {}
    return {
        "features": [
            [feature.feature, _born(feature), [_example(example) for example in feature.examples]]
            for feature in e.dictionary.features
        ],
        "which": [[i, node.feature] for i, node in enumerate(e.nodes) if node.feature is not None],
        "errors": [i for i, node in enumerate(e.nodes) if node.kind == "error"],
        "columns": [[i, node.position] for i, node in enumerate(e.nodes) if node.in_dictionary],
        "crossing": [list(pair) for pair in crossing_edges(e, drawing.edges)],
    }


def _born(feature: Feature) -> str:
    birth = feature.birth
    if birth is None:
        return "when it was born is not known"
    if birth.absent is None:
        return f"there since step {birth.present:,}, the first one covered"
    return f"born between step {birth.absent:,} and step {birth.present:,}"


def _example(example: Example) -> list[str]:
    """A token with what stands around it, in one line each."""
    before, after = (" ".join(visible_prose(text).split()) for text in (example.before, example.after))
    if len(before) > _BEFORE:
        kept = before[-_BEFORE:]
        before = "… " + (kept.partition(" ")[2] or kept)  # from a whole word on, where there is one
    token = visible(example.token.strip(" ") or example.token)
    return [before, token, shorten(after, _AFTER), number(example.activation)]


def _checkpoint(
    e: Explanation, drawing: Drawing, index: int, c: ExplainedCheckpoint, vocabulary: dict[str, int]
) -> dict[str, Any]:
    more = [f"{_tokens(c.tokens)} tokens"] if c.tokens is not None else []
    more += [visible(c.stage)] if c.stage else []
    more += [visible(c.label)] if c.label not in ("", f"step{c.step}") else []
    kept = f"{c.edges_kept:,} of {c.edges_total:,}" if c.edges_kept is not None and c.edges_total is not None else "–"
    return (
        {
            "title": f"step {c.step:,}",
            "more": " · ".join(more),
            "state": c.state,
            "says": says(c),
            "numbers": [
                percent(c.answer_probability),
                percent(c.foil_probability),
                "–" if c.answer_rank is None else f"{c.answer_rank + 1:,}",
                number(c.logit_difference, sign=True),
                number(c.corrupted_difference, sign=True),
                percent(c.faithfulness),
                kept,
            ],
            "probabilities": [height_of(c.answer_probability), height_of(c.foil_probability)],
            "top": [[visible(t.text), percent(t.probability), _short(t.probability)] for t in c.top],
            "nodes": [_short(x) for pair in c.nodes for x in pair],
            "edges": [_short(x) for pair in drawing.scores[index] for x in pair],
            "labels": [x for label in drawing.labels[index] for x in (label.edge, label.x, label.y)],
            "lens": _lens(c.lens, vocabulary) if c.lens is not None else None,
        }
        | _splits(e, c)
        | _ablated(c)
        | ({} if c.attention is None else {"attention": [_attention(look) for look in c.attention]})
    )


def _splits(e: Explanation, c: ExplainedCheckpoint) -> dict[str, Any]:
    return {"splits": splits(e, c), "active": [_short(x) for row in c.split.active for x in row]} if c.split else {}


def _ablated(c: ExplainedCheckpoint) -> dict[str, Any]:
    """The rows of a checkpoint, and the metric as the model is."""
    if c.ablated is None:
        return {}
    rows = [
        [number, *map(_short, values), None if first is None else quoted(first), _short(likely)]
        for number, *values, first, likely in c.ablated
    ]
    return {"ablated": rows, "difference": _short(c.logit_difference)}


def _attention(look: ShownAttention) -> list[Any]:
    """Head, position looked at, weights, and what the score is made of."""
    lists = [[[*names, _short(value)] for *names, value in found] for found in (look.queries, look.keys, look.parts)]
    return [look.head, look.token, *map(_short, (look.weight, look.corrupted, look.score, look.rest)), *lists]


def _lens(lens: Lens, vocabulary: dict[str, int]) -> dict[str, list[float | None]]:
    """Both tables row by row; tokens as numbers in a list that all checkpoints share, because most of them recur."""
    top: list[float | None] = []
    for row in lens.top:
        for text, probability in row:
            top += [vocabulary.setdefault(shorten(visible(text), 24), len(vocabulary)), _thousandth(probability)]
    return {"top": top, "answer": [_thousandth(p) for row in lens.answer for p in row]}


def _thousandth(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _short(value: float | None) -> float | None:
    """Four digits are more than is ever shown."""
    return value if value is None or isinstance(value, int) else float(f"{value:.4g}")


def _tokens(count: int) -> str:
    """A count of tokens.

    >>> _tokens(512), _tokens(2097152), _tokens(300000000000)
    ('512', '2.1 million', '300 billion')
    """
    for size, word in ((10**12, " trillion"), (10**9, " billion"), (10**6, " million")):
        if count >= size:
            return f"{count / size:.3g}{word}"
    return f"{count:,}"
