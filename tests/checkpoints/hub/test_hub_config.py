"""What may be said about a hub series, and what is said when it is wrong."""

from __future__ import annotations

import re

import pytest
from pydantic import ValidationError

from checkpoints import UserError
from checkpoints.hub import HubConfig


def mistake(**config: object) -> str:
    with pytest.raises(ValidationError) as caught:
        HubConfig.model_validate(config)
    return str(caught.value.errors()[0]["msg"])


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("step0", 0),
        ("step1000", 1000),
        ("step-17", 17),
        ("step_17", 17),
        ("checkpoint-500", 500),
        ("global_step42", 42),
    ],
)
def test_any_repository_with_the_usual_names_needs_no_pattern(name: str, step: int) -> None:
    label = HubConfig(repo="owner/model").entry().parse(name)
    assert label is not None and label.step == step


@pytest.mark.parametrize("name", ["main", "step", "step1000-tokens4B", "mystep1", "step1.5", "refs/pr/1"])
def test_other_names_are_not_checkpoints(name: str) -> None:
    assert HubConfig(repo="owner/model").entry().parse(name) is None


def test_an_entry_is_made_of_the_config() -> None:
    config = HubConfig(
        repo="owner/model", revisions=r"(?P<stage>s\d)-(?P<step>\d+)", tokens_per_step=10, stage="s1", tokenizer="o/t"
    )
    entry = config.entry()
    assert (entry.repo, entry.name) == ("owner/model", "model")
    assert entry.parse("s1-7") == (7, 70, "s1") and entry.parse("s2-7") is None


def test_a_name_is_looked_up_in_the_catalogue_and_may_be_changed() -> None:
    entry = HubConfig(name="pythia-70m").entry()
    assert entry.repo == "EleutherAI/pythia-70m" and entry.parse("step1000") is not None
    assert HubConfig(name="pythia-70m", tokens_per_step=3).entry().tokens_per_step == 3
    with pytest.raises(UserError, match="pythia-70"):
        HubConfig(name="pythia-70").entry()


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({}, "either `name`.* or `repo`.*neither was given"),
        ({"name": "pythia-70m", "repo": "a/b"}, "both were given"),
        ({"name": "pythia-70m", "revisions": r"(?P<step>\d+)"}, "`revisions` goes with `repo`"),
        ({"repo": "a/b", "revisions": r"step(\d+)"}, "no group named step"),
        ({"repo": "a/b", "revisions": "step("}, "not a regular expression"),
        ({"repo": "a/b", "revisions": r"(?P<seed>\d)-(?P<step>\d+)"}, "groups that mean nothing here: seed"),
        ({"repo": "a/b", "stage": "("}, "not a regular expression"),
        ({"repo": "a/b", "stage": "s1"}, "no group named stage"),
        ({"repo": "../b"}, "not the name of a repository"),
        ({"repo": "https://huggingface.co/a/b"}, "not the name of a repository"),
        ({"repo": "a/b", "tokenizer": " "}, "a repository or a folder"),
        ({"repo": "a/b", "retries": 0}, "greater than or equal to 1"),
        ({"repo": "a/b", "tokens_per_step": 0}, "greater than or equal to 1"),
        ({"repo": "a/b", "branch": "x"}, "Extra inputs are not permitted"),
    ],
)
def test_mistakes_are_named(config: dict[str, object], said: str) -> None:
    assert re.search(said, mistake(**config))
