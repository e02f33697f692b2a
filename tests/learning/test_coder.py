"""What a dictionary says of tokens at each checkpoint, on dictionaries made by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from dynamics.learning.coder import Coder
from dynamics.learning.dictionary import Dictionary


def made(decoder: torch.Tensor) -> Dictionary:
    """A dictionary whose encoder reads each feature exactly: directions of one checkpoint are orthonormal."""
    features, checkpoints, width = decoder.shape
    encoder = torch.zeros_like(decoder)
    encoder[:, -1] = torch.nn.functional.normalize(decoder[:, -1], dim=1)  # it looks at the last checkpoint alone
    return Dictionary(
        encoder=encoder,
        decoder=decoder,
        bias=torch.zeros(features),
        offset=torch.zeros(checkpoints, width),
        mean=torch.zeros(checkpoints, width),
        scale=torch.ones(checkpoints),
        threshold=torch.full((features,), 1e-6),
        variance=torch.full((features,), float("nan")),
    )


def test_a_joint_code_is_measured_at_each_checkpoint_by_that_checkpoints_activation() -> None:
    """Feature 0 is half as strong at the first checkpoint on token 0 and absent there on token 1, which the code cannot know."""
    width = 6
    decoder = torch.zeros(3, 2, width)
    for feature in range(3):
        decoder[feature, 0, feature + 3] = 2.0
        decoder[feature, 1, feature] = 1.0
    coder = Coder((made(decoder),), True)
    last = torch.zeros(2, width)
    last[:, 0], last[0, 2] = 1.5, 0.5
    first = torch.zeros(2, width)
    first[0, 3], first[0, 5] = 0.75, -0.25
    codes = coder.codes(torch.stack([first, last]), ranks=3)
    assert codes.index.tolist() == [[0, 2, -1], [0, -1, -1]]
    np.testing.assert_allclose(codes.activation[1], [[1.5, 0.5, 0], [1.5, 0, 0]], atol=1e-3)
    np.testing.assert_allclose(codes.activation[0], [[0.75, -0.25, 0], [0, 0, 0]], atol=1e-3)


def test_decoders_that_overlap_share_what_they_explain_by_least_squares() -> None:
    decoder = torch.tensor([[[1.0, 0.0], [1.0, 0.0]], [[0.6, 0.8], [0.0, 1.0]]])  # (feature, checkpoint, d_model)
    coder = Coder((made(decoder),), True)
    truth = np.array([0.7, 1.1])
    last = torch.tensor([[0.7, 1.1]])
    first = torch.from_numpy(truth[:, None] * decoder[:, 0].numpy()).sum(0, keepdim=True).float()
    codes = coder.codes(torch.stack([first, last]), ranks=2)
    by_feature = dict(zip(codes.index[0].tolist(), codes.activation[0, 0].tolist(), strict=True))
    np.testing.assert_allclose([by_feature[0], by_feature[1]], truth, atol=2e-3)


def test_separate_dictionaries_answer_for_their_own_checkpoint() -> None:
    one = made(torch.eye(3)[:, None])
    other = made(torch.eye(3).flip(0)[:, None])
    coder = Coder((one, other), False)
    tokens = torch.tensor([[[2.0, 0, 0]], [[2.0, 0, 0]]])
    codes = coder.codes(tokens, ranks=2)
    assert codes.index.tolist() == [[[0, -1]], [[2, -1]]]
    np.testing.assert_allclose(codes.activation, [[[2, 0]], [[2, 0]]])


def test_a_complete_dictionary_rebuilds_what_it_is_given() -> None:
    both = torch.cat([torch.eye(4), -torch.eye(4)])
    coder = Coder((made(both[:, None]),) * 2, False)
    tokens = torch.randn(2, 700, 4, generator=torch.Generator().manual_seed(0))
    for place in range(2):
        codes, decoder = coder.sparse(tokens, place), coder.decoder(place)
        assert codes.shape == (700, 8) and codes.nnz == tokens[place].count_nonzero()
        np.testing.assert_allclose(decoder.rebuilt(codes), tokens[place], atol=1e-5)


def test_a_decoder_of_a_snapshot_is_in_the_activations_own_units() -> None:
    dictionary = made(torch.eye(3)[:, None].repeat(1, 2, 1))
    dictionary = replace(dictionary, scale=torch.tensor([1.0, 4.0]), mean=torch.tensor([[0.0] * 3, [5.0] * 3]))
    coder = Coder((dictionary,), True)
    decoder = coder.decoder(1)
    np.testing.assert_allclose(decoder.vectors, 4 * np.eye(3))
    np.testing.assert_allclose(decoder.lengths, 1.0)
    tokens = torch.tensor([[[0.0, 0, 0]], [[9.0, 5, 5]]])
    np.testing.assert_allclose(decoder.rebuilt(coder.sparse(tokens, 1)), [[9.0, 5, 5]])
