"""What a server counts."""

from __future__ import annotations

from policyserve.observe.counters import Stats


def test_the_mean_latency_is_that_of_answered_requests() -> None:
    stats = Stats()
    assert stats.mean_latency_ms == 0.0
    stats.answered(2.0)
    stats.answered(4.0)
    stats.failed("bad_frame")
    assert (stats.requests, stats.mean_latency_ms) == (2, 3.0)


def test_errors_are_counted_by_their_code() -> None:
    stats = Stats()
    for code in ("bad_frame", "overloaded", "bad_frame"):
        stats.failed(code)
    assert stats.errors == {"bad_frame": 2, "overloaded": 1}
