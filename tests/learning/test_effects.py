"""What a feature is worth: against losses whose answer is known by hand, and against taking it away and running the model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from scipy.stats import pearsonr, spearmanr

from checkpoints.configs import read_config
from checkpoints.loading import ResidentModel
from checkpoints.local import FolderConfig, FolderSeries
from dynamics.learning import effects, quality
from dynamics.learning.coder import Decoder
from dynamics.learning.corpora import organism_rows
from dynamics.learning.effects import RowMeans, by_row, loss_and_gradient, measure_effects, removed
from dynamics.learning.readings import installed
from dynamics.learning.site import SiteAt
from dynamics.models.architecture import Architecture, ModelShape, architecture
from dynamics.models.sites import SiteTable, Where
from tests.conftest import TINY

WIDTH, TOKENS = 6, 5


class Toy(torch.nn.Module):
    """Embeddings, and nothing behind them."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.embed = torch.nn.Embedding(8, WIDTH)
        self.embed.weight.data = torch.randn(8, WIDTH, generator=generator)


def toy(loss: Callable[[torch.Tensor], torch.Tensor]) -> tuple[Toy, SiteAt]:
    """A model whose loss at each token is ``loss`` of the site's value there, plus 100: one logit, of no token, decides."""

    def logits(model: Toy, ids: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        value = loss(model.embed(ids)[:, keep]) + 100.0
        return torch.cat([value[..., None], torch.zeros(*value.shape, 7)], dim=2)

    shape = ModelShape(layers=1, heads=1, d_model=WIDTH, d_head=WIDTH, d_mlp=WIDTH, vocab=8)
    table = SiteTable("block.{}", {}, {"embed": Where("embed")})
    return Toy(), SiteAt(Architecture(shape, table, logits), "embed", 0)


def coded(rows: int, features: int, rate: float, seed: int = 0) -> csr_array:
    """(row x token, feature) activations."""
    rng = np.random.default_rng(seed)
    dense = np.where(
        rng.random((rows * TOKENS, features)) < rate, rng.uniform(0.5, 1.5, (rows * TOKENS, features)), 0.0
    )
    return csr_array(dense.astype(np.float32))


def decoded(features: int, seed: int = 1) -> Decoder:
    rng = np.random.default_rng(seed)
    return Decoder(rng.standard_normal((features, WIDTH)).astype(np.float32), np.zeros(WIDTH, dtype=np.float32), 1.0)


def ids_of(rows: int) -> np.ndarray:
    return np.random.default_rng(2).integers(1, 8, size=(rows, TOKENS))


def test_where_the_loss_is_linear_the_effect_is_what_linear_algebra_says() -> None:
    weight = torch.linspace(-1, 2, WIDTH)
    model, place = toy(lambda x: x @ weight)
    ids, codes, decoder = ids_of(4), coded(4, 9, 0.3), decoded(9)
    found = measure_effects(
        model, place, ids, 0, [slice(0, 3), slice(3, 4)], lambda i: codes[[slice(0, 15), slice(15, 20)][i]], decoder
    )
    active = codes.toarray().reshape(4, TOKENS, 9)
    expected = -(active[:, :-1].sum(axis=(0, 1)) * (decoder.vectors @ weight.numpy())) / (4 * (TOKENS - 1))
    np.testing.assert_allclose(found.effect, expected, atol=1e-4)
    np.testing.assert_allclose(found.activation, active.mean(axis=(0, 1)) * decoder.lengths, atol=1e-6)
    each = active.mean(axis=1) * decoder.lengths
    np.testing.assert_allclose(found.activation_error, each.std(axis=0, ddof=1) / 2, rtol=0.2)
    np.testing.assert_allclose(found.rebuilt, codes.toarray() @ decoder.vectors, atol=1e-5)
    model_loss = 100 + (model.embed.weight.detach()[ids][:, :-1] @ weight).mean()
    assert found.loss == pytest.approx(float(model_loss), rel=1e-5)


def test_at_the_bottom_of_a_bowl_a_feature_is_worth_what_the_way_up_costs_and_its_gradient_says_nothing() -> None:
    model, place = toy(lambda x: 0.5 * ((x - model_values(x)) ** 2).sum(dim=-1))

    def model_values(x: torch.Tensor) -> torch.Tensor:
        return bottom[: x.shape[0]].to(x)

    ids, decoder = ids_of(3), decoded(2)
    bottom = model.embed.weight.detach()[ids][:, :-1]
    active = np.zeros((3 * TOKENS, 2), dtype=np.float32)
    active[0, 0], active[6, 0], active[12, 1] = 1.0, 2.0, 0.5  # no two of them on one token
    codes = csr_array(active)
    _, gradient = loss_and_gradient(model, place, ids, 0)
    assert np.abs(removed(gradient.reshape(-1, WIDTH), codes, decoder.vectors).toarray()).max() < 1e-5
    found = measure_effects(model, place, ids, 0, [slice(0, 3)], lambda _: codes, decoder)
    squares = (decoder.vectors**2).sum(axis=1)
    np.testing.assert_allclose(found.effect, 0.5 * squares * [1 + 4, 0.25] / (3 * (TOKENS - 1)), rtol=1e-3)


def test_what_is_removed_is_the_product_of_gradient_and_part_where_a_feature_fires() -> None:
    rng = np.random.default_rng(3)
    gradient, codes, vectors = rng.standard_normal((20, WIDTH)), coded(4, 7, 0.4), decoded(7).vectors
    dense = codes.toarray()
    np.testing.assert_allclose(removed(gradient, codes, vectors).toarray(), -(gradient @ vectors.T) * dense, atol=1e-6)
    np.testing.assert_allclose(by_row(codes, 4), dense.reshape(4, TOKENS, 7).sum(axis=1), rtol=1e-6)


def test_skipped_tokens_have_no_part_and_weights_learn_as_before() -> None:
    weight = torch.ones(WIDTH)
    model, place = toy(lambda x: x @ weight)
    _, gradient = loss_and_gradient(model, place, ids_of(2), 2)
    assert gradient.shape == (2, TOKENS - 2, WIDTH)
    np.testing.assert_allclose(gradient, np.tile([[1.0], [1.0], [0.0]], (2, 1, WIDTH)))
    assert model.embed.weight.requires_grad and model.embed.weight.grad is None


def test_rows_that_were_not_tried_are_in_the_error() -> None:
    """Over many series of rows, estimates scatter by what the error says, around the truth."""
    rng = np.random.default_rng(4)
    rows, chance = 60, 0.5
    found = []
    for _ in range(400):
        fires = rng.random((rows, 1)) < chance
        values = np.where(fires, rng.gamma(2.0, 1.0, size=(rows, 1)), 0.0)
        tried = fires & (rng.random((rows, 1)) < 0.3)
        means = RowMeans(1, 10)
        for some in (slice(0, 25), slice(25, rows)):
            means.add(np.where(tried, values, 0.0)[some], fires[some], tried[some])
        found.append((means.mean[0], means.error[0]))
    mean, error = np.array(found).T
    assert mean.mean() == pytest.approx(2.0 * chance / 10, abs=3 * mean.std() / 20)
    assert np.sqrt((error**2).mean()) == pytest.approx(mean.std(), rel=0.12)


def test_fewer_than_two_rows_have_no_error_and_a_feature_that_never_fires_no_effect() -> None:
    means = RowMeans(2, 1)
    fires = np.array([[True, False]])
    means.add(np.array([[3.0, 0.0]]), fires, fires)
    assert means.mean.tolist() == [3.0, 0.0] and np.isnan(means.error).all()
    means.add(np.zeros((1, 2)), fires & False, fires & False)
    assert means.mean.tolist() == [1.5, 0.0] and means.error[1] == 0.0 and means.error[0] > 0


def test_every_feature_is_tried_in_its_first_rows_and_in_a_share_of_the_others() -> None:
    rng, seen = np.random.default_rng(0), np.zeros(3, dtype=np.int64)
    fires = np.ones((400, 3), dtype=bool)
    fires[:, 1] = np.arange(400) >= 397
    fires[:, 2] = False
    turns = []
    for some in (slice(0, 150), slice(150, 400)):
        turns.append(effects._turns(fires[some], seen, rng))
        seen += fires[some].sum(axis=0)
    tried = np.concatenate(turns) >= 0
    assert tried[: effects.LEAST, 0].all() and tried[397:, 1].all() and not tried[:, 2].any()
    assert tried[:, 0].mean() == pytest.approx(effects.PASSES / effects.GROUPS, abs=0.02)
    assert set(np.unique(np.concatenate(turns))) == {-1, *range(effects.PASSES)}


@pytest.mark.parametrize("place_in_series", [0, -1])
def test_the_estimate_agrees_with_taking_each_feature_away_and_running_the_model(
    tiny_series: Path, place_in_series: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = FolderSeries(FolderConfig(path=tiny_series), name="mine")
    place = SiteAt(architecture(read_config(source.config_folder)), "resid_post", 0)
    resident = ResidentModel("cpu", "float32", None)
    one = [source.checkpoints[place_in_series]]
    rows, skip, features = organism_rows(TINY, 48), 1, 30
    held = quality.read_rows(source, one, resident, place, rows, skip=skip, batch_tokens=512)
    values = held.activations[0]
    rng = np.random.default_rng(5)
    length = 0.6 * float(values.norm(dim=1).mean()) * rng.uniform(0.2, 1, (features, 1))
    vectors = rng.standard_normal((features, place.width))
    vectors = (vectors * length / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    dense = np.where(rng.random((len(values), features)) < 0.06, rng.uniform(0.5, 1.5, (len(values), features)), 0.0)
    codes = csr_array(dense.astype(np.float32))
    (model,) = [m for _, m in installed(source, one, resident)]
    wide, cuts = rows.shape[1] - skip, [slice(0, 20), slice(20, 48)]
    pieces = [codes[cut.start * wide : cut.stop * wide] for cut in cuts]
    decoder = Decoder(vectors, np.zeros(place.width, dtype=np.float32), 1.0)

    def away(feature: int) -> float:
        part = torch.from_numpy(codes[:, [feature]].toarray() @ vectors[[feature]])
        return quality._loss(model, place, held, values - part, 512)

    own = quality._loss(model, place, held, values, 512)
    exact = np.array([away(j) for j in range(features)]) - own
    some = measure_effects(model, place, rows, skip, cuts, pieces.__getitem__, decoder)
    assert some.loss == pytest.approx(own, abs=1e-5)
    monkeypatch.setattr(effects, "PASSES", effects.GROUPS)  # all rows are tried
    every = measure_effects(model, place, rows, skip, cuts, pieces.__getitem__, decoder)
    assert pearsonr(every.effect, exact).statistic > 0.97 and spearmanr(every.effect, exact).statistic > 0.95
    np.testing.assert_allclose(every.effect, exact, atol=0.25 * np.abs(exact).max())
    outside = np.abs(some.effect - every.effect) / np.maximum(some.effect_error, 1e-12)
    assert (outside < 3).mean() > 0.9 and outside.max() > 0.1  # rows that were not tried, and no more
