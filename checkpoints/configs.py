"""Model configs: reading one safely, and what of it says what is computed."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import CheckpointError

if TYPE_CHECKING:
    from transformers import PretrainedConfig

__all__ = ["architecture_of", "auto_class", "first_line", "quiet", "read_config"]


def read_config(folder: Path) -> PretrainedConfig:
    """The model config in a checkpoint's folder.

    Raises:
        CheckpointError: when it is missing or of an unknown architecture.
    """
    from transformers import AutoConfig

    try:
        with quiet():
            # False, because None asks on the terminal whether the checkpoint's own code may run
            return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # whatever a file may hold: null, a number, sizes that are words
        raise CheckpointError(
            f"the config in {folder} cannot be used: {first_line(error)}",
            expected="a config.json of an architecture that transformers knows",
        ) from error


def architecture_of(config: PretrainedConfig) -> dict[str, Any]:
    """What a config says about what is computed, as JSON values."""
    ignored = {"_name_or_path", "transformers_version", "dtype", "torch_dtype", "architectures"}
    return {key: value for key, value in config.to_dict().items() if key not in ignored}


def auto_class(config: PretrainedConfig) -> Any:
    """The class that gives logits: masks are filled in by models that are no decoders."""
    import transformers

    masked = config.model_type == "bert" and not getattr(config, "is_decoder", False)
    return transformers.AutoModelForMaskedLM if masked else transformers.AutoModelForCausalLM


def first_line(error: Exception) -> str:
    """The first line of another library's exception; its type too where that is a word or nothing."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines and " " in lines[0] else f"{type(error).__name__} {lines[0] if lines else ''}".rstrip()


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
