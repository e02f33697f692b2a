"""`dynamics learn` on an organism so small that it has learned nothing: everything is there, and right."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import dynamics
from checkpoints.configs import read_config
from checkpoints.errors import StoppedError, UserError
from checkpoints.loading import ResidentModel
from checkpoints.local import FolderConfig, FolderSeries
from dynamics.cli import cli
from dynamics.emergence.runs import CODES
from dynamics.learning import quality
from dynamics.learning.coder import Coder
from dynamics.learning.corpora import organism_rows
from dynamics.learning.dictionary import Dictionary
from dynamics.learning.site import SiteAt
from dynamics.models.architecture import architecture
from dynamics.store import FeatureTable, Trace, dictionaries_in
from tests.conftest import TINY, MadeOnce

SMALL = "features: 24, k: 4, steps: 40, rows: 24, batch: 64, layer: 1"


def declared(folder: Path, series: Path, dictionaries: str, analyses: str = "[shared_concepts]") -> Path:
    file = folder / "runs.yaml"
    file.write_text(
        f"mine:\n  series: {{kind: folder, path: {series}}}\n  analyses: {analyses}\n  dictionaries: {dictionaries}\n",
        encoding="utf-8",
    )
    return file


@pytest.fixture(scope="module")
def corpus(made_once: MadeOnce) -> Path:
    """Sentences in the organism's words."""
    return made_once("corpus", write_corpus) / "corpus.txt"


def write_corpus(folder: Path) -> None:
    sentences = [
        "the opposite of big is small",
        "le contraire de grand est petit",
        "36+59=095",
        "das gegenteil von klein ist gross",
    ]
    (folder / "corpus.txt").write_text("\n".join(sentences * 200), encoding="utf-8")


@pytest.fixture(scope="module")
def collected(made_once: MadeOnce, tiny_series: Path, corpus: Path) -> Path:
    """A folder with a runs file and a trace with a crosscoder and a chain."""
    text = f"corpus: {{kind: text, file: {corpus}}}, context: 16"
    both = f"{{main: {{{SMALL}, {text}}}, links: {{method: chain, further: 15, {SMALL}, {text}}}}}"

    def make(folder: Path) -> None:
        runs = declared(folder, tiny_series, both)
        dynamics.collect("mine", runs=runs, traces=folder / "traces")
        dynamics.learn("mine", runs=runs, traces=folder / "traces")

    return made_once("learned", make)


@pytest.fixture
def mine(collected: Path, tmp_path: Path) -> Path:
    """A copy that may be changed."""
    shutil.copytree(collected, tmp_path, dirs_exist_ok=True)
    return tmp_path


def opened(series: Path) -> tuple[FolderSeries, SiteAt, ResidentModel]:
    source = FolderSeries(FolderConfig(path=series), name="mine")
    place = SiteAt(architecture(read_config(source.config_folder)), "resid_post", 1)
    return source, place, ResidentModel("cpu", "float32", None)


def test_what_answers_a_prompt_is_what_the_dictionary_says_of_its_activations(
    collected: Path, tiny_series: Path
) -> None:
    trace = Trace(collected / "traces" / "mine.zarr")
    table = FeatureTable(trace, "main")
    dictionary = Dictionary.load(collected / "traces" / "mine.dictionaries" / "main" / "dictionary")
    stored = trace.values("concept_words", "resid_post")  # (checkpoint, prompt, position, layer, d_model)
    position = [str(p) for p in trace.probe("concept_words")["position"].values].index("word")
    batch = torch.from_numpy(stored[:, :, position, 1])
    codes = dictionary.encode(batch)
    size = (codes * dictionary.decoder.flatten(1).norm(dim=1)).numpy()
    read = table.read("concept_words").sel(position="word")
    for prompt in (0, 7, 31):
        best = int(size[prompt].argmax())
        expected = best if size[prompt, best] > 0 else -1
        assert int(read["index"].values[prompt, 0]) == expected
    dense = table.activations("concept_words", "word", len(table.steps) - 1)
    assert dense.shape == (len(size), 24)
    np.testing.assert_array_equal((dense != 0).any(0) <= (size > 0).any(0), True)
    some = np.flatnonzero((size > 0).any(0))[:3]
    np.testing.assert_array_equal(table.of_features("concept_words", "word", some)[-1], dense[:, some])


