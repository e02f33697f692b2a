"""``ckpt.pt`` of nanoGPT, read as GPT-2.

A file holds ``model`` (a state dict), ``model_args`` (sizes), ``iter_num`` (the step), the optimizer and more; only
the model is read. Against transformers' GPT-2, its linear maps are transposed (``Conv1D``), ``bias=False`` leaves
biases away (here: zeros), and older files have masks as ``attn.bias`` (here: left out).

The file does not say which GELU the model was trained with. Taken is the exact one, as nanoGPT has it since the middle
of 2023; for the tanh approximation of before, give a ``config`` with ``"activation_function": "gelu_new"``.

Tokens are not derived: whether ``gradient_accumulation_steps`` counts all processes changed between versions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CheckpointError
from ..files.owned import files_state
from ..files.tensors import TensorInfo
from ..files.torchfile import contents, plain_names, state_dict_at, tensors_at
from ..files.weights import files_digest
from ..loading import Prepared
from .base import (
    Found,
    FoundCheckpoint,
    LayoutOptions,
    converted,
    given_config,
    unknown_tensors,
    with_contradictions,
    zero_biases,
)
from .content import recorded_step
from .names import folder_step, step_in

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig

__all__ = ["EXPECTED", "NEEDS_CONFIG", "config", "files", "find", "header", "read"]

EXPECTED = "ckpt.pt, ckpt_N.pt or SUB-FOLDER/ckpt.pt as nanoGPT writes them (model, model_args, iter_num)"
NEEDS_CONFIG = False

_EMBEDDING, _OUTPUT = "transformer.wte.weight", "lm_head.weight"
_NUMBER = re.compile(r"^ckpt[-_]?0*(\d+)\.pt$")
_NAME = re.compile(
    r"^(lm_head\.weight|transformer\.(w[tp]e\.weight|ln_f\.(weight|bias)"
    r"|h\.\d+\.(ln_[12]|attn\.c_attn|attn\.c_proj|mlp\.c_fc|mlp\.c_proj)\.(weight|bias)))$"
)
_MASK = re.compile(r"\.attn\.(bias|masked_bias)$")
_LINEAR = re.compile(r"\.(attn\.c_attn|attn\.c_proj|mlp\.c_fc|mlp\.c_proj)\.weight$")


def find(root: Path, options: LayoutOptions) -> Found:
    """The file itself, or every ``ckpt*.pt`` in the folder and its sub-folders; the step is ``iter_num`` inside."""
    candidates, base = [root], root.parent
    if not root.is_file():
        there = [*root.glob("ckpt*.pt"), *root.glob("*/ckpt*.pt")]
        candidates, base = sorted(file for file in there if file.is_file()), root
    if options.pattern is not None:
        candidates = [file for file in candidates if _named(file, root, options) is not None]
    steps: dict[Path, int] = {}
    faults: dict[Path, CheckpointError] = {}
    named = {file: step for file in candidates if (step := _named(file, root, options)) is not None}
    states = {file: files_state([file]) for file in candidates}
    for file in candidates:
        try:
            steps[file] = _step(file, _contents(file))
        except CheckpointError as error:
            faults[file] = error
    for file, fault in faults.items():
        if file not in named or len(faults) == len(candidates):
            raise fault  # nothing says which step it would be, or that it is of this layout
    names = {file: file.relative_to(base).as_posix() for file in candidates}
    if options.pattern is not None:
        return Found([FoundCheckpoint(step, names[file]) for file, step in named.items()])
    found = [
        FoundCheckpoint(s, names[f], numbered=f in named, state=states[f])
        for f, s in ({f: named[f] for f in faults} | steps).items()
    ]
    return Found(with_contradictions(found, {names[f]: s for f, s in named.items() if f not in faults}))


def _named(file: Path, root: Path, options: LayoutOptions) -> int | None:
    """The step that the name of a file says, or that of its folder below the root."""
    folder = file.parent.name if file.parent != root and file != root else ""
    if options.pattern is not None:
        step = step_in(file.name, options.pattern)
        return step if step is not None or not folder else step_in(folder, options.pattern)
    match = _NUMBER.match(file.name)
    return folder_step(folder) if match is None else int(match[1])


def files(path: Path) -> list[Path]:
    """The file."""
    return [path]


def header(path: Path) -> dict[str, TensorInfo]:
    """The tensors under ``model``, without masks."""
    return _without_masks(plain_names(state_dict_at(_contents(path), ["model"]), path))


def config(path: Path, options: LayoutOptions) -> PretrainedConfig | None:
    """The given one, else a GPT-2 of the sizes in ``model_args``."""
    given = given_config(options)
    if given is not None:
        return given
    sizes = _contents(path)["model_args"]
    return _config(path, sizes, tied=_same(tensors_at(path, ["model"], only=(_EMBEDDING, _OUTPUT))))


def read(path: Path, options: LayoutOptions) -> Prepared:
    """The tensors under ``model``, as GPT-2's."""
    content = _contents(path)
    tensors = _without_masks(tensors_at(path, ["model"], content=content))
    unknown = [name for name in tensors if not _NAME.match(name)]
    if unknown:
        raise unknown_tensors(path, unknown, "nanoGPT")
    architecture = given_config(options)
    if architecture is None:
        architecture = _config(path, content["model_args"], tied=_same(tensors))
    biases = content["model_args"].get("bias", any(name.endswith(".c_proj.bias") for name in tensors))
    tensors = {name: t.t().contiguous() if _LINEAR.search(name) else t for name, t in tensors.items()}
    if biases is False:
        modules = {
            name.removesuffix(".weight"): t for name, t in tensors.items() if ".ln_" in name or _LINEAR.search(name)
        }
        zero_biases(tensors, {name: t.shape[-1] for name, t in modules.items()})
    return converted(path, tensors, files_digest([path]), architecture)


