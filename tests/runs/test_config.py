"""The runs file: every mistake is named, with the nearest known word; paths are relative to the file."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from checkpoints.errors import UserError
from checkpoints.local import FolderConfig
from checkpoints.organism.curriculum import OrganismConfig, WorldEntry
from dynamics import load_runs
from dynamics.analysis import AnalysisOptions
from dynamics.models.importing import import_named
from dynamics.runs.config import AnalysisEntry, ProbeEntry, Run, load_run
from dynamics.runs.dictionaries import TextCorpus
from dynamics.runs.plan import find_analysis

ROOT = Path(__file__).parents[2]


def write(folder: Path, text: str) -> Path:
    file = folder / "runs.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def mistake(folder: Path, text: str, name: str = "a") -> str:
    """The message about run ``name`` in this file."""
    with pytest.raises(UserError) as caught:
        load_run(name, write(folder, text))
    return str(caught.value)


GOOD = "a:\n  series: {kind: folder, path: weights}\n  analyses: [addition]\n"


def test_the_runs_file_of_this_project_is_valid_and_its_analyses_exist() -> None:
    runs = load_runs(ROOT / "runs.yaml")
    assert {"organism", "organism-late", "organism-control", "organism-seed1"} <= runs.keys()
    for run in runs.values():
        assert run.description
        for entry in run.analyses:
            find_analysis(entry.name, entry.options)
    assert isinstance(runs["organism-control"].series, OrganismConfig)
    assert "addition" not in runs["organism-control"].series.curriculum


def test_every_field_says_what_it_is_for() -> None:
    models: tuple[type[BaseModel], ...] = (Run, AnalysisEntry, ProbeEntry, FolderConfig, OrganismConfig, WorldEntry)
    for model in models:
        for name, field in model.model_fields.items():
            assert field.description or name == "kind", f"{model.__name__}.{name}"
        assert model.model_config["extra"] == "forbid"


def test_paths_are_relative_to_the_file_wherever_the_program_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    file = write(
        folder,
        "a:\n  series: {kind: folder, path: weights, tokenizer: ../tok}\n  probes: {p: {file: p.jsonl}}\n"
        "b:\n  series: {kind: folder, path: /abs/weights}\n  analyses: [addition]\n",
    )
    monkeypatch.chdir(tmp_path)
    for given in (file, Path("project/runs.yaml")):
        runs = load_runs(given)
        series = runs["a"].series
        assert isinstance(series, FolderConfig) and series.tokenizer is not None
        assert series.path == folder / "weights" and series.tokenizer.resolve() == tmp_path / "tok"
        assert runs["a"].probes["p"].file == folder / "p.jsonl"
        assert isinstance(runs["b"].series, FolderConfig) and runs["b"].series.path == Path("/abs/weights")


def test_options_and_corpora_that_begin_like_a_path_are_relative_to_the_file(tmp_path: Path) -> None:
    text = GOOD.replace("[addition]", "[{name: sycophancy, options: {published: ./evals.jsonl, seed: 1}}]")
    text += "  dictionaries:\n    one: {corpus: {kind: text, file: corpus.txt}}\n"
    text += "    two: {method: published, place: ./theirs}\n    three: {method: published, place: owner/name}\n"
    run = load_run("a", write(tmp_path, text))
    assert run.analyses[0].options == {"published": str(tmp_path / "evals.jsonl"), "seed": 1}
    assert run.dictionaries["one"].corpus == TextCorpus(file=tmp_path / "corpus.txt")
    assert [run.dictionaries[n].place for n in ("two", "three")] == [str(tmp_path / "theirs"), "owner/name"]


def test_an_analysis_is_a_name_or_a_name_with_options(tmp_path: Path) -> None:
    text = "a:\n  series: {kind: organism}\n  analyses: [addition, {name: induction, options: {prompts: 9}}]\n"
    run = load_run("a", write(tmp_path, text))
    assert [e.name for e in run.analyses] == ["addition", "induction"] and run.analyses[1].options == {"prompts": 9}


def test_a_run_may_be_called_by_a_number(tmp_path: Path) -> None:
    file = write(tmp_path, GOOD.replace("a:", "2024:", 1))
    assert load_run("2024", file) == load_runs(file)["2024"]


def test_an_unknown_run_suggests_the_nearest_and_lists_all(tmp_path: Path) -> None:
    text = mistake(tmp_path, GOOD.replace("a:", "organism:", 1), "organsim")
    assert "there is no run 'organsim'" in text and "one of organism" in text and "did you mean 'organism'" in text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (GOOD + "  dictionaries: [main]\n", ["'dictionaries' is no mapping", "main: {layer: 2}"]),
        (GOOD + "  dictionaries: {main: }\n", ["'dictionaries.main' is no mapping"]),
        (GOOD + "  dictionaries: {main: {metod: chain}}\n", ["unknown key 'dictionaries.main.metod'", "'method'"]),
        (GOOD + "  dictionaries: {main: {k: 900}}\n", ["dictionaries.main: k is 900, more than the 512 features"]),
        (GOOD + "  dictionaries: {main: {method: published}}\n", ["method `published` needs `place`"]),
        (GOOD + "  dictionaries: {main: {place: here}}\n", ["`place` is for `method: published`"]),
        (GOOD + "  dictionaries: {main: {skip: 128}}\n", ["nothing is left of rows of 128 tokens"]),
        (GOOD + "  dictionaries: {main: {corpus: {kind: book}}}\n", ["needs a `kind`: worlds, text, dataset or probes"]),
        (GOOD + "  dictionaries: {main: {corpus: {kind: text, fle: x}}}\n", ["did you mean 'file'"]),
        (GOOD + "  dictionaries: {a/b: {}}\n", ["'a/b' cannot name a dictionary"]),
        (GOOD + "  shedule: log\n", ["unknown key 'shedule'", "did you mean 'schedule'"]),
        (GOOD.replace("path:", "pathh:"), ["unknown key 'series.pathh'", "'path'", "'series.path' is missing"]),
        ("a:\n  series: {kind: organism, sed: 1}\n  analyses: [addition]\n", ["'series.sed'", "did you mean 'seed'"]),
        (
            "a:\n  series: {kind: organism, curriculum: {english: {share: 1, from: 3}}}\n  analyses: [addition]\n",
            ["curriculum.english.from", "from_step"],
        ),
        (
            "a:\n  series: {kind: organism, curriculum: {englsh: {share: 1}}}\n  analyses: [addition]\n",
            ["unknown world 'englsh'", "did you mean 'english'"],
        ),
        (GOOD.replace("[addition]", "[{nam: addition}]"), ["analyses.0.nam", "did you mean 'name'"]),
        (GOOD + "  probes: {p: {fil: x}}\n", ["probes.p.fil", "did you mean 'file'", "'probes.p.file' is missing"]),
        (GOOD + "  probes: {p: [x]}\n", ["'probes.p' is no mapping, such as {key: value}"]),
        (GOOD.replace("[addition]", "addition"), ["'analyses' is no list, such as [a, b]"]),
        ("a: {series: mine, analyses: [addition]}\n", ["no series 'mine'", "a folder is {kind: folder, path: mine}"]),
        (GOOD.replace("[addition]", "[addition, addition]"), ["'addition' is listed twice"]),
        (GOOD.replace("analyses: [addition]", "schedule: log"), ["there is nothing to measure"]),
        (GOOD + "  schedule: linear\n", ["schedule", "'dense', 'log' or 'adaptive'"]),
        (GOOD + "  batch_tokens: 0\n", ["batch_tokens", "greater than or equal to 1"]),
        (GOOD + "  dtype: float8\n", ["dtype", "'float32', 'float16' or 'bfloat16'"]),
        (GOOD.replace("kind: folder", "kind: cloud"), ["'series.kind' is 'cloud'", "organism, folder, hub"]),
        (GOOD.replace("kind: folder, ", ""), ["'series' has no `kind`"]),
        ("a:\n  analyses: [addition]\n", ["'series' is missing"]),
        ("a:\n  series: organism\n  analyses: [addition]\n", ["series"]),
        ("a: 3\n", ["run 'a'", "is a int", "mapping"]),
        ("- a\n", ["holds a list", "mapping from run name to run"]),
        ("", ["mapping from run name to run"]),
        ("a: {series: [\n", ["is not YAML", "line"]),
    ],
)  # fmt: skip
def test_a_mistake_in_the_runs_file_is_explained(tmp_path: Path, text: str, expected: list[str]) -> None:
    message = mistake(tmp_path, text)
    assert "runs.yaml" in message
    for part in expected:
        assert part in message, message


def test_all_mistakes_of_a_run_are_reported_together(tmp_path: Path) -> None:
    message = mistake(tmp_path, GOOD + "  shedule: log\n  dtype: int4\n  checkpoints: 1\n  devise: cpu\n")
    assert "4 mistake" in message
    for part in ("shedule", "dtype", "checkpoints", "devise"):
        assert part in message


def test_a_mistake_in_another_run_does_not_matter(tmp_path: Path) -> None:
    file = write(tmp_path, GOOD + "b: {}\n")
    assert load_run("a", file).analyses[0].name == "addition"
    with pytest.raises(UserError, match="run 'b'"):
        load_runs(file)


@pytest.mark.parametrize("kind", ["missing", "folder", "binary"])
def test_a_runs_file_that_cannot_be_read_says_how_to_name_another(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "runs.yaml"
    if kind == "folder":
        file.mkdir()
    elif kind == "binary":
        file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"cannot be read(.|\n)*--runs"):
        load_run("a", file)


def test_yaml_cannot_execute_anything(tmp_path: Path) -> None:
    message = mistake(tmp_path, "a: !!python/object/apply:os.system ['exit 3']\n")
    assert "is not YAML" in message


def test_an_unknown_analysis_suggests_the_nearest() -> None:
    with pytest.raises(UserError, match=r"no analysis 'adition'(.|\n)*induction(.|\n)*did you mean 'addition'"):
        find_analysis("adition")
    with pytest.raises(UserError, match=r"no analysis 'no\.such\.module'"):
        find_analysis("no.such.module")


def test_an_unknown_option_of_an_analysis_suggests_the_nearest() -> None:
    with pytest.raises(UserError, match=r"analysis 'induction' has no option 'promts'(.|\n)*did you mean 'prompts'"):
        find_analysis("induction", {"promts": 9})
    with pytest.raises(UserError, match=r"option 'prompts': .*greater than or equal to 8"):
        find_analysis("induction", {"prompts": 1})


def test_a_module_that_is_no_analysis_says_what_it_lacks() -> None:
    with pytest.raises(UserError, match=r"json\.decoder is no analysis: it has no TITLE(.|\n)*summarise"):
        find_analysis("json.decoder")


_LEAST = "TITLE = {title!r}\n\n\ndef plan(context, options):\n    return []\n\n\ndef summarise(trace, options):\n    return None\n"


@pytest.fixture
def own_path(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test makes importable is forgotten after it."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("mine"):
            del sys.modules[name]


def beside(folder: Path, name: str, files: dict[str, str]) -> None:
    """A runs file that names an analysis, with modules lying beside it."""
    for file, text in files.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(text, encoding="utf-8")
    (folder / "runs.yaml").write_text(f"a: {{series: {{kind: organism}}, analyses: [{name}]}}\n", encoding="utf-8")
    load_run("a", folder / "runs.yaml")


@pytest.mark.usefixtures("own_path")
@pytest.mark.parametrize(
    ("name", "file"),
    [("mine", "mine.py"), ("mine", "mine/__init__.py"), ("mine_too.circuits.carry", "mine_too/circuits/carry.py")],
)
def test_an_analysis_beside_the_runs_file_is_found_by_its_name(tmp_path: Path, name: str, file: str) -> None:
    beside(tmp_path, name, {file: _LEAST.format(title="Mine")})
    analysis, options = find_analysis(name)
    assert (analysis.title, analysis.name) == ("Mine", name.rpartition(".")[2])
    assert options == AnalysisOptions()  # an analysis without options need not say so


@pytest.mark.usefixtures("own_path")
def test_each_runs_file_has_the_modules_that_lie_beside_it(tmp_path: Path) -> None:
    for folder in ("one", "two", "one"):
        module = _LEAST.format(title=folder) + "from mine_helper import NAME\n"
        beside(tmp_path / folder, "mine", {"mine.py": module, "mine_helper.py": f"NAME = {folder!r}\n"})
        analysis, _ = find_analysis("mine")
        assert (analysis.title, analysis.module.NAME) == (folder, folder)


@pytest.mark.usefixtures("own_path")
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import a_package_that_is_not_there\n", "ModuleNotFoundError: No module named 'a_package_that_is_not_there'"),
        ("from dynamics.analysis import Sektion\n", "ImportError: cannot import name 'Sektion'"),
        ("def plan(:\n", "SyntaxError: "),
        ("1 / 0\n", "ZeroDivisionError: division by zero"),
    ],
)
def test_a_module_that_cannot_be_imported_says_so_with_the_imports_own_message(
    tmp_path: Path, text: str, said: str
) -> None:
    beside(tmp_path, "mine_broken", {"mine_broken.py": text, "mine_sites.py": text})
    with pytest.raises(UserError, match=f"analysis 'mine_broken': .*cannot be imported: {said}"):
        find_analysis("mine_broken")
    with pytest.raises(UserError, match=f"`sites: mine_sites:TABLE`: .*cannot be imported: {said}"):
        import_named("mine_sites:TABLE", "sites")


@pytest.mark.usefixtures("own_path")
def test_two_analyses_of_one_run_cannot_begin_their_findings_alike(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'carry' and 'mine\.carry' would have findings of one name"):
        beside(tmp_path, "carry, mine.carry", {})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("? [a, b]\n: {}\n", "a key is not a word"),
        ("a: {}\na: {}\n", "occurs twice"),
        ("../evil: {series: {kind: organism}, analyses: [addition]}\n", "cannot name a run"),
        ("a: {series: {kind: organism, learning_rate: .inf}, analyses: [addition]}\n", "learning_rate"),
        ("a: {series: {kind: organism, seed: 99999999999999999999999}, analyses: [addition]}\n", "seed"),
    ],
)
def test_nonsense_in_a_runs_file_is_a_clear_error(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "runs.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=said):
        load_runs(file)


@pytest.mark.parametrize("name", ["../../etc", ".x", "a-b"])
def test_what_cannot_be_a_module_is_no_analysis(name: str) -> None:
    with pytest.raises(UserError, match="cannot name an analysis"):
        find_analysis(name)
