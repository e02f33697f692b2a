"""Every example runs and does what it says."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

import dynamics
from dynamics.measurements import Activations
from dynamics.measurements.forward import measure
from dynamics.models.architecture import adapted
from dynamics.probes import Probe, tokenize
from tests.conftest import runs_file

EXAMPLES = Path(__file__).parents[2] / "examples"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"examples.{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_custom_analysis_reads_a_trace(tiny_series: Path, tmp_path: Path) -> None:
    runs = runs_file(
        tmp_path,
        tiny_series,
        analyses="[{name: addition, options: {per_context: 20, pairs_per_context: 8, exchanged: 4}}]",
    )
    trace = dynamics.collect("mine", runs=runs, traces=tmp_path).trace
    example = load("custom_analysis_on_a_trace")
    rows = example.confidence_and_accuracy(trace)
    assert [step for step, _, _ in rows] == dynamics.Trace(trace).steps.tolist()
    assert all(0 < certainty <= 1 and 0 <= accuracy <= 1 for _, certainty, accuracy in rows)
    assert example.onset_of_certainty(trace).startswith("not emerged")


def test_own_series_of_another_architecture_is_traced(tmp_path: Path) -> None:
    example = load("own_series")
    example.train(tmp_path / "run")
    tree = dynamics.open_trace(example.trace(tmp_path / "run", tmp_path))
    assert tree["step"].values.tolist() == [0, 2, 4, 6, 8]
    prompts = tree["prompts"].to_dataset()
    assert prompts.resid_post.dims == ("checkpoint", "prompt", "position", "layer", "d_model")
    assert prompts.position.values.tolist() == ["last", "operand_b"]
    plain = prompts.answer_logprob.isel(prompt=int(np.flatnonzero(prompts.kind.values == "plain")[0]))
    assert plain.values[-1] > plain.values[0]  # that very sum is what it was trained on
    page = dynamics.report("mine", traces=tmp_path, reports=tmp_path / "reports").folder / "index.html"
    assert "of a gpt2 model (2 layers, width 32, 2 heads)." in page.read_text(encoding="utf-8")


@pytest.fixture
def beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Path]]:
    """Puts an example beside a runs file, as a user would."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    made: list[str] = []

    def put(name: str) -> Path:
        shutil.copy(EXAMPLES / f"{name}.py", tmp_path)
        made.append(name)
        return tmp_path / "runs.yaml"

    yield put
    for name in made:
        sys.modules.pop(name, None)


def test_own_analysis_makes_a_report(beside: Callable[[str], Path], tiny_series: Path, tmp_path: Path) -> None:
    runs = beside("own_analysis")
    runs.write_text(
        f"mine:\n  series: {{kind: folder, path: {tiny_series}}}\n  analyses: [own_analysis]\n"
        f"  probes: {{prompts: {{file: {EXAMPLES / 'prompts.jsonl'}}}}}\n"
    )
    dynamics.collect("mine", runs=runs, traces=tmp_path)
    written = dynamics.report("mine", runs=runs, traces=tmp_path, reports=tmp_path / "reports")
    keys = [row["key"] for row in written.content["emergence"]]
    assert keys == ["own_analysis.preference", "own_probes.prompts.accuracy", "own_probes.prompts.foil"]
    page = (written.folder / "index.html").read_text(encoding="utf-8")
    assert "Answer against foil" in page
    assert "When does the model prefer the right answer to the foil" in page  # the docstring asks the question
    assert list(written.folder.glob("**/own_analysis*curves*"))  # the figure that nobody wrote


def test_prompts_made_in_code_give_curves_a_decoding_and_a_figure_in_sixty_lines(
    beside: Callable[[str], Path], tiny_series: Path, tmp_path: Path
) -> None:
    runs = beside("made_prompts")
    assert len((tmp_path / "made_prompts.py").read_text(encoding="utf-8").splitlines()) <= 60
    runs.write_text(f"mine:\n  series: {{kind: folder, path: {tiny_series}}}\n  analyses: [made_prompts]\n")
    trace = dynamics.Trace(dynamics.collect("mine", runs=runs, traces=tmp_path).trace)
    assert {"carry_plain", "carry_words"} <= set(trace.probes)
    (summary,) = dynamics.analyse("mine", runs=runs, traces=tmp_path).values()
    assert list(summary.by_key) == ["plain", "words", "decodable"]
    stored = dynamics.open_trace(trace.path)["results/made_prompts/findings"].to_dataset()
    np.testing.assert_array_equal(stored.value, summary.to_xarray().value)
    accuracy = summary.data["by_layer"].values
    assert accuracy.shape == (len(trace.steps), trace.probe("carry_plain").sizes["layer"])
    assert ((accuracy[trace.complete] > 0.4) & (accuracy[trace.complete] <= 1)).all()
    written = dynamics.report("mine", runs=runs, traces=tmp_path, reports=tmp_path / "reports")
    assert list(written.folder.glob("**/*by_layer*"))


