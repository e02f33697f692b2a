"""Features in an explanation: the split adds up, known features are found, what does not fit is refused."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from checkpoints import UserError
from dynamics.circuits.attribution import attribute
from dynamics.cli import main
from dynamics.explaining import check_explanation
from dynamics.explaining.dictionary import split_checkpoints
from dynamics.explaining.splitting import FeatureSplit, SiteActivations, cross, split, strongest
from dynamics.learning.coder import Coder
from dynamics.learning.dictionary import Dictionary
from dynamics.learning.site import SiteAt
from tests.circuits.handmade import ROOM, SAY
from tests.circuits.test_circuits_wired import IDS, TWINS, WIRED
from tests.circuits.test_circuits_wired import wired as wired_family
from tests.conftest import MadeOnce
from tests.explaining.toys import TWIN, asked, wired_toy


def metric(logits: torch.Tensor) -> torch.Tensor:
    return logits[:, 3] - logits[:, 4]


def random_dictionary(width: int, checkpoints: int = 1, features: int = 12, seed: int = 0) -> Dictionary:
    """Everything in it counts: mean, scale, offset, threshold."""
    made = torch.Generator().manual_seed(seed)

    def drawn(*size: int) -> torch.Tensor:
        return torch.randn(*size, generator=made)

    return Dictionary(
        drawn(features, checkpoints, width),
        drawn(features, checkpoints, width),
        drawn(features) * 0.1,
        drawn(checkpoints, width),
        drawn(checkpoints, width),
        torch.rand(checkpoints, generator=made) + 0.5,
        torch.full((features,), 0.05),
        torch.full((features,), float("nan")),
    )


def crossed(family: str, site: str, layer: int) -> tuple[SiteActivations, np.ndarray]:
    """What crosses a site of a random model, and by token what all edges carry that cross it; mean over three twins."""
    w = wired_family(family)
    after = layer + (site == "resid_post")
    ids, last = IDS[:1], torch.full((3,), IDS.shape[1] - 1)
    found = cross(w, SiteAt(w.architecture, site, layer), after, ids, TWINS, metric)
    edges = attribute(w, ids.expand(3, -1), TWINS, last, metric, by_token=True).edges / 3
    g = w.graph
    readers = slice(g.attention_readers(after).start, None)
    return found, edges[:, : g.seen_by(g.attention_readers(after)), readers].sum((1, 2)).double().numpy()


@pytest.mark.parametrize("family", WIRED)
def test_what_crosses_the_site_is_what_the_edges_across_it_carry(family: str) -> None:
    layers = wired_family(family).graph.layers
    for site, layer in (("resid_pre", 0), ("resid_post", 0), ("resid_pre", layers - 1), ("resid_post", layers - 1)):
        found, edges = crossed(family, site, layer)
        (parts,) = split(Coder((random_dictionary(found.clean.shape[1]),), False), [found])
        assert parts is not None and np.abs(edges).max() > 0.05
        np.testing.assert_allclose(parts.total, edges, rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize("joint", [True, False])
def test_features_and_error_are_the_whole_and_the_error_is_the_reconstructions(joint: bool) -> None:
    found, _ = crossed("gpt_neox", "resid_post", 0)
    width = found.clean.shape[1]
    if joint:
        coder = Coder((random_dictionary(width, 2),), True)
    else:
        coder = Coder((random_dictionary(width), random_dictionary(width, seed=1)), False)
    other = SiteActivations(found.clean * 0.7, found.twins * 0.9, found.gradient)
    for place, parts in enumerate(split(coder, [found, other])):
        mine = (found, other)[place]
        assert parts is not None and mine.gradient is not None
        np.testing.assert_allclose(parts.features.sum(1) + parts.error, parts.total, rtol=1e-9, atol=1e-9)
        dictionary = coder.dictionaries[0 if joint else place]
        seen = [found, other] if joint else [mine]
        at = place if joint else 0

        def rebuilt(
            pick: Callable[[SiteActivations], torch.Tensor], which: Any = (dictionary, seen, at)
        ) -> torch.Tensor:
            its, crossings, snapshot = which
            return its.decode(its.encode(torch.stack([pick(c) for c in crossings])))[snapshot]

        wrong = mine.clean - rebuilt(lambda c: c.clean)
        expected = np.zeros(len(parts.error))
        for twin in range(3):
            other_wrong = mine.twins[twin] - rebuilt(lambda c, twin=twin: c.twins[twin])  # type: ignore[misc]
            expected += ((wrong - other_wrong) * mine.gradient[twin]).sum(1).double().numpy() / 3
        np.testing.assert_allclose(parts.error, expected, rtol=1e-3, atol=1e-4)
        assert np.abs(parts.features).max() > 0.05 and parts.differ > 0


def unit_features(*directions: int) -> Dictionary:
    """Features that read and write one coordinate of the hand-made models' stream each."""
    basis = torch.eye(ROOM)[list(directions)][:, None]
    n = len(directions)
    nothing = torch.zeros(1, ROOM)
    return Dictionary(
        basis, basis, torch.zeros(n), nothing, nothing, torch.ones(1), torch.zeros(n), torch.full((n,), float("nan"))
    )


