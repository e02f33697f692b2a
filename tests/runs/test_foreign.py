"""Arguments and settings that nobody can mean are refused by arithmetic, with the key where there is one."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from checkpoints import UserError
from checkpoints.foreign import parse_yaml, read_json, read_text, require_plain
from checkpoints.paths import absolute, as_number, as_path, as_text, beside
from dynamics.runs.config import load_runs
from dynamics.runs.naming import check_name
from dynamics.runs.plan import find_analysis

BASE = "r:\n  series: {kind: folder, path: ./s}\n  analyses: [induction]\n"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("  description: 2024-13-45\n", "month must be in 1..12"),
        ("  checkpoints: !!int abc\n", "line 4"),
        (f"  batch_tokens: {'9' * 5000}\n", "line 4"),
        (f"  batch_tokens: {'9' * 30}\n", r"r\.batch_tokens is a number beyond 64 bits"),
        ("  description: .inf\n", r"r\.description is inf"),
        ("  description: !!binary aGVsbG8=\n", r"r\.description is a bytes"),
        ('  description: "a\\0b"\n', r"r\.description holds a zero byte"),
        ('  description: "\\ud800"\n', r"r\.description holds half of a surrogate pair"),
        ("  exclude: &a [*a]\n", "lies below 64 others"),
        ("  x: " + "[" * 3000 + "\n", "is not YAML"),
        ("  a: &a [1,1,1,1,1,1,1,1,1,1]\n" + "".join(f"  a{i}: &a{i} [{', '.join([f'*a{i - 1}' if i else '*a'] * 10)}]\n" for i in range(9)), "beyond the first 1,000,000 values"),
        ("  probes: {p: {file: ~no-such-user/x}}\n", "in run 'r' of"),
        (f"  probes: {{p: {{file: {'a' * 5000}}}}}\n", "cannot be a path: File name too long"),
        (f"  dictionaries: {{main: {{corpus: {{kind: text, file: {'a' * 300}}}}}}}\n", "cannot be a path"),
        ("  exclude: [0010, 0100]\n", "0010 is no plain number: YAML would read it to another base"),
        ("  checkpoints: 1:30\n", "1:30 is no plain number"),
        ("  checkpoints: +012\n", "012 is no plain number"),
        ("  checkpoints: 1:30.5\n", "1:30.5 is no plain number"),
        ("  exclude: [0, true]\n", r"says true or false for 'exclude\.1'"),
        ("  batch_tokens: on\n", "says true or false for 'batch_tokens'"),
        ("  dictionaries: {main: {seed: no, corpus: {kind: probes}}}\n", r"true or false for 'dictionaries\.main\.seed'"),
    ],
    ids=lambda text: text[:24].strip(),
)  # fmt: skip
def test_settings_that_cannot_be_meant_are_refused_with_their_key_or_line(tmp_path: Path, more: str, said: str) -> None:
    (tmp_path / "runs.yaml").write_text(BASE + more, encoding="utf-8")
    with pytest.raises(UserError, match=said) as refused:
        load_runs(tmp_path / "runs.yaml")
    assert refused.value.expected and refused.value.remedy and len(str(refused.value)) < 3000


def test_what_is_no_file_with_an_end_is_not_read(tmp_path: Path) -> None:
    for device in ("/dev/zero", "/dev/stdin"):
        if Path(device).is_char_device():
            with pytest.raises(OSError, match="a device or a pipe"):
                read_text(Path(device))
    with pytest.raises(IsADirectoryError):
        read_text(tmp_path)
    (tmp_path / "x.json").write_text("[1]")
    with pytest.raises(ValueError, match="it holds a list, not a dict"):
        read_json(tmp_path / "x.json", dict)


def test_plain_values_are_those_of_json() -> None:
    require_plain({"a": [1, -(2**63), 2**63 - 1, 0.5, None, True, "日本", {"b": []}]})
    for value in (2**63, float("nan"), {1: {2: b""}}, ["\ud800"], {"\0": 1}, object()):
        with pytest.raises(ValueError, match=r" (is|holds) "):
            require_plain(value)


@pytest.mark.parametrize("path", ["a" * 5000, "a\0b", "~no-such-user/x", "\udcff", "loop/x"])
def test_what_cannot_be_a_path_is_refused_however_it_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("loop").symlink_to("loop")
    for read in (lambda p: as_path(p, "traces"), absolute, lambda p: beside(tmp_path, p)):
        with pytest.raises(UserError, match="cannot be a path") as refused:
            read(path)
        assert refused.value.expected and refused.value.remedy and len(str(refused.value)) < 1000


@pytest.mark.parametrize("value", [True, "3", None, float("nan"), 2.5, -1, 11])
def test_a_number_is_one_within_its_bounds_and_no_flag(value: object) -> None:
    assert as_number(3, "n", least=0, most=10) == 3
    with pytest.raises(UserError, match=r"`n` is(.|\n)*a whole number, at least 0, at most 10"):
        as_number(value, "n", least=0, most=10)


def test_a_text_can_be_written() -> None:
    assert as_text("日本", "name") == "日本"
    with pytest.raises(UserError, match="`name` is"):
        as_text("\udcff", "name")


@pytest.mark.parametrize("text", ["1_000", "1000", "'0100'", "0", "0x10", "-5", "0.5", "00:30:aa", "1e3"])
def test_plain_numbers_and_texts_are_read_as_before(text: str) -> None:
    assert parse_yaml(f"a: {text}") == yaml.safe_load(f"a: {text}")


def test_true_or_false_for_a_number_of_an_analysis_is_refused() -> None:
    with pytest.raises(UserError, match="option 'seed' is true or false"):
        find_analysis("induction", {"seed": True})
    assert find_analysis("induction", {"seed": 9})[1].model_dump()["seed"] == 9


@pytest.mark.parametrize("name", ["a\nb", "a\x1b[31mb", "\u202eenim", "a\u200bb", "a\tb", "a\x7f", "\u2028"])
def test_a_name_with_signs_that_do_not_print_names_no_run(name: str) -> None:
    with pytest.raises(UserError, match="cannot name a run"):
        check_name(name)
    check_name("größe-日本.1 b")


def test_the_remedy_for_a_runs_file_that_was_named_is_another_one(tmp_path: Path) -> None:
    for name in ("none", "folder"):
        (tmp_path / "folder").mkdir(exist_ok=True)
        with pytest.raises(UserError, match="cannot be read") as refused:
            load_runs(tmp_path / name)
        assert refused.value.remedy == "name a runs file with --runs"
