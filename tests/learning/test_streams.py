"""Activations streamed from models: the values of each checkpoint's own pass, in the same order for all, in bounded memory."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from checkpoints.configs import read_config
from checkpoints.errors import UserError
from checkpoints.loading import ResidentModel
from checkpoints.local import FolderConfig, FolderSeries
from checkpoints.organism import OrganismConfig
from dynamics.learning.corpora import organism_rows
from dynamics.learning.crosscoder import TrainConfig
from dynamics.learning.dictionary import evaluate
from dynamics.learning.streams import ActivationStream, StreamConfig
from dynamics.models.architecture import architecture
from tests.learning.planted import train_dictionary

TINY = OrganismConfig(steps=12, checkpoints=6, layers=2, d_model=32, heads=2, batch=8)


@pytest.fixture(scope="module")
def series(tiny_series: Path) -> FolderSeries:
    return FolderSeries(FolderConfig(path=tiny_series))


def stream_of(series: FolderSeries, rows: np.ndarray, config: StreamConfig, **more: Any) -> ActivationStream:
    return ActivationStream(
        series, series.checkpoints, architecture(read_config(series.config_folder)), rows, config, **more
    )


def test_every_token_comes_once_a_pass_with_the_values_of_every_checkpoint(series: FolderSeries) -> None:
    rows = organism_rows(TINY, 8)
    stream = stream_of(series, rows, StreamConfig("resid_post", 0, batch=48, rows=8, passes=2))
    assert (stream.checkpoints, stream.d_model, stream.tokens) == (len(series.checkpoints), 32, 8 * 24)
    batches = [batch.clone() for _, batch in zip(range(8), stream.batches(), strict=False)]
    assert stream.refills == 1
    expected = []
    for checkpoint in series.checkpoints:
        model = ResidentModel().install(series.read(series.fetch(checkpoint)))
        with torch.no_grad():
            hidden = model(input_ids=torch.from_numpy(rows), output_hidden_states=True).hidden_states
        expected.append(hidden[1].flatten(0, 1))  # 0 is the embedding
    whole = torch.stack(expected)
    for turn in (batches[:4], batches[4:]):
        given = torch.cat(turn, dim=1)
        places = [int((whole[-1] - token).abs().sum(dim=1).argmin()) for token in given[-1]]
        # tokens of one context are equal: each is counted as often as it occurs
        assert Counter(bytes(whole[-1, p].numpy().round(4).tobytes()) for p in places) == Counter(
            bytes(v.numpy().round(4).tobytes()) for v in whole[-1]
        )
        torch.testing.assert_close(given, whole[:, places], rtol=1e-4, atol=1e-5)
    assert not torch.equal(batches[0], batches[4])


def test_batches_can_be_had_again_from_any_number_on(series: FolderSeries) -> None:
    rows = organism_rows(TINY, 20)
    config = StreamConfig("mlp_post", 1, batch=50, rows=8, passes=2, skip=1, half=True)
    stream = stream_of(series, rows, config)
    assert stream.d_model == 128 and stream.tokens == 8 * 23
    first = [batch.clone() for _, batch in zip(range(14), stream.batches(), strict=False)]
    assert stream.refills == 3  # 3 batches a pass, 2 passes a buffer
    for start in (13, 4, 7):
        again = next(stream_of(series, rows, config).batches(start))
        assert torch.equal(again, first[start])
    exact = next(stream_of(series, rows, StreamConfig("mlp_post", 1, batch=50, rows=8, passes=2, skip=1)).batches())
    torch.testing.assert_close(first[0], exact, rtol=2e-3, atol=2e-3)


def test_a_crosscoder_trains_on_a_stream_and_nothing_is_written(series: FolderSeries, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    stream = stream_of(
        series,
        organism_rows(TINY, 24),
        StreamConfig("resid_post", 1, batch=96, rows=24, passes=10),
        progress=lambda done, of: seen.append((done, of)),
    )
    files = set(Path(series.origin).rglob("*"))
    dictionary = train_dictionary(stream, TrainConfig(features=48, k=6, steps=40, resample=15))
    held = stream_of(series, organism_rows(TINY, 32)[24:], StreamConfig("resid_post", 1, batch=96, rows=8))
    fit = evaluate(dictionary, [batch for _, batch in zip(range(2), held.batches(), strict=False)])
    assert fit.fvu.shape == (len(series.checkpoints),) and (fit.fvu < 0.9).all()
    assert seen == [(n + 1, len(series.checkpoints)) for n in range(len(series.checkpoints))]
    assert set(Path(series.origin).rglob("*")) == files


def test_what_cannot_be_streamed_is_refused(series: FolderSeries) -> None:
    rows = organism_rows(TINY, 8)
    wrong = {
        "from site 'pattern'": (rows, StreamConfig("pattern", 0)),
        "from site 'nowhere'": (rows, StreamConfig("nowhere", 0)),
        "no layer 2": (rows, StreamConfig("resid_post", 2)),
        "a buffer has 192 tokens": (rows, StreamConfig("resid_post", 0, batch=500)),
        "are left out": (rows, StreamConfig("resid_post", 0, skip=24)),
        "token ids from": (rows + 10_000, StreamConfig("resid_post", 0)),
    }
    for message, (given, config) in wrong.items():
        with pytest.raises(UserError, match=message):
            stream_of(series, given, config)
    with pytest.raises(UserError, match="no checkpoint to stream"):
        ActivationStream(
            series, (), architecture(read_config(series.config_folder)), rows, StreamConfig("resid_post", 0, batch=10)
        )
