r"""Two file formats of published dictionaries, and what they compute, expressed exactly.

*SAELens* (``sae_weights.safetensors``). With :math:`x` an activation, :math:`s` the factor of its normalisation,

.. math:: f = \phi\big((s x - b_{dec}) W_{enc} + b_{enc}\big), \qquad \hat x = (f W_{dec} + b_{dec}) / s,

the subtraction only where ``apply_b_dec_to_input`` says so; :math:`\phi` is a ReLU (*standard*), a ReLU above a
threshold (*jumprelu*), or the ``k`` largest (*topk*). So ``mean`` is :math:`b_{dec} / s` and ``scale`` :math:`1 / s`.

*sparsify* of EleutherAI, formerly ``sae`` (``sae.safetensors``): the same with ``encoder.weight`` transposed,
:math:`s = 1`, and the ``k`` largest.

What cannot be expressed is refused: gated and signed ones, transcoders and skip connections, one attention head's, and
those that normalise every token by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from checkpoints.errors import UserError
from checkpoints.files.owned import read_safetensors
from checkpoints.foreign import read_json

from .dictionary import Dictionary

__all__ = ["CONFIG", "WEIGHTS", "Contents", "read_contents"]

CONFIG = "cfg.json"
WEIGHTS = {"sae_weights.safetensors": "SAELens", "sae.safetensors": "sparsify"}
"""Name of the weights' file to the format."""


@dataclass(frozen=True)
class Contents:
    """What a folder holds.

    Attributes:
        dictionary: over one checkpoint, in the activations' own units.
        format: ``SAELens`` or ``sparsify``.
        hook: the name of the point that it was trained on, where its configuration says so, else empty.
        remarks: what has to be known to read its results.
    """

    dictionary: Dictionary
    format: str
    hook: str
    remarks: tuple[str, ...]


_ANOTHER = "choose another dictionary"
_AGAIN = "download or copy it again; if it is the same, its author has to mend it"


def read_contents(folder: Path, *, norm_factor: float | None = None, device: str = "cpu") -> Contents:
    """Read ``cfg.json`` and the weights beside it.

    Args:
        folder: where both are.
        norm_factor: what activations were multiplied by in training, for files that need it
            (``normalize_activations: expected_average_only_in``).
        device: torch device.

    Raises:
        UserError: when the format, the architecture, the normalisation or a tensor is not as expected.
    """
    file = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if file is None:
        raise UserError(
            f"{folder} has a {CONFIG} and no weights that can be read",
            expected=" or ".join(WEIGHTS),
            remedy="have it converted by its author, or where it is trusted: a pickle (.pt, .bin) runs code when it is opened",
        )
    config, tensors = _config(folder / CONFIG), _Tensors(file, device)
    if WEIGHTS[file.name] == "SAELens":
        flat = _flat(config)
        dictionary, remarks = _saelens(flat, tensors, norm_factor)
        return Contents(dictionary, "SAELens", str(flat.get("hook_name") or ""), remarks)
    if norm_factor is not None:
        raise UserError(
            f"norm_factor is {norm_factor} for {file}",
            expected="none: this format does not normalise",
            remedy="leave norm_factor out",
        )
    return Contents(_sparsify(config, tensors), "sparsify", "", ())


class _Tensors:
    """The tensors of one file, in float32."""

    def __init__(self, file: Path, device: str) -> None:
        self.file = file
        self._all = {name: tensor.to(device) for name, tensor in read_safetensors(file)[0].items()}

    def __contains__(self, name: str) -> bool:
        return name in self._all

    def take(self, name: str, *shape: int) -> torch.Tensor:
        """One tensor of this shape.

        Raises:
            UserError: when it is missing, of another shape, or not finite.
        """
        if name not in self._all:
            raise UserError(
                f"{self.file} has no tensor {name!r}",
                expected=f"one of shape {shape}, beside {self.names}",
                remedy=_AGAIN,
            )
        tensor: torch.Tensor = self._all[name].float()
        if tuple(tensor.shape) != shape:
            raise UserError(
                f"{name!r} in {self.file} has shape {tuple(tensor.shape)}", expected=str(shape), remedy=_AGAIN
            )
        if not bool(torch.isfinite(tensor).all()):
            raise UserError(
                f"{name!r} in {self.file} has values that are not finite", expected="finite weights", remedy=_AGAIN
            )
        return tensor

    @property
    def names(self) -> str:
        """What there is."""
        return ", ".join(sorted(self._all)) or "nothing"


def _config(file: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = read_json(file, dict)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{file} cannot be read: {error}", expected="JSON, a mapping", remedy="download or copy it again"
        ) from error
    return content


