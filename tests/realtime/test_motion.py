"""Which action is due, and what comes when none is."""

from __future__ import annotations

import gc
import tracemalloc
from typing import Any

import numpy as np
import pytest

from policyserve.core.errors import ConfigError
from policyserve.realtime.ladder import read_fallback
from policyserve.realtime.motion import Motion
from policyserve.realtime.timeline import Chunk, Joining
from tests.counted_memory import counted_memory

PERIOD_S = 0.02


def moving(rows: Any, fallback: Any = ("stop",), **options: Any) -> Motion:
    motion = Motion(PERIOD_S, options.get("max_age_s"), options.get("interpolated", False))
    motion.ladder = read_fallback(fallback)
    lay(motion, rows)
    return motion


def lay(motion: Motion, rows: Any, at: float = 0.0) -> None:
    chunk = Chunk(np.asarray(rows, np.float32), motion.timeline.plan_step, at)
    made = motion.timeline.build(chunk, motion.joining(Joining(3)), motion.timeline.plan_step)
    assert made is not None
    motion.make_room(chunk)
    motion.timeline.lay(made, chunk.first)


def test_the_ladder_runs_when_the_rows_have_ended() -> None:
    motion = moving([[1.0, 2.0], [3.0, 4.0]], [("hold", 0.04), ("decay", 0.04), ("zero", 0.04), "stop"])
    got = [motion.act(number * PERIOD_S, None) for number in range(9)]
    assert [action.source for action in got] == ["chunk"] * 2 + ["hold"] * 4 + ["zero"] * 2 + ["stop"]
    values = [None if action.values is None else action.values.tolist() for action in got]
    assert values[2:8] == [[3, 4], [3, 4], [3, 4], pytest.approx([1.5, 2]), [0, 0], [0, 0]]
    assert [action.plan_step for action in got[2:]] == [2] * 7, "the robot does not move on in its plan"
    assert motion.starved_steps == 7
    assert motion.state(1.0) == "STOPPED"
    lay(motion, [[9.0, 9.0]])
    assert motion.act(1.0, None).source == "stop", "a chunk alone does not start a robot that has stopped"


def test_a_chunk_ends_the_holding_at_once() -> None:
    motion = moving([[1.0]], [("hold", 9)])
    assert [motion.act(number * PERIOD_S, None).source for number in range(3)] == ["chunk", "hold", "hold"]
    assert motion.state(0.05) == "HOLDING"
    lay(motion, [[5.0], [5.0], [5.0], [5.0]])
    got = [motion.act(0.041 + number * PERIOD_S, None) for number in range(4)]
    assert [action.source for action in got] == ["blend"] * 3 + ["chunk"]
    assert [action.values[0] for action in got] == [2, 3, 4, 5]  # type: ignore[index]


def test_rows_that_are_too_old_are_not_executed_within_their_time_either() -> None:
    motion = moving([[1.0]] * 9, ["zero"], max_age_s=0.05)
    sources = [motion.act(number * 0.01, None).source for number in range(8)]
    assert sources == ["chunk"] * 6 + ["zero"] * 2


def test_an_action_is_written_into_the_callers_array() -> None:
    motion, out = moving([[1.0, 2.0]]), np.full(2, 7.0)
    action = motion.act(0.0, out)
    assert action.values is out
    assert out.tolist() == [1, 2]
    motion.act(0.1, out)
    assert out.tolist() == [1, 2], "there is no action: the array is left as it is"


@pytest.mark.parametrize("out", [np.zeros(3), np.zeros(2, int), [0.0, 0.0], np.broadcast_to(np.zeros(2), 2)])
def test_an_array_that_cannot_take_an_action_is_refused(out: Any) -> None:
    with pytest.raises(ConfigError, match=r"act\(out=\): expected a writable array of floats of the shape \(2,\), got"):
        moving([[1.0, 2.0]]).act(0.0, out)


def test_what_was_handed_out_is_the_callers() -> None:
    motion = moving([[1.0], [2.0]], [("hold", 9)])
    first = motion.act(0.0, None).values
    assert first is not None
    first[:] = 99
    motion.act(0.02, None)
    assert motion.act(0.04, None).values == [2.0]


@pytest.mark.parametrize("options", [{}, {"interpolated": True}, {"max_age_s": 1e9}])
@pytest.mark.parametrize("has_out", [True, False])
def test_a_step_keeps_no_memory(options: Any, has_out: bool) -> None:
    motion = moving(np.zeros((50, 14)), [("hold", 1e6)], **options)
    out = np.zeros(14) if has_out else None

    def held_after(first: int) -> int:
        for number in range(first, first + 4000):
            motion.act(number * PERIOD_S / 3, out)
            if number % 60 == 0:
                lay(motion, np.zeros((50, 14)), number * PERIOD_S / 3)
        gc.collect()  # empties Python's own lists of free tuples and floats, too
        return tracemalloc.get_traced_memory()[0]

    with counted_memory():
        before = held_after(0)  # all that is kept is from in here then
        after = held_after(4000)
    assert after - before < 4000, "less than one byte a step"
