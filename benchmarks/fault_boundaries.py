"""Where files of somebody else's enter: a good file of each kind, and what this program does with one."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from checkpoints.foreign import parse_json, parse_yaml

__all__ = ["BOUNDARIES", "Boundary"]


@dataclass(frozen=True)
class Boundary:
    """Where files of one kind enter.

    Attributes:
        what: the kind.
        made: makes a folder with a good file of it, and says which file that is.
        read: what this program does with the folder.
        parse: the file's content as values, and their bytes again; None for one that has no such structure.
        dump: see ``parse``; it is given what the file held, too.
    """

    what: str
    made: Callable[[Path], Path]
    read: Callable[[Path], object]
    parse: Callable[[bytes], Any] | None = None
    dump: Callable[[Any, bytes], bytes] = lambda value, _before: json.dumps(value).encode()


def _put(file: Path, content: str | bytes) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


_RUNS = """\
mine:
  description: a run
  series: {kind: folder, path: ./s, steps: [0, 10], tokens_per_step: 512, tokenizer: ./t}
  analyses: [{name: induction, options: {prompts: 8, period: 4}}, {name: addition, optional: true}]
  probes: {p: {file: ./p.jsonl, sites: [resid_post], positions: [last]}}
  dictionaries: {main: {layer: 1, features: 64, k: 4, corpus: {kind: text, file: ./c.txt}}}
  schedule: log
  checkpoints: 8
  exclude: [10]
  batch_tokens: 512
other:
  series: {kind: organism, steps: 20, checkpoints: 4, seed: 1}
  analyses: [induction]
