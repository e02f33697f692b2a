"""Model configs: reading one safely, and what of it says what is computed."""

from __future__ import annotations

import warnings
from codecs import BOM_UTF8
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from .errors import CheckpointError, first_line, shown
from .foreign import read_json, read_text

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig

__all__ = ["architecture_of", "auto_class", "model_class", "quiet", "read_config"]


_REMEDY = "save or copy it again, or name another one as `series.config` in the runs file"

_LARGEST = {
    10_000: ("num_hidden_layers", "num_layers", "n_layer", "n_layers"),
    2**16: ("num_attention_heads", "num_key_value_heads", "n_head", "n_heads"),
    2**24: ("hidden_size", "intermediate_size", "head_dim", "d_model", "n_embd", "n_inner"),
    2**28: ("vocab_size",),
    2**40: ("max_position_embeddings", "n_positions", "n_ctx"),
}
"""Sizes that no model has, but a damaged config may: lists and layers would be made for hours to find that out."""


def read_config(folder: Path) -> PretrainedConfig:
    """The model config in a checkpoint's folder, or in a file of any name.

    Raises:
        CheckpointError: when it is missing, of an unknown architecture, or of sizes that no model has.
    """
    from transformers import AutoConfig

    try:
        file = folder if folder.is_file() else folder / "config.json"
        content = read_json(file, dict)
        _require_sizes(content)
        with quiet(), _without_mark(folder, file) as path:
            # False, because None asks on the terminal whether the checkpoint's own code may run
            config = AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
            if getattr(config, "quantization_config", None) is not None:
                raise ValueError("the model is quantised, and its weights are not the numbers that it computes with")
            # how outputs are handed over, and by which code attention is computed, says nothing about the model
            config.return_dict, config._attn_implementation = True, "eager"
            return config
    except Exception as error:  # whatever a file may hold: null, a number, sizes that are words
        raise CheckpointError(
            f"the config in {folder} cannot be used: {first_line(error)}",
            expected="a config.json of an architecture that transformers knows",
            remedy=_REMEDY,
        ) from error


def _require_sizes(content: dict[str, Any]) -> None:
    for most, names in _LARGEST.items():
        for name in names:
            value = content.get(name)
            if value is not None and (type(value) is not int or not 0 < value <= most):
                raise ValueError(f"{name} is {shown(value)}, not a number from 1 to {most:,}")
    for below in content.values():
        if isinstance(below, dict):
            _require_sizes(below)


@contextmanager
def _without_mark(folder: Path, file: Path) -> Iterator[Path]:
    """The folder, or one with the same config without a byte-order mark, which transformers does not read."""
    with file.open("rb") as stream:
        marked = stream.read(len(BOM_UTF8)) == BOM_UTF8
    if not marked:
        yield folder
        return
    with TemporaryDirectory() as other:
        (Path(other) / "config.json").write_text(read_text(file), encoding="utf-8")
        yield Path(other)


def architecture_of(config: PretrainedConfig) -> dict[str, Any]:
    """What a config says about what is computed, as JSON values."""
    ignored = {"_name_or_path", "transformers_version", "dtype", "torch_dtype", "architectures"}
    return {key: value for key, value in config.to_dict().items() if key not in ignored}


def auto_class(config: PretrainedConfig) -> Any:
    """The class that gives logits: masks are filled in by models that are no decoders."""
    import transformers

    masked = config.model_type == "bert" and not getattr(config, "is_decoder", False)
    return transformers.AutoModelForMaskedLM if masked else transformers.AutoModelForCausalLM


_AT_MOST, _SMALL = 4, 10**8
"""How many times the numbers in its files a model may have (tied weights and masks are in none), and how many any memory holds."""


def model_class(config: PretrainedConfig, folder: Path, tensors: Mapping[str, torch.Tensor]) -> Any:
    """The class of the model that a config describes, which it costs no memory to find out.

    Raises:
        CheckpointError: when it cannot be built, or is larger than these tensors by far: building it would fill the memory.
    """
    import torch

    layers, held = getattr(config, "num_hidden_layers", 0), sum(t.numel() for t in tensors.values())
    fault = f"{layers:,} layers, and its files hold {len(tensors):,} tensors" if layers > len(tensors) else ""
    if not fault:
        try:
            with quiet(), torch.device("meta"):
                model = auto_class(config).from_config(config, trust_remote_code=False)
        except Exception as error:  # a config may hold anything, and transformers then raises anything
            raise CheckpointError(
                f"{folder} cannot be loaded: {first_line(error)}", expected="the config of a model", remedy=_REMEDY
            ) from error
        size = sum(t.numel() for t in (*model.parameters(), *model.buffers()))
        fault = f"{size:,} numbers, and its files hold {held:,}" if size > _AT_MOST * held + _SMALL else ""
    if fault:
        raise CheckpointError(
            f"the config in {folder} describes a model of {fault}",
            expected="the config that these weights were saved with",
            remedy=_REMEDY,
        )
    return type(model)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' own progress bars and load reports off the terminal; what matters is raised instead."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
