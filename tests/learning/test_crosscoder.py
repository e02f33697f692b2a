"""Training: the gradient is autograd's; equal seeds, resumed = uninterrupted, round trips, dead features, errors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from checkpoints.errors import StoppedError, UserError
from dynamics.learning.crosscoder import TrainConfig, Trainer, gradient
from dynamics.learning.dictionary import Dictionary, evaluate, refit
from dynamics.learning.matching import match_decoders
from tests.learning.planted import PlantedConfig, PlantedStream, train_dictionary

SMALL = PlantedConfig(checkpoints=4, d_model=12, stable=8, born=2, active=1.5, batch=128)
QUICK = TrainConfig(features=14, k=1.5, steps=60, resample=10)


class Given:
    """A stream of given batches."""

    def __init__(self, *batches: np.ndarray) -> None:
        self._batches = batches
        self.checkpoints, _, self.d_model = batches[0].shape

    def batches(self, start: int = 0) -> Iterator[Any]:
        yield from self._batches[start:]


def equal(one: Dictionary, other: Dictionary) -> bool:
    return all(
        torch.equal(getattr(one, name).nan_to_num(-1), getattr(other, name).nan_to_num(-1))
        for name in ("encoder", "decoder", "bias", "offset", "mean", "scale", "threshold", "variance")
    )


def test_the_gradient_is_that_of_autograd() -> None:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    weights = {"encoder": normal(9, 3, 5), "decoder": normal(9, 3, 5), "bias": normal(9), "offset": normal(3, 5)}
    z = normal(20, 3, 5)
    loss, gradients, codes, rest = gradient(weights, z, 2.0)
    assert int((codes > 0).sum()) == 40
    own = {name: value.clone().requires_grad_() for name, value in weights.items()}
    a = torch.relu(z.flatten(1) @ own["encoder"].flatten(1).T + own["bias"]) * (codes > 0)
    error = z - (a @ own["decoder"].flatten(1)).view_as(z) - own["offset"]
    expected = (error**2).sum() / 60
    expected.backward()
    assert loss == pytest.approx(float(expected.detach()), rel=1e-5)
    torch.testing.assert_close(rest, error.detach())
    for name, value in own.items():
        torch.testing.assert_close(gradients[name], value.grad, rtol=1e-4, atol=1e-5)


def test_kept_are_the_largest_of_the_batch_by_activation_times_decoder_norms() -> None:
    weights = {"encoder": torch.eye(3)[:, None], "decoder": torch.eye(3)[:, None].clone()}
    weights |= {"bias": torch.zeros(3), "offset": torch.zeros(1, 3)}
    weights["decoder"][2] *= 10
    z = torch.tensor([[[1.0, 0.5, 0.2]], [[0.9, 0.8, 0.0]]])
    _, _, codes, _ = gradient(weights, z, 1.5)
    assert codes.tolist() == [[1.0, 0.0, pytest.approx(0.2)], [pytest.approx(0.9), 0.0, 0.0]]


def test_equal_configurations_give_equal_dictionaries_and_other_seeds_do_not() -> None:
    stream = PlantedStream(SMALL)
    one, other = train_dictionary(stream, QUICK), train_dictionary(PlantedStream(SMALL), QUICK)
    assert equal(one, other)
    assert not equal(one, train_dictionary(stream, TrainConfig(features=14, k=1.5, steps=60, resample=10, seed=1)))


def test_a_resumed_training_is_the_uninterrupted_one(tmp_path: Path) -> None:
    stream = PlantedStream(SMALL)
    whole = Trainer.start(QUICK, stream)
    whole.run(stream)
    part = Trainer.start(QUICK, stream)

    def stop(done: int, _total: int, _loss: float) -> None:
        if done == 25:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        part.run(stream, progress=stop)
    part.save(tmp_path)
    again = Trainer.load(tmp_path)
    assert again.step == 25
    again.run(PlantedStream(SMALL))
    assert equal(again.dictionary(), whole.dictionary())
    assert again.losses == whole.losses and again.resampled == whole.resampled
    again.run(stream)  # nothing is left to do
    assert again.step == 60


def test_a_dictionary_is_read_as_it_was_written(tmp_path: Path) -> None:
    stream = PlantedStream(SMALL)
    dictionary = refit(train_dictionary(stream, QUICK), [stream.batch(100 + n) for n in range(5)])
    dictionary.save(tmp_path)
    assert equal(Dictionary.load(tmp_path), dictionary)
    about = json.loads((tmp_path / "dictionary.json").read_text())
    (tmp_path / "dictionary.json").write_text(json.dumps(about | {"format": 99}))
    with pytest.raises(UserError, match="format 99"):
        Dictionary.load(tmp_path)
    (tmp_path / "dictionary.json").write_text(json.dumps(about | {"features": 13}))
    with pytest.raises(UserError, match="has tensors"):
        Dictionary.load(tmp_path)
    with pytest.raises(UserError, match="there is no dictionary"):
        Dictionary.load(tmp_path / "other")
    with pytest.raises(UserError, match="there is no training"):
        Trainer.load(tmp_path)


def test_refit_is_the_regression_of_activations_on_codes_and_keeps_the_codes() -> None:
    stream = PlantedStream(SMALL)
    trained = train_dictionary(stream, QUICK)
    batches = [stream.batch(100 + n) for n in range(8)]
    fitted = refit(trained, batches)
    x = np.concatenate(batches, axis=1)
    codes = fitted.encode(x)
    assert torch.equal(codes, trained.encode(x))
    alive = np.flatnonzero(~np.isnan(fitted.variance.numpy()))
    design = np.c_[np.ones(len(codes)), codes.numpy()[:, alive]].astype(float)
    z = fitted.scaled(x).flatten(1).numpy()
    expected = np.linalg.lstsq(design, z.astype(float), rcond=None)[0]
    np.testing.assert_allclose(fitted.decoder[alive].flatten(1).numpy(), expected[1:], atol=2e-3)
    np.testing.assert_allclose(fitted.offset.flatten().numpy(), expected[0], atol=2e-3)
    inverse = np.linalg.inv(design.T @ design)
    np.testing.assert_allclose(fitted.variance[alive].numpy(), np.diag(inverse)[1:], rtol=1e-3)
    assert (evaluate(fitted, batches).fvu <= evaluate(trained, batches).fvu + 1e-4).all()


def test_the_fit_counts_what_it_says() -> None:
    stream = PlantedStream(SMALL)
    dictionary = train_dictionary(stream, QUICK)
    batches = [stream.batch(200), stream.batch(201)]
    fit = evaluate(dictionary, batches)
    x = np.concatenate(batches, axis=1)
    codes = dictionary.encode(x)
    rest = x - dictionary.decode(codes).numpy()
    expected = (rest**2).sum(axis=(1, 2)) / ((x - x.mean(axis=1, keepdims=True)) ** 2).sum(axis=(1, 2))
    np.testing.assert_allclose(fit.fvu, expected, rtol=1e-4)
    assert fit.tokens == 256 and fit.l0[0] == pytest.approx(float((codes > 0).sum(dim=1).double().mean()))
    np.testing.assert_allclose(fit.frequency, (codes > 0).double().mean(dim=0))
    assert fit.dead == pytest.approx(float((fit.frequency == 0).mean()))
    with pytest.raises(UserError, match="no activations"):
        evaluate(dictionary, [])
    with pytest.raises(UserError, match="no activations"):
        refit(dictionary, [])


def test_effective_dimensions_of_an_error_are_those_of_its_covariance() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 3000, 20)).astype(np.float32) * np.r_[np.full(5, 1.0), np.full(15, 0.1)]
    nothing = torch.zeros(1, 1, 20)
    dictionary = Dictionary(
        nothing, nothing, torch.zeros(1), torch.zeros(1, 20), torch.zeros(1, 20), torch.ones(1), torch.ones(1), torch.ones(1)
    )  # fmt: skip
    fit = evaluate(dictionary, np.split(x, 12, axis=1))
    variances = np.r_[np.full(5, 1.0), np.full(15, 0.01)]
    assert fit.dimensions[0] == pytest.approx(variances.sum() ** 2 / (variances**2).sum(), rel=0.1)
    assert fit.fvu[0] == pytest.approx(1.0, rel=0.01) and fit.dead == 1.0


def test_dead_features_start_anew() -> None:
    """Features that begin where no token is would never fire."""
    stream = PlantedStream(SMALL)
    trainer = Trainer.start(QUICK, stream)
    for name in ("encoder", "decoder"):
        trainer.weights[name][:7] = 1e-3
    trainer.weights["bias"][:7] = -5.0
    trainer.run(stream)
    assert trainer.resampled >= 7
    fit = evaluate(trainer.dictionary(), [stream.batch(300 + n) for n in range(4)])
    assert (fit.frequency[:7] > 0).any()


class OneCheckpoint:
    """One checkpoint of a stream, as a stream over one checkpoint."""

    checkpoints = 1

    def __init__(self, stream: PlantedStream, index: int) -> None:
        self._stream, self._index, self.d_model = stream, index, stream.d_model

    def batches(self, start: int = 0) -> Iterator[Any]:
        for batch in self._stream.batches(start):
            yield batch[self._index : self._index + 1]


def test_a_chain_of_autoencoders_follows_the_features() -> None:
    stream = PlantedStream(PlantedConfig(checkpoints=4, d_model=24, stable=10, born=3, active=1.5, batch=256))
    config = TrainConfig(features=20, k=1.5, steps=250, learning_rate=4e-3, resample=40)
    singles = [OneCheckpoint(stream, index) for index in range(4)]
    chained: list[Dictionary] = []
    for single in singles:  # each starts from its neighbour's weights
        used, like = (replace(config, steps=120), chained[-1]) if chained else (config, None)
        trainer = Trainer.start(used, single, like=like)
        trainer.run(single)
        chained.append(trainer.dictionary())
    for index, dictionary in enumerate(chained):
        assert dictionary.checkpoints == 1
        fit = evaluate(dictionary, [batch for _, batch in zip(range(3), singles[index].batches(500), strict=False)])
        assert fit.fvu[0] < 0.25
        directions = dictionary.directions()
        truth = stream.truth.directions[index][stream.truth.strength[index] > 0]
        cosine = truth @ (directions / np.linalg.norm(directions, axis=1, keepdims=True)).T
        assert (cosine.max(axis=1) > 0.9).mean() >= 0.8
    found = match_decoders(chained[2].directions(), chained[3].directions())
    matched = found.one.partner >= 0
    assert matched.sum() >= 10 and (found.one.partner[matched] == np.flatnonzero(matched)).mean() > 0.8


def test_what_cannot_be_trained_on_is_refused() -> None:
    good = PlantedStream(SMALL).batch(0)
    flat = good.copy()
    flat[2] = 1.0
    with pytest.raises(UserError, match=r"checkpoint 2 .* all equal"):
        Trainer.start(QUICK, Given(flat, flat))
    with pytest.raises(UserError, match="the stream ended after 2 batches"):
        train_dictionary(Given(good, good), QUICK)
    with pytest.raises(UserError, match="the stream has no batch"):
        Trainer.start(QUICK, Empty())
    with pytest.raises(UserError, match="k 20"):
        TrainConfig(features=10, k=20, steps=5)
    broken = good.copy()
    broken[0, 0, 0] = np.inf
    trainer = Trainer.start(QUICK, Given(good, good))
    with pytest.raises(StoppedError, match="not finite at step 1"):
        trainer.run(Given(broken))
    with pytest.raises(UserError, match=r"shape \(3, 128, 12\)"):
        trainer.dictionary().encode(good[:3])


class Empty:
    """A stream of nothing."""

    checkpoints, d_model = 2, 3

    def batches(self, start: int = 0) -> Iterator[Any]:
        return iter(())
