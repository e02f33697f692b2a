"""Tokenizers that are asked: an organism's, and the real one of the Pythia models."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest

from tests.analyses.behaviour_prompts.reading import ORGANISM

LANGUAGES = ("organism", "english")


@pytest.fixture(scope="module")
def pythia(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The real tokenizer of the Pythia models."""
    from transformers import PreTrainedTokenizerFast

    file = tmp_path_factory.mktemp("pythia") / "tokenizer.json"
    file.write_bytes(gzip.decompress((shared_data / "pythia_tokenizer.json.gz").read_bytes()))
    return PreTrainedTokenizerFast(tokenizer_file=str(file))


@pytest.fixture(params=LANGUAGES)
def language(request: pytest.FixtureRequest) -> tuple[Any, bool]:
    """A tokenizer, and whether it is an organism's."""
    if request.param == "organism":
        return ORGANISM, True
    return request.getfixturevalue("pythia"), False