def _size(config: Mapping[str, Any], key: str, what: str) -> int:
    value = config.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UserError(
            f"{what} has {key}: {value!r}",
            expected="a number of 1 or more",
            remedy=_AGAIN,
        )
    return value


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of SAELens under the names of version 6, without its nesting."""
    renamed = {
        "hook_point": "hook_name",
        "hook_point_head_index": "hook_head_index",
        "activation_fn_str": "activation_fn",
    }
    nested = config.get("metadata")
    flat = {**config, **(nested if isinstance(nested, dict) else {})}
    flat = {renamed.get(key, key): value for key, value in flat.items()}
    flat.setdefault("architecture", "standard")
    if flat["architecture"] == "standard" and flat.get("activation_fn") == "topk":
        flat |= {"architecture": "topk", "activation_fn": "relu"}
    if flat["architecture"] == "topk":
        flat.setdefault("k", (flat.get("activation_fn_kwargs") or {}).get("k"))
        flat["activation_fn"] = "relu"
    normal = flat.get("normalize_activations")
    if normal is None or isinstance(normal, bool):
        flat["normalize_activations"] = "expected_average_only_in" if normal else "none"
    return flat


def _saelens(
    config: Mapping[str, Any], tensors: _Tensors, norm_factor: float | None
) -> tuple[Dictionary, tuple[str, ...]]:
    kind, normal, what = (
        config["architecture"],
        config["normalize_activations"],
        f"the dictionary {tensors.file.parent}",
    )
    if kind not in ("standard", "jumprelu", "topk"):
        raise UserError(f"{what} has the architecture {kind!r}", expected="standard, jumprelu or topk", remedy=_ANOTHER)
    if config.get("activation_fn") not in (None, "relu"):
        raise UserError(
            f"{what} has the activation {config['activation_fn']!r}", expected="relu or topk", remedy=_ANOTHER
        )
    if normal not in ("none", "expected_average_only_in"):
        raise UserError(
            f"{what} normalises activations by {normal!r}",
            expected="none, or one factor for all (expected_average_only_in)",
            remedy=_ANOTHER,
        )
    if (normal == "none") != (norm_factor is None) or (norm_factor is not None and not norm_factor > 0):
        raise UserError(
            f"{what} has normalize_activations: {normal}, and norm_factor is {norm_factor}",
            expected="the factor that activations were multiplied by where there was one, which the file does not say",
            remedy="leave norm_factor out"
            if normal == "none"
            else "sqrt(d_in) / mean length of the activations is usual",
        )
    for key in ("hook_head_index", "hook_name_out"):
        if config.get(key) not in (None, config.get("hook_name")):
            raise UserError(
                f"{what} has {key}: {config[key]!r}", expected="a dictionary of one whole site", remedy=_ANOTHER
            )
    changed = config.get("model_from_pretrained_kwargs")
    for key in ("center_writing_weights", "fold_value_biases", "refactor_factored_attn_matrices"):
        if changed and changed.get(key):
            raise UserError(
                f"{what} was trained on a model with other weights than the published ones: {key}",
                expected="one of a model as it is published, whose activations are those that are read here",
                remedy=_ANOTHER,
            )
    d_in, features = _size(config, "d_in", what), _size(config, "d_sae", what)
    encoder, decoder = tensors.take("W_enc", d_in, features).T, tensors.take("W_dec", features, d_in)
    bias, b_dec = tensors.take("b_enc", features), tensors.take("b_dec", d_in)
    threshold = tensors.take("threshold", features) if kind == "jumprelu" else torch.zeros_like(bias)
    if "scaling_factor" in tensors:  # of finetuning: all 1 in many old files
        factor = tensors.take("scaling_factor", features)
        if not config.get("finetuning_scaling_factor") and not torch.allclose(factor, torch.ones_like(factor)):
            raise UserError(
                f"{what} has a scaling_factor that its {CONFIG} does not know",
                expected="none, or all 1",
                remedy=_ANOTHER,
            )
        decoder = decoder * factor[:, None]
    if kind == "topk" and config.get("rescale_acts_by_decoder_norm"):
        norms = decoder.norm(dim=1)
        encoder, bias, decoder = encoder * norms[:, None], bias * norms, decoder / norms.clamp_min(1e-30)[:, None]
    k = _size(config, "k", what) if kind == "topk" else None
    remarks = []
    if changed is None:
        remarks.append(
            "how the model's weights were processed for its training is not said: its activations may be others"
        )
    if config.get("prepend_bos"):
        remarks.append("it was trained on rows that begin with the token that begins a text")
    centred = config.get("apply_b_dec_to_input", True)
    made = _one(encoder, decoder, bias, b_dec, threshold, k, centred=bool(centred), factor=norm_factor or 1.0)
    return made, tuple(remarks)


def _sparsify(config: Mapping[str, Any], tensors: _Tensors) -> Dictionary:
    what = f"the dictionary {tensors.file.parent}"
    if config.get("activation", "topk") != "topk":
        raise UserError(f"{what} has the activation {config['activation']!r}", expected="topk", remedy=_ANOTHER)
    for key in ("transcode", "skip_connection", "signed", "embed_skip", "gram_lookup"):
        if config.get(key):
            raise UserError(
                f"{what} has {key}: true", expected="an autoencoder, with nothing beside it", remedy=_ANOTHER
            )
    if "W_skip" in tensors:
        raise UserError(
            f"{what} has a skip connection (W_skip)", expected="an autoencoder, with nothing beside it", remedy=_ANOTHER
        )
    d_in = _size(config, "d_in", what)
    features = config.get("num_latents") or d_in * _size(config, "expansion_factor", what)
    return _one(
        tensors.take("encoder.weight", features, d_in),
        tensors.take("W_dec", features, d_in),
        tensors.take("encoder.bias", features),
        tensors.take("b_dec", d_in),
        torch.zeros(features),
        _size(config, "k", what),
    )


def _one(
    encoder: torch.Tensor,
    decoder: torch.Tensor,
    bias: torch.Tensor,
    b_dec: torch.Tensor,
    threshold: torch.Tensor,
    k: int | None,
    *,
    centred: bool = True,
    factor: float = 1.0,
) -> Dictionary:
    """A dictionary over one checkpoint from matrices (feature, d_model) for activations that were multiplied by a factor."""
    return Dictionary(
        encoder=encoder.contiguous()[:, None],
        decoder=decoder.contiguous()[:, None],
        bias=bias,
        offset=(torch.zeros_like(b_dec) if centred else b_dec)[None],
        mean=(b_dec / factor if centred else torch.zeros_like(b_dec))[None],
        scale=torch.full((1,), 1.0 / factor, device=bias.device),
        threshold=threshold.to(bias.device),
        variance=torch.full_like(bias, float("nan")),
        k=k,
    )
