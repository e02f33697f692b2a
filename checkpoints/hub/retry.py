"""Trying again: which failures pass, and how long to wait before the next try.

``huggingface_hub`` (2.4) retries some of its requests itself, and this project does not use that, because:

- listing refs is tried once, and waits for an answer for ever;
- ``Retry-After`` is followed however long it is, and not at all where it is a date;
- every client that was turned away comes back at the same moment (no jitter);
- its tries multiply with ours, and its pauses cannot be tested.
"""

from __future__ import annotations

import logging
import random
import re
import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import TypeVar

__all__ = ["LONGEST_WAIT", "GaveUpError", "PassingError", "persist", "requested_wait"]

LONGEST_WAIT = 300.0
"""Seconds; a server that asks for more is asked again after this."""

_LONGEST_BACKOFF = 60.0
_WORTH_A_WORD = 10.0

T = TypeVar("T")


class PassingError(Exception):
    """A failure that may be over at the next try.

    Args:
        reason: for the user.
        wait: seconds that the server asked for.
        progressed: whether something was gained, so that this does not count as another failure in a row.
        connection: whether nothing answered at all.
    """

    def __init__(
        self, reason: str, *, wait: float | None = None, progressed: bool = False, connection: bool = False
    ) -> None:
        super().__init__(reason)
        self.reason, self.wait, self.progressed, self.connection = reason, wait, progressed, connection


class GaveUpError(Exception):
    """The last of all tries failed; the text says how, and how many there were."""

    def __init__(self, reason: str, *, connection: bool) -> None:
        super().__init__(reason)
        self.connection = connection


def persist(
    once: Callable[[], T], *, tries: int, sleep: Callable[[float], object], connection_tries: int | None = None
) -> T:
    """Call ``once`` until it returns, at most ``tries`` times in a row without progress.

    Args:
        once: what to do; raises :class:`PassingError` when it may succeed at another time.
        tries: how often.
        sleep: waits.
        connection_tries: how often when nothing answers at all, if less.

    Raises:
        GaveUpError: when the last try failed with :class:`PassingError`; other exceptions are raised at once.
    """
    failures = 0
    while True:
        try:
            return once()
        except PassingError as error:
            failures = 1 if error.progressed else failures + 1
            limit = min(tries, connection_tries or tries) if error.connection else tries
            if failures >= limit:
                count = "1 try" if failures == 1 else f"{failures} tries"
                raise GaveUpError(f"{error.reason} after {count}", connection=error.connection) from None
            pause = _pause(failures, error.wait)
            if pause > _WORTH_A_WORD:
                logging.getLogger(__name__).warning("%s; trying again in %.0f s", error.reason, pause)
        sleep(pause)


def _pause(failures: int, wait: float | None) -> float:
    if wait is not None:
        # a little later than asked for, and not all at once
        return min(LONGEST_WAIT, wait + random.uniform(0, 1))
    return min(_LONGEST_BACKOFF, 2.0 ** (failures - 1)) * random.uniform(0.75, 1.25)


def requested_wait(headers: Mapping[str, str], *, now: float | None = None) -> float | None:
    """Seconds that a server asks to wait, or None: ``RateLimit`` (when used up), or ``Retry-After`` in either form.

    >>> requested_wait({"retry-after": "7"}), requested_wait({"ratelimit": '"api";r=0;t=55'}), requested_wait({})
    (7.0, 55.0, None)
    >>> requested_wait({"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}, now=1792567670)
    10.0
    """
    headers = {key.lower(): value.strip() for key, value in headers.items()}
    used_up = re.search(r";\s*r\s*=\s*0\s*;\s*t\s*=\s*(\d{1,9})\b", headers.get("ratelimit", ""))
    if used_up:
        return float(used_up[1])
    text = headers.get("retry-after", "")
    if re.fullmatch(r"\d{1,9}", text, re.ASCII):
        return float(text)
    try:
        moment = parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError, OSError):
        return None
    return max(0.0, moment - (time.time() if now is None else now))
