r"""A sparse dictionary over one or more checkpoints: one set of features, an encoder and a decoder per checkpoint.

With :math:`z_c = (x_c - \mu_c) / \sigma_c` (centred, and scaled so that every checkpoint has mean squared length 1), the
activation of feature j on a token and the reconstruction are

.. math:: a_j = \mathrm{ReLU}\Big(\sum_c e_{jc} \cdot z_c + b_j\Big), \qquad
   f_j = a_j \; [a_j > \theta_j], \qquad \hat z_c = \sum_j f_j d_{jc} + o_c.

Over several checkpoints this is a crosscoder (Lindsey et al. 2024); a feature is then the same tokens throughout, and
its decoder norm at a checkpoint is its *strength* there (Ge et al. 2025). Over one it is a sparse autoencoder.

Dictionaries that others trained (:mod:`dynamics.learning.published`) may also be limited to the ``k`` largest activations
of each token (TopK: Gao et al. 2024); all others of that token are then 0, whatever their threshold. Their mean and scale
are what they were trained with, so that theirs are not scaled to length 1.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from checkpoints.errors import UserError, first_line, short
from checkpoints.foreign import read_json
from checkpoints.paths import replace_text

from ..numerics.arrays import FloatArray

__all__ = [
    "FORMAT", "Dictionary", "Fit", "Stream", "evaluate", "read_description", "refit", "sparse_codes", "write_tensors",
]  # fmt: skip

FORMAT = 1


class Stream(Protocol):
    """Activations (checkpoint, token, d_model) in batches that can be had again from any number on."""

    @property
    def checkpoints(self) -> int:
        """Checkpoints in a batch."""

    @property
    def d_model(self) -> int:
        """Width of the activations."""

    def batches(self, start: int = 0) -> Iterator[Any]:
        """Batches from number ``start`` on: arrays or tensors (checkpoint, token, d_model); may be without end."""


@dataclass(frozen=True)
class Dictionary:
    """The weights; all tensors are float32, on one device.

    Attributes:
        encoder, decoder: (feature, checkpoint, d_model), for scaled activations.
        bias: (feature,) of the encoder.
        offset: (checkpoint, d_model) of the decoder, scaled.
        mean: (checkpoint, d_model), and ``scale`` (checkpoint,): of the activations.
        threshold: (feature,) an activation below it counts as 0.
        variance: (feature,) of the decoder's coefficients, in units of the residual variance of a token, where it was
            fitted (:func:`refit`); NaN where it was not, or where the feature did not fire often enough.
        k: at most so many features fire on a token, the largest; None where only the threshold decides.

    Raises:
        UserError: when k is not between 1 and the number of features.
    """

    encoder: torch.Tensor
    decoder: torch.Tensor
    bias: torch.Tensor
    offset: torch.Tensor
    mean: torch.Tensor
    scale: torch.Tensor
    threshold: torch.Tensor
    variance: torch.Tensor
    k: int | None = None

    def __post_init__(self) -> None:
        if self.k is not None and not 1 <= self.k <= self.features:
            raise UserError(
                f"{self.k} features are to fire on a token",
                expected=f"1 to {self.features}, or no limit",
                remedy="correct k",
            )

    @property
    def features(self) -> int:
        """How many features there are."""
        return int(self.decoder.shape[0])

    @property
    def checkpoints(self) -> int:
        """How many checkpoints it covers."""
        return int(self.decoder.shape[1])

    def strength(self) -> FloatArray:
        """(feature, checkpoint) decoder norms, in units of the checkpoint's root mean square length."""
        return np.asarray(self.decoder.norm(dim=2).cpu().numpy().astype(np.float64))

    def directions(self) -> npt.NDArray[np.float32]:
        """(feature, d_model) decoder vectors of the first checkpoint."""
        return np.asarray(self.decoder[:, 0].cpu().numpy())

    def scaled(self, batch: Any) -> torch.Tensor:
        """(token, checkpoint, d_model) centred and scaled activations of a batch (checkpoint, token, d_model).

        Raises:
            UserError: when the batch is not of the dictionary's checkpoints and width.
        """
        x = torch.as_tensor(batch, dtype=torch.float32, device=self.decoder.device)
        if x.ndim != 3 or (x.shape[0], x.shape[2]) != tuple(self.mean.shape):
            raise UserError(
                f"activations have shape {tuple(x.shape)}",
                expected=f"(checkpoint, token, d_model) with {self.mean.shape[0]} checkpoints of width {self.mean.shape[1]}",
                remedy="give activations of the checkpoints and the site that it was learned from",
            )
        return ((x - self.mean[:, None]) / self.scale[:, None, None]).transpose(0, 1).contiguous()

    def encode(self, batch: Any) -> torch.Tensor:
        """(token, feature) activations of a batch (checkpoint, token, d_model); most are 0."""
        return self.encode_scaled(self.scaled(batch))

    def encode_scaled(self, z: torch.Tensor) -> torch.Tensor:
        """(token, feature) activations of scaled ones (token, checkpoint, d_model)."""
        a = torch.addmm(self.bias, z.flatten(1), self.encoder.flatten(1).T).relu_()
        if self.k is not None:
            top = a.topk(self.k, dim=1, sorted=False)
            a = torch.zeros_like(a).scatter_(1, top.indices, top.values)
        return a * (a > self.threshold)

    def decode_scaled(self, codes: torch.Tensor) -> torch.Tensor:
        """(token, checkpoint, d_model) the scaled reconstruction from codes (token, feature)."""
        return (codes @ self.decoder.flatten(1)).view(-1, *self.offset.shape) + self.offset

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        """(checkpoint, token, d_model) reconstructed activations from codes (token, feature)."""
        return self.decode_scaled(codes).transpose(0, 1) * self.scale[:, None, None] + self.mean[:, None]

    def save(self, folder: Path) -> None:
        """Write ``dictionary.safetensors`` and, last, ``dictionary.json``."""
        folder.mkdir(parents=True, exist_ok=True)
        write_tensors({name: getattr(self, name) for name in _TENSORS}, folder / "dictionary.safetensors")
        about = {
            "format": FORMAT,
            "features": self.features,
            "checkpoints": self.checkpoints,
            "d_model": int(self.decoder.shape[2]),
            "k": self.k,
        }
        replace_text(folder / "dictionary.json", json.dumps(about, indent=1))

    @classmethod
    def load(cls, folder: Path, *, device: str = "cpu") -> Dictionary:
        """Read what :meth:`save` wrote.

        Raises:
            UserError: when there is none, or its format or its tensors are not as expected.
        """
        from safetensors.torch import load_file

        about = read_description(folder, "dictionary")
        try:
            tensors = load_file(folder / "dictionary.safetensors", device=device)
        except Exception as error:
            raise UserError(
                f"{folder / 'dictionary.safetensors'} cannot be read: {first_line(error)}",
                expected="the tensors of a dictionary",
                remedy=f"delete {folder}: it is then made anew",
            ) from error
        wide = tuple(about.get(size) for size in ("features", "checkpoints", "d_model"))
        shapes = {"encoder": wide, "decoder": wide, "bias": wide[:1], "scale": wide[1:2]}
        shapes |= {"threshold": wide[:1], "variance": wide[:1], "offset": wide[1:], "mean": wide[1:]}
        found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        if found != shapes:
            raise UserError(
                f"{folder / 'dictionary.safetensors'} has tensors {found}",
                expected=str(shapes),
                remedy=f"delete {folder}: it is then made anew",
            )
        return cls(**tensors, k=about.get("k"))


