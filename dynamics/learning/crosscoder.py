r"""Training a BatchTopK crosscoder over checkpoints on batches that are streamed and dropped.

One dictionary explains the activations of the same tokens at every checkpoint (Lindsey et al. 2024, "Sparse
crosscoders"; over training snapshots: Ge et al. 2025). Instead of a penalty, the ``k`` x tokens largest of all
activations of a batch are kept, ranked by activation times the sum of the feature's decoder norms (BatchTopK: Bussmann
et al. 2024; in crosscoders: Minder et al. 2025), because a penalty on decoder norms shrinks the weak checkpoints of a
feature to 0, and a birth would be made by the penalty. What is minimised is the squared error of the scaled
activations, every checkpoint alike. After training the smallest activation kept on average becomes the threshold, so
that a token's code does not depend on its batch.

The gradient is written out, because only ``k`` of thousands of features are other than 0: all products but two are
sparse ones. Decoders start as the activations of random tokens (the same token at every checkpoint), encoders as their
transposes. A feature that has fired on none of the tokens of the last ``resample`` batches is *dead*, and starts anew from
the error of a badly explained token (Bricken et al. 2023), during the first part of the training only.

A trainer is saved with everything that its next step depends on, and the stream is asked for its batches by number, so
that a resumed training equals an uninterrupted one, bit for bit on the same machine and number of threads. An encoder
and a decoder of all checkpoints are ``2 x features x checkpoints x d_model`` weights; with the moments of Adam it is
eight bytes a weight more.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from checkpoints.errors import StoppedError, UserError, first_line
from checkpoints.paths import replace_text

from .dictionary import FORMAT, Dictionary, Stream, read_description, sparse_codes, write_tensors

__all__ = ["TrainConfig", "Trainer", "gradient"]

ADAM = (0.9, 0.999)
FIRST = 2
"""Batches from which mean and scale of every checkpoint are taken, and the decoders' start."""
RESAMPLED = 0.5
"""Dead features start anew during this share of the steps."""


@dataclass(frozen=True)
class TrainConfig:
    """How a dictionary is trained; equal configurations on equal streams give equal dictionaries.

    Attributes:
        features: how many.
        k: features that fire on a token on average.
        steps: batches.
        learning_rate: peak of Adam's; a twentieth of the steps warm up, the last third decays to 0.
        resample: batches after which a feature that never fired counts as dead.
        seed: of what is random.
    """

    features: int
    k: float
    steps: int
    learning_rate: float = 2e-3
    resample: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        if not (self.features >= 1 and 0 < self.k <= self.features and self.steps >= 1):
            raise UserError(
                f"{self.features} features, k {self.k}, {self.steps} steps",
                expected="at least one each, and k above 0 and at most the number of features",
                remedy="correct `features`, `k` and `steps` of the dictionary",
            )


