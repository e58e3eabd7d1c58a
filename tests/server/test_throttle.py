"""Log lines are bounded, and those that were held back are counted."""

from __future__ import annotations

import logging

import pytest

from policyserve.server.throttle import Throttle, more
from tests.server.live import frame, masked, open_raw, serving


def test_a_burst_passes_and_then_one_for_each_interval() -> None:
    throttle = Throttle(burst=3, interval_s=2.0)
    passed = [throttle.passes("x", now=step * 0.1) for step in range(100)]
    assert passed[:3] == [0, 0, 0]
    assert passed[3] is None
    assert sum(one is not None for one in passed) == 3 + 4


def test_one_kind_holds_no_other_back() -> None:
    throttle = Throttle(burst=1)
    assert throttle.passes(("a", "10.0.0.7"), 0.0) == 0
    assert throttle.passes(("a", "10.0.0.7"), 0.0) is None
    assert throttle.passes(("b", "10.0.0.7"), 0.0) == 0
    assert throttle.passes(("a", "10.0.0.8"), 0.0) == 0


def test_what_was_held_back_is_told_with_the_next_line() -> None:
    throttle = Throttle(burst=1, interval_s=1.0)
    throttle.passes("x", 0.0)
    for _ in range(37):
        assert throttle.passes("x", 0.5) is None
    assert throttle.passes("x", 1.5) == 37
    assert more(37) == " (… and 37 more like it)"
    assert more(0) == ""


def test_a_peer_with_a_million_addresses_fills_no_memory() -> None:
    throttle = Throttle()
    for number in range(5_000):
        throttle.passes(number, 0.0)
    assert len(throttle._buckets) <= 1_024  # pyright: ignore[reportPrivateUsage]


def test_a_client_that_errs_all_day_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with serving() as live:
        for _ in range(3):
            for _ in range(100):
                peer, _ = open_raw(live, path="/openpi")
                peer.sendall(masked(2, b"\xc1") * 10)
                peer.close()
            live.until(lambda server: server.stats.sessions_open == 0)
        with live.websocket() as good:
            good.send(frame([1.0]))
            good.recv()
    assert len(caplog.records) < 300 < 300 * 12  # opened, speaks, closed and ten refusals of each session
