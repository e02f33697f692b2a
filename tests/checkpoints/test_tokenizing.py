"""Files of tokenizers may hold anything: they are read, or refused with the file that is at fault."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from checkpoints.errors import UserError
from checkpoints.organism import build_tokenizer
from checkpoints.tokenizing import load_tokenizer
from dynamics.probes import Probe, tokenize
from tests.schemes import SCHEMES, build

FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
VALUES = (None, True, 0, -1, 3, 2**70, 1e400, "", "x", "\ud800", [], {}, [None], ["x"], [["a", "b"]], {"a": 1})


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What is in the files of tokenizers of every kind."""
    kinds = {scheme.kind: name for name, scheme in SCHEMES.items() if name != "bytes"}
    tokenizers = {"organism": build_tokenizer(), **{kind: build(name) for kind, name in kinds.items()}}
    result = {}
    for kind, tokenizer in tokenizers.items():
        folder = tmp_path_factory.mktemp(kind)
        tokenizer.save_pretrained(folder)
        content = {name: json.loads((folder / name).read_text()) for name in FILES[:2]}
        result[kind] = content | {FILES[2]: {"unk_token": {"content": tokenizer.unk_token or "<unk>", "lstrip": False}}}
    return result


def laid(folder: Path, content: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, value in content.items():
        (folder / name).write_text(json.dumps(value))
    return folder


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a value, of long lists the first few."""
    yield at
    within = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for number, (key, inner) in enumerate(within):
        if number < 12:
            yield from places(inner, (*at, key))


def changed(content: Any, at: tuple[Any, ...], value: Any, drop: bool) -> Any:
    if not at:
        return value
    content = copy.deepcopy(content)
    inner = content
    for key in at[:-1]:
        inner = inner[key]
    if drop:
        del inner[at[-1]]
    else:
        inner[at[-1]] = value
    return content


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_change_in_a_file_is_read_or_refused_with_the_folder_or_file_named(
    whole: dict[str, dict[str, Any]], tmp_path: Path, data: st.DataObject
) -> None:
    content = dict(whole[data.draw(st.sampled_from(sorted(whole)))])
    file = data.draw(st.sampled_from(FILES))
    at = data.draw(st.sampled_from(list(places(content[file]))))
    content[file] = changed(content[file], at, data.draw(st.sampled_from(VALUES)), data.draw(st.booleans()))
    folder = laid(tmp_path / "t", content)
    read = tried(lambda: load_tokenizer(folder))
    if isinstance(read, UserError):
        assert str(folder) in str(read) and file in str(read) and read.expected and read.remedy
        return
    used = tried(lambda: tokenize(Probe("p", ("the sum of",), positions={"mark": ("sum",)}), read))
    assert not isinstance(used, UserError) or "tokenizer" in str(used)


def tried(does: Callable[[], Any]) -> Any:
    """What comes of it, or its refusal; every other exception is a fault."""
    try:
        return does()
    except UserError as refused:
        return refused


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("tokenizer.json", b"", "tokenizer.json cannot be read (it"),
        ("tokenizer.json", b"\xff\xfe{", "tokenizer.json cannot be read (it"),
        ("tokenizer.json", b"[]", "tokenizer.json cannot be read (it holds a "),
        ("tokenizer.json", b'{"model": {"type": "New"}}', "tokenizer.json cannot be used"),
        ("tokenizer_config.json", b"{", "tokenizer_config.json cannot be read (it"),
        ("tokenizer_config.json", b'{"model_max_length": "x"}', "not with tokenizer_config.json"),
        ("special_tokens_map.json", b"[]", "special_tokens_map.json cannot be read (it holds a "),
        ("added_tokens.json", b"7", "added_tokens.json cannot be read (it holds a "),
    ],
)
def test_the_file_at_fault_is_named(tmp_path: Path, file: str, content: bytes, said: str) -> None:
    build_tokenizer().save_pretrained(tmp_path)
    (tmp_path / file).write_bytes(content)
    found = tried(lambda: load_tokenizer(tmp_path))
    if file in FILES[:2] or isinstance(found, UserError):  # what transformers does not read is no fault
        assert said in str(found)


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no usable tokenizer in"):
        load_tokenizer(tmp_path)
    with pytest.raises(UserError, match="there is no folder"):
        load_tokenizer(tmp_path / "nothing")


def test_settings_that_would_cut_or_fill_texts_do_not(tmp_path: Path) -> None:
    build_tokenizer().save_pretrained(tmp_path)
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    content["truncation"] = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    content["padding"] = {"strategy": {"Fixed": 20}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 2, "pad_type_id": 0, "pad_token": "<|padding|>"}  # fmt: skip
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    probe = Probe("p", ("the sum of 3 and 4 is",))
    found, right = (tokenize(probe, t) for t in (load_tokenizer(tmp_path), build_tokenizer()))
    assert found.ids[0].tolist() == right.ids[0].tolist()
