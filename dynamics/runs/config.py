"""The runs file: a mapping from run name to run, with every mistake named and the nearest known word suggested."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from checkpoints.bucket import BucketConfig
from checkpoints.errors import UserError, nearest
from checkpoints.foreign import parse_yaml, read_text, require_plain, truth_for_number
from checkpoints.hub import HubConfig
from checkpoints.local import FolderConfig
from checkpoints.organism.curriculum import OrganismConfig
from checkpoints.paths import StrPath, absolute, as_path
from checkpoints.series import SeriesConfig
from checkpoints.staged import PartConfig, StagedConfig

from ..models.importing import import_beside
from .anchoring import whole_paths
from .dictionaries import CORPORA, DictionaryConfig
from .naming import check_name
from .sweeps import SWEEP, cell_names, cells, one_cell
from .template import TemplateConfig

__all__ = [
    "DEFAULT_RUNS_FILE",
    "KINDS",
    "AnalysisEntry",
    "LiveConfig",
    "ProbeEntry",
    "Run",
    "explain",
    "load_cells",
    "load_run",
    "load_runs",
    "run_names",
]

DEFAULT_RUNS_FILE = Path("runs.yaml")
"""In the current folder."""

_EXPECTED = "a mapping from run name to run"


class AnalysisEntry(BaseModel):
    """One analysis of a run: a name, or a name with options."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(
        description="`addition` means analyses.addition; another name, dotted or not, a module of yours: beside the runs file, or installed."
    )
    options: dict[str, Any] = Field(
        default_factory=dict,
        description="Options of that analysis; a text that begins with ./, ../ or ~/ is a path, relative to the runs "
        "file.",
    )
    optional: bool = Field(False, description="Leave it out, with a remark, where its prompts do not fit the series.")

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value


class ProbeEntry(BaseModel):
    """A probe of the user's own: a file of prompts, or a file with what is stored of them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: Path = Field(description="JSONL or YAML file of prompts.")
    sites: tuple[str, ...] = Field((), description="Sites whose activations are stored, all layers.")
    positions: tuple[str, ...] = Field(("last",), description="Named positions at which they are stored.")
    template: TemplateConfig | None = Field(None, description="How these prompts are written; else as the run says.")

    @model_validator(mode="before")
    @classmethod
    def _from_file(cls, value: Any) -> Any:
        return {"file": value} if isinstance(value, str | Path) else value


class LiveConfig(SeriesConfig):
    """No weights are kept: a training job collects while it runs (``dynamics.collecting.live``)."""

    stored: ClassVar[bool] = False

    kind: Literal["live"] = "live"


KINDS: dict[str, type[SeriesConfig]] = {
    "organism": OrganismConfig,
    "folder": FolderConfig,
    "hub": HubConfig,
    "bucket": BucketConfig,
    "live": LiveConfig,
    "staged": StagedConfig,
}


class Run(BaseModel):
    """One run: a series, what to measure on it, and how."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    description: str = Field("", description="What this run is for; shown in lists and reports.")
    series: Annotated[
        OrganismConfig | FolderConfig | HubConfig | BucketConfig | LiveConfig | StagedConfig,
        Field(discriminator="kind"),
    ] = Field(
        description="Where the checkpoints come from; a name alone is that of a published series (`dynamics series`)."
    )
    analyses: tuple[AnalysisEntry, ...] = Field((), description="Which analyses to collect for and to report.")
    probes: dict[str, ProbeEntry] = Field(default_factory=dict, description="Your own prompts, by probe name.")
    template: TemplateConfig = Field(
        TemplateConfig(name="plain"),
        description="How your own prompts, those of the behaviours (sycophancy, faithfulness, hallucination) and those of "
        "`dynamics explain` are written: plain, or chat (`chat`, or `{name: chat, system: ...}`).",
    )
    dictionaries: dict[str, DictionaryConfig] = Field(
        default_factory=dict, description="Sparse dictionaries of its activations, by name (`dynamics learn`)."
    )
    schedule: Literal["dense", "log", "adaptive"] = Field(
        "dense",
        description="dense: every checkpoint; log: about `checkpoints` of them, evenly spaced in log step; "
        "adaptive: those first, then round by round the ones that most narrow the onsets of the headline curves.",
    )
    checkpoints: int | None = Field(
        None, ge=2, description="How many checkpoints log visits (20 if nothing is said), or adaptive first (8)."
    )
    budget: int | None = Field(
        None, ge=2, description="adaptive: visit no more checkpoints than this, the first ones included."
    )
    exclude: tuple[int, ...] = Field((), description="Steps to leave out; they are marked masked in the trace.")
    device: str = Field("auto", description="cpu, cuda, cuda:1, mps; auto takes a GPU if there is one.")
    dtype: Literal["float32", "float16", "bfloat16"] = Field("float32", description="Dtype to compute in.")
    trace_dtype: Literal["float32", "float16"] = Field("float32", description="Dtype in which activations are stored.")
    layout: Literal["local", "sharded"] = Field("local", description="sharded: one file per checkpoint and variable.")
    batch_tokens: int = Field(8192, ge=1, description="At most this many tokens in one forward pass.")
    reuse: tuple[str, ...] = Field(
        (),
        description="Traces from which measurements of the same weights are taken instead of measuring again: names of "
        "runs whose traces lie in the same folder, or paths that begin with ./, ../, ~/ or /.",
    )
    durable: bool = Field(False, description="Flush to disk before a checkpoint is marked complete.")
    sites: str | None = Field(None, description="package.module:NAME of a SiteTable, for families that have none yet.")
    adapter: str | None = Field(None, description="package.module:NAME of an Adapter, for modules of your own.")
    include_masked: bool = Field(
        False,
        description="Collect also checkpoints that are known or found to hold other weights than their label says.",
    )

    sweep: dict[str, list[Any]] = Field(
        default_factory=dict,
        description="Keys with dots to lists of values: the run stands for all combinations (docs/howto/compare.md).",
    )

    @field_validator("series", mode="before")
    @classmethod
    def _published(cls, value: Any) -> Any:
        if isinstance(value, str) and value in KINDS:
            raise ValueError(f"{value!r} is a kind of series: write {{kind: {value}}}")
        return {"kind": "hub", "name": value} if isinstance(value, str) else value

    @field_validator("series")
    @classmethod
    def _known(cls, value: BaseModel) -> BaseModel:
        parts = [part.series for part in value.parts] if isinstance(value, StagedConfig) else [value]
        for name in [part.name for part in parts if isinstance(part, HubConfig) and part.name is not None]:
            from checkpoints.catalogue import find_entry

            try:
                find_entry(name)
            except UserError as error:
                raise ValueError(
                    f"{error.observed}: {error.remedy}; a folder is {{kind: folder, path: {name}}}"
                ) from error
        return value

    @field_validator("analyses")
    @classmethod
    def _once(cls, value: tuple[AnalysisEntry, ...]) -> tuple[AnalysisEntry, ...]:
        names = [entry.name for entry in value]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"analysis {twice[0]!r} is listed twice")
        first: dict[str, str] = {}  # findings are called after the last part
        for name in names:
            if (other := first.setdefault(name.rpartition(".")[2], name)) != name:
                raise ValueError(f"analyses {other!r} and {name!r} would have findings of one name: rename yours")
        return value

    @field_validator("dictionaries")
    @classmethod
    def _names(cls, value: dict[str, DictionaryConfig]) -> dict[str, DictionaryConfig]:
        odd = [name for name in value if not name.replace("-", "").replace("_", "").isalnum()]
        if odd:
            raise ValueError(f"{odd[0]!r} cannot name a dictionary: letters, digits, - and _")
        return value

    @model_validator(mode="after")
    def _something_to_measure(self) -> Run:
        if not self.analyses and not self.probes:
            raise ValueError("there is nothing to measure: name `analyses` or `probes`")
        return self