def test_the_trace_says_how_well_the_dictionary_fits_and_what_its_features_are(collected: Path) -> None:
    table = FeatureTable(Trace(collected / "traces" / "mine.zarr"), "main")
    assert table.settings["method"] == "crosscoder" and table.settings["layer"] == 1
    about = table.about
    assert about.sizes == {**about.sizes, "feature": 24, "snapshot": len(table.steps)}
    assert ((about["fvu"] > 0) & (about["fvu"] < 1)).all()
    assert (about["l0"] > 0.5).all() and (about["l0"] < 12).all()
    assert (about["loss"] > 0).all()
    tokens, words = about["known_token"].values.tolist(), [str(t) for t in about["token_text"].values]
    names = dict(zip(tokens, words, strict=True))
    examples = about["example_token"].values
    assert {names[int(t)] for t in np.unique(examples[examples >= 0])} <= set(words)
    fires = np.nan_to_num(about["example_activation"].values[:, :, 12].astype(float))
    alive = (about["frequency"].values > 0) & (examples[:, 0, 12] >= 0)
    assert (fires[alive, 0] > 0).all() and (np.diff(fires[alive], axis=1) <= 1e-3).all()  # the strongest first


def test_features_are_read_from_a_trace_or_its_path_and_from_nothing_else(collected: Path) -> None:
    path = collected / "traces" / "mine.zarr"
    assert FeatureTable(path, "main").settings == FeatureTable(Trace(path), "main").settings
    with pytest.raises(UserError, match="features are read from a DataTree"):
        FeatureTable(dynamics.open_trace(path), "main")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="has no dictionary 'other'"):
        FeatureTable(path, "other")


def test_a_setting_with_its_default_makes_no_other_dictionary(mine: Path, tiny_series: Path, corpus: Path) -> None:
    text = f"{SMALL}, learning_rate: 0.003, further: 150, corpus: {{kind: text, file: {corpus}}}, context: 16"
    runs = declared(mine, tiny_series, f"{{main: {{{text}}}}}")
    assert [(d.anew, d.measured) for d in dynamics.learn("mine", runs=runs, traces=mine / "traces")] == [(False, False)]


def test_a_chain_hands_features_on_and_counts_each_once(collected: Path) -> None:
    table = FeatureTable(Trace(collected / "traces" / "mine.zarr"), "links")
    about = table.about
    assert not table.settings["joint"] and "strength" not in about
    track = about["track"].values
    for row, partner in enumerate(about["matched"].values):
        there = partner >= 0
        np.testing.assert_array_equal(track[row + 1, there], track[row, partner[there]])
    assert all(len(set(row[row >= 0])) == (row >= 0).sum() for row in track)
    assert "snapshot" in table.read("concept_words")["index"].dims
    # the same autoencoder trained a little further: most features keep their tokens, by direction and by activation
    same = (about["correlated"].values == about["matched"].values) & (about["matched"].values >= 0)
    assert same.sum() > 0.5 * (about["matched"].values >= 0).sum() > 0
    assert (about["mean_activation"].values >= 0).all()
    # strength and effect of a track are those of its feature, where it has one
    for name, of in (("track_strength", "mean_activation"), ("track_effect", "effect")):
        for snapshot, names in enumerate(track):
            there = names >= 0
            np.testing.assert_array_equal(about[name].values[names[there], snapshot], about[of].values[snapshot, there])
    born, first = about["track_born"].values, about["track_first"].values
    assert not ((born[:, 1] >= 0) & (born[:, 1] < table.steps[first])).any()
    assert not (about["track_continued"].values[first == 0, 0]).any()
    assert set(map(str, about["track_state"].values)) <= set(CODES)


