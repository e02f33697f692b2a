"""What a checkpoint says of itself, beside what its name says."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.checkpoints.foreign import NanoGPT, opened, save_nanogpt
from tests.checkpoints.state_folders import model, states
from tests.checkpoints.test_local import put


def test_another_step_in_the_trainers_state_contradicts_the_name(tmp_path: Path) -> None:
    for step, said in ((10, 10), (20, 10), (30, None)):
        if said is not None:
            (put(tmp_path, f"checkpoint-{step}") / "trainer_state.json").write_text(json.dumps({"global_step": said}))
        else:
            put(tmp_path, f"checkpoint-{step}")
    series = opened(tmp_path)
    assert {c.step: said for c, said in series.contradictions().items()} == {20: "its trainer_state.json says step 10"}
    assert not opened(tmp_path, pattern=r"checkpoint-(?P<step>\d+)").contradictions()


def test_a_name_contradicts_the_step_inside_where_other_names_agree(tmp_path: Path) -> None:
    states(tmp_path / "one", step1=model(step=1), step2=model(step=2), step3=model(step=30))
    assert [(c.step, said) for c, said in opened(tmp_path / "one").contradictions().items()] == [
        (30, "its name says step 3")
    ]
    states(tmp_path / "none", model_1=model(step=100), model_2=model(step=200))  # names count something else
    assert not opened(tmp_path / "none").contradictions()
    for name, number in (("ckpt_1", 1), ("ckpt_2", 2), ("ckpt_3", 4)):
        save_nanogpt(tmp_path / "nano" / f"{name}.pt", NanoGPT(), number)
    assert [c.step for c in opened(tmp_path / "nano").contradictions()] == [4]


TOKENIZER: dict[str, Any] = {
    "version": "1.0",
    "truncation": None,
    "padding": None,
    "added_tokens": [{"id": 0, "content": "<s>"}],
    "model": {"type": "BPE", "vocab": {"<s>": 0, "a": 1, "b": 2, "ab": 3}, "merges": ["a b"], "byte_fallback": False},
}


def changed(**model: Any) -> dict[str, Any]:
    return {**TOKENIZER, "model": {**TOKENIZER["model"], **model}}


@pytest.mark.parametrize(
    ("files", "differs"),
    [
        ({"tokenizer.json": TOKENIZER}, ""),
        ({"tokenizer.json": {**TOKENIZER, "version": "2.0", "truncation": {"max_length": 5}}}, ""),
        ({"tokenizer.json": changed(merges=[["a", "b"]])}, ""),
        ({"tokenizer.json": dict(reversed(TOKENIZER.items()))}, ""),
        ({"tokenizer.json": changed(vocab={"<s>": 0, "a": 2, "b": 1, "ab": 3})}, "tokenizer.json"),
        ({"tokenizer.json": changed(merges=[])}, "tokenizer.json"),
        ({"tokenizer.json": {**TOKENIZER, "added_tokens": []}}, "tokenizer.json"),
        ({"tokenizer.json": {**TOKENIZER, "normalizer": {"type": "Lowercase"}}}, "tokenizer.json"),
        ({"tokenizer.json": TOKENIZER, "tokenizer_config.json": {"add_bos_token": True}}, "tokenizer_config.json"),
        ({"tokenizer.json": TOKENIZER, "tokenizer_config.json": {"add_bos_token": False, "chat_template": "x"}}, ""),
        ({"tokenizer.json": TOKENIZER, "tokenizer_config.json": {"tokenizer_class": "X"}}, ""),
        ({"tokenizer.json": TOKENIZER, "tokenizer_config.json": [3]}, ""),
        ({"tokenizer.json": []}, "tokenizer.json"),
        ({"tokenizer_config.json": {"add_bos_token": False}}, ""),
        ({}, ""),
    ],
)
def test_another_tokenizer_is_one_that_gives_other_tokens(tmp_path: Path, files: dict[str, Any], differs: str) -> None:
    own = {"tokenizer.json": TOKENIZER, "tokenizer_config.json": {"add_bos_token": False, "model_max_length": 5}}
    for name, content in ((1, own), (2, files)):
        folder = put(tmp_path / "s", f"step{name}")
        for file, value in content.items():
            (folder / file).write_text(json.dumps(value))
    said = opened(tmp_path / "s").contradictions()
    assert [c.step for c in said] == ([2] if differs else [])
    assert all(f"({differs})" in reason and "in step1" in reason for reason in said.values())
    shutil.copytree(tmp_path / "s" / "step1", tmp_path / "tokenizer")
    assert not opened(tmp_path / "s", tokenizer=tmp_path / "tokenizer").contradictions()  # the run says which holds


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.binary(max_size=40)
    | st.sampled_from([b"null", b"{}", b'{"model": 3}', b'{"model": {"merges": [3, null]}}'])
)
def test_a_tokenizer_file_of_any_content_is_compared_without_an_error(tmp_path: Path, content: bytes) -> None:
    for step in (1, 2):
        folder = tmp_path / "s" / f"step{step}"
        if not folder.exists():
            put(tmp_path / "s", f"step{step}")
        (folder / "tokenizer.json").write_bytes(json.dumps(TOKENIZER).encode() if step == 1 else content)
    assert [c.step for c in opened(tmp_path / "s").contradictions()] == [2]
