"""A probe made in code: what is given is taken as meant, or refused with what was seen, what belongs there and what to do."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import pytest

from checkpoints.errors import UserError
from dynamics.measurements import Activations, Interchange, SourceEffects, TokenAttribution
from dynamics.measurements.base import require_positions
from dynamics.models.architecture import ModelShape
from dynamics.probes import LAST, Probe, TokenizedProbe

SHAPE = ModelShape(layers=1, heads=1, d_model=4, d_head=4, d_mlp=4, vocab=5)


def probe(**given: Any) -> Probe:
    """Two prompts with everything that a probe can have, some of it changed."""
    usual: dict[str, Any] = {
        "name": "capitals",
        "text": ("The capital of France is", "The capital of Italy is"),
        "answer": (" Paris", " Rome"),
        "foil": (" Rome", " Paris"),
        "corrupted": ("The capital of Italy is", "The capital of France is"),
        "labels": {"language": ("english", "english"), "letters": (2, 3.5)},
        "positions": {"country": ("France", (15, 20))},
    }
    return Probe(**(usual | given))


def test_some_prompts_of_a_probe_have_all_that_they_had() -> None:
    whole = probe(begun=("It is", ""))
    ids = (np.array([1, 2]), np.array([3]))
    last = {LAST: np.array([1, 0])}
    part = TokenizedProbe(whole, ids, np.array([1, 2]), np.array([2, 1]), ids, last, {}).take(np.array([1]))
    columns = {field.name for field in fields(Probe)} - {"name", "description", "template"}
    for name in columns:
        before, after = getattr(whole, name), getattr(part.probe, name)
        if isinstance(before, dict):
            assert after == {key: values[1:] for key, values in before.items()}, name
        else:
            assert after == before[1:], name


def test_lists_and_arrays_are_taken_as_tuples_of_plain_values() -> None:
    made = probe(
        text=list(probe().text),
        answer=np.array([" Paris", " Rome"]),
        labels={"language": ["english", "english"], "letters": np.array([2, 3]), "capital": [np.True_, np.int64(4)]},
        positions={"country": ["France", [15, 20]]},
    )
    assert made.text == probe().text and made.answer == probe().answer and made.positions == probe().positions
    assert made.labels == {"language": ("english", "english"), "letters": (2, 3), "capital": (True, 4)}
    assert [type(v) for v in made.labels["letters"] + made.labels["capital"]] == [int, int, bool, int]


@pytest.mark.parametrize(
    ("given", "observed", "expected"),
    [
        ({"name": 3}, "3 cannot name a probe", "letters, digits and underscores"),
        ({"name": "my probe"}, "'my probe' cannot name a probe", "letters, digits and underscores"),
        ({"text": ()}, "probe 'capitals' has no prompts", "at least one prompt"),
        ({"text": None}, "'text' is None (NoneType)", "a tuple with one entry per prompt"),
        ({"text": {"a", "b"}}, "(set)", "a tuple with one entry per prompt"),
        ({"text": ("a", 2)}, "'text' of prompt 1 is 2 (int)", "text"),
        ({"answer": (4, 5)}, "'answer' of prompt 0 is 4 (int)", "text"),
        ({"answer": (" Paris",)}, "'answer' has 1 entries for 2 prompts", "one entry per prompt"),
        ({"foil": 7}, "'foil' is 7 (int)", "a tuple with one entry per prompt"),
        ({"foil": (" a", None)}, "'foil' of prompt 1 is None (NoneType)", "text"),
        ({"corrupted": ("a", "b", "c")}, "'corrupted' has 3 entries for 2 prompts", "one entry per prompt"),
        ({"labels": ("english",)}, "'labels' is ('english',) (tuple)", "a mapping: the label's name to"),
        ({"labels": {"letters": (1,)}}, "label 'letters' has 1 entries for 2 prompts", "one entry per prompt"),
        ({"labels": {"letters": (1, None)}}, "label 'letters' of prompt 1 is None", "text, a number, True or False"),
        ({"labels": {"letters": ((1, 2), 3)}}, "label 'letters' of prompt 0 is (1, 2) (tuple)", "text, a number"),
        ({"labels": {"my letters": (1, 2)}}, "'my letters' cannot name a label", "letters, digits and underscores"),
        ({"labels": {4: (1, 2)}}, "4 cannot name a label", "letters, digits and underscores"),
        (
            {"positions": {"country": ("France", 3)}},
            "position 'country' of prompt 1 is 3 (int)",
            "a piece of the prompt",
        ),
        ({"positions": {"country": ("a", (1, 2, 3))}}, "of prompt 1 is (1, 2, 3) (tuple)", "a pair of characters"),
        ({"positions": {"country": ("a",)}}, "position 'country' has 1 entries for 2 prompts", "one entry per prompt"),
        ({"positions": {LAST: ("a", "b")}}, "defines the position 'last'", "'last' is always the final token"),
        ({"positions": ["country"]}, "'positions' is ['country'] (list)", "a mapping: the position's name to"),
    ],
)
def test_what_does_not_belong_in_a_probe_is_refused(given: dict[str, Any], observed: str, expected: str) -> None:
    with pytest.raises(UserError) as refused:
        probe(**given)
    assert observed in refused.value.observed and expected in refused.value.expected


def test_a_label_and_a_position_of_one_name_are_both_checked() -> None:
    with pytest.raises(UserError, match="label 'country' has 1 entries"):
        probe(labels={"country": ("France",)})


@pytest.mark.parametrize("column", ["text", "answer", "foil", "corrupted"])
def test_one_prompt_without_its_tuple_is_refused_with_how_to_write_it(column: str) -> None:
    with pytest.raises(UserError, match=rf"'{column}' is 'one prompt' \(str\)") as refused:
        probe(**{column: "one prompt"})
    assert refused.value.remedy == "for one prompt: ('one prompt',)"


def test_a_long_value_is_shown_by_its_beginning() -> None:
    with pytest.raises(UserError) as refused:
        probe(labels={"letters": "many words " * 20})
    assert "label 'letters' is 'many words" in refused.value.observed and len(refused.value.observed) < 100


def tokenized() -> TokenizedProbe:
    ids = (np.array([0, 1]), np.array([0, 2]))
    made = probe(labels={"other_donor": (1, 0), "other_target": (1, 0)})
    answers = np.array([3, 4])
    positions = {LAST: np.array([1, 1]), "country": np.array([0, 0])}
    return TokenizedProbe(made, ids, answers, answers[::-1], ids[::-1], positions, {3: " Paris", 4: " Rome"})


@pytest.mark.parametrize(
    "ask",
    [
        lambda name: Activations("resid_post", (name,)),
        lambda name: SourceEffects((name,)),
        lambda name: Interchange(("other",), (name,)),
        lambda name: TokenAttribution((("group", (name,)),)),
    ],
)
def test_every_measurement_refuses_a_position_that_the_probe_does_not_have(ask: Any) -> None:
    with pytest.raises(UserError, match="'capitals' has no position 'contry'") as refused:
        ask("contry").declare(tokenized(), SHAPE)
    assert refused.value.remedy == "did you mean 'country'?"


def test_one_name_where_a_tuple_of_names_belongs_is_refused_with_how_to_write_it() -> None:
    with pytest.raises(UserError, match=r"positions are 'country' \(str\)") as refused:
        require_positions(tokenized(), "country")
    assert refused.value.expected == "a tuple of names" and refused.value.remedy == "write ('country',)"
