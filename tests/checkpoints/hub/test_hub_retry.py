"""How often and how long the client waits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checkpoints.hub.retry import LONGEST_WAIT, GaveUpError, PassingError, persist, requested_wait


def failing(*errors: PassingError) -> tuple[list[float], object]:
    """Sleeps and the result of something that fails with these errors and then succeeds."""
    left, slept = list(errors), []

    def once() -> str:
        if left:
            raise left.pop(0)
        return "done"

    try:
        return slept, persist(once, tries=5, sleep=slept.append)
    except GaveUpError as error:
        return slept, str(error)


def test_what_succeeds_at_once_costs_no_time() -> None:
    assert failing() == ([], "done")


def test_pauses_grow() -> None:
    slept, result = failing(*(PassingError("HTTP 503") for _ in range(4)))
    assert result == "done"
    for pause, about in zip(slept, (1, 2, 4, 8), strict=True):
        assert 0.75 * about <= pause <= 1.25 * about


def test_the_last_failure_is_reported_with_the_number_of_tries() -> None:
    slept, result = failing(*(PassingError("HTTP 503") for _ in range(9)))
    assert result == "HTTP 503 after 5 tries" and len(slept) == 4


def test_progress_starts_the_count_anew() -> None:
    slept, result = failing(*(PassingError("cut off", progressed=True) for _ in range(50)))
    assert result == "done" and max(slept) <= 1.25
    stuck = [PassingError("cut off", progressed=True), *(PassingError("cut off") for _ in range(9))]
    assert failing(*stuck)[1] == "cut off after 5 tries"


@given(wait=st.floats(0, 1e6))
def test_a_server_is_given_the_time_it_asks_for_up_to_five_minutes(wait: float) -> None:
    (pause,), result = failing(PassingError("HTTP 429", wait=wait))
    assert result == "done"
    assert min(wait, LONGEST_WAIT) <= pause <= min(wait + 1, LONGEST_WAIT)


def test_those_who_were_turned_away_together_do_not_come_back_together() -> None:
    pauses = {failing(PassingError("HTTP 429", wait=10))[0][0] for _ in range(20)}
    assert len(pauses) > 10
    assert len({failing(PassingError("HTTP 503"))[0][0] for _ in range(20)}) > 10


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({}, None),
        ({"Retry-After": "12"}, 12),
        ({"retry-after": " 0 "}, 0),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, 60),
        ({"Retry-After": "Wed, 21 Oct 2026 07:26:00 GMT"}, 0),  # over
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "-5"}, None),
        ({"RateLimit": '"api";r=0;t=40', "Retry-After": "5"}, 40),
        ({"RateLimit": '"api";r=3;t=40'}, None),  # not used up: not the reason
        ({"RateLimit": "nonsense"}, None),
    ],
)
def test_what_servers_ask_for(headers: dict[str, str], wait: float | None) -> None:
    assert requested_wait(headers, now=1792567620) == wait


@given(st.text(max_size=40))
def test_no_header_breaks_it(text: str) -> None:
    for name in ("Retry-After", "RateLimit"):
        wait = requested_wait({name: text}, now=0.0)
        assert wait is None or wait >= 0
