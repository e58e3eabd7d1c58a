"""When a connection is tried again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from policyserve.client.retries import Retries


def pauses(retries: Retries, now: float = 0.0) -> list[float]:
    taken: list[float] = []
    while (pause := retries.pause_s(now)) is not None:
        taken.append(pause)
        now += pause + 0.001  # what an attempt takes
    return taken


def test_the_longest_pauses_double_up_to_a_second() -> None:
    assert pauses(Retries(0.0, 4.0, lambda: 1.0))[:7] == [0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0]


@given(until=st.floats(0, 100), numbers=st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=20))
def test_pauses_are_anywhere_below_their_ceiling_and_end_at_the_bound(until: float, numbers: list[float]) -> None:
    drawn = iter(numbers * 10_000)
    retries = Retries(0.0, until, lambda: next(drawn))
    now, ceiling = 0.0, 0.05
    for _ in range(50):
        pause = retries.pause_s(now)
        if pause is None:
            assert now >= until
            break
        assert 0 <= pause <= ceiling
        assert now + pause <= until * (1 + 1e-12)
        now, ceiling = now + pause, min(ceiling * 2, 1.0)


def test_no_time_to_retry_is_one_attempt_and_says_nothing_of_others() -> None:
    retries = Retries(5.0, 5.0, lambda: 0.5)
    assert retries.pause_s(5.0) is None
    assert retries.told(5.0) == ""


def test_it_says_how_long_it_was_tried() -> None:
    retries = Retries(0.0, 10.0, lambda: 1.0)
    pauses(retries)
    assert retries.told(10.04) == f"; tried {retries.attempts} times in 10.0 s"
    assert retries.attempts > 10
