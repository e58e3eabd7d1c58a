"""Comparisons: one client process asks all sides in turns, and a ratio is told over fresh starts."""

from __future__ import annotations

import os

from benchmarks.measuring.driver import take_turns
from benchmarks.measuring.harness import Effort
from benchmarks.measuring.turns import Asker, Sides, Slice, difference_ms, in_turns, rate_ratio, trip_ratio
from benchmarks.measuring.wire import tcp_server
from policyserve.bench.measures import Spread
from policyserve.bench.tally import Tally


class Noting:
    """A fleet that notes when it was driven."""

    def __init__(self, name: str, driven: list[str]) -> None:
        self._name = name
        self._driven = driven

    def drive(self, tally: Tally, seconds: float) -> None:
        self._driven.append(self._name)
        tally.answered(0.0, 0.0, 1.0, {})
        tally.seconds += seconds

    def close(self) -> None: ...


def sides(*pairs: tuple[float, float]) -> Sides:
    """The round trips of ours and theirs, slice by slice."""
    return {name: [Slice(pair[place], 1 / pair[place], 1, 0) for pair in pairs] for place, name in enumerate("ot")}


def test_every_side_has_its_turn_and_each_round_another_is_first() -> None:
    driven: list[str] = []
    pids = {name: os.getpid() for name in "abc"}
    found = take_turns({name: Noting(name, driven) for name in "abc"}, pids, slices=3, slice_s=0.5)
    assert "".join(driven) == "cab" + "abc" + "bca" + "cab"  # the first round is not counted
    seen = {name: [(one.p50_s, one.per_second, one.answers) for one in slices] for name, slices in found.items()}
    assert seen == {name: [(1.0, 2.0, 1)] * 3 for name in "abc"}


def test_quartiles_are_over_the_starts_and_pairs_over_their_slices() -> None:
    starts = [sides((1, 2), (4, 8), (9, 1)), sides((3, 1)), sides((2, 2))]  # medians 0.5, 3, 1
    assert trip_ratio(starts, "o", "t") == Spread(1.0, 0.75, 2.0, 3)
    assert rate_ratio(starts, "t", "o") == Spread(1.0, 0.75, 2.0, 3)
    assert difference_ms(starts, "o", "t") == Spread(0.0, -500.0, 1000.0, 3)


def test_of_one_start_the_quartiles_are_those_of_its_slices() -> None:
    assert trip_ratio([sides((1, 2), (2, 2), (3, 2))], "o", "t") == Spread(1.0, 0.75, 1.25, 3)


def test_both_sides_are_asked_by_a_process_of_their_own_in_each_start() -> None:
    askers = {"first": Asker("tcp", "cartpole", "tcp"), "second": Asker("tcp", "cartpole", "tcp")}
    starts = in_turns({"tcp": tcp_server("cartpole")}, askers, Effort(starts=2, slices=2, slice_s=0.01))
    assert [set(one) for one in starts] == [{"first", "second"}] * 2
    assert all(len(slices) == 2 and slices[0].answers for one in starts for slices in one.values())