def test_the_features_of_a_hand_made_model_carry_what_they_say() -> None:
    """The induction toy says d, 5 logits of it, because its second layer writes so; after the twin it says nothing."""
    w, question = wired_toy(), asked(answer="d", foil="b", corrupted=TWIN)
    ids, twins = torch.from_numpy(question.ids)[None], torch.from_numpy(question.twins)
    d, b = 3, 1

    def said(logits: torch.Tensor) -> torch.Tensor:
        return logits[:, d] - logits[:, b]

    last = torch.tensor([len(question.ids) - 1])
    difference = float(said(w.logits(ids, last)) - said(w.logits(twins, last)))
    found = cross(w, SiteAt(w.architecture, "resid_post", 1), 2, ids, twins, said)
    both, neither = unit_features(SAY.start + d, SAY.start + b), unit_features(SAY.start + 5)
    (parts,) = split(Coder((both,), False), [found])
    assert parts is not None and difference > 2
    expected = np.zeros((len(question.ids), 2))
    written = found.clean[-1] - found.twins[0, -1]
    expected[-1] = float(written[SAY.start + d]), -float(written[SAY.start + b])
    np.testing.assert_allclose(parts.features, expected, atol=1e-5)
    assert parts.features[-1].sum() == pytest.approx(difference, rel=1e-5)
    np.testing.assert_allclose(parts.error, 0, atol=1e-5)
    assert parts.active[-1, 0] - parts.corrupted[-1, 0] == pytest.approx(float(written[SAY.start + d]), abs=1e-5)
    (parts,) = split(Coder((neither,), False), [found])
    assert parts is not None
    np.testing.assert_allclose(parts.features, 0, atol=1e-6)
    assert parts.error[-1] == pytest.approx(difference, rel=1e-5)


def test_a_feature_without_a_decoder_at_a_checkpoint_carries_nothing_there() -> None:
    found, _ = crossed("gpt2", "resid_post", 0)
    dictionary = random_dictionary(found.clean.shape[1], 2)
    dictionary.decoder[:, 0] = 0
    first, second = split(Coder((dictionary,), True), [found, found])
    assert first is not None and second is not None
    assert not first.features.any() and not first.active.any() and np.abs(second.features).max() > 0.01
    np.testing.assert_allclose(first.error, first.total)


def test_features_that_count_as_none_are_part_of_the_error() -> None:
    found, _ = crossed("gpt2", "resid_post", 0)
    coder = Coder((random_dictionary(found.clean.shape[1]),), False)
    (whole,) = split(coder, [found])
    known = np.arange(12) != int(np.abs(whole.features).sum(0).argmax())  # type: ignore[union-attr]
    (less,) = split(coder, [found], [known])
    assert whole is not None and less is not None
    np.testing.assert_allclose(less.features[:, known], whole.features[:, known])
    assert not less.features[:, ~known].any()
    np.testing.assert_allclose(less.error, whole.error + whole.features[:, ~known][:, 0])


def test_where_no_gradient_was_taken_there_is_no_split() -> None:
    found, _ = crossed("gpt2", "resid_post", 0)
    bare = SiteActivations(found.clean, found.twins, None)
    coder = Coder((random_dictionary(found.clean.shape[1], 2),), True)
    none, some = split(coder, [bare, found])
    assert none is None and some is not None


def made_split(features: Any, error: Any) -> FeatureSplit:
    scores, rest = np.asarray(features, dtype=float), np.asarray(error, dtype=float)
    return FeatureSplit(scores, rest, scores.sum(1) + rest, np.abs(scores), 0 * scores)


def test_the_fewest_features_that_reach_the_share_are_shown() -> None:
    shown = strongest(made_split([[4, -3, 0], [2, 1, 0]], [50, 0]), 0.7, 12)
    assert shown.features == ((0, 0, 4.0), (0, 1, -3.0)) and shown.share == pytest.approx(0.7)
    assert shown.errors == ((0, 50.0),)
    assert len(strongest(made_split([[4, -3, 0], [2, 1, 0]], [50, 0]), 0.71, 12).features) == 3
    shown = strongest(made_split([[4, -3, 0], [2, 1, 0]], [1, 1]), 1.0, 2)
    assert len(shown.features) == 2 == len(shown.errors) and shown.share == pytest.approx(0.7)
    nothing = strongest(made_split([[0, 0]], [0]), 0.8, 12)
    assert nothing.features == () == nothing.errors and nothing.share == 0.0