class Trainer:
    """A training in progress.

    Attributes:
        config: how it is trained.
        weights: name to tensor: encoder, decoder (feature, checkpoint, d_model), bias (feature,), offset
            (checkpoint, d_model); mean and scale of the activations.
        step: batches done.
        losses: mean squared error of every batch as a share of the activations' mean square.
        resampled: features that started anew, in all.
    """

    def __init__(self, config: TrainConfig, weights: dict[str, torch.Tensor]) -> None:
        self.config, self.weights = config, weights
        self.step, self.cut, self.resampled = 0, 0.0, 0
        self.losses: list[float] = []
        self._moments = {name: (torch.zeros_like(weights[name]), torch.zeros_like(weights[name])) for name in _TRAINED}
        self._since = torch.zeros(config.features, device=weights["bias"].device)

    @classmethod
    def start(
        cls,
        config: TrainConfig,
        stream: Stream,
        *,
        device: str = "cpu",
        like: Dictionary | None = None,
        names: Sequence[str] | None = None,
    ) -> Trainer:
        """A new training: looks at the first batches of the stream, or starts from another dictionary's weights.

        Args:
            config: how.
            stream: its batches are ``(checkpoint, token, d_model)``.
            device: torch device.
            like: start from its encoder and decoder; mean and scale are the stream's own.
            names: (checkpoint,) what to call the stream's checkpoints when something is wrong with one; their numbers if
                left out.

        Raises:
            UserError: when the stream has no batch, or its activations are not finite or all equal.
        """
        first = []
        for number, batch in enumerate(stream.batches()):
            first.append(torch.as_tensor(batch, dtype=torch.float32, device=device))
            if number + 1 >= FIRST:
                break
        if not first:
            raise UserError(
                "the stream has no batch",
                expected="activations (checkpoint, token, d_model)",
                remedy="give a longer corpus",
            )
        x = torch.cat(first, dim=1)
        mean = x.mean(dim=1)
        scale = ((x - mean[:, None]) ** 2).sum(dim=2).mean(dim=1).sqrt()
        if not bool((torch.isfinite(scale) & (scale > 0)).all()):
            wrong = int(torch.nonzero(~(torch.isfinite(scale) & (scale > 0)))[0])
            called = f"checkpoint {wrong} (the first is 0)" if names is None else names[wrong]
            raise UserError(
                f"the activations of {called} are not finite, or all equal",
                expected="finite activations that differ between tokens",
                remedy="leave this checkpoint out",
            )
        z = ((x - mean[:, None]) / scale[:, None, None]).transpose(0, 1)
        if like is None:
            generator = torch.Generator().manual_seed(config.seed)
            chosen = torch.randint(len(z), (config.features,), generator=generator).to(z.device)
            encoder = _unit(z[chosen] + 0.01 * torch.randn(z[chosen].shape, generator=generator).to(z.device))
            weights = {"encoder": encoder, "decoder": encoder.clone()}
            weights |= {"bias": torch.zeros(config.features, device=device), "offset": torch.zeros_like(mean)}
            # tokens are alike, and k of them add up to far too much: the decoder's length that fits best
            some = z[: len(first[0][0])].contiguous()
            made = some - gradient(weights, some, config.k)[3]
            weights["decoder"] *= ((made * some).sum() / (made**2).sum().clamp_min(1e-12)).clamp(1e-3, 1.0)
        else:
            weights = {name: getattr(like, name).clone() for name in _TRAINED}
        return cls(config, weights | {"mean": mean, "scale": scale})

    def run(self, stream: Stream, *, progress: Callable[[int, int, float], None] | None = None) -> None:
        """Train to the end, from the stream's batch of the same number as the step.

        Args:
            stream: the one that it was started with.
            progress: called after every batch with (steps done, steps in all, loss).

        Raises:
            UserError: when the stream ends before.
            StoppedError: when the loss is not finite.
        """
        last = self.config.steps
        if self.step >= last:
            return
        for batch in stream.batches(self.step):
            self._learn(self.dictionary().scaled(batch))
            if not math.isfinite(self.losses[-1]):
                raise StoppedError(
                    f"the loss is not finite at step {self.step}",
                    remedy="lower the learning rate, or check the activations",
                    expected="activations and a learning rate at which the loss falls",
                )
            if progress is not None:
                progress(self.step, last, self.losses[-1])
            if self.step >= last:
                return
        raise UserError(
            f"the stream ended after {self.step} batches",
            expected=f"{last} batches",
            remedy="give a stream that is as long as the training",
        )

    def dictionary(self) -> Dictionary:
        """The dictionary as it is now; its decoder is the trained one, so that ``variance`` is missing (NaN)."""
        w = self.weights
        return Dictionary(
            encoder=w["encoder"],
            decoder=w["decoder"],
            bias=w["bias"],
            offset=w["offset"],
            mean=w["mean"],
            scale=w["scale"],
            threshold=self.cut / w["decoder"].norm(dim=2).sum(dim=1).clamp_min(1e-12),
            variance=torch.full_like(w["bias"], float("nan")),
        )

    def save(self, folder: Path) -> None:
        """Write ``training.safetensors`` and, last, ``training.json``."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {**self.weights, "since": self._since}
        for name, (first, second) in self._moments.items():
            tensors |= {f"first.{name}": first, f"second.{name}": second}
        write_tensors(tensors, folder / "training.safetensors")
        about = {
            "format": FORMAT,
            "config": asdict(self.config),
            "step": self.step,
            "cut": self.cut,
            "resampled": self.resampled,
            "losses": self.losses,
        }
        replace_text(folder / "training.json", json.dumps(about))

    @classmethod
    def load(cls, folder: Path, *, device: str = "cpu") -> Trainer:
        """Read what :meth:`save` wrote.

        Raises:
            UserError: when there is none, or it has another format.
        """
        from safetensors.torch import load_file

        about = read_description(folder, "training")
        try:
            tensors = load_file(folder / "training.safetensors", device=device)
            weights = {name: tensors[name] for name in (*_TRAINED, "mean", "scale")}
            trainer = cls(TrainConfig(**about["config"]), weights)
            trainer._moments = {name: (tensors[f"first.{name}"], tensors[f"second.{name}"]) for name in _TRAINED}
            trainer._since = tensors["since"]
            trainer.step, trainer.cut, trainer.resampled = (about[name] for name in ("step", "cut", "resampled"))
            trainer.losses = list(about["losses"])
        except Exception as error:  # of another version, or damaged: settings and tensors may be any
            raise UserError(
                f"the training in {folder} cannot be gone on with: {first_line(error)}",
                expected="one that this version of the program began",
                remedy="delete that folder: this dictionary is then trained from the beginning",
            ) from error
        return trainer

    def _learn(self, z: torch.Tensor) -> None:
        """One step of Adam on scaled activations (token, checkpoint, d_model)."""
        loss, gradients, codes, rest = gradient(self.weights, z, self.config.k)
        self.losses.append(loss)
        norms = self.weights["decoder"].norm(dim=2).sum(dim=1)
        chosen = (codes * norms)[codes > 0]
        least = float(chosen.min()) if len(chosen) else 0.0
        self.cut = least if self.step == 0 else 0.95 * self.cut + 0.05 * least
        self.step += 1
        rate = self.config.learning_rate * _schedule(self.step / self.config.steps)
        for name in _TRAINED:
            first, second = self._moments[name]
            first.lerp_(gradients[name], 1 - ADAM[0])
            second.mul_(ADAM[1]).addcmul_(gradients[name], gradients[name], value=1 - ADAM[1])
            size = rate / (1 - ADAM[0] ** self.step)
            spread = (second / (1 - ADAM[1] ** self.step)).sqrt_().add_(1e-8)
            self.weights[name].addcdiv_(first, spread, value=-size)
        self._since += 1
        self._since[(codes > 0).any(dim=0)] = 0
        due = self.step % self.config.resample == 0
        if due and self.step <= RESAMPLED * self.config.steps:
            self._resample(rest)

    def _resample(self, rest: torch.Tensor) -> None:
        """Dead features start anew from the errors (token, checkpoint, d_model) of badly explained tokens."""
        dead = torch.nonzero(self._since >= self.config.resample).flatten()
        if not len(dead):
            return
        alive = torch.ones(len(self._since), dtype=torch.bool, device=dead.device)
        alive[dead] = False
        generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + self.step)
        odds = ((rest**2).sum(dim=(1, 2)) ** 2).cpu().double()
        chosen = torch.multinomial(odds + 1e-30, len(dead), replacement=len(dead) > len(odds), generator=generator)
        direction = _unit(rest[chosen.to(rest.device)])
        flat = self.weights["decoder"][alive].flatten(1).norm(dim=1)
        size = flat.median() if len(flat) else torch.ones((), device=dead.device)
        self.weights["decoder"][dead] = direction * size
        self.weights["encoder"][dead] = direction / size.clamp_min(1e-6)
        self.weights["bias"][dead] = 0.0
        for name in ("encoder", "decoder", "bias"):
            for moment in self._moments[name]:
                moment[dead] = 0.0
        self._since[dead] = 0
        self.resampled += len(dead)


_TRAINED = ("encoder", "decoder", "bias", "offset")


def gradient(
    weights: dict[str, torch.Tensor], z: torch.Tensor, k: float
) -> tuple[float, dict[str, torch.Tensor], torch.Tensor, torch.Tensor]:
    """Loss and its gradient with the code's support fixed, as in every TopK dictionary.

    Args:
        weights: encoder, decoder, bias, offset.
        z: (token, checkpoint, d_model) scaled activations.
        k: features per token.

    Returns:
        Mean squared length of the error per checkpoint, its gradient by name, the codes (token, feature), and the error
        (token, checkpoint, d_model).
    """
    tokens, checkpoints, _ = z.shape
    with torch.no_grad():
        x, encoder, decoder = z.flatten(1), weights["encoder"].flatten(1), weights["decoder"].flatten(1)
        a = torch.addmm(weights["bias"], x, encoder.T).relu_()
        score = a * weights["decoder"].norm(dim=2).sum(dim=1)
        most = min(max(1, round(k * tokens)), score.numel())
        top = score.flatten().topk(most, sorted=False)
        kept = torch.zeros_like(score).flatten().index_fill_(0, top.indices, 1.0).view_as(score)
        codes = a * kept
        rest = x - weights["offset"].flatten() - sparse_codes(codes) @ decoder
        factor = -2.0 / (tokens * checkpoints)
        by_code = (rest @ decoder.T) * (codes > 0)
        gradients = {
            "decoder": (sparse_codes(codes.T) @ rest).mul_(factor).view_as(weights["decoder"]),
            "encoder": (sparse_codes(by_code.T) @ x).mul_(factor).view_as(weights["encoder"]),
            "bias": by_code.sum(dim=0) * factor,
            "offset": rest.sum(dim=0).view_as(weights["offset"]) * factor,
        }
        loss = float((rest**2).sum()) / (tokens * checkpoints)
    return loss, gradients, codes, rest.view_as(z)


def _schedule(done: float) -> float:
    """Share of the peak learning rate."""
    return min(1.0, done / 0.05, (1.0 - done) * 3.0 + 1e-3)


def _unit(vectors: torch.Tensor) -> torch.Tensor:
    """Vectors (row, checkpoint, d_model) of length 1 over all checkpoints together."""
    unit: torch.Tensor = vectors / vectors.flatten(1).norm(dim=1).clamp_min(1e-12)[:, None, None]
    return unit