def _contents(file: Path) -> Mapping[str, Any]:
    content = contents(file)
    if (
        isinstance(content, Mapping)
        and isinstance(content.get("model_args"), Mapping)
        and isinstance(content.get("model"), Mapping)
        and all(isinstance(name, str) for name in content["model"])
    ):
        return content
    raise CheckpointError(
        f"{file} is not a checkpoint of nanoGPT",
        expected="a dict with model, model_args and iter_num",
        remedy="move it away, or name the series' layout as `series.layout`",
    )


def _step(file: Path, content: Mapping[str, Any]) -> int:
    step = recorded_step({"iter_num": content.get("iter_num")})
    if step is None:
        raise CheckpointError(
            f"{file} does not say its step: iter_num is {content.get('iter_num')!r}",
            expected="a number of iterations",
            remedy="save it with `iter_num`, or put the step into the name of its file",
        )
    return step


def _without_masks(tensors: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in tensors.items() if not _MASK.search(name)}


def _same(tensors: Mapping[str, torch.Tensor]) -> bool:
    """Whether the output is tied to the embedding, as nanoGPT ties them; some of its descendants do not."""
    import torch

    one, other = tensors.get(_EMBEDDING), tensors.get(_OUTPUT)
    return one is None or other is None or one is other or (one.shape == other.shape and torch.equal(one, other))


def _config(path: Path, sizes: Mapping[str, Any], *, tied: bool) -> PretrainedConfig:
    from transformers import GPT2Config

    values = {name: sizes.get(name) for name in ("n_layer", "n_head", "n_embd", "block_size", "vocab_size")}
    wrong = [f"{name} is {v!r}" for name, v in values.items() if not isinstance(v, int) or isinstance(v, bool) or v < 1]
    if not wrong and values["n_embd"] % values["n_head"]:  # type: ignore[operator]
        wrong = [f"n_head ({values['n_head']}) does not divide n_embd ({values['n_embd']})"]
    if wrong:
        raise CheckpointError(
            f"{path} has model_args that cannot be used: {'; '.join(wrong)}",
            expected="sizes",
            remedy="save the `model_args` that the model was built with",
        )
    return GPT2Config(
        vocab_size=values["vocab_size"],
        n_positions=values["block_size"],
        n_embd=values["n_embd"],
        n_layer=values["n_layer"],
        n_head=values["n_head"],
        activation_function="gelu",
        layer_norm_epsilon=1e-5,
        bos_token_id=None,
        eos_token_id=None,
        tie_word_embeddings=tied,
    )
