"""README says what the program has."""

from __future__ import annotations

from pathlib import Path

from dynamics.runs.dictionaries import DictionaryConfig

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def test_every_key_of_a_dictionary_is_in_the_readme_as_it_is() -> None:
    for key, field in DictionaryConfig.model_fields.items():
        default = "–" if field.default is None else field.default
        assert f"| `{key}` | {default} | {field.description} |" in README, key