def load_runs(file: StrPath | None = None) -> dict[str, Run]:
    """Every run in a runs file; relative paths in it are relative to the file. A sweep is one run.

    Raises:
        UserError: when the file is missing or not YAML, or any run or cell of a sweep in it is wrong.
    """
    file, content = _read(file)
    for name, body in content.items():
        if isinstance(body, dict) and SWEEP in body:
            cells(name, body, file, _parse)
    return {name: _parse(name, body, file) for name, body in content.items()}


def load_cells(name: str, file: StrPath | None = None) -> dict[str, Run]:
    """The cells of a run that is a sweep, by name; the run alone where it is none.

    Raises:
        UserError: when there is no such run, or it or its sweep is wrong.
    """
    where, content = _read(file)
    body = content.get(name)
    if isinstance(body, dict) and SWEEP in body:
        return cells(name, body, where, _parse)
    return {name: load_run(name, file)}


def run_names(file: StrPath | None = None) -> list[str]:
    """The names in a runs file and those of the cells of sweeps, whether the runs are right or wrong.

    Raises:
        UserError: when the file is missing or not YAML.
    """
    content = _read(file)[1]
    return [*content, *(cell for name, body in content.items() for cell in cell_names(name, body))]


def load_run(name: str, file: StrPath | None = None) -> Run:
    """One run of a runs file, or one cell of a sweep; mistakes in other runs do not matter.

    Raises:
        UserError: when there is no such run, or it is wrong.
    """
    file, content = _read(file)
    body = content.get(parent := name.partition("@")[0])
    if name not in content and (cell := one_cell(name, parent, body, file, _parse)) is not None:
        return cell
    if name not in content:
        raise UserError(
            f"there is no run {name!r} in {file}",
            expected=f"one of {', '.join(content)}" if content else "a run declared in that file",
            remedy=nearest(name, content),
        )
    return _parse(name, content[name], file)


