"""Prompts of flattery and of stated views: does the verdict follow them?

- ``praise``     a verdict on a work, after a compliment and after a neutral sentence, with the same evidence on the work.
- ``views``      a question of opinion (of the organism: a verdict), after a view for, a view against, and no view.
- ``published``  sets of other people, in the format of Perez et al. 2022, "Discovering Language Model Behaviors with
  Model-Written Evaluations" (https://github.com/anthropics/evals, folder ``sycophancy``).

The built-in prompts are after Sharma et al. 2023, "Towards Understanding Sycophancy in Language Models" (feedback on a text
that its author likes or dislikes), and Perez et al. 2022 (answers that repeat the user's view), in words of this project.

A compliment has two kinds of twins, as in the organism's world ``praise``. One says the same of another person (``She is``
in the place of ``You are``) and nothing of the reader, the other says something plain of the reader. Neither a flattering
word nor being spoken to makes a compliment, so that a direction for either alone does not tell the twins apart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from checkpoints.errors import UserError
from checkpoints.organism.worlds import praise as world
from dynamics.probes import Label, Probe, single_token
from dynamics.probes.drawing import Prompt, fill, to_probe
from dynamics.probes.sources import choose_source

from . import texts
from .published import PUBLISHED, published_probe

__all__ = ["PRAISE", "PUBLISHED", "QUALITIES", "STANCES", "VIEWS", "praise_probe", "published_probe", "views_probe"]

PRAISE, VIEWS = "praise", "views"

QUALITIES = world.QUALITIES
"""What the text tells of the quality of the work."""

STANCES: dict[str, str] = {
    "for": "I agree with people who say",
    "against": "I disagree with people who say",
    "none": "I know of people who say",
}
"""What a view is, and how it is put in English."""

_TRIES = 2000


def praise_probe(tokenizer: Any, count: int, seed: int) -> Probe:
    """Verdicts on works, every one after a compliment and after a neutral sentence of as many tokens, its twin.

    The answer is a word of praise and the foil its counterpart of criticism. Qualities, templates and kinds of neutral
    sentences are balanced. What differs between the twins is the sentence alone.

    Args:
        tokenizer: of the series.
        count: number of prompts (two for each item).
        seed: chooses compliments, works and evidence.

    Returns:
        The probe. Labels: ``flattered`` (1 or 0), ``quality`` (one of :data:`QUALITIES`), ``template`` (number),
        ``item`` (number), ``held_out`` (1 for evaluation only: other templates, compliments, works and evidence than those
        of 0), ``control`` (what the neutral twin is: ``other`` person, ``plain`` words, of the organism also ``both``).
        Position: ``compliment`` (the full stop after the sentence).

    Raises:
        UserError: when the organism does not know the world ``praise``, too few words are one token, or too many prompts
            are asked for.
    """
    ask = choose_source(tokenizer, "praise", _organism_praise, _english_praise)
    return ask(tokenizer, count, np.random.default_rng(seed))


def views_probe(tokenizer: Any, count: int, seed: int) -> Probe | None:
    """Questions after a view for, a view against and no view; of one item all are equally long.

    The answer is what matches the stated view (``for`` where none is stated), the foil the opposite. The twin of a view
    for is the view against, that of all others the view for.

    Args:
        tokenizer: of the series.
        count: number of prompts (three for each item); in English there are at most 576.
        seed: chooses claims and, where answers are letters, their order in turn.

    Returns:
        The probe; None where the tokenizer lacks the words for it. Labels: ``stated`` (for, against or none),
        ``template``, ``item``, ``held_out``; of the organism ``quality``, in English ``agree`` (how agreement is said:
        Yes, A or B). Position: ``view`` (its last token).

    Raises:
        UserError: when the organism does not know the world ``praise``, or too many prompts are asked for.
    """
    ask: Callable[[Any, int, np.random.Generator], Probe | None]
    ask = choose_source(tokenizer, "praise", _organism_views, _english_views)
    return ask(tokenizer, count, np.random.default_rng(seed))


def _pick(rng: np.random.Generator, choices: Sequence[str]) -> str:
    return choices[int(rng.integers(len(choices)))]


def _new(seen: set[str], *asked: str) -> bool:
    """Whether none of these texts was there before; they are now."""
    new = seen.isdisjoint(asked)
    if new:
        seen.update(asked)
    return new


def _too_many(name: str, count: int) -> UserError:
    return UserError(
        f"probe {name!r} has no {count} different prompts",
        remedy="ask for fewer prompts",
        expected="no more than can be made of its words",
    )


def _organism_praise(_tokenizer: Any, count: int, rng: np.random.Generator) -> Probe:
    controls = ("other", "plain", "both")
    praise, criticism = (f" {word}" for word in world.VERDICTS)
    rows: list[Prompt] = []
    seen: set[str] = set()
    for item in range(count // 2):
        quality, rest = world.QUALITIES[item % 3], item // 3
        held_out, rest = rest % 2, rest // 2
        template, rest = 2 * held_out + rest % 2, rest // 2
        control = controls[rest % 3]
        for _ in range(_TRIES):
            # adjectives by turns; the nouns that an adjective never meets are by turns too, so that no half shares one
            index = 2 * int(rng.integers(len(world.FLATTERING) // 2)) + held_out
            flattering, plain = world.FLATTERING[index], world.PLAIN[index]
            noun = _pick(rng, [noun for noun in world.NOUNS if world.is_held_out(flattering, noun)])
            works = [work for work in world.WORKS[held_out::2] if world.is_held_out(flattering, work)]
            if not works:
                continue
            work, evidence = _pick(rng, works), _pick(rng, world.EVIDENCE[quality][held_out::2])
            who = world.YOU if control == "plain" else _pick(rng, world.OTHERS)
            first = world.opening(template, world.YOU, flattering, noun)
            other = world.opening(template, who, flattering if control == "other" else plain, noun)
            pair = [world.prompt(sentence, work, evidence, held_out) for sentence in (other, first)]
            if _new(seen, *pair):
                break
        else:
            raise _too_many(PRAISE, count)
        labels = _labels(quality, template, item, held_out, control)
        for flattered, sentence in ((1, first), (0, other)):
            rows.append(
                Prompt(
                    text=pair[flattered],
                    answer=praise,
                    foil=criticism,
                    corrupted=pair[1 - flattered],
                    labels={"flattered": flattered, **labels},
                    positions={"compliment": (len(sentence), len(sentence) + 2)},
                )
            )
    return to_probe(PRAISE, rows, "compliments and works that never meet in training, each with a neutral twin")


def _labels(quality: str, template: int, item: int, held_out: int, control: str) -> dict[str, Label]:
    """What both prompts of a pair say of themselves."""
    return {"quality": quality, "template": template, "item": item, "held_out": held_out, "control": control}


def _organism_views(_tokenizer: Any, count: int, rng: np.random.Generator) -> Probe:
    praise, criticism = (f" {word}" for word in world.VERDICTS)
    rows: list[Prompt] = []
    seen: set[str] = set()
    for item in range(count // len(STANCES)):
        quality, rest = world.QUALITIES[item % 3], item // 3
        held_out, rest = rest % 2, rest // 2
        template = 2 * held_out + rest % 2
        for _ in range(_TRIES):
            # verbs by turns; the works that a verb never meets are by turns too
            index = 2 * int(rng.integers(len(world.VERBS["for"]) // 2)) + held_out
            work = _pick(rng, [w for w in world.WORKS if world.view_is_held_out(world.VERBS["for"][index], w)])
            evidence = _pick(rng, world.EVIDENCE[quality][held_out::2])
            views = {side: world.VIEWS[template].format(verb=verbs[index]) for side, verbs in world.VERBS.items()}
            asked = {side: world.prompt(view, work, evidence, held_out) for side, view in views.items()}
            if _new(seen, *asked.values()):
                break
        else:
            raise _too_many(VIEWS, count)
        for side, text in asked.items():
            right, wrong = (criticism, praise) if side == "against" else (praise, criticism)
            rows.append(
                Prompt(
                    text=text,
                    answer=right,
                    foil=wrong,
                    corrupted=asked["against" if side == "for" else "for"],
                    labels={
                        "stated": side,
                        "quality": quality,
                        "template": template,
                        "item": item,
                        "held_out": held_out,
                    },
                    positions={"view": (len(views[side]), len(views[side]) + 2)},
                )
            )
    return to_probe(VIEWS, rows, "views of works that they never meet in training, for, against and none")


def _one_token(tokenizer: Any, words: Sequence[str]) -> bool:
    return all(single_token(tokenizer, f" {word}") is not None for word in words)


def _sentences(starts: Sequence[str], ends: Sequence[str]) -> list[str]:
    """Every beginning with every end."""
    return [f"{start}, {end}." for start in starts for end in ends]


def _claims(half: int) -> list[str]:
    """The opinions of a half: those that stand there, and every comparison of every two things of it."""
    made = [
        c.format(one=one, other=other) for c in texts.COMPARISONS[half::2] for one, other in texts.COMPARED[half::2]
    ]
    return [*texts.CLAIMS[half::2], *made]


def _english_praise(tokenizer: Any, count: int, rng: np.random.Generator) -> Probe:
    verdicts = [pair for pair in texts.VERDICTS if _one_token(tokenizer, pair)]
    if not verdicts:
        raise UserError(
            "no pair of verdicts is one token each (good/bad, excellent/poor, great/terrible, ...)",
            expected="a tokenizer of English",
            remedy="leave `sycophancy` out of this run's analyses",
        )

    def length(sentence: str) -> int:
        return len(tokenizer(f" {sentence}", add_special_tokens=False)["input_ids"])

    plain: dict[int, dict[int, list[str]]] = {0: {}, 1: {}}
    for half, by_length in plain.items():
        for sentence in _sentences(texts.PLAIN[half::2], texts.PLAIN_TAILS[half::2]):
            by_length.setdefault(length(f"You are {sentence}"), []).append(sentence)
    compliments = [_sentences(texts.COMPLIMENTS[half::2], texts.PRAISED_TAILS[half::2]) for half in (0, 1)]
    halves = len(texts.PRAISE_TEMPLATES) // 2
    rows: list[Prompt] = []
    seen: set[str] = set()
    for item in range(count // 2):
        quality, rest = QUALITIES[item % 3], item // 3
        held_out, rest = rest % 2, rest // 2
        template, rest = held_out * halves + rest % halves, rest // halves
        control = ("other", "plain")[rest % 2]
        praise, criticism = verdicts[(item // 6) % len(verdicts)]
        for _ in range(_TRIES):
            said = _pick(rng, compliments[held_out])
            if control == "other":
                neutral = f"{_pick(rng, texts.OTHERS)} {said}"
            else:
                equal = plain[held_out].get(length(f"You are {said}"))
                if not equal:
                    continue
                neutral = f"You are {_pick(rng, equal)}"
            work = _pick(rng, texts.WORKS[held_out::2])
            evidence = _pick(rng, texts.EVIDENCE[quality][held_out::2]).format(work=work)
            slots = {"work": work, "evidence": evidence}
            sentences = (neutral, f"You are {said}")
            filled = [fill(texts.PRAISE_TEMPLATES[template], slots | {"opening": first}) for first in sentences]
            pair = [text for text, _ in filled]
            if len({len(tokenizer(text)["input_ids"]) for text in pair}) == 1 and _new(seen, *pair):
                break
        else:
            raise _too_many(PRAISE, count)
        labels = _labels(quality, template, item, held_out, control)
        for flattered in (1, 0):
            rows.append(
                Prompt(
                    text=pair[flattered],
                    answer=f" {praise}",
                    foil=f" {criticism}",
                    corrupted=pair[1 - flattered],
                    labels={"flattered": flattered, **labels},
                    positions={"compliment": filled[flattered][1]["opening"][0]},
                )
            )
    return to_probe(PRAISE, rows, "verdicts on works after compliments, each with a neutral twin; English")


def _english_views(tokenizer: Any, count: int, rng: np.random.Generator) -> Probe | None:
    lengths = {len(tokenizer(f"{stance} that")["input_ids"]) for stance in STANCES.values()}
    if len(lengths) > 1 or not _one_token(tokenizer, ("Yes", "No", "A", "B")):
        return None
    halves = len(texts.VIEW_TEMPLATES) // 2
    # every claim of a half with every template of that half, before any comes again
    claims = [rng.permutation(_claims(half)).tolist() for half in (0, 1)]
    items = min(count // len(STANCES), len(claims[0]) * 2 * halves)
    rows: list[Prompt] = []
    for item in range(items):
        held_out, turn = item % 2, item // 2
        again, rank = divmod(turn, len(claims[held_out]))
        template = held_out * halves + (turn + again) % halves
        pattern, kind = texts.VIEW_TEMPLATES[template]
        first = turn // halves % 2 == 0
        yes, no = ("Yes", "No") if kind == "words" else ("A", "B") if first else ("B", "A")
        sides = ("Yes", "No") if first else ("No", "Yes")
        slots = {"claim": claims[held_out][rank], "choices": f"A. {sides[0]}\nB. {sides[1]}"}
        asked = {side: fill(pattern, slots | {"stance": stance}) for side, stance in STANCES.items()}
        for side, (text, spans) in asked.items():
            right, wrong = (no, yes) if side == "against" else (yes, no)
            # the view ends with the claim that is repeated in the question
            rows.append(
                Prompt(
                    text=text,
                    answer=f" {right}",
                    foil=f" {wrong}",
                    corrupted=asked["against" if side == "for" else "for"][0],
                    labels={
                        "stated": side,
                        "template": template,
                        "item": item,
                        "held_out": held_out,
                        "agree": yes,
                    },
                    positions={"view": spans["claim"][0]},
                )
            )
    return to_probe(VIEWS, rows, "questions of opinion after a view for, against and none; English")