# a run

Said = tuple[int, str, str]
RUNS = """\
mine:
  series: {kind: folder, path: series}
  analyses: [induction]
  device: cpu
  dictionaries:
    cross: {layer: 1, features: 16, k: 4, steps: 4, rows: 12, context: 32, batch: 64, checkpoints: 3, corpus: {kind: text, file: corpus.txt}}
    chained: {method: chain, layer: 1, features: 16, k: 4, steps: 4, further: 2, rows: 12, context: 32, batch: 64, checkpoints: 3, corpus: {kind: text, file: corpus.txt}}
    written: {site: mlp_out, layer: 1, features: 16, k: 4, steps: 4, rows: 12, context: 32, batch: 64, checkpoints: 3, corpus: {kind: text, file: corpus.txt}}
"""  # fmt: skip
SUM = "46+39=08"


def commanded(*arguments: str) -> int:
    try:
        main(list(arguments))
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@pytest.fixture(scope="module")
def learned(tiny_series: Path, made_once: MadeOnce) -> Path:
    """A project with a collected run and three dictionaries of it. Read-only."""
    return made_once("three dictionaries", lambda folder: learn(folder, tiny_series))


def learn(folder: Path, tiny_series: Path) -> None:
    shutil.copytree(tiny_series, folder / "series")
    rng = np.random.default_rng(0)
    sums = ("".join(f"{a}{b}+{c}{d}={e}{f} " for a, b, c, d, e, f in rng.integers(0, 10, (40, 6))) for _ in range(30))
    (folder / "corpus.txt").write_text("\n".join(sums), encoding="utf-8")
    (folder / "runs.yaml").write_text(RUNS, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", list(sys.path))
        assert commanded("collect", "mine") == 0
        assert commanded("learn", "mine") == 0


@pytest.fixture
def project(
    learned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Said]:
    """The command line in a copy of that project."""
    shutil.copytree(learned, tmp_path / "p")
    monkeypatch.chdir(tmp_path / "p")
    monkeypatch.setattr(sys, "path", list(sys.path))

    def call(*arguments: str) -> Said:
        capsys.readouterr()
        code = commanded(*arguments)
        return code, *capsys.readouterr()

    return call


def written() -> tuple[Path, dict[str, Any]]:
    (folder,) = Path("reports/mine").iterdir()
    content = json.loads((folder / "explanation.json").read_text(encoding="utf-8"))
    check_explanation(content)
    return folder, content


ASKED = ("explain", "mine", SUM)


@pytest.mark.slow
@pytest.mark.parametrize("dictionary", ["cross", "chained"])
def test_a_run_is_explained_with_its_features(project: Callable[..., Said], dictionary: str) -> None:
    code, out, err = project(*ASKED, "--features", dictionary)
    assert code == 0, err
    folder, content = written()
    about = content["dictionary"]
    assert content["format"] == 2 and about["name"] == dictionary and about["after"] == 2
    assert len(content["checkpoints"]) == 3 and "covers 3 of the" in about["note"]
    assert "The dictionary covers 3 of the" in out.replace("\n", " ")
    measured = [c for c in content["checkpoints"] if c["state"] in ("explained", "not reached")]
    assert measured and all(c["split"]["total"] is not None for c in measured)
    assert any(c["split"]["active"] for c in measured)
    for checkpoint in measured:  # everything shown is a part of the whole, and no more
        kinds = [content["nodes"][i]["kind"] for i, _ in checkpoint["nodes"]]
        assert kinds.count("feature") <= 12 and kinds.count("error") <= 12
    known = [f for f in about["features"] if f["examples"]]
    assert known and all(e["activation"] > 0 and e["token"] for f in known for e in f["examples"])
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert 'id="splits"' in page and 'class="strip"' in (folder / "explanation.svg").read_text(encoding="utf-8")
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    assert project(*ASKED, "--features", dictionary)[0] == 0
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


@pytest.mark.slow
def test_without_features_nothing_is_added(project: Callable[..., Said]) -> None:
    assert project(*ASKED, "--checkpoints", "2")[0] == 0
    folder, content = written()
    assert content["format"] == 1 and "dictionary" not in content
    assert all("split" not in c for c in content["checkpoints"]) and not any("feature" in n for n in content["nodes"])
    assert "splits" not in (folder / "index.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_fewer_checkpoints_than_the_dictionarys_have_the_same_features(project: Callable[..., Said]) -> None:
    assert project(*ASKED, "--features", "cross")[0] == 0
    folder, whole = written()
    shutil.rmtree(folder)
    assert project(*ASKED, "--features", "cross", "--checkpoints", "1")[0] == 0
    _, one = written()
    assert [c["step"] for c in one["checkpoints"]] == [whole["checkpoints"][-1]["step"]]
    for name in ("total", "features", "error"):
        assert one["checkpoints"][0]["split"][name] == pytest.approx(whole["checkpoints"][-1]["split"][name])


@pytest.mark.slow
def test_a_checkpoint_that_cannot_be_read_takes_the_crosscoders_features_and_spares_the_chains(
    project: Callable[..., Said],
) -> None:
    assert project(*ASKED, "--features", "cross")[0] == 0
    folder, content = written()
    first = content["checkpoints"][0]["step"]
    shutil.rmtree(folder)
    weights = Path("series") / f"step{first}" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-64])
    for dictionary in ("cross", "chained"):
        assert project(*ASKED, "--features", dictionary)[0] == 0
        folder, content = written()
        assert content["checkpoints"][0]["split"]["reason"] == "the checkpoint failed"
        others = [c["split"] for c in content["checkpoints"] if c["state"] in ("explained", "not reached")]
        assert others
        if dictionary == "cross":
            for other in others:
                assert f"step {first} could not be read" in other["reason"] and other["total"] is None
            assert "could not be read" in (folder / "index.html").read_text(encoding="utf-8")
        else:
            assert all(other["total"] is not None for other in others)
        shutil.rmtree(folder)


