"""What many alike may write to the log, by lines and by bytes, each for itself and all together."""

from __future__ import annotations

from policyserve.core.throttle import OF_ALL_PEERS, OF_ONE_PEER, LogThrottle, Rate, Throttle, suppressed_note


def test_a_burst_passes_and_then_one_for_each_interval() -> None:
    throttle = Throttle(Rate(burst=3, per_s=0.5))
    passed = [throttle.passes("x", now=step * 0.1) for step in range(100)]
    assert passed[:3] == [0, 0, 0]
    assert passed[3] is None
    assert sum(one is not None for one in passed) == 3 + 4


def test_long_lines_pass_as_seldom_as_their_bytes_allow() -> None:
    """Ten thousand lines of 8 kB, one each millisecond and then one each second for three hours."""
    throttle, written = Throttle(), 0
    times = [*(step / 1e3 for step in range(1_000)), *range(1, 9_001)]
    for now in times:
        if throttle.passes("x", now) is not None:
            throttle.spend("x", 8_000)
            written += 8_000
    assert written <= OF_ONE_PEER.burst_size + 9_000 * OF_ONE_PEER.size_per_s + 8_000
    assert written > 9_000 * OF_ONE_PEER.size_per_s * 0.9


def test_one_kind_holds_no_other_back() -> None:
    throttle = LogThrottle()
    for _ in range(int(OF_ONE_PEER.burst)):
        assert throttle.passes("a", "10.0.0.7", 0.0) == 0
    assert throttle.passes("a", "10.0.0.7", 0.0) is None
    assert throttle.passes("b", "10.0.0.7", 0.0) == 0
    assert throttle.passes("a", "10.0.0.8", 0.0) == 0


def test_what_was_suppressed_is_told_with_the_next_line() -> None:
    throttle = Throttle(Rate(burst=1))
    throttle.passes("x", 0.0)
    for _ in range(37):
        assert throttle.passes("x", 0.5) is None
    assert throttle.passes("x", 1.5) == 37
    assert suppressed_note(37) == " (… and 37 more like it)"
    assert suppressed_note(0) == ""


def test_peers_of_many_addresses_share_a_bound_and_none_of_their_lines_goes_uncounted() -> None:
    throttle, told = LogThrottle(), 0
    for step in range(20_000):
        suppressed = throttle.passes("policy_failed", f"10.0.{step % 100}.1", step / 1e3)
        if suppressed is not None:
            throttle.spend("policy_failed", f"10.0.{step % 100}.1", 100)
            told += 1 + suppressed
    assert OF_ALL_PEERS.burst < told
    passed = OF_ALL_PEERS.burst + 20 * OF_ALL_PEERS.per_s
    later = [throttle.passes("policy_failed", f"10.0.{number}.1", 1e6 + number) for number in range(100)]
    assert told + sum(1 + one for one in later if one is not None) == 20_000 + 100
    assert passed < 1_000


def test_a_peer_with_a_million_addresses_fills_no_memory() -> None:
    throttle = Throttle()
    for number in range(5_000):
        throttle.passes(number, 0.0)
    assert len(throttle._buckets) <= 1_024  # pyright: ignore[reportPrivateUsage]
