"""litgpt's ``model_config.yaml`` as a transformers config; what has no equivalent there is refused, never dropped."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from ..errors import CheckpointError
from ..foreign import parse_yaml, read_text, require_plain

if TYPE_CHECKING:
    from transformers import PretrainedConfig

__all__ = ["model_config"]

_FILE = "model_config.yaml"
_SIZES = ("n_layer", "n_head", "n_embd", "block_size", "padded_vocab_size")
_NUMBERS = ("norm_eps", "rotary_percentage", "rope_base", "rope_condense_ratio")
_USED = {
    *_SIZES, *_NUMBERS, "name", "hf_config", "vocab_size", "padding_multiple", "norm_class_name", "norm_qk_type",
    "parallel_residual", "head_size", "n_query_groups", "attn_bias",
    "rope_adjustments", "intermediate_size", "bias", "mlp_class_name", "gelu_approximate",
    "sliding_window_indices", "rope_indices", "routed_scaling_factor", "attention_scores_scalar",
}  # fmt: skip
"""Fields that are read below, or have no effect while what they belong to is off."""
_ON = ("norm_1", "norm_2")
"""Fields that are on in the families known here; all others must be off."""


def model_config(folder: Path, *, tied: bool) -> PretrainedConfig:
    """The architecture that litgpt wrote beside its weights.

    Args:
        folder: the checkpoint's.
        tied: whether the file has no output matrix of its own.

    Raises:
        CheckpointError: when there is no such file, or it is of no architecture known here.
    """
    said = _read(folder)
    sizes = [n for n in (*_SIZES, "n_query_groups", "head_size", "intermediate_size") if not _is_size(said.get(n))]
    numbers = [n for n in _NUMBERS if type(said[n]) not in (int, float) or said[n] <= 0]
    if sizes or numbers:
        raise CheckpointError(
            f"{folder / _FILE} cannot be used: {'; '.join(f'{n} is {said.get(n)!r}' for n in sizes + numbers)}",
            expected="the sizes of a model",
            remedy="copy it again, or name a transformers config as `series.config`",
        )
    family, strange = _family(said), _strange(said)
    if family is None or strange:
        raise CheckpointError(
            f"{folder / _FILE} describes an architecture that is not known here"
            f" ({', '.join(f'{name}: {said[name]!r}' for name in strange or ('norm_class_name', 'mlp_class_name'))})",
            expected="GPT-NeoX (GptNeoxMLP, LayerNorm) or Llama (LLaMAMLP, RMSNorm) without extensions",
            remedy="convert this series with `litgpt convert_from_litgpt`, and use that",
        )
    try:
        return _gpt_neox(said, tied) if family == "gpt_neox" else _llama(said, tied)
    except Exception as error:  # whatever the config's own checks raise
        raise CheckpointError(
            f"{folder / _FILE} cannot be used: {(str(error).splitlines() or [''])[0]}",
            expected="a model of litgpt's",
            remedy="copy it again, or name a transformers config as `series.config`",
        ) from error


def _read(folder: Path) -> dict[str, Any]:
    """The file, with litgpt's defaults for what an older version did not write."""
    try:
        said = parse_yaml(read_text(folder / _FILE))
        require_plain(said)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{folder / _FILE} cannot be read: {(str(error).splitlines() or [''])[0]}",
            expected="the file that litgpt writes beside lit_model.pth",
            remedy="copy it again, or name a transformers config as `series.config`",
        ) from error
    if not isinstance(said, dict):
        raise CheckpointError(
            f"{folder / _FILE} holds a {type(said).__name__}",
            expected="a model of litgpt's",
            remedy="copy it again, or name a transformers config as `series.config`",
        )
    said = {
        "norm_class_name": "LayerNorm",
        "mlp_class_name": "GptNeoxMLP",
        "norm_eps": 1e-5,
        "parallel_residual": True,
        "rotary_percentage": 0.25,
        "rope_base": 10000,
        "rope_condense_ratio": 1,
        "bias": True,
        "gelu_approximate": "none",
        **{str(name): value for name, value in said.items()},
    }
    width, heads = _width_and_heads(said)
    for name, default in (("n_query_groups", heads), ("head_size", width // heads), ("intermediate_size", 4 * width)):
        if said.get(name) is None:
            said[name] = default
    return said


def _is_size(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _width_and_heads(said: dict[str, Any]) -> tuple[int, int]:
    width, heads = (said.get(name) for name in ("n_embd", "n_head"))
    return (width, heads) if _is_size(width) and _is_size(heads) else (1, 1)  # refused with the other sizes


def _family(said: dict[str, Any]) -> str | None:
    name = str(said.get("name") or "")
    kinds = (said["norm_class_name"], said["mlp_class_name"])
    if kinds == ("LayerNorm", "GptNeoxMLP") and "OLMo" not in name:  # by its name alone, it has norms without weights
        return "gpt_neox"
    return "llama" if kinds == ("RMSNorm", "LLaMAMLP") and "Gemma" not in name else None


def _strange(said: dict[str, Any]) -> list[str]:
    """Fields whose effect transformers' GPT-NeoX or Llama does not have, and fields of versions to come."""
    width, heads = _width_and_heads(said)
    strange = [n for n, value in said.items() if n not in _USED and bool(value) != (n in _ON)]
    if said.get("attention_scores_scalar") not in (None, said["head_size"]):
        strange.append("attention_scores_scalar")
    if said["norm_class_name"] == "LayerNorm":
        strange += [n for n, value in (("n_query_groups", heads), ("head_size", width // heads)) if said[n] != value]
        # transformers turns an odd number of rows otherwise
        strange += ["rotary_percentage"] if int(said["rotary_percentage"] * said["head_size"]) % 2 else []
    else:
        strange += [n for n, value in (("parallel_residual", False), ("rotary_percentage", 1)) if said[n] != value]
    adjusted = said.get("rope_adjustments")
    if adjusted is not None and (_rope(said) is None or said["rope_condense_ratio"] != 1):
        strange.append("rope_adjustments")
    return sorted(strange)


def _rope(said: dict[str, Any]) -> dict[str, Any] | None:
    """transformers' ``rope_parameters``; None for a kind of scaling that is not known here."""
    base = {"rope_type": "default", "rope_theta": float(said["rope_base"])}
    adjusted = said.get("rope_adjustments")
    if adjusted is None:
        ratio = said["rope_condense_ratio"]
        return base if ratio == 1 else {**base, "rope_type": "linear", "factor": float(ratio)}
    kinds = {
        "linear": {"factor": "factor"},
        "llama3": {
            "factor": "factor",
            "low_freq_factor": "low_freq_factor",
            "high_freq_factor": "high_freq_factor",
            "original_max_seq_len": "original_max_position_embeddings",
        },
    }
    for kind, names in kinds.items():
        if isinstance(adjusted, dict) and adjusted.keys() == names.keys():
            return {**base, "rope_type": kind, **{theirs: adjusted[ours] for ours, theirs in names.items()}}
    return None


def _gpt_neox(said: dict[str, Any], tied: bool) -> PretrainedConfig:
    from transformers import GPTNeoXConfig

    return GPTNeoXConfig(
        vocab_size=said["padded_vocab_size"],
        hidden_size=said["n_embd"],
        num_hidden_layers=said["n_layer"],
        num_attention_heads=said["n_head"],
        intermediate_size=said["intermediate_size"],
        hidden_act="gelu" if said["gelu_approximate"] == "none" else "gelu_pytorch_tanh",
        max_position_embeddings=said["block_size"],
        layer_norm_eps=float(said["norm_eps"]),
        use_parallel_residual=said["parallel_residual"],
        rope_parameters={**(_rope(said) or {}), "partial_rotary_factor": float(said["rotary_percentage"])},
        attention_bias=bool(said["bias"] or said.get("attn_bias")),
        bos_token_id=None,
        eos_token_id=None,
        tie_word_embeddings=tied,
    )


def _llama(said: dict[str, Any], tied: bool) -> PretrainedConfig:
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=said["padded_vocab_size"],
        hidden_size=said["n_embd"],
        num_hidden_layers=said["n_layer"],
        num_attention_heads=said["n_head"],
        num_key_value_heads=said["n_query_groups"],
        head_dim=said["head_size"],
        intermediate_size=said["intermediate_size"],
        max_position_embeddings=said["block_size"],
        rms_norm_eps=float(said["norm_eps"]),
        rope_parameters=_rope(said),
        attention_bias=bool(said["bias"] or said.get("attn_bias")),
        mlp_bias=bool(said["bias"]),
        bos_token_id=None,
        eos_token_id=None,
        tie_word_embeddings=tied,
    )
