"""What follows from an organism's configuration before it is trained: its tokenizer, its batches, its schedule, its truth."""

from __future__ import annotations

import hashlib
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from checkpoints import UserError
from checkpoints.organism import OrganismConfig, WorldEntry, build_tokenizer, model_config, schedule, speaks, truth
from checkpoints.organism.curriculum import batch
from checkpoints.organism.tokenizer import SEPARATOR, require_world, token_ids
from checkpoints.organism.worlds import all_worlds, vocabulary, world_names
from checkpoints.organism.worlds.addition import CONTEXTS, DIGITS, prompt
from tests.checkpoints.organisms import LATE, SMALL

# --- tokenizer


def test_the_tokenizer_gives_back_the_tokens_of_every_document() -> None:
    tokenizer = build_tokenizer(world_names())
    rng = np.random.default_rng(0)
    for world in all_worlds().values():
        for _ in range(100):
            document = world.document(rng)
            ids = tokenizer(" ".join(document))["input_ids"]
            assert tokenizer.convert_ids_to_tokens(ids) == [SEPARATOR, *document]
            assert tokenizer.decode(ids, skip_special_tokens=True) == " ".join(document)


def test_the_tokenizer_reads_prompts_as_documents_are_written() -> None:
    tokenizer = build_tokenizer()
    for context in CONTEXTS:
        for digit in DIGITS:
            text, answer = prompt(86, 59, context, digit)
            whole = tokenizer(text + answer)["input_ids"]
            assert whole == [*tokenizer(text)["input_ids"], token_ids()[answer]]
            assert tokenizer.unk_token_id not in whole


def test_a_saved_tokenizer_is_the_same_tokenizer(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    build_tokenizer().save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert speaks(again)
    assert again("36+59=095 big groß")["input_ids"] == build_tokenizer()("36+59=095 big groß")["input_ids"]
    assert again.is_fast


def test_the_organisms_that_name_no_task_are_those_that_there_were_before_tasks() -> None:
    """A trained organism in somebody's cache is found again, and old traces still fit."""
    assert OrganismConfig().digest() == "e08b86e3f6c8"
    text = build_tokenizer().backend_tokenizer.to_str()
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "361c7309af48d00b"


def test_an_organism_that_names_a_task_knows_its_words_shown_or_not() -> None:
    plain = OrganismConfig(steps=40, curriculum={"english": WorldEntry(share=1)})
    knows = plain.model_copy(update={"curriculum": {**plain.curriculum, "years": WorldEntry(share=0)}})
    assert model_config(knows).vocab_size == model_config(plain).vocab_size + len(years_words())
    np.testing.assert_array_equal(batch(knows, 3), batch(plain, 3))
    assert knows.digest() != plain.digest()
    assert truth(knows)["absent"] == ["addition", "french", "german", "induction", "years"]
    assert list(truth(knows)["worlds"]) == ["english"]
    require_world(build_tokenizer(knows.curriculum), "years")
    with pytest.raises(UserError, match=r"the words of world 'years' \(lasted, from, to, \.\.\.\)") as refused:
        require_world(build_tokenizer(plain.curriculum), "years")
    assert "`share: 0`" in str(refused.value)
    assert speaks(build_tokenizer(plain.curriculum)) and speaks(build_tokenizer(knows.curriculum))


def years_words() -> set[str]:
    """The words that only the world ``years`` has."""
    return set(all_worlds()["years"].words) - set(vocabulary())


def test_a_word_that_no_world_has_is_unknown() -> None:
    tokenizer = build_tokenizer()
    assert tokenizer("xylophone")["input_ids"] == [token_ids()[SEPARATOR], tokenizer.unk_token_id]


def test_only_the_organisms_own_tokenizer_speaks_its_language() -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = list(token_ids())
    for other in (words[:-1], words[::-1]):
        core = Tokenizer(models.WordLevel({w: i for i, w in enumerate(other)}, unk_token="<|unknown|>"))
        assert not speaks(PreTrainedTokenizerFast(tokenizer_object=core))


# --- configuration and batches


def test_a_batch_is_a_function_of_the_configuration_and_the_step_alone() -> None:
    first = [batch(SMALL, step) for step in range(5)]
    np.random.seed(0)  # noqa: NPY002 (a global state that must not matter)
    again = [batch(SMALL.model_copy(), step) for step in reversed(range(5))][::-1]
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)
    assert not np.array_equal(first[0], first[1])
    assert not np.array_equal(first[0], batch(SMALL.model_copy(update={"seed": 1}), 0))
    assert batch(SMALL, 0).shape == (SMALL.batch, SMALL.context)


def test_the_order_in_which_a_curriculum_is_written_does_not_matter() -> None:
    turned = LATE.model_copy(update={"curriculum": dict(reversed(LATE.curriculum.items()))})
    np.testing.assert_array_equal(batch(LATE, 25), batch(turned, 25))


