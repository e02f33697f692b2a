"""Tables of the documentation that are made from the code, so that the two cannot disagree: Markdown, tested as it is."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

import dynamics
from checkpoints.errors import UserError
from dynamics.measurements import Intervention, Measurement
from dynamics.models.sites import FAMILIES
from dynamics.models.wiring import WIRINGS
from dynamics.names import SITES
from dynamics.runs.config import AnalysisEntry, load_runs
from dynamics.runs.plan import built_in
from dynamics.runs.resolve import resolve

__all__ = ["analyses", "fields", "measured", "needs", "sites", "verbs", "wirings"]

ROOT = Path(__file__).parents[2]
UNWIRED = FAMILIES["gpt_neox"]
"""The organism's table of sites; the wiring is another table, which is left out here."""


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def found(dotted: str) -> Any:
    """The object of a name such as ``dynamics.runs.config:Run``."""
    module, _, name = dotted.partition(":")
    return getattr(import_module(module), name)


def type_text(kind: Any) -> str:
    """A type as a writer of YAML would say it."""
    origin, parts = get_origin(kind), get_args(kind)
    if kind is type(None):
        return "nothing"
    if origin is Literal:
        return " or ".join(f"`{part}`" for part in parts)
    if origin is Union or type(kind).__name__ == "UnionType":
        return " or ".join(dict.fromkeys(type_text(part) for part in parts if part is not type(None)))
    if hasattr(kind, "__metadata__"):
        return type_text(parts[0])
    if origin is tuple:
        inner = [type_text(part) for part in parts if part is not Ellipsis]
        return f"list of {inner[0]}" if Ellipsis in parts else f"list ({', '.join(inner)})"
    if origin is dict:
        return f"name to {type_text(parts[1])}"
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return "mapping (see below)"
    words = {
        "str": "text",
        "int": "integer",
        "float": "number",
        "bool": "true or false",
        "Path": "path",
        "Any": "value",
    }
    return words.get(getattr(kind, "__name__", str(kind)), getattr(kind, "__name__", str(kind)))


def default_text(field: Any) -> str:
    """A default as it would be written in YAML; ``required`` where there is none, – where it is nothing."""
    value = field.default
    if field.default_factory is not None:
        value = field.default_factory()
        return "–" if not value else "see below"
    if value is PydanticUndefined:
        return "required"
    if value is None or value in ("", ()):
        return "–"
    if isinstance(value, BaseModel):
        value = value.model_dump(exclude_defaults=True)
        value = next(iter(value.values())) if len(value) == 1 else value
    if isinstance(value, str):
        return value if value.isidentifier() else f"`{value}`"
    return json.dumps(value)


def fields(dotted: str) -> str:
    """Every key of a pydantic model: type, default, meaning."""
    model = found(dotted)
    rows = [
        [f"`{key}`", type_text(field.annotation), default_text(field), field.description or ""]
        for key, field in model.model_fields.items()
        if key != "kind"
    ]
    return table(["key", "type", "default", "meaning"], rows) if rows else "It has no keys."


def sites(_: str = "") -> str:
    """Which sites a family (``model_type``) lacks, and whether its wiring is known."""
    rows = []
    for family in sorted(FAMILIES):
        lacks = ", ".join(f"`{site}`" for site in SITES if site not in FAMILIES[family].sites)
        rows.append([f"`{family}`", lacks or "none", "known" if family in WIRINGS else "–"])
    return table(["family", "sites that it lacks", "wiring"], rows)


def wirings(_: str = "") -> str:
    """How each family's block reads and writes."""

    def text(value: Any) -> str:
        if isinstance(value, tuple):
            return ", ".join(f"`{part}`" for part in value)
        return "–" if value is None else "yes" if value is True else "no" if value is False else f"`{value}`"

    keys = ["projections", "layout", "out", "norm", "after", "mlp", "parallel", "shared"]
    rows = [[f"`{family}`", *(text(getattr(WIRINGS[family], key)) for key in keys)] for family in sorted(WIRINGS)]
    return table(["family", *keys], rows)


def needs(_: str = "") -> str:
    """What each built-in analysis measures on an organism that knows its words, and what is left without the wiring."""
    rows = []
    for name in built_in():
        wanted, poorer = measured(name), measured(name, wired=False)
        if not wanted:
            rows.append([f"`{name}`", "nothing: reads what `dynamics learn` stored", "–", "all"])
            continue
        kinds = dict.fromkeys(type(m).__name__ for m in wanted)
        read = {site for m in wanted if not isinstance(m, Intervention) for site in m.sites()} & set(SITES)
        missing = dict.fromkeys(type(m).__name__ for m in wanted if m not in poorer)
        left = "all" if not missing else "–" if not poorer else f"all but {', '.join(f'`{k}`' for k in missing)}"
        rows.append([f"`{name}`", ", ".join(f"`{k}`" for k in kinds), ", ".join(f"`{s}`" for s in SITES if s in read) or "–", left])  # fmt: skip
    return table(["analysis", "measurements", "sites that it reads", "without wiring"], rows)


def measured(name: str, *, wired: bool = True) -> list[Measurement]:
    """The measurements that an analysis asks for, on the organism of ``runs.yaml`` whose run names it."""
    declared = load_runs(ROOT / "runs.yaml").values()
    run = next(run for run in declared if name in [entry.name for entry in run.analyses])
    one = {"analyses": (AnalysisEntry(name=name),), "dictionaries": {}, "sites": None if wired else "tables:UNWIRED"}
    try:
        plans = resolve("docs", run.model_copy(update=one), train=False).probes
    except UserError:  # it asks for nothing, or for what cannot be had without the wiring
        return []
    return list(dict.fromkeys(m for plan, _ in plans for m in plan.measurements))


def analyses(_: str = "") -> str:
    """Every built-in analysis: what it asks, its definitions and sources, its options."""
    parts = []
    for name in built_in():
        module = import_module(f"analyses.{name}")
        parts += [f"## `{name}`: {module.TITLE}", "", "```{eval-rst}", f".. automodule:: analyses.{name}"]
        parts += ["   :no-members:", "```", ""]
        options = getattr(module, "Options", None)
        if options is not None and options.model_fields:
            parts += ["Options:", "", fields(f"analyses.{name}:Options"), ""]
    return "\n".join(parts)


def verbs(_: str = "") -> str:
    """Every public name of ``dynamics``, documented where it is defined."""
    parts = ["```{eval-rst}"]
    for name in dynamics.__all__:
        thing = getattr(dynamics, name)
        kind = "autoclass" if isinstance(thing, type) else "autofunction"
        parts += [f".. {kind}:: dynamics.{name}", *(["   :members:"] if kind == "autoclass" else []), ""]
    return "\n".join([*parts, "```"])