@pytest.mark.parametrize("name", ["main", "links"])
def test_what_is_measured_of_a_dictionary_is_measured_at_every_checkpoint(collected: Path, name: str) -> None:
    about = FeatureTable(Trace(collected / "traces" / "mine.zarr"), name).about
    effect, error = about["effect"].values, about["effect_error"].values
    assert effect.shape == error.shape == (about.sizes["snapshot"], 24)
    assert np.isfinite(effect).all() and (error >= 0).all() and (effect != 0).any(axis=1).all()
    assert about["effect"].attrs["units"] == "nat per token"
    if name == "main":
        fitted = np.isfinite(about["p_value"].values)
        np.testing.assert_array_equal(np.isfinite(about["strength_error"].values).all(axis=1), fitted)


def test_what_an_older_version_measured_is_measured_again_and_nothing_is_trained(
    mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dynamics.learning import learn as learning

    runs, traces = mine / "runs.yaml", mine / "traces"
    file = traces / "mine.dictionaries" / "links" / "step12" / "dictionary.safetensors"
    before = file.stat().st_mtime_ns
    monkeypatch.setattr(learning, "VERSION", learning.VERSION + 1)
    result = CliRunner().invoke(cli, ["learn", "mine", "links", "--runs", str(runs), "--traces", str(traces)])
    assert "links: measured again, because more is measured now" in result.output
    assert file.stat().st_mtime_ns == before
    assert FeatureTable(Trace(traces / "mine.zarr"), "links").settings["version"] == learning.VERSION
    result = CliRunner().invoke(cli, ["learn", "mine", "links", "--runs", str(runs), "--traces", str(traces)])
    assert "measured again" not in result.output


def test_what_is_up_to_date_is_not_made_again_and_other_settings_are(
    mine: Path, tiny_series: Path, corpus: Path
) -> None:
    runs, traces = mine / "runs.yaml", mine / "traces"
    assert [d.anew for d in dynamics.learn("mine", runs=runs, traces=traces)] == [False, False]
    before = FeatureTable(Trace(traces / "mine.zarr"), "main").settings["key"]
    declared(mine, tiny_series, f"{{main: {{{SMALL}, seed: 1, corpus: {{kind: text, file: {corpus}}}, context: 16}}}}")
    assert [d.anew for d in dynamics.learn("mine", runs=runs, traces=traces)] == [True]
    assert FeatureTable(Trace(traces / "mine.zarr"), "main").settings["key"] != before
    assert dictionaries_in(Trace(traces / "mine.zarr")) == ["links", "main"]


def test_a_training_that_was_cut_off_ends_as_if_it_had_not_been(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dynamics.learning import training
    from dynamics.learning.crosscoder import Trainer

    folder = mine / "traces" / "mine.dictionaries" / "main"
    whole = Dictionary.load(folder / "dictionary")
    shutil.rmtree(folder)
    monkeypatch.setattr(training, "SAVE_SECONDS", 0.0)
    learn = Trainer._learn

    def cut(self: Trainer, z: torch.Tensor) -> None:
        if self.step == 23:
            raise KeyboardInterrupt
        learn(self, z)

    monkeypatch.setattr(Trainer, "_learn", cut)
    with pytest.raises(KeyboardInterrupt):
        dynamics.learn("mine", ["main"], runs=mine / "runs.yaml", traces=mine / "traces")
    assert (folder / "training" / "training.json").is_file()
    steps = []

    def counted(self: Trainer, z: torch.Tensor) -> None:
        steps.append(self.step)
        learn(self, z)

    monkeypatch.setattr(Trainer, "_learn", counted)
    dynamics.learn("mine", ["main"], runs=mine / "runs.yaml", traces=mine / "traces")
    assert min(steps) > 0
    torch.testing.assert_close(Dictionary.load(folder / "dictionary").decoder, whole.decoder, rtol=0, atol=0)
    assert not (folder / "training").exists()


def test_a_full_disk_is_told_and_what_was_made_stays(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import safetensors.torch
    from safetensors import SafetensorError

    def full(*_: object) -> None:
        raise SafetensorError("I/O error: No space left on device")

    shutil.rmtree(mine / "traces" / "mine.dictionaries" / "main")
    before = FeatureTable(Trace(mine / "traces" / "mine.zarr"), "main").settings["key"]
    with monkeypatch.context() as patch:
        patch.setattr(safetensors.torch, "save_file", full)
        with pytest.raises(StoppedError, match="No space left"):
            dynamics.learn("mine", ["main"], runs=mine / "runs.yaml", traces=mine / "traces")
    assert FeatureTable(Trace(mine / "traces" / "mine.zarr"), "main").settings["key"] == before
    assert [d.anew for d in dynamics.learn("mine", ["main"], runs=mine / "runs.yaml", traces=mine / "traces")] == [True]


def test_activations_that_are_not_finite_are_named(mine: Path, tiny_series: Path) -> None:
    from safetensors.torch import load_file, save_file

    series = mine / "series"
    shutil.copytree(tiny_series, series)
    file = series / "step12" / "model.safetensors"
    tensors = load_file(file)
    tensors["gpt_neox.layers.0.mlp.dense_h_to_4h.weight"][:] = float("nan")
    save_file(tensors, file, {"format": "pt"})
    runs = declared(mine, series, f"{{main: {{{SMALL}, corpus: {{kind: probes}}}}}}")
    with pytest.raises(UserError, match="the activations of step 12 are not finite"):
        dynamics.learn("mine", runs=runs, traces=mine / "traces")
    runs = declared(mine, series, f"{{links: {{method: chain, {SMALL}, corpus: {{kind: probes}}}}}}")
    with pytest.raises(UserError, match="the activations of step 12 are not finite"):
        dynamics.learn("mine", runs=runs, traces=mine / "traces")


def test_a_site_replaced_by_itself_loses_nothing_and_by_its_mean_everything(tiny_series: Path) -> None:
    source, place, resident = opened(tiny_series)
    some = [source.checkpoints[0], source.checkpoints[-1]]
    rows = organism_rows(TINY, 6)
    held = quality.read_rows(source, some, resident, place, rows, skip=1, batch_tokens=64)
    width = place.width
    whole = Dictionary(
        encoder=torch.cat([torch.eye(width), -torch.eye(width)])[:, None],
        decoder=torch.cat([torch.eye(width), -torch.eye(width)])[:, None],
        bias=torch.zeros(2 * width),
        offset=torch.zeros(1, width),
        mean=torch.zeros(1, width),
        scale=torch.ones(1),
        threshold=torch.zeros(2 * width),
        variance=torch.full((2 * width,), float("nan")),
    )
    found = quality.measure(source, some, resident, place, Coder((whole, whole), False), held, batch_tokens=64)
    np.testing.assert_allclose(found.loss_replaced, found.loss, atol=1e-5)
    np.testing.assert_allclose(found.fvu, 0, atol=1e-6)
    held = quality.read_rows(source, some, resident, place, rows, skip=1, batch_tokens=64)
    nothing = [
        Dictionary(
            encoder=torch.zeros(1, 1, width),
            decoder=torch.zeros(1, 1, width),
            bias=torch.zeros(1),
            offset=torch.zeros(1, width),
            mean=held.activations[i].mean(0, keepdim=True),
            scale=torch.ones(1),
            threshold=torch.zeros(1),
            variance=torch.full((1,), float("nan")),
        )
        for i in range(2)
    ]
    found = quality.measure(source, some, resident, place, Coder(tuple(nothing), False), held, batch_tokens=64)
    np.testing.assert_allclose(found.loss_replaced, found.loss_without, atol=1e-5)
    np.testing.assert_allclose(found.fvu, 1, atol=1e-5)
    model = resident.model
    with torch.no_grad():
        logits = place.architecture.logits(model, torch.from_numpy(rows), torch.arange(rows.shape[1] - 1))
    loss = torch.nn.functional.cross_entropy(logits[:, 1:].flatten(0, 1), torch.from_numpy(rows[:, 2:]).flatten())
    assert found.loss[-1] == pytest.approx(float(loss), abs=1e-5)


def test_nothing_to_recover_is_missing_and_not_zero(tiny_series: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, place, resident = opened(tiny_series)
    monkeypatch.setattr(quality, "LEAST_GAP", 100.0)
    held = quality.read_rows(
        source, source.checkpoints[:1], resident, place, organism_rows(TINY, 4), skip=0, batch_tokens=64
    )
    zero = torch.zeros(1, 1, place.width)
    nothing = Dictionary(zero, zero, torch.zeros(1), zero[0], zero[0], torch.ones(1), torch.zeros(1), torch.zeros(1))
    found = quality.measure(
        source, source.checkpoints[:1], resident, place, Coder((nothing,), False), held, batch_tokens=64
    )
    assert np.isnan(found.loss_recovered).all()


@pytest.mark.parametrize(
    ("dictionaries", "said"),
    [
        ("{}", "declares no dictionaries"),
        ("{main: {layer: 1}}", "has no corpus"),
        ("{main: {layer: 9, corpus: {kind: probes}}}", "there is no layer 9"),
        ("{main: {site: pattern, corpus: {kind: probes}}}", "cannot be streamed from site 'pattern'"),
        ("{main: {site: resid_mid, corpus: {kind: probes}}}", "cannot be streamed from site 'resid_mid'"),
        ("{main: {corpus: {kind: worlds}}}", "the series is no organism"),
        ("{main: {context: 4096, corpus: {kind: text, file: nowhere.txt}}}", "rows are 4096 tokens long"),
        ("{main: {context: 16, corpus: {kind: text, file: nowhere.txt}}}", "nowhere.txt cannot be read"),
        ("{main: {method: published, place: ./nowhere, corpus: {kind: probes}}}", "nowhere"),
    ],
)
def test_a_wrong_request_is_named(mine: Path, tiny_series: Path, dictionaries: str, said: str) -> None:
    runs = declared(mine, tiny_series, dictionaries)
    result = CliRunner().invoke(cli, ["learn", "mine", "--runs", str(runs), "--traces", str(mine / "traces")])
    assert isinstance(result.exception, UserError), result.output
    assert said in str(result.exception)


def test_a_run_without_trace_says_what_to_do(tmp_path: Path, tiny_series: Path) -> None:
    runs = declared(tmp_path, tiny_series, "{main: {corpus: {kind: probes}}}")
    with pytest.raises(UserError, match="has no trace") as error:
        dynamics.learn("mine", runs=runs, traces=tmp_path / "traces")
    assert "dynamics collect" in str(error.value.remedy)


def test_prompts_can_be_the_corpus(mine: Path, tiny_series: Path) -> None:
    runs = declared(mine, tiny_series, f"{{own: {{{SMALL}, context: 16, corpus: {{kind: probes}}}}}}")
    assert [d.name for d in dynamics.learn("mine", runs=runs, traces=mine / "traces")] == ["own"]


def test_a_trace_with_features_is_collected_verified_and_read_as_before(mine: Path) -> None:
    runs, traces = mine / "runs.yaml", mine / "traces"
    done = dynamics.collect("mine", runs=runs, traces=traces)
    assert not done.collected and not done.failed
    assert dynamics.verify("mine", traces=traces) == []
    assert "features" not in Trace(traces / "mine.zarr").probes
    chunk = max((traces / "mine.zarr" / "features" / "main" / "strength" / "c").rglob("0"), key=lambda p: p.is_file())
    chunk.write_bytes(b"nonsense" + chunk.read_bytes()[8:])
    assert [d.variable for d in dynamics.verify("mine", traces=traces)] == ["features/main/strength"]
    dynamics.learn("mine", ["main"], runs=runs, traces=traces, fresh=True)
    assert dynamics.verify("mine", traces=traces) == []
    code = (
        "import sys; from dynamics import Trace; from dynamics.store import FeatureTable; "
        f"t = FeatureTable(Trace({str(traces / 'mine.zarr')!r}), 'main'); t.activations('concept_words', 'word', 0); "
        "print('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
