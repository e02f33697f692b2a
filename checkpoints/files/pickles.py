"""Pickles are read without running them: each name in one stands for something harmless, and no other name is let in.

A pickle is a small program. Two of its instructions call what a name refers to, so what names may refer to is all
that matters: here to plain containers, to strings, to functions of this package, and to :class:`Inert`.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from functools import partial
from types import FunctionType
from typing import IO, Any, NamedTuple

__all__ = ["Inert", "RefusedName", "SafeUnpickler", "Storage"]

_DTYPE = re.compile(r"torch\.(bool|bfloat16|(?:u?int|q?u?int|float|complex)\d\w*)")


class Inert:
    """Stands for an object of some class: keeps what it was made of and filled with, and does nothing with it.

    >>> one = Inert("a", 2)
    >>> one.__setstate__({"x": 1})
    >>> one.made_of, one.state
    (('a', 2), {'x': 1})
    """

    made_of: tuple[Any, ...] = ()
    state: Any = None

    def __new__(cls, *made_of: Any, **_: Any) -> Inert:
        self = object.__new__(cls)
        self.made_of = made_of
        return self

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, value: Any) -> None:
        """What a list of a class of its own would be filled with."""

    def extend(self, values: Any) -> None:
        """What a list of a class of its own would be filled with."""


class Storage(NamedTuple):
    """The memory of one or several tensors, which lies outside of the pickle under this key: so many numbers."""

    dtype: str
    key: str
    numbers: int


class RefusedName(pickle.UnpicklingError):
    """A pickle mentions something that is not let in; the message is its dotted name."""


class SafeUnpickler(pickle.Unpickler):
    """Reads one pickle.

    Args:
        stream: at the start of a pickle.
        names: what each dotted name stands for. Names of torch dtypes stand for themselves, as ``float32``.

    Raises:
        RefusedName: from :meth:`load`, for any other name; a damaged pickle may raise any other exception.

    >>> from io import BytesIO
    >>> SafeUnpickler(BytesIO(pickle.dumps({"a": [1, 2]})), {}).load()
    {'a': [1, 2]}
    >>> SafeUnpickler(BytesIO(pickle.dumps(print)), {}).load()
    Traceback (most recent call last):
    checkpoints.files.pickles.RefusedName: builtins.print
    """

    def __init__(self, stream: IO[bytes], names: Mapping[str, Any]) -> None:
        super().__init__(stream, encoding="utf-8")
        self._names = names

    def find_class(self, module: str, name: str) -> Any:
        """What a name stands for."""
        full = f"{'builtins' if module == '__builtin__' else module}.{name}"
        if full in self._names:
            found = self._names[full]
            # a pickle can set attributes of whatever it has: let it have its own copy
            return partial(found) if isinstance(found, FunctionType) else found
        if _DTYPE.fullmatch(full):
            return name
        raise RefusedName(full)

    def persistent_load(self, pid: Any) -> Storage:
        """What a storage is referred to by; its dtype is what the name of its class stands for."""
        kind, dtype, key, _, count, *_ = pid
        if kind != "storage" or not isinstance(dtype, str):
            raise pickle.UnpicklingError(f"a reference to a {kind!r}, which no weight file has")
        return Storage(dtype, str(key), int(count))