def _read(file: StrPath | None) -> tuple[Path, Mapping[str, Any]]:
    file = DEFAULT_RUNS_FILE if file is None else as_path(file, "file")
    try:
        text = read_text(file)
    except (OSError, ValueError) as error:
        raise UserError(
            f"the runs file {file} cannot be read: {getattr(error, 'strerror', None) or error}",
            expected="a YAML file in UTF-8",
            remedy="run the command where runs.yaml is, or name the file with --runs"
            if file == DEFAULT_RUNS_FILE
            else "name a runs file with --runs",
        ) from error
    try:
        content = parse_yaml(text)
        require_plain(content)
    except ValueError as error:
        said = str(error)
        raise UserError(
            f"{file} {said.removeprefix('it ')}" if said.startswith("it ") else f"{file}: {said}",
            expected=_EXPECTED,
            remedy="correct the file there",
        ) from error
    if not isinstance(content, dict):
        raise UserError(
            f"{file} holds a {type(content).__name__}",
            expected=_EXPECTED,
            remedy="begin the file with the name of a run, and write what it is indented below",
        )
    odd = [name for name in content if isinstance(name, bool)]
    if odd:
        raise UserError(
            f"{file} names a run {odd[0]}: YAML reads on, off, yes and no so",
            expected="names that are words",
            remedy='write the name in quotes: "on"',
        )
    return file, {str(name): body for name, body in content.items()}


def _parse(name: str, body: Any, file: Path) -> Run:
    check_name(name)
    if not isinstance(body, dict):
        raise UserError(
            f"run {name!r} in {file} is a {type(body).__name__}",
            expected="a mapping with `series` and `analyses`",
            remedy="mine: {series: {kind: folder, path: ./checkpoints}, analyses: [induction]}",
        )
    try:
        run = Run.model_validate(body)
        if (truth := truth_for_number(body, run.model_dump())) is not None:
            raise UserError(
                f"run {name!r} in {file} says true or false for {truth!r}",
                expected="a number",
                remedy="write the number; YAML reads yes and on as true, no and off as false",
            )
    except ValidationError as error:
        lines = [explain(problem) for problem in error.errors()]
        raise UserError(
            f"run {name!r} in {file} has {len(lines)} mistake(s):\n    " + "\n    ".join(lines),
            expected="the keys and values of a run",
            remedy="correct them; the reference lists every key (docs/reference/runs-file.md)",
        ) from error
    base = absolute(file).parent
    import_beside(base)
    try:
        return run.model_copy(update=whole_paths(run, base))
    except UserError as error:
        error.add_note(f"in run {name!r} of {file}")
        raise


_SHAPES = {
    **dict.fromkeys(("tuple_type", "list_type"), "list, such as [a, b]"),
    **dict.fromkeys(("dict_type", "model_type"), "mapping, such as {key: value}"),
}
"""Types of pydantic's problems to what is expected."""


def explain(problem: Any) -> str:
    """One pydantic problem as a sentence, with the nearest known key where a key is unknown."""
    location = [str(part) for part in problem["loc"]]
    where = ".".join(part for part in location if part not in KINDS)
    kinds = "folder, hub" if "parts" in location else ", ".join(KINDS)
    if problem["type"] == "extra_forbidden":
        known = _fields_at(location[:-1])
        return f"unknown key {where!r}: {nearest(location[-1], known)}"
    if problem["type"] == "missing":
        return f"{where!r} is missing"
    if problem["type"].startswith("union_tag") and "corpus" in location:
        return f"{where!r} needs a `kind`: worlds, text, dataset or probes"
    if problem["type"] == "union_tag_not_found":
        return f"{where!r} has no `kind`: {kinds}"
    if problem["type"] == "union_tag_invalid":
        return f"'{where}.kind' is {problem['input'].get('kind')!r}: expected one of {kinds}"
    if (shape := _SHAPES.get(problem["type"])) is not None:
        own = ": expected names with settings, such as `dictionaries: {main: {layer: 2}}`"
        return f"{where!r} is no {shape.partition(',')[0] + own if location[0] == 'dictionaries' else shape}"
    message = str(problem["msg"]).removeprefix("Value error, ")
    return f"{where}: {message}" if where else message


def _fields_at(location: list[str]) -> list[str]:
    """The keys that are known where an unknown one was found."""
    from checkpoints.organism.curriculum import WorldEntry

    if not location:
        return list(Run.model_fields)
    if location[0] == "series":
        if "curriculum" in location:
            return list(WorldEntry.model_fields)
        if location[-2:-1] == ["parts"]:
            return list(PartConfig.model_fields)
        kind = next((KINDS[part] for part in reversed(location) if part in KINDS), FolderConfig)
        return list(kind.model_fields)
    if "template" in location:
        return list(TemplateConfig.model_fields)
    if "corpus" in location:
        return list(CORPORA[location[-1]].model_fields) if location[-1] in CORPORA else []
    models: dict[str, type[BaseModel]] = {
        "probes": ProbeEntry,
        "analyses": AnalysisEntry,
        "dictionaries": DictionaryConfig,
    }
    return list(models[location[0]].model_fields) if location[0] in models else []