def test_a_module_in_plain_torch_is_traced_like_a_pythia(tmp_path: Path) -> None:
    """Also what the adapter says is where it says it: sites against the module's own arithmetic."""
    example = load("modular_addition")
    example.train(tmp_path / "series", steps=40, checkpoints=5)
    run = example.run(tmp_path / "series")
    trace = dynamics.Trace(dynamics.collect("grokking", run=run, traces=tmp_path).trace)
    assert trace.steps.tolist() == [0, 2, 5, 15, 40]
    assert trace.complete.all()
    dataset = trace.probe("modular_addition")
    model = example.Transformer()
    model.load_state_dict(torch.load(tmp_path / "series/step40.pth"))
    ids = torch.tensor([[3, 4, example.P], [30, 30, example.P]])
    with torch.inference_mode():
        logprobs = model(ids)[:, -1].log_softmax(-1)
        stream = model.embed(ids) + model.position
        stream = model.blocks[0](stream)[:, -1]
    for row, (a, b) in enumerate(((3, 4), (30, 30))):
        at = dataset.isel(checkpoint=-1, prompt=a * example.P + b)
        assert at["answer_logprob"].item() == pytest.approx(logprobs[row, (a + b) % example.P].item(), abs=1e-5)
        np.testing.assert_allclose(at["resid_post"].values[0, 0], stream[row], atol=1e-5)
    written = dynamics.report("grokking", run=run, traces=tmp_path, reports=tmp_path / "reports")
    assert [row["key"] for row in written.content["emergence"]] == [
        "modular_addition.shown",
        "modular_addition.held_out",
    ]
    assert (written.folder / "index.html").stat().st_size > 10_000


def test_every_site_of_the_adapter_is_where_it_says(tmp_path: Path) -> None:
    example = load("modular_addition")
    torch.manual_seed(0)
    model = example.Transformer()
    found = adapted(example.ADAPTER, model.state_dict())
    words = example.ADAPTER.tokenizer()
    probe = tokenize(Probe("p", ("1 2 =", "30 0 =")), words, vocab=found.shape.vocab, context=found.shape.context)
    sites = [Activations(site) for site in found.table.sites]
    values = measure(model, probe, sites, architecture=found)
    np.testing.assert_allclose(
        values["resid_post"], values["resid_pre"] + values["attn_out"] + values["mlp_out"], atol=1e-5
    )
    np.testing.assert_allclose(values["resid_mid"], values["resid_pre"] + values["attn_out"], atol=1e-5)
    np.testing.assert_allclose(values["pattern"].sum(-1), 1, atol=1e-5)
    assert values["z"].shape[-2:] == (4, 16)


def test_networks_of_bare_parameters_are_traced_and_their_key_frequency_is_dated(tmp_path: Path) -> None:
    """p answers to p + 1 tokens, sites by functions, one adapter for two p; the frequency is the FFT's of the weights."""
    example = load("bare_parameters")
    example.train(tmp_path / "mod-7", 7, steps=2, checkpoints=2)
    example.train(tmp_path / "mod-13", 13, steps=400, checkpoints=12)
    traces = [
        dynamics.Trace(dynamics.collect(name, run=example.run(tmp_path / name), traces=tmp_path).trace)
        for name in ("mod-7", "mod-13")
    ]
    assert [trace.probe("mod_sums").sizes["prompt"] for trace in traces] == [49, 169]
    weights = torch.load(tmp_path / "mod-13/step400.pth")
    model = example.ADAPTER.build(weights)
    model.load_state_dict(weights)
    ids = torch.tensor([[3, 4, 13], [12, 12, 13]])
    with torch.inference_mode():
        logprobs = model(ids)[:, -1].log_softmax(-1)  # of 13 answers
    at = traces[1].values("mod_sums", "answer_logprob")[-1, [3 * 13 + 4, 12 * 13 + 12]]
    np.testing.assert_allclose(at, logprobs[torch.arange(2), torch.tensor([7, 11])], atol=1e-4)
    embedded = traces[1].values("mod_numbers", "embed")[-1].squeeze()
    np.testing.assert_array_equal(embedded, weights["W_E"][:13])
    power = np.square(np.abs(np.fft.rfft(weights["W_E"][:13].numpy(), axis=0))).sum(1)[1:]
    results = dynamics.analyse("mod-13", run=example.run(tmp_path / "mod-13"), traces=tmp_path)
    dated = results.finding(f"bare_parameters.period.13/{power.argmax() + 1}").emergence
    assert dated.state == "emerged" and dated.onset.after >= 15
    assert results.finding("bare_parameters.known").emergence.state == "emerged"


def test_sites_by_function_are_the_module_s_own_arithmetic() -> None:
    example = load("bare_parameters")
    torch.manual_seed(0)
    model = example.Network(7, 8, 16, 4)
    found = adapted(example.ADAPTER, model.state_dict())
    words = example.ADAPTER.tokenizer(model.state_dict())
    probe = tokenize(Probe("p", ("1 2 =", "6 0 =")), words, vocab=found.shape.vocab, context=found.shape.context)
    values = measure(model, probe, [Activations(site) for site in found.table.sites], architecture=found)
    W_out, W_U = model.W_out.detach().numpy(), model.W_U.detach().numpy()
    np.testing.assert_allclose(values["resid_post"], values["resid_mid"] + values["mlp_post"] @ W_out, atol=1e-5)
    np.testing.assert_allclose(values["logits"][..., :7], values["resid_post"].squeeze(2) @ W_U, atol=1e-5)