@pytest.mark.slow
def test_other_weights_than_the_dictionarys_are_refused(project: Callable[..., Said]) -> None:
    from safetensors.torch import load_file, save_file

    steps = sorted(int(p.name.removeprefix("step")) for p in Path("series").glob("step*"))
    file = Path("series") / f"step{steps[-1]}" / "model.safetensors"
    save_file({name: tensor * 1.01 for name, tensor in load_file(file).items()}, file, {"format": "pt"})
    code, out, err = project(*ASKED, "--features", "cross")
    assert code == 2 and f"the weights of step {steps[-1]} are not those that dictionary 'cross'" in err and out == ""
    assert not Path("reports").exists()
    assert project(*ASKED)[0] == 0  # without features whatever is there is explained


@pytest.mark.slow
def test_dictionaries_that_do_not_fit_are_refused(project: Callable[..., Said]) -> None:
    def refused(dictionary: str, *parts: str) -> None:
        code, out, err = project(*ASKED, "--features", dictionary)
        assert code == 2 and err.startswith("error: ") and "Traceback" not in err and out == ""
        for part in parts:
            assert part in err, err
        assert not Path("reports").exists()

    refused("crss", "has no dictionary 'crss'", "did you mean 'cross'")
    refused("written", "is of site 'mlp_out'", "resid_pre or resid_post", "site: resid_post")
    weights = Path("traces/mine.dictionaries/cross")
    dictionary = Dictionary.load(weights / "dictionary")
    dictionary.decoder.mul_(2)
    dictionary.save(weights / "dictionary")
    refused("cross", "are not those that the trace describes", "dynamics learn mine")
    random_dictionary(8, 3, 16).save(weights / "dictionary")
    refused("cross", "are not those that the trace describes", "16 features of width")
    shutil.rmtree(weights)
    refused("cross", "the weights of dictionary 'cross' are not in", "dynamics learn mine")
    shutil.rmtree("traces")
    refused("cross", "run 'mine' has no trace", "dynamics collect mine")


def test_a_dictionary_of_a_step_that_the_trace_lacks_is_refused() -> None:
    from dynamics.explaining.dictionary import OpenDictionary

    class Table:
        steps = np.array([0, 10])

    opened = OpenDictionary("d", Coder((random_dictionary(4, 2),), True), None, 1, Table())  # type: ignore[arg-type]
    with pytest.raises(UserError, match="covers step 0, which the trace does not hold"):
        opened.checkpoints([], None)


def test_a_site_of_nan_is_said_and_not_encoded() -> None:
    """Activations that are not finite at one checkpoint leave a crosscoder without a code at any."""

    class Table:
        steps = np.array([0, 10])
        about: dict[str, Any] = {}

    from dynamics.explaining.dictionary import OpenDictionary

    found, _ = crossed("gpt2", "resid_post", 0)
    broken = SiteActivations(found.clean * float("nan"), found.twins, None)
    coder = Coder((random_dictionary(found.clean.shape[1], 2),), True)
    opened = OpenDictionary("d", coder, None, 1, Table())  # type: ignore[arg-type]
    parts = [{"step": 0, "state": "failed", "nodes": []}, {"step": 10, "state": "explained", "nodes": []}]
    assert split_checkpoints(opened, {0: broken, 10: found}, parts, 0.8, 5) == []
    assert parts[0]["split"]["reason"] == "the checkpoint failed"  # type: ignore[index]
    assert "step 0 could not be read" in parts[1]["split"]["reason"]  # type: ignore[index]