"""


def _read_runs(folder: Path) -> None:
    from checkpoints.organism import model_config, schedule
    from checkpoints.organism.curriculum import OrganismConfig
    from dynamics.runs.config import load_run, run_names
    from dynamics.runs.plan import find_analysis

    for name in run_names(folder / "runs.yaml"):
        run = load_run(name, folder / "runs.yaml")
        for entry in run.analyses:
            find_analysis(entry.name, entry.options)
        if isinstance(run.series, OrganismConfig):
            schedule(run.series)
            model_config(run.series)
        json.dumps(run.model_dump(mode="json"), ensure_ascii=False, allow_nan=False).encode()


_PROMPTS = [
    {"text": f"w{i} + w{i} =", "answer": f" w{i}", "foil": " w9", "labels": {"kind": "ab"[i % 2], "n": i}, "positions": {"sum": "+"}}
    for i in range(4)
]  # fmt: skip


def _read_prompts(folder: Path) -> None:
    from dynamics.probes import read_probe
    from dynamics.store.create import put_coordinate

    zarr = importlib.import_module("zarr")
    (file,) = folder.iterdir()
    probe = read_probe("p", file)
    group = zarr.create_group(zarr.storage.MemoryStore())
    for name, values in {"text": probe.text, **probe.labels}.items():
        put_coordinate(group, name, "prompt", values)
    group.attrs["description"] = probe.description


def _lines(content: bytes) -> Any:
    return [parse_json(line) for line in content.decode().splitlines()]


def _as_lines(value: Any, _before: bytes = b"") -> bytes:
    return "\n".join(map(json.dumps, value if isinstance(value, list) else [value])).encode()


def _as_yaml(value: Any, _before: bytes = b"") -> bytes:
    return str(importlib.import_module("yaml").safe_dump(value)).encode()


@cache
def _model() -> Any:
    torch, transformers = importlib.import_module("torch"), importlib.import_module("transformers")
    torch.manual_seed(0)
    transformers.utils.logging.disable_progress_bar()
    sizes = {
        "vocab_size": 40,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 24,
    }
    return transformers.GPTNeoXForCausalLM(transformers.GPTNeoXConfig(**sizes, max_position_embeddings=64))


def _saved(name: str) -> Callable[[Path], Path]:
    def made(folder: Path) -> Path:
        for step in (0, 10):
            _model().save_pretrained(folder / f"checkpoint-{step}")
            state = {
                "global_step": step,
                "num_input_tokens_seen": 512 * step,
                "epoch": 0.5,
                "log_history": [{"loss": 1.5}],
            }
            _put(folder / f"checkpoint-{step}" / "trainer_state.json", json.dumps(state))
        return folder / "checkpoint-10" / name

    return made


def _read_config(folder: Path) -> None:
    from checkpoints.configs import read_config
    from checkpoints.loading import ResidentModel, prepare
    from dynamics.models.architecture import architecture

    for checkpoint in sorted(folder.iterdir()):
        architecture(read_config(checkpoint))
        ResidentModel().install(prepare(checkpoint))


def _read_series(folder: Path) -> None:
    from checkpoints.local import FolderSeries

    series = FolderSeries(folder)
    for checkpoint in series.checkpoints:
        series.header(checkpoint)
        series.read(series.fetch(checkpoint))


def _header(content: bytes) -> Any:
    return parse_json(content[8 : 8 + int.from_bytes(content[:8], "little")].decode())


def _with_header(value: Any, before: bytes) -> bytes:
    header = json.dumps(value).encode()
    return len(header).to_bytes(8, "little") + header + before[8 + int.from_bytes(before[:8], "little") :]


def _declaration(more: int = 0) -> Any:
    from checkpoints.series import Checkpoint
    from dynamics.runs.config import Run
    from dynamics.store import Group, TraceDeclaration, Variable

    variable = Variable("answer_logprob", ("prompt",), (2,), "float", "log-probability")
    group = Group("p", "a probe", {"text": ("a", "b")}, (variable,), {"positions": {"last": [0, 0]}})
    run = Run.model_validate({"series": {"kind": "folder", "path": "s"}, "analyses": ["induction"]})
    attributes = {"run": "r", "run_config": run.model_dump(mode="json"), "model_config": {"layers": 1}, "origin": "s"}
    steps = tuple(Checkpoint(step, f"step{step}") for step in range(0, 10 * (3 + more), 10))
    return TraceDeclaration(steps, (group,), attributes=attributes)


def _made_trace(folder: Path) -> Path:
    from dynamics.store import TraceWriter
    from dynamics.store.journal import write_journal

    numpy = importlib.import_module("numpy")
    path = folder / "r.zarr"
    folder.mkdir(parents=True, exist_ok=True)
    writer = TraceWriter(path, _declaration())
    for index in range(2):
        writer.write(index, "p", {"answer_logprob": numpy.full(2, -1.0, dtype="float32")})
        writer.commit(index, digest="d", stored_dtype="float32")
        write_journal(path, "complete", step=10 * index, seconds=0.5)
    write_journal(path, "round", number=1, steps=[10], purposes={"10": ["a.b"]})
    return path


def _trace_file(name: str) -> Callable[[Path], Path]:
    return lambda folder: (_made_trace(folder), folder / name)[1]


def _read_journal(folder: Path) -> None:
    from dynamics import status

    status("r", traces=folder)


def _read_trace(folder: Path) -> None:
    from dynamics import status
    from dynamics.reporting.content import report_content
    from dynamics.store import Trace

    status("r", traces=folder)
    trace = Trace(folder / "r.zarr")
    trace.checkpoints()
    for probe in trace.probes:
        for variable in trace.probe(probe).data_vars:
            trace.values(probe, str(variable))
    report_content("r", trace, [])


def _grow(folder: Path) -> None:
    _go_on(folder, more=1)


def _go_on(folder: Path, more: int = 0) -> None:
    from dynamics.store import TraceWriter

    numpy = importlib.import_module("numpy")
    writer = TraceWriter(folder / "r.zarr", _declaration(more))
    writer.status(), writer.digests(), writer.revisions()
    writer.clear(2)
    writer.write(2, "p", {"answer_logprob": numpy.full(2, -1.0, dtype="float32")})
    writer.commit(2, digest="d", stored_dtype="float32")
    _read_trace(folder)


_ENTITIES = [
    {"entity": f"E{i}", "question": f"Where is E{i} ?", "answer": f"a{i}", "known": i % 2 == 0, "attribute": "place"}
    for i in range(8)
]


@cache
def _words() -> Any:
    from checkpoints.tokenizing import word_tokenizer

    words = ["unknown", "Question:", "Answer:", "(A", "(B", "A", "B", *(f"a{i}" for i in range(8))]
    return word_tokenizer(words)


def _read_entities(folder: Path) -> None:
    from analyses.hallucination.entity_file import entity_file_probe

    (file,) = folder.iterdir()
    entity_file_probe(_words(), file)


_PUBLISHED = [
    {"question": f"Is it {i}?", "answer_matching_behavior": " (A)", "answer_not_matching_behavior": " (B)"}
    for i in range(4)
]


def _read_published(folder: Path) -> None:
    from analyses.sycophancy.published import published_probe

    published_probe(_words(), folder / "q.jsonl")


_LITGPT = {
    "name": "pythia-14m",
    "n_layer": 2,
    "n_head": 2,
    "n_embd": 16,
    "block_size": 32,
    "padded_vocab_size": 40,
    "norm_eps": 1e-5,
    "norm_class_name": "LayerNorm",
    "mlp_class_name": "GptNeoxMLP",
    "rotary_percentage": 0.25,
    "rope_base": 10000,
    "bias": True,
}


def _read_litgpt(folder: Path) -> None:
    from checkpoints.layouts.litgpt_config import model_config

    model_config(folder, tied=False)


def _made_dictionary(folder: Path) -> Path:
    from dynamics.learning.crosscoder import TrainConfig, Trainer

    torch = importlib.import_module("torch")

    class Stream:
        def batches(self) -> Iterator[Any]:
            yield torch.randn(2, 32, 4, generator=torch.Generator().manual_seed(0))

    stream: Any = Stream()
    Trainer.start(TrainConfig(8, 2.0, 4), stream).save(folder)
    return folder / "training.json"


def _read_dictionary(folder: Path) -> None:
    from dynamics.learning.crosscoder import Trainer

    Trainer.load(folder)


def _read_corpus(folder: Path) -> None:
    from dynamics.learning.corpora import text_rows

    text_rows(folder / "c.txt", _words(), context=4)


def _yaml(content: bytes) -> Any:
    return parse_yaml(content.decode())


def _json(content: bytes) -> Any:
    return parse_json(content.decode())


_CSV = "entity,question,answer,known\n" + "".join(
    f"{e['entity']},{e['question']},{e['answer']},{e['known']}\n" for e in _ENTITIES
)

BOUNDARIES = tuple(
    Boundary(*about)  # type: ignore[arg-type]
    for about in (
        ("runs file", lambda f: _put(f / "runs.yaml", _RUNS), _read_runs, _yaml, _as_yaml),
        ("prompts, JSONL", lambda f: _put(f / "p.jsonl", _as_lines(_PROMPTS)), _read_prompts, _lines, _as_lines),
        (
            "prompts, YAML",
            lambda f: _put(f / "p.yaml", _as_yaml({"description": "x", "prompts": _PROMPTS})),
            _read_prompts,
            _yaml,
            _as_yaml,
        ),
        ("entities, JSONL", lambda f: _put(f / "e.jsonl", _as_lines(_ENTITIES)), _read_entities, _lines, _as_lines),
        ("entities, CSV", lambda f: _put(f / "e.csv", _CSV), _read_entities),
        (
            "published questions",
            lambda f: _put(f / "q.jsonl", _as_lines(_PUBLISHED)),
            _read_published,
            _lines,
            _as_lines,
        ),
        ("corpus", lambda f: _put(f / "c.txt", "Question: unknown Answer: a1 " * 4), _read_corpus),
        ("model config", _saved("config.json"), _read_config, _json),
        ("trainer state", _saved("trainer_state.json"), _read_series, _json),
        ("safetensors", _saved("model.safetensors"), _read_series, _header, _with_header),
        ("litgpt config", lambda f: _put(f / "model_config.yaml", _as_yaml(_LITGPT)), _read_litgpt, _yaml, _as_yaml),
        ("trace metadata", _trace_file("r.zarr/zarr.json"), _read_trace, _json),
        ("trace metadata, going on", _trace_file("r.zarr/zarr.json"), _go_on, _json),
        ("metadata of an array, growing", _trace_file("r.zarr/step/zarr.json"), _grow, _json),
        ("journal", _trace_file("r.journal.jsonl"), _read_journal, _lines, _as_lines),
        ("training of a dictionary", _made_dictionary, _read_dictionary, _json),
    )
)
"""Every kind of file that is read; tokenizers are the affair of the library that reads them, behind ``load_tokenizer``."""
