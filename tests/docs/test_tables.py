"""Tables of the documentation say what the code has, and the README's tree has the rooms in their order."""

from __future__ import annotations

import re
import sys
import tomllib
from importlib import import_module
from types import ModuleType

import pytest

from dynamics.models.sites import FAMILIES
from dynamics.models.wiring import WIRINGS
from dynamics.names import SITES
from dynamics.runs.dictionaries import DictionaryConfig
from dynamics.runs.plan import built_in
from tests.docs.shown import ROOT
from tests.test_layering import ORDER


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module that makes them."""
    monkeypatch.syspath_prepend(ROOT / "docs" / "_ext")
    monkeypatch.delitem(sys.modules, "tables", raising=False)
    return import_module("tables")


def test_every_key_of_a_dictionary_is_in_the_reference_as_it_is(tables: ModuleType) -> None:
    table = tables.fields("dynamics.runs.dictionaries:DictionaryConfig")
    assert (
        "```{fields} dynamics.runs.dictionaries:DictionaryConfig" in (ROOT / "docs/reference/runs-file.md").read_text()
    )
    for key, field in DictionaryConfig.model_fields.items():
        default = "–" if field.default is None else field.default
        assert re.search(rf"\| `{key}` \| [^|]+ \| {default} \| {re.escape(field.description or '')} \|", table), key


def test_every_table_of_keys_that_a_page_asks_for_can_be_made(tables: ModuleType) -> None:
    asked = {
        m for page in (ROOT / "docs").rglob("*.md") for m in re.findall(r"```{fields} (\S+)", page.read_text("utf-8"))
    }
    assert "dynamics.runs.config:Run" in asked
    for dotted in asked:
        assert tables.fields(dotted).count("\n") >= 1, dotted


def test_every_model_of_a_runs_file_is_on_its_page() -> None:
    page = (ROOT / "docs/reference/runs-file.md").read_text(encoding="utf-8")
    for model in (
        "Run",
        "AnalysisEntry",
        "ProbeEntry",
        "FolderConfig",
        "HubConfig",
        "BucketConfig",
        "OrganismConfig",
        "WorldEntry",
    ):
        assert re.search(rf"\{{fields\}} [\w.]+:{model}\n", page), model


def test_every_name_that_the_pages_have_tables_made_of_is_there(tables: ModuleType) -> None:
    pages = "\n".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs").rglob("*.md"))
    names = set(re.findall(r"^```\{[a-z]+\} ([a-z_.]+:[A-Za-z]+)$", pages, re.MULTILINE))
    assert len(names) > 9
    assert all(tables.found(name) for name in names)


def test_every_family_is_listed_with_its_sites_and_wiring(tables: ModuleType) -> None:
    lines = {line.split("`")[1]: line for line in tables.sites().splitlines()[2:]}
    assert lines.keys() == FAMILIES.keys()
    for family, line in lines.items():
        lacks, wiring = (cell.strip() for cell in line.split("|")[2:-1])
        assert set(SITES) - set(re.findall(r"`(\w+)`", lacks)) == set(FAMILIES[family].sites)
        assert (wiring == "known") == (family in WIRINGS)
    assert len(tables.wirings().splitlines()) == 2 + len(WIRINGS)


def test_what_every_analysis_needs_is_what_it_plans(tables: ModuleType) -> None:
    lines = {line.split("`")[1]: line for line in tables.needs().splitlines()[2:]}
    assert sorted(lines) == built_in()
    for analysis, measurement, left in (
        ("induction", "`TokenLoss`", "all but"),
        ("ioi", "`Circuit`", "| – |"),
        ("feature_census", "nothing", "| all |"),
    ):
        assert measurement in lines[analysis]
        assert left in lines[analysis]


def test_every_site_is_explained() -> None:
    page = (ROOT / "docs/reference/sites.md").read_text(encoding="utf-8")
    assert [site for site in SITES if f"| `{site}` | " not in page] == []


def test_the_trees_of_readme_and_design_have_the_rooms_in_their_order() -> None:
    rooms = [r for r in ORDER if r.startswith("dynamics.") and r != "dynamics.__main__"]
    rooms = [r.removeprefix("dynamics.") for r in rooms]
    tree = (ROOT / "README.md").read_text(encoding="utf-8").partition("```text\ncheckpoints/")[2].partition("```")[0]
    names = re.findall(r"^  ([a-z][a-z, ]*?)/? {2,}", tree, flags=re.MULTILINE)
    assert [name for line in names for name in line.split(", ")] == rooms
    design = (ROOT / "docs/design.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `dynamics\.(\w+)` \|", design, flags=re.MULTILINE)
    assert listed == rooms


def test_the_readme_names_every_extra() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (line,) = [line for line in (ROOT / "README.md").read_text().splitlines() if "# extras: " in line]
    assert line.partition("# extras: ")[2].split(", ") == sorted(extras)
