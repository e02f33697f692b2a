r"""What a dictionary says of tokens at every checkpoint of a series, whichever way it was made.

A *joint* coder is a crosscoder: one code explains a token at all checkpoints. A *separate* one has a dictionary for each
checkpoint (a chain of sparse autoencoders, or a published dictionary applied everywhere).

Which features answer a token is sparse: the ``ranks`` with the largest contributions. How strongly they answer *at one
checkpoint* is, for a joint coder, the least-squares fit of that checkpoint's own activation by the decoders of those
features at that checkpoint (the step that orthogonal matching pursuit takes on its support, Pati et al. 1993): the code
itself does not know the checkpoint. Both are lengths of a feature's part in the scaled activation, and a negative one
says that the feature points the other way there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import csr_array, vstack

from .dictionary import Dictionary

__all__ = ["Coder", "Codes", "Decoder"]

_BATCH = 512
_RIDGE = 1e-4


@dataclass(frozen=True)
class Codes:
    """The features that answer tokens.

    Attributes:
        index: (token, rank) for a joint coder, (snapshot, token, rank) for a separate one; -1 where fewer answer.
        activation: (snapshot, token, rank) length of the feature's part in the activation, in units of its root mean
            square length; 0 where ``index`` is -1.
    """

    index: npt.NDArray[np.int32]
    activation: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Coder:
    """One dictionary over all checkpoints, or one for each.

    Attributes:
        dictionaries: one over all checkpoints (joint), or one over one checkpoint for each of them.
        joint: which of the two.
    """

    dictionaries: tuple[Dictionary, ...]
    joint: bool

    @property
    def snapshots(self) -> int:
        """Checkpoints that it covers."""
        return self.dictionaries[0].checkpoints if self.joint else len(self.dictionaries)

    @property
    def features(self) -> int:
        """Features of each dictionary (of the largest)."""
        return max(d.features for d in self.dictionaries)

    def codes(self, activations: torch.Tensor, ranks: int) -> Codes:
        """Sparse answers to tokens.

        Args:
            activations: (snapshot, token, d_model).
            ranks: features kept for each token.
        """
        batches = torch.split(activations, _BATCH, dim=1)
        if self.joint:
            parts = [_joint(self.dictionaries[0], batch, ranks) for batch in batches]
            return Codes(np.concatenate([i for i, _ in parts]), np.concatenate([a for _, a in parts], axis=1))
        index, activation = [], []
        for snapshot, dictionary in enumerate(self.dictionaries):
            one = [_top(dictionary, batch[snapshot : snapshot + 1], ranks) for batch in batches]
            index.append(np.concatenate([i for i, _ in one]))
            activation.append(np.concatenate([a for _, a in one]))
        return Codes(np.stack(index), np.stack(activation))

    def encoded(self, activations: torch.Tensor) -> Iterator[tuple[slice, torch.Tensor]]:
        """(tokens, (token, feature) codes) in batches: of all checkpoints together, or of the last one's dictionary."""
        for start in range(0, activations.shape[1], _BATCH):
            some = slice(start, min(start + _BATCH, activations.shape[1]))
            batch = activations[:, some] if self.joint else activations[-1:, some]
            with torch.no_grad():
                yield some, self.dictionaries[-1].encode(batch)

    def sparse(self, activations: torch.Tensor, snapshot: int) -> csr_array:
        """(token, feature) codes of activations (snapshot, token, d_model) at one snapshot, most of them 0 and not stored.

        Those of a joint coder are the same at every snapshot.
        """
        dictionary, batch = self.dictionaries[0], activations
        if not self.joint:
            dictionary, batch = self.dictionaries[snapshot], activations[snapshot : snapshot + 1]
        with torch.no_grad():
            parts = [csr_array(dictionary.encode(some).cpu().numpy()) for some in torch.split(batch, _BATCH, dim=1)]
        return csr_array(vstack(parts))

    def decoder(self, snapshot: int) -> Decoder:
        """What codes stand for at one snapshot."""
        dictionary = self.dictionaries[0 if self.joint else snapshot]
        index = snapshot if self.joint else 0
        scale = dictionary.scale[index]
        with torch.no_grad():
            vectors = (dictionary.decoder[:, index] * scale).cpu().numpy()
            offset = (dictionary.offset[index] * scale + dictionary.mean[index]).cpu().numpy()
        return Decoder(vectors, offset, float(scale))


@dataclass(frozen=True)
class Decoder:
    """The decoder of one snapshot, in the activations' own units.

    Attributes:
        vectors: (feature, d_model).
        offset: (d_model,).
        scale: what a length of 1 in the dictionary's units is.
    """

    vectors: npt.NDArray[np.float32]
    offset: npt.NDArray[np.float32]
    scale: float

    @property
    def lengths(self) -> npt.NDArray[np.float32]:
        """(feature,) of the vectors, in the dictionary's units."""
        return np.asarray(np.linalg.norm(self.vectors, axis=1) / self.scale)

    def rebuilt(self, codes: csr_array) -> npt.NDArray[np.float32]:
        """(token, d_model) what codes (token, feature) make of the activations."""
        return np.asarray(codes @ self.vectors + self.offset, dtype=np.float32)


def _top(
    dictionary: Dictionary, batch: torch.Tensor, ranks: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """(token, rank) index and length of the largest contributions: codes times decoders' length over all checkpoints."""
    with torch.no_grad():
        size = dictionary.encode(batch) * dictionary.decoder.flatten(1).norm(dim=1)
    top = size.topk(min(ranks, size.shape[1]), dim=1)
    index = torch.where(top.values > 0, top.indices, -1)
    return index.cpu().numpy().astype(np.int32), top.values.cpu().numpy().astype(np.float32)


def _joint(
    dictionary: Dictionary, batch: torch.Tensor, ranks: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """(token, rank) index and (snapshot, token, rank) fitted lengths."""
    index, _ = _top(dictionary, batch, ranks)
    support = torch.from_numpy(index).to(dictionary.decoder.device).long()
    there = support >= 0
    directions = torch.nn.functional.normalize(dictionary.decoder, dim=2)
    rest = dictionary.scaled(batch) - dictionary.offset
    fitted = []
    with torch.no_grad():
        for checkpoint in range(dictionary.checkpoints):
            chosen = directions[support.clamp_min(0), checkpoint] * there[:, :, None]  # (token, rank, d_model)
            gram = chosen @ chosen.transpose(1, 2)
            gram.diagonal(dim1=1, dim2=2).add_(_RIDGE + (~there).float())
            right = chosen @ rest[:, checkpoint, :, None]
            fitted.append(torch.linalg.solve(gram, right)[:, :, 0] * there)
    return index, torch.stack(fitted).cpu().numpy().astype(np.float32)
