"""What several measurements of one probe need is computed once, while one checkpoint is in memory.

:func:`dynamics.measurements.forward.measure` opens a scope; what is computed in it is forgotten with it. A measurement
that runs alone computes what it needs itself.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

__all__ = ["once", "sharing"]

T = TypeVar("T")

_known: ContextVar[dict[Hashable, Any] | None] = ContextVar("known", default=None)


@contextmanager
def sharing() -> Iterator[None]:
    """One model with its weights as they are, one probe.

    >>> with sharing():
    ...     [once("answer", list) is once("answer", list), once("answer", list) is once("question", list)]
    [True, False]
    """
    token = _known.set({})
    try:
        yield
    finally:
        _known.reset(token)


def once(what: Hashable, make: Callable[[], T]) -> T:
    """What ``make`` returns, or returned before in this scope for the same ``what``."""
    known = _known.get()
    if known is None:
        return make()
    if what not in known:
        known[what] = make()
    found: T = known[what]
    return found
