"""When a connection is tried again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from traceback import format_exception

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policyserve.client.aio import AsyncClient
from policyserve.client.retries import NotYet, Retries, greeting_of, may_heal
from policyserve.client.session import ClientSession
from policyserve.client.sync import Client
from policyserve.core.errors import ConnectionLost, DeadlineExceeded, WireError
from policyserve.dialects import by_name

REASON = NotYet("Connection refused")


def retries_of(until: float, random: Callable[[], float] = lambda: 1.0, started_at: float = 0.0) -> Retries:
    return Retries("ws://robot:8000", started_at, until, random)


def pauses(retries: Retries, now: float = 0.0) -> tuple[list[float], ConnectionLost]:
    """Every pause, and how it gave up."""
    taken: list[float] = []
    try:
        while True:
            taken.append(retries.pause_s(REASON, now))
            now += taken[-1] + 0.001  # what an attempt takes
    except ConnectionLost as error:
        return taken, error


def test_the_longest_pauses_double_up_to_a_second() -> None:
    assert pauses(retries_of(4.0))[0][:7] == [0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0]


@given(until=st.floats(0, 100), numbers=st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=20))
def test_pauses_are_anywhere_below_their_ceiling_and_end_at_the_bound(until: float, numbers: list[float]) -> None:
    drawn = iter(numbers * 10_000)
    retries = retries_of(until, lambda: next(drawn))
    now, ceiling = 0.0, 0.05
    for _ in range(50):
        try:
            pause = retries.pause_s(REASON, now)
        except ConnectionLost:
            assert now >= until
            break
        assert 0 <= pause <= ceiling
        assert now + pause <= until * (1 + 1e-12)
        now, ceiling = now + pause, min(ceiling * 2, 1.0)


def test_no_time_to_retry_is_one_attempt_and_says_nothing_of_others() -> None:
    with pytest.raises(ConnectionLost) as caught:
        retries_of(5.0, started_at=5.0).pause_s(REASON, 5.0)
    assert str(caught.value) == "cannot connect to ws://robot:8000: Connection refused"
    assert may_heal(caught.value)


@pytest.mark.parametrize("is_async", [False, True])
def test_a_server_that_is_not_there_is_one_traceback(is_async: bool) -> None:
    def connect() -> None:
        if is_async:
            asyncio.run(AsyncClient("ws://127.0.0.1:1", retry_for_s=0.0).connect())
        else:
            Client("ws://127.0.0.1:1", retry_for_s=0.0).connect()

    with pytest.raises(ConnectionLost) as caught:
        connect()
    printed = "".join(format_exception(caught.value))
    assert printed.count("Traceback") == 1
    assert printed.rstrip().endswith("ConnectionLost: cannot connect to ws://127.0.0.1:1/openpi: Connection refused")
    assert may_heal(caught.value)


def test_it_says_how_long_it_was_tried() -> None:
    retries = retries_of(10.0)
    _, error = pauses(retries)
    assert str(error).endswith(f": Connection refused; tried {retries.attempts} times in 10.0 s")
    assert retries.attempts > 10


class Link:
    is_cut = False

    def cut(self) -> None:
        self.is_cut = True


def greeting(link: Link) -> AbstractContextManager[None]:
    return greeting_of(link, ClientSession(by_name("openpi"), "ws://robot:8000/openpi"), 2.0)


@pytest.mark.parametrize(
    ("error", "told", "text"),
    [
        (ConnectionLost("the connection ended without an answer (1012)"), NotYet, "1012"),
        (WireError("", "a map", "a number"), WireError, "a map as openpi's greeting from ws://robot:8000/openpi"),
        (DeadlineExceeded("no answer"), DeadlineExceeded, "connected to ws://robot:8000/openpi, but no greeting"),
        (KeyboardInterrupt(), KeyboardInterrupt, "^$"),
    ],
    ids=["restart", "another dialect", "silence", "Ctrl-C"],
)
def test_a_link_whose_greeting_does_not_come_is_cut(error: BaseException, told: type[BaseException], text: str) -> None:
    link = Link()
    with pytest.raises(told, match=text), greeting(link):
        raise error
    assert link.is_cut


def test_a_link_that_is_greeted_stays() -> None:
    link = Link()
    with greeting(link):
        pass
    assert not link.is_cut


def test_what_passes_is_told_from_what_does_not() -> None:
    _, error = pauses(retries_of(1.0))
    assert may_heal(error)
    assert not may_heal(ConnectionLost("cannot connect to ws://robot:8000: HTTP 404"))