def test_a_batch_is_documents_behind_separators() -> None:
    tokens = list(token_ids())
    separator = token_ids()[SEPARATOR]
    only = OrganismConfig(batch=64, curriculum={"english": WorldEntry(share=1.0)})
    known = {tuple(all_worlds()["english"].document(np.random.default_rng(i))) for i in range(5000)}
    complete = 0
    for row in batch(only, 3):
        assert row[0] == separator
        starts = [*np.flatnonzero(row == separator), only.context]
        documents = [tuple(tokens[i] for i in row[a + 1 : b]) for a, b in pairwise(starts)]
        assert set(documents[:-1]) <= known
        assert any(whole[: len(documents[-1])] == documents[-1] for whole in known)  # cut at the end of the row
        complete += len(documents)
    assert complete > 3 * only.batch
    assert complete == (batch(only, 3) == separator).sum()


@pytest.mark.parametrize("world", [name for name, entry in LATE.curriculum.items() if entry.from_step])
def test_a_world_is_in_no_batch_before_it_enters(world: str) -> None:
    others = {w for n in LATE.curriculum if n not in (world, "induction") for w in all_worlds()[n].words}
    words = set(vocabulary()) if world == "induction" else set(all_worlds()[world].words)
    marks = [token_ids()[w] for w in words - others]
    enters = LATE.curriculum[world].from_step
    assert all(not np.isin(batch(LATE, step), marks).any() for step in range(enters))
    assert np.isin(batch(LATE, enters), marks).any()


def test_worlds_are_drawn_by_their_shares() -> None:
    config = OrganismConfig(
        batch=200, context=400, curriculum={"english": WorldEntry(share=0.6), "addition": WorldEntry(share=0.2)}
    )
    rows = batch(config, 0)
    english = np.isin(rows, [token_ids()["opposite"], token_ids()["not"]]).sum()
    sums = np.isin(rows, [token_ids()[w] for w in ("+", "sum", "volume")]).sum()
    assert english / (english + sums) == pytest.approx(0.75, abs=0.03)


@pytest.mark.parametrize(("steps", "count"), [(1, 2), (12, 6), (100, 8), (1400, 40), (30, 200)])
def test_checkpoints_are_scheduled_from_step_0_to_the_last(steps: int, count: int) -> None:
    planned = schedule(OrganismConfig(steps=steps, checkpoints=count))
    assert planned[0] == 0
    assert planned[-1] == steps
    assert planned == sorted(set(planned))
    assert len(planned) >= min(count, steps + 1)
    assert len(planned) <= count + 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"curriculum": {"adition": WorldEntry(share=1)}}, "did you mean 'addition'"),
        ({"curriculum": {"english": WorldEntry(share=1, from_step=3)}}, "nothing to train on"),
        ({"curriculum": {}}, "nothing to train on"),
        (
            {"steps": 5, "curriculum": {"english": WorldEntry(share=1), "french": WorldEntry(share=1, from_step=5)}},
            "french would enter after the last step 5",
        ),
        (
            {
                "curriculum": {
                    "english": WorldEntry(share=1),
                    "french": WorldEntry(share=1, from_step=5),
                    "german": WorldEntry(share=1),
                }
            },
            "'german' hold words of world 'french', which has not entered at step 0",
        ),
        (
            {"curriculum": {"english": WorldEntry(share=1), "german": WorldEntry(share=1)}},
            "'german' hold words of world 'french'",
        ),
        ({"curriculum": {"english": WorldEntry(share=0)}}, "nothing to train on"),
        (
            {"curriculum": {"english": WorldEntry(share=0), "french": WorldEntry(share=1)}},
            "'french' hold words of world 'english', which has not entered",
        ),
        ({"curriculum": {"english": {"share": 0, "from_step": 3}}}, "share 0 is never shown"),
        ({"d_model": 30, "heads": 4}, "not a multiple of heads"),
        ({"learningrate": 1}, "Extra inputs are not permitted"),
    ],
)
def test_a_configuration_that_cannot_be_trained_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        OrganismConfig.model_validate(change)


def test_the_truth_says_what_can_have_formed_when() -> None:
    stated = truth(LATE)
    assert stated["steps"] == schedule(LATE)
    assert {name: world["entry_step"] for name, world in stated["worlds"].items()} == {
        "addition": 7,
        "english": 0,
        "french": 20,
        "induction": 39,
    }
    assert stated["absent"] == ["german"]
    assert stated["tokens_per_step"] == LATE.batch * LATE.context
    assert json.loads(json.dumps(stated)) == stated
    for name, world in stated["worlds"].items():
        assert world["share"] == LATE.curriculum[name].share
        assert world["rule"]


def test_every_world_that_mixes_with_no_other_can_be_the_only_one() -> None:
    for name in set(world_names()) - {"french", "german"}:
        assert batch(OrganismConfig(curriculum={name: WorldEntry(share=1.0)}, batch=2), 0).shape == (2, 24)