_TENSORS = ("encoder", "decoder", "bias", "offset", "mean", "scale", "threshold", "variance")


@dataclass(frozen=True)
class Fit:
    """How well a dictionary describes tokens that it was shown.

    Attributes:
        tokens: how many.
        fvu: (checkpoint,) fraction of variance unexplained: squared error over squared distance from the tokens' mean.
        l0: (checkpoint,) features that fire on a token on average; with one code for all checkpoints the same number.
        frequency: (feature,) share of tokens on which it fires.
        dead: share of features that never fired.
        error: (checkpoint,) mean squared length of the error, scaled.
        dimensions: (checkpoint,) effective dimensions of the error, (tr S)^2 / tr S^2 of its covariance S.
    """

    tokens: int
    fvu: FloatArray
    l0: FloatArray
    frequency: FloatArray
    dead: float
    error: FloatArray
    dimensions: FloatArray


def evaluate(dictionary: Dictionary, batches: Iterable[Any]) -> Fit:
    """Measure a dictionary on batches (checkpoint, token, d_model), which should be none that it was trained on.

    Raises:
        UserError: when there is no batch.
    """
    checkpoints, tokens = dictionary.checkpoints, 0
    device = dictionary.decoder.device
    fired = torch.zeros(dictionary.features, dtype=torch.float64, device=device)
    total, squares, error, second, pairs = (torch.zeros(s, dtype=torch.float64, device=device) for s in (
        dictionary.mean.shape, (checkpoints,), (checkpoints,), (checkpoints,), (1,)
    ))  # fmt: skip
    with torch.no_grad():
        for batch in batches:
            z = dictionary.scaled(batch)
            codes = dictionary.encode_scaled(z)
            rest = z - dictionary.decode_scaled(codes)
            fired += (codes > 0).sum(dim=0)
            total += z.sum(dim=0)
            squares += (z**2).sum(dim=(0, 2))
            error += (rest**2).sum(dim=(0, 2))
            # tr S^2 without S: mean squared product of the errors of two different tokens
            some = rest[:256].transpose(0, 1)
            products = (some @ some.transpose(1, 2)) ** 2
            second += products.sum(dim=(1, 2)) - products.diagonal(dim1=1, dim2=2).sum(dim=1)
            pairs += some.shape[1] * (some.shape[1] - 1)
            tokens += len(z)
    if not tokens:
        raise UserError(
            "there are no activations to measure the dictionary on",
            expected="at least one batch",
            remedy="give rows of which something is held back",
        )
    spread = squares - (total**2).sum(dim=1) / tokens
    per_token = error / tokens
    nan = torch.full_like(error, float("nan"))
    return Fit(
        tokens=tokens,
        fvu=torch.where(spread > 1e-9 * squares, error / spread, nan).cpu().numpy(),
        l0=np.full(checkpoints, float(fired.sum()) / tokens),
        frequency=(fired / tokens).cpu().numpy(),
        dead=float((fired == 0).double().mean()),
        error=per_token.cpu().numpy(),
        dimensions=torch.where(second > 0, per_token**2 * pairs / second, nan).cpu().numpy(),
    )


