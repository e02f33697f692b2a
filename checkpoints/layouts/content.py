"""Where in a file the state dicts are: a *key path* is the keys that lead to one, from the outside in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeGuard

from ..files.tensors import TensorInfo

__all__ = ["KeyPath", "Listed", "copies", "recorded_step", "state_dict_list", "state_dict_path"]

KeyPath = tuple[Any, ...]

_WRAPPERS = ("model", "state_dict", "model_state_dict")
_LISTS = ("state_dicts", "checkpoints", "model_checkpoints", "models", "snapshots")
_STEP = ("step", "global_step", "iter_num", "iter", "iteration")
_STEPS = ("checkpoint_steps", "steps", "checkpoint_iters", "iters", "iterations", "checkpoint_epochs", "epochs")


class Listed(NamedTuple):
    """The state dicts of one file.

    Attributes:
        paths: their key paths, in the order of the file.
        steps: what the file says about their steps; None if it does not say.
    """

    paths: list[KeyPath]
    steps: list[int] | None


def state_dict_path(content: Any) -> KeyPath | None:
    """Where the one state dict of a checkpoint is; None if there is none.

    >>> info = TensorInfo((2,), "float32")
    >>> state_dict_path({"w": info}), state_dict_path({"state_dict": {"w": info}, "lr": 0.1}), state_dict_path([])
    ((), ('state_dict',), None)
    """
    if not isinstance(content, Mapping):
        return None
    for wrapper in _WRAPPERS:
        if _is_state_dict(content.get(wrapper)):
            return (wrapper,)
    return () if _is_state_dict(content) else None


def copies(content: Any, path: KeyPath) -> tuple[str, ...]:
    """Keys of other state dicts beside the one at a key path that have names of tensors in common with it (an average).

    >>> info = TensorInfo((2,), "float32")
    >>> copies({"model": {"w": info}, "ema": {"w": info}, "optimizer": {"state": {}}}, ("model",))
    ('ema',)
    """
    if len(path) != 1:
        return ()
    names = content[path[0]].keys()
    others = [k for k, value in content.items() if k != path[0] and _is_state_dict(value) and names & value.keys()]
    return tuple(map(str, others))


def recorded_step(content: Any) -> int | None:
    """The step that a checkpoint says it was saved at; an epoch only where there is nothing better.

    >>> recorded_step({"epoch": 3, "step": 1200}), recorded_step({"epoch": 3}), recorded_step({"step": "last"})
    (1200, 3, None)
    """
    for name in (*_STEP, "epoch"):
        value = content.get(name) if isinstance(content, Mapping) else None
        if _is_step(value):
            return value
    return None


def state_dict_list(content: Any) -> Listed | None:
    """The list of state dicts in a file; None if it holds no such list.

    It may be the list itself, or be called ``state_dicts``, ``checkpoints``, ... in a dict with ``epochs``, ``steps``,
    ``checkpoint_epochs``, ...; or a dict from step to state dict.

    >>> info = TensorInfo((2,), "float32")
    >>> state_dict_list({"checkpoints": [{"w": info}, {"w": info}], "checkpoint_epochs": [0, 100]})
    Listed(paths=[('checkpoints', 0), ('checkpoints', 1)], steps=[0, 100])
    """
    if not isinstance(content, Mapping):
        return _list(content, ())
    for name in _LISTS:
        found = _list(content.get(name), (name,))
        if found is None:
            continue
        if found.steps is None:
            for other in _STEPS:
                steps = content.get(other)
                if _is_list(steps) and len(steps) == len(found.paths) and all(map(_is_step, steps)):
                    return Listed(found.paths, [int(step) for step in steps])
        return found
    return _list(content, ())


def _list(content: Any, outer: KeyPath) -> Listed | None:
    if isinstance(content, Mapping):
        if not content or not all(map(_is_step, content)):
            return None
        keys, elements = list(content), list(content.values())
        steps: list[Any] = keys
    elif _is_list(content) and content:
        keys, elements = list(range(len(content))), list(content)
        steps = [recorded_step(element) for element in elements]
    else:
        return None
    inner = [state_dict_path(element) for element in elements]
    paths = [(*outer, key, *path) for key, path in zip(keys, inner, strict=True) if path is not None]
    if len(paths) < len(elements):
        return None
    return Listed(paths, None if None in steps else [int(step) for step in steps])


def _is_state_dict(content: Any) -> bool:
    if not isinstance(content, Mapping):
        return False
    names = [name for name, value in content.items() if isinstance(value, TensorInfo)]
    return bool(names) and all(isinstance(name, str) for name in names)


def _is_list(content: Any) -> TypeGuard[Sequence[Any]]:
    return isinstance(content, Sequence) and not isinstance(content, str | bytes | TensorInfo)


def _is_step(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)  # one that is no step is refused with its file's name