FEWEST = 20
"""A feature must fire on this many tokens for its decoder to be fitted."""


def refit(dictionary: Dictionary, batches: Iterable[Any]) -> Dictionary:
    r"""The same codes with the decoder of least squares: the regression of activations on codes, per checkpoint.

    Training leaves the noise of its last steps in the decoder, and a feature that is absent at a checkpoint with a norm
    above 0. The regression has neither, and a sampling error: coefficients of feature j have variance
    :math:`(G^{-1})_{jj}` times the residual's, with G the codes' covariance times the number of tokens
    (:attr:`Dictionary.variance`). Features that fire on fewer than 20 tokens get a decoder of 0 and no variance.
    """
    features, checkpoints, width = dictionary.decoder.shape
    device = dictionary.decoder.device
    gram = torch.zeros(features, features, dtype=torch.float64, device=device)
    cross = torch.zeros(features, checkpoints * width, dtype=torch.float64, device=device)
    codes_sum = torch.zeros(features, dtype=torch.float64, device=device)
    z_sum = torch.zeros(checkpoints * width, dtype=torch.float64, device=device)
    fired = torch.zeros(features, device=device)
    tokens = 0
    with torch.no_grad():
        for batch in batches:
            z = dictionary.scaled(batch)
            codes = dictionary.encode_scaled(z)
            gram += codes.T @ codes
            cross += (sparse_codes(codes.T) @ z.flatten(1)).double()
            codes_sum += codes.sum(dim=0)
            z_sum += z.flatten(1).sum(dim=0)
            fired += (codes > 0).sum(dim=0)
            tokens += len(z)
        if not tokens:
            raise UserError(
                "there are no activations to fit the decoder to",
                expected="at least one batch",
                remedy="give a longer corpus",
            )
        alive = torch.nonzero(fired >= FEWEST).flatten()
        centred = (gram - torch.outer(codes_sum, codes_sum) / tokens)[alive][:, alive]
        centred += 1e-8 * centred.diagonal().mean().nan_to_num(1.0) * torch.eye(len(alive), device=device)
        inverse = torch.linalg.inv(centred)
        solution = inverse @ (cross - torch.outer(codes_sum, z_sum) / tokens)[alive]
        decoder = torch.zeros(features, checkpoints * width, device=device)
        decoder[alive] = solution.float()
        offset = ((z_sum - codes_sum @ decoder.double()) / tokens).float()
        variance = torch.full((features,), float("nan"), device=device)
        variance[alive] = inverse.diagonal().float()
        return replace(
            dictionary,
            decoder=decoder.view(features, checkpoints, width),
            offset=offset.view(checkpoints, width),
            variance=variance,
        )


def read_description(folder: Path, kind: str) -> dict[str, Any]:
    """What the JSON file beside the tensors of a dictionary or a training says.

    Raises:
        UserError: when there is none, or it has another format.
    """
    file = folder / f"{kind}.json"
    if not file.is_file():
        raise UserError(
            f"there is no {kind} in {folder}",
            expected=f"{kind}.json and {kind}.safetensors",
            remedy="name the folder of one",
        )
    try:
        about: dict[str, Any] = read_json(file, dict)
    except (OSError, ValueError) as error:
        about = {"format": f"that cannot be read ({error})"}
    if about.get("format") != FORMAT:
        raise UserError(
            f"{file} has format {short(str(about.get('format')))}",
            expected=f"format {FORMAT}",
            remedy=f"delete {folder}: it is then made anew",
        )
    return about


def write_tensors(tensors: dict[str, torch.Tensor], file: Path) -> None:
    """Write a safetensors file.

    Raises:
        OSError: when it cannot be written, which safetensors says in an error of its own.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file({name: tensor.contiguous().cpu() for name, tensor in tensors.items()}, file)
    except SafetensorError as error:
        raise OSError(errno.ENOSPC, str(error), str(file)) from error


def sparse_codes(codes: torch.Tensor) -> torch.Tensor:
    """Codes (token, feature) of which most are 0, in CSR layout: products with them cost a tenth of dense ones."""
    import warnings

    with warnings.catch_warnings():  # torch says once that its CSR support is in beta
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta", category=UserWarning)
        return codes.contiguous().to_sparse_csr()
