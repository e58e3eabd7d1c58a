"""The state machine in virtual time: no starvation, bounded pauses, bounded age, order, resets, failures."""

from __future__ import annotations

import gc
import math
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from policyserve.core.errors import (
    BadAction,
    BadObservation,
    ConfigError,
    ConnectionLost,
    DeadlineExceeded,
    PolicyserveError,
    RemoteError,
    WireError,
)
from policyserve.realtime.combining import ensemble
from policyserve.realtime.values import Ask, Connect, MergedChunk, Renew, Rest
from tests.counted_memory import counted_memory
from tests.realtime.virtual import GREETING, HZ, Virtual, machine, numbered

H = 50
quick = settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.too_slow])
seeds = st.integers(0, 1_000_000)


def starved_runs(ticks: list[Any]) -> list[int]:
    """Lengths of the pauses after the first action, in steps."""
    runs, current = [], 0
    moving = False
    for tick in ticks:
        has_row = tick.action.source in ("chunk", "blend")
        moving = moving or has_row
        if has_row:
            runs, current = [*runs, *([current] if current else [])], 0
        elif moving:
            current += 1
    return [*runs, *([current] if current else [])]


def bounded_latencies(seed: int, horizon: int, seconds: float) -> list[float]:
    """So that any two in a row make up at most (H − 1)/hz together; some of them exactly that."""
    random, bound = np.random.default_rng(seed), (horizon - 1) / HZ
    found = [float(random.uniform(0.001, bound - 0.002))]
    while sum(found) < seconds:
        rest = bound - found[-1] - 1e-6
        found.append(max(0.001, rest if random.random() < 0.5 else float(random.uniform(0, rest))))
    return found


# R5


@quick
@given(seeds, st.integers(4, 50))
def test_no_step_starves_while_two_latencies_in_a_row_are_less_than_a_chunk(seed: int, horizon: int) -> None:
    robot = Virtual(machine(), numbered(horizon), bounded_latencies(seed, horizon, 9))
    robot.run(8)
    assert robot.realtime.status(8).starved_steps == 0


def test_no_step_starves_at_the_bound_itself() -> None:
    bound = (H - 1) / HZ
    for share in (0.1, 0.3, 0.5, 0.7, 0.9):
        robot = Virtual(machine(), numbered(H), [share * bound, (1 - share) * bound] * 60)
        robot.run(10)
        assert robot.realtime.status(10).starved_steps == 0


@quick
@given(seeds, st.sampled_from([10, 20, 25, 33]))
def test_asked_later_no_step_starves_while_a_latency_is_less_than_what_is_left(seed: int, horizon: int) -> None:
    """H − 33 rows are 0.34 s."""
    latencies = np.random.default_rng(seed).uniform(0.01, 0.3, 800)
    robot = Virtual(machine(execution_horizon=horizon), numbered(H), [0.3] * 3 + latencies.tolist())
    robot.run(10)
    assert robot.realtime.status(10).starved_steps == 0
    executed = [later.first - earlier.first for earlier, later in zip(robot.asked[3:], robot.asked[4:], strict=False)]
    assert min(executed) >= min(horizon, H - math.ceil(0.3 * HZ) - 3) - 2, "of the observation before"


# R6


@quick
@given(seeds, st.floats(0.1, 3.0))
def test_a_stall_is_felt_no_longer_than_it_must_be(seed: int, stall: float) -> None:
    random = np.random.default_rng(seed)
    latencies = random.uniform(0.03, 0.4, 25)
    stalled = int(random.integers(3, 20))
    with_stall = latencies.copy()
    with_stall[stalled] += stall
    robot = Virtual(machine(fallback=[("hold", 60.0)]), numbered(H), with_stall)
    ticks = robot.run(float(with_stall.sum() - with_stall[-1]) - 0.1)
    worst = max(float(with_stall[index] + with_stall[index + 1]) - H / HZ for index in range(len(with_stall) - 1))
    assert max(starved_runs(ticks), default=0) <= max(0.0, worst) * HZ + 2


def test_after_a_stall_the_first_move_is_a_small_one() -> None:
    """Blended from where the robot holds, not from where the policy would be now."""
    robot = Virtual(machine(), numbered(H), [0.1, 0.1, 0.1, 1.4, 0.1, *[0.1] * 100], gives_up_after_s=60)
    ticks = robot.run(8)
    values = np.array([tick.action.values[0] for tick in ticks if tick.action.values is not None])
    assert "hold" in {tick.action.source for tick in ticks}
    assert np.abs(np.diff(values)).max() <= 3.0, "a row is 1 further than the one before"


# R8


@quick
@given(seeds, st.floats(0.05, 1.0), st.sampled_from([None, 20]))
def test_no_row_is_older_than_it_may_be(seed: int, most: float, horizon: int | None) -> None:
    latencies = np.random.default_rng(seed).uniform(0.01, 0.9, 800).tolist()
    robot = Virtual(machine(max_action_age_s=most, execution_horizon=horizon), numbered(H), latencies)
    for tick in robot.run(6):
        if tick.action.source in ("chunk", "blend"):
            assert tick.action.age_s <= most + 1e-9


def test_the_age_is_what_the_latency_is() -> None:
    """Asked at once, a row is one latency old when it comes and two when the next chunk takes its place."""
    robot = Virtual(machine(), numbered(H), [0.1] * 1000)
    ages = [tick.action.age_s for tick in robot.run(20) if tick.action.values is not None]
    assert np.mean(ages) <= 1.8 * 0.1
    assert max(ages) <= 2 * 0.1 + 1 / HZ


# The rows


def test_a_row_is_for_its_own_step_whatever_the_latency() -> None:
    random = np.random.default_rng(1)
    robot = Virtual(machine(blend_steps=0), numbered(H), random.uniform(0.02, 0.4, 500))
    for tick in robot.run(20):
        if tick.action.values is not None:
            assert tick.action.values.tolist() == [tick.action.plan_step] * 2


def test_blended_rows_of_a_policy_that_agrees_with_itself_are_its_own() -> None:
    robot = Virtual(machine(), numbered(H), [0.1] * 100)
    ticks = robot.run(5)
    for tick in ticks:
        if tick.action.values is not None:
            np.testing.assert_allclose(tick.action.values, tick.action.plan_step)
    assert {tick.action.source for tick in ticks} == {"none", "chunk", "blend"}


def test_a_chunk_that_comes_later_than_expected_is_counted_and_used() -> None:
    robot = Virtual(machine(), numbered(H), [0.1] * 10 + [0.4] + [0.1] * 100)
    robot.run(4)
    status = robot.realtime.status(4)
    assert status.late == 2, "the session's second chunk, before any latency was known, and the slow one"
    assert status.starved_steps == 0
    assert status.chunks >= 30


def test_the_first_answer_of_a_session_tells_nothing_of_the_latency() -> None:
    robot = Virtual(machine(), numbered(H), [5.0] + [0.1] * 100)
    robot.run(8)
    status = robot.realtime.status(8)
    assert status.latency_max_s == pytest.approx(0.1, abs=0.03)
    assert status.delay_steps <= 7


def test_a_chunk_of_one_row_moves_the_robot_once_for_each_answer() -> None:
    robot = Virtual(machine(fallback=[("hold", 9.0)]), numbered(1), [0.1] * 100)
    ticks = robot.run(4)
    steps = [tick.action.plan_step for tick in ticks if tick.action.source in ("chunk", "blend")]
    assert steps == list(range(len(steps)))
    assert len(steps) >= 20
    assert robot.realtime.status(4).starved_steps > 0


def test_an_ensemble_and_an_aggregate_join_rows_without_blending() -> None:
    for how in (ensemble(), "weighted_average"):
        robot = Virtual(machine(aggregate=how), numbered(H), [0.1] * 100)
        ticks = robot.run(4)
        assert {tick.action.source for tick in ticks} == {"none", "chunk"}
        for tick in ticks:
            if tick.action.values is not None:
                np.testing.assert_allclose(tick.action.values, tick.action.plan_step)


def test_rolled_states_are_for_chunks_that_begin_when_they_are_executed() -> None:
    rolled: list[int] = []

    def roll(observation: Any, rows: Any) -> Any:
        rolled.append(len(rows))
        return {"step": observation["step"] + len(rows)}

    robot = Virtual(machine(roll_state=roll, blend_steps=0), numbered(H), [0.1] * 100)
    for tick in robot.run(4):
        if tick.action.values is not None:
            assert tick.action.values.tolist() == [tick.action.plan_step] * 2
    assert set(rolled[2:]) == {6}, "the latency counts from the observation, a period before"
    assert robot.realtime.status(4).starved_steps == 0


# Faster loops


def test_a_loop_of_500_hz_gets_each_row_for_its_time() -> None:
    realtime = machine(blend_steps=0)
    realtime.on_connected(GREETING, 0.0)
    realtime.observe({"step": 0}, 0.0)
    ask = realtime.next_step(0.0)
    assert isinstance(ask, Ask)
    realtime.on_answer(ask, numbered(H)(ask), 0.01)
    got = [realtime.act(0.02 + number / 500) for number in range(200)]
    counts = np.bincount([action.plan_step for action in got])
    assert set(counts[1:-1]) == {10}
    assert all(action.values is not None and action.values[0] == action.plan_step for action in got)


def test_between_rows_the_motion_is_linear_and_grippers_take_the_row() -> None:
    realtime = machine(blend_steps=0, interpolate=True, interpolate_dims=[0])
    realtime.on_connected(GREETING, 0.0)
    realtime.observe({"step": 0}, 0.0)
    ask = realtime.next_step(0.0)
    assert isinstance(ask, Ask)
    realtime.on_answer(ask, numbered(H)(ask), 0.01)
    got = [realtime.act(0.02 + number / 500) for number in range(200)]
    moving = np.array([action.values[0] for action in got])  # type: ignore[index]
    gripper = np.array([action.values[1] for action in got])  # type: ignore[index]
    np.testing.assert_allclose(np.diff(moving[10:]), 0.1, atol=1e-9)
    assert set(np.unique(gripper)) <= set(map(float, range(H)))


def test_a_merge_leaves_the_row_that_an_interpolated_motion_is_on_its_way_to() -> None:
    robot = Virtual(
        machine(interpolate=True, blend_steps=0), lambda ask: np.full((H, 1), float(ask.number)), [0.1] * 99
    )
    realtime, got = robot.realtime, []
    for _ in range(150):
        tick = robot.tick()
        got += [tick.action] + [realtime.act(tick.now + part / 250) for part in range(1, 5)]
    values = np.array([action.values[0] for action in got if action.values is not None])
    assert np.abs(np.diff(values)).max() <= 0.2 + 1e-9, "a switch takes a whole period"
    assert values[-1] > 10


# Order, resets, and what comes twice (R11)


def connected(**options: Any) -> Any:
    realtime = machine(**options)
    assert isinstance(realtime.next_step(0.0), Connect)
    realtime.on_connected(GREETING, 0.0)
    return realtime


def asked(realtime: Any, now: float = 0.0, step: int = 0) -> Ask:
    realtime.observe({"step": step}, now)
    found = realtime.next_step(now)
    while isinstance(found, (Connect, Renew)):
        realtime.on_connected(GREETING, now)
        found = realtime.next_step(now)
    assert isinstance(found, Ask)
    return found


def test_before_any_chunk_there_is_no_action() -> None:
    realtime = machine(action_kind="position")
    assert realtime.act(0.0) == (None, "none", 0.0, 0)
    assert realtime.status(0.0).state == "WAITING"
    assert realtime.act(0.1, out=np.full(2, 7.0)).values is None


def test_an_answer_that_comes_twice_counts_once() -> None:
    realtime = connected()
    ask = asked(realtime)
    realtime.on_answer(ask, numbered(H)(ask), 0.1)
    realtime.on_answer(ask, numbered(H)(ask) + 100, 0.2)
    assert realtime.act(0.2).values.tolist() == [0, 0]
    assert (realtime.status(0.2).chunks, realtime.status(0.2).stale) == (1, 1)


def test_nothing_of_before_a_reset_is_executed() -> None:
    realtime = connected()
    first = asked(realtime)
    realtime.on_answer(first, numbered(H)(first), 0.1)
    assert realtime.act(0.1).source == "chunk"
    under_way = asked(realtime, 0.12, 1)
    realtime.reset(0.13)
    assert realtime.act(0.14).source == "none"
    realtime.on_answer(under_way, numbered(H)(under_way), 0.2)
    assert realtime.act(0.2) == (None, "none", 0.0, 1)
    assert isinstance(realtime.next_step(0.2), Renew), "the server's session ends with the episode"
    realtime.on_connected(GREETING, 0.2, 2)
    assert isinstance(realtime.next_step(0.2), Rest), "the observation of before counts no more"
    again = asked(realtime, 0.3, 1)
    realtime.on_answer(again, np.full((H, 2), 5.0), 0.4)
    assert realtime.act(0.4).values.tolist() == [5, 5], "it does not fade from the last episode"


def test_a_prompt_that_changes_fades_over() -> None:
    realtime = connected(blend_steps=3)
    first = asked(realtime)
    realtime.on_answer(first, np.zeros((H, 2)), 0.1)
    realtime.act(0.1)
    under_way = asked(realtime, 0.12, 1)
    realtime.reset(0.13, keep_rows=True)
    assert realtime.act(0.14).source == "chunk"
    realtime.on_answer(under_way, np.full((H, 2), 9.0), 0.15)
    assert realtime.act(0.16).values.tolist() == [0, 0], "it was for the old prompt"
    new = asked(realtime, 0.17, 3)
    realtime.on_answer(new, np.full((H, 2), 4.0), 0.18)
    assert [realtime.act(0.18 + number / HZ).values[0] for number in range(4)] == [1, 2, 3, 4]


def test_a_stopped_robot_gets_nothing_until_it_is_resumed() -> None:
    realtime = connected()
    first = asked(realtime)
    realtime.on_answer(first, numbered(H)(first), 0.1)
    realtime.act(0.1)
    under_way = asked(realtime, 0.11, 1)
    realtime.stop(0.12)
    assert realtime.act(0.12)[:2] == (None, "stop")
    realtime.on_answer(under_way, numbered(H)(under_way), 0.2)
    realtime.observe({"step": 1}, 0.3)
    assert isinstance(realtime.next_step(0.3), Rest)
    assert realtime.act(0.3).source == "stop"
    assert realtime.status(0.3).state == "STOPPED"
    realtime.resume(0.4)
    assert realtime.act(0.4).source == "none"
    again = asked(realtime, 0.5, 1)
    realtime.on_answer(again, numbered(H)(again), 0.6)
    assert realtime.act(0.6).source == "chunk"
    realtime.resume(0.7)
    assert realtime.act(0.7).source == "chunk", "to resume what goes on changes nothing"


def test_a_chunk_that_was_observed_before_one_that_is_there_is_dropped() -> None:
    realtime = connected()
    slow = asked(realtime, 0.0, 0)
    realtime.on_failure(slow, ConnectionLost("gone"), 1.0)
    realtime.on_connected(GREETING, 2.0, 2)
    realtime.on_answer(slow, numbered(H)(slow), 2.1)
    assert realtime.status(2.1).stale == 1


def test_two_threads_in_act_get_the_same_row() -> None:
    robot = Virtual(machine(blend_steps=0), numbered(H), [0.1] * 100)
    for _ in range(100):
        tick = robot.tick()
        second = robot.realtime.act(tick.now + 0.001)
        if tick.action.source == "chunk":
            assert second.plan_step == tick.action.plan_step


@pytest.mark.parametrize("jump", [-100.0, -0.005, 3600.0, math.nan, math.inf, -math.inf])
def test_a_clock_that_jumps_stops_nothing(jump: float) -> None:
    realtime = connected()
    first = asked(realtime, 100.0)
    realtime.on_answer(first, numbered(H)(first), 100.1)
    steps = [realtime.act(100.1 + number / HZ).plan_step for number in range(5)]
    steps += [realtime.act(100.2 + jump + number / HZ).plan_step for number in range(5)]
    assert steps == sorted(steps)
    if math.isfinite(jump):
        assert steps[-1] - steps[4] >= 4, "the robot moves on"
    realtime.status(100.2 + jump)


# Failures (R16)

REFUSALS = [
    RemoteError("queue full; again in 40 ms", code="overloaded"),
    RemoteError("loading", code="not_ready"),
    RemoteError("gone", code="policy_lost"),
    RemoteError("too late", code="deadline_exceeded"),
]
LOST = [ConnectionLost("gone"), DeadlineExceeded("no answer"), WireError("", "one answer", "another message")]
BAD = [RemoteError("NaN", code="bad_action"), BadAction("actions: expected finite numbers, got nan")]
FINAL = [
    RemoteError("no such key", code="remote"),
    RemoteError("image: expected (224, 224, 3)", code="bad_observation"),
    RemoteError("Traceback: the arm fell off", 1011),
    WireError("step", "an array", "a set"),
    BadObservation("image", "uint8", "float32"),
    ConfigError("rtc: expected"),
]


@pytest.mark.parametrize("error", [*REFUSALS, *LOST, *BAD], ids=lambda error: f"{type(error).__name__}-{error.code}")
def test_after_a_failure_that_may_pass_rows_go_on_and_it_is_asked_again(error: PolicyserveError) -> None:
    realtime = connected()
    first = asked(realtime)
    realtime.on_answer(first, numbered(H)(first), 0.0)
    realtime.act(0.0)
    failing = asked(realtime, 0.01, 1)
    realtime.on_failure(failing, error, 0.02)
    realtime.observe({"step": 1}, 0.02)
    rest = realtime.next_step(0.02)
    assert isinstance(rest, Rest)
    assert rest.seconds is not None
    assert 0 < rest.seconds <= 1
    assert realtime.act(0.02).source in ("chunk", "blend")
    assert (realtime.status(0.02).state, realtime.status(0.02).error) == ("DEGRADED", str(error))
    again = asked(realtime, 0.02 + rest.seconds, 2)
    realtime.on_answer(again, numbered(H)(again), 0.2)
    realtime.act(0.2)
    assert realtime.status(0.2).state == "STREAMING"
    assert realtime.status(0.2).error == str(error), "what happened can still be read"


def test_the_servers_word_says_when_to_ask_again() -> None:
    realtime = connected()
    realtime.on_failure(asked(realtime), REFUSALS[0], 0.0)
    realtime.observe({"step": 0}, 0.0)
    rest = realtime.next_step(0.0)
    assert isinstance(rest, Rest)
    assert rest.seconds == pytest.approx(0.04)


def test_pauses_double_to_a_second() -> None:
    realtime, now, pauses = connected(), 0.0, []
    for _ in range(9):
        realtime.on_failure(asked(realtime, now), REFUSALS[1], now)
        realtime.observe({"step": 0}, now)
        rest = realtime.next_step(now)
        pauses.append(rest.seconds)
        now += rest.seconds
    assert pauses[:4] == pytest.approx([0.02, 0.04, 0.08, 0.16])
    assert pauses[-1] == pytest.approx(1.0)


@pytest.mark.parametrize("error", FINAL, ids=lambda error: f"{type(error).__name__}-{error.code}")
def test_what_will_not_pass_ends_the_asking_and_observe_says_so(error: PolicyserveError) -> None:
    realtime = connected()
    first = asked(realtime)
    realtime.on_answer(first, numbered(H)(first), 0.0)
    realtime.act(0.0)
    realtime.on_failure(asked(realtime, 0.01, 1), error, 0.02)
    with pytest.raises(type(error)) as caught:
        realtime.observe({"step": 1}, 0.03)
    assert caught.value is error
    assert isinstance(realtime.next_step(0.03), Rest)
    sources = [realtime.act(0.02 + number / HZ).source for number in range(1, 120)]
    assert [source for index, source in enumerate(sources) if index == 0 or source != sources[index - 1]] == [
        "chunk",
        "hold",
        "stop",
    ]
    assert realtime.status(3.0).failed is error
    realtime.reset(3.0)
    assert isinstance(realtime.next_step(3.0), Renew), "what the policy remembers of the session ends with the episode"
    assert isinstance(asked(realtime, 3.1, 60), Ask)


@pytest.mark.parametrize(
    "answer",
    [
        np.full((H, 2), np.nan),
        np.full((H, 2), np.inf),
        np.zeros((H, 3)),
        np.zeros((0, 2)),
        np.zeros((2, H, 2)),
        np.full((H, 2), "a"),
        [[1.0], [1.0, 2.0]],
        None,
        {},
    ],
    ids=["nan", "inf", "width", "empty", "batch", "text", "ragged", "none", "map"],
)
def test_an_answer_that_must_not_reach_the_robot_is_dropped_and_counted(answer: Any) -> None:
    realtime = connected()
    first = asked(realtime)
    realtime.on_answer(first, numbered(H)(first), 0.0)
    realtime.on_answer(asked(realtime, 0.01, 0), answer, 0.02)
    assert realtime.status(0.02).bad_answers == 1
    assert [realtime.act(0.02 + number / HZ).values[0] for number in range(3)] == [0, 1, 2]
    assert realtime.status(0.1).failed is None


def test_an_answer_that_never_comes_is_overdue_and_nothing_else_is_asked() -> None:
    realtime = connected()
    for number in range(5):
        ask = asked(realtime, number * 0.1, number)
        realtime.on_answer(ask, numbered(H)(ask), number * 0.1 + 0.05)
        realtime.act(number * 0.1 + 0.05)
    asked(realtime, 0.5, 5)
    assert realtime.status(0.9).state == "STREAMING"
    assert (realtime.status(1.1).state, realtime.status(1.1).is_overdue) == ("DEGRADED", True)
    realtime.observe({"step": 5}, 1.2)
    assert isinstance(realtime.next_step(1.2), Rest), "servers answer in order: a second request would only wait"


def test_a_function_for_observations_that_raises_is_told_and_called_again() -> None:
    realtime, calls = connected(), []

    def camera() -> Any:
        calls.append(1)
        if len(calls) < 3:
            raise OSError("no camera")
        return {"step": 0}

    realtime.observe(camera, 0.0)
    rest = realtime.next_step(0.0)
    assert isinstance(rest, Rest)
    assert "OSError: no camera" in realtime.status(0.0).error
    assert rest.seconds is not None
    now = rest.seconds
    now += realtime.next_step(now).seconds
    found = realtime.next_step(now)
    assert isinstance(found, Ask)
    assert len(calls) == 3


# What the server is asked with


RTC = {
    "action_kind": "position",
    "rtc": {"methods": ["guided"], "max_delay": None},
    "spec": {
        "observation": {
            "rtc/prev_chunk": {"kind": "array", "shape": [H, 2], "dtype": "float32"},
            "rtc/prev_length": {"kind": "array", "shape": [], "dtype": "int32"},
            "rtc/inference_delay": {"kind": "array", "shape": [], "dtype": "int32"},
        }
    },
}


def test_a_server_with_rtc_is_told_what_the_robot_will_execute() -> None:
    echo = {"rtc": {"method": "guided", "inference_delay": 5, "rows": 40}}
    robot = Virtual(machine(), numbered(H), [0.1] * 100, greeting=RTC, fields=echo)
    robot.run(4)
    for ask in robot.asked:
        leaves = {key: ask.observation[f"rtc/{key}"] for key in ("prev_chunk", "prev_length", "inference_delay")}
        assert {key: (leaf.dtype.name, leaf.shape) for key, leaf in leaves.items()} == {
            "prev_chunk": ("float32", (H, 2)),
            "prev_length": ("int32", ()),
            "inference_delay": ("int32", ()),
        }
        assert ask.prefix_rows == leaves["prev_length"]
    first, last = robot.asked[0].observation, robot.asked[-1]
    assert (first["rtc/prev_length"], first["rtc/inference_delay"]) == (0, 0)
    known = int(last.observation["rtc/prev_length"])
    expected = last.first + np.arange(known)
    np.testing.assert_allclose(last.observation["rtc/prev_chunk"][:known, 0], expected, rtol=1e-6)
    assert (last.observation["rtc/prev_chunk"][known:] == last.observation["rtc/prev_chunk"][known - 1]).all()
    assert known == H - 6 or known == H - 5
    assert last.observation["rtc/inference_delay"] in (5, 6)
    assert (robot.realtime.status(4).rtc, robot.realtime.status(4).rtc_missing) == ("guided", 0)


def test_a_server_that_breaks_its_promise_is_counted_and_blended_as_any() -> None:
    robot = Virtual(machine(), numbered(H), [0.1] * 100, greeting=RTC)
    ticks = robot.run(2)
    status = robot.realtime.status(2)
    assert status.rtc_missing == status.chunks
    assert sum(tick.action.source == "blend" for tick in ticks) > 60, "over ten rows, not five"


@pytest.mark.parametrize("options", [{"rtc": "off"}, {"aggregate": "average"}])
def test_no_rtc_where_it_is_not_wanted(options: Any) -> None:
    robot = Virtual(machine(**options), numbered(H), [0.1] * 100, greeting=RTC)
    robot.run(1)
    assert {tuple(ask.observation) for ask in robot.asked} == {("step",)}
    assert robot.realtime.status(1).rtc is None


def test_a_server_without_rtc_gets_no_such_key() -> None:
    robot = Virtual(machine(), numbered(H), [0.1] * 100)
    robot.run(1)
    assert {tuple(ask.observation) for ask in robot.asked} == {("step",)}


def test_rtc_that_is_required_and_not_there_is_told() -> None:
    realtime = machine(rtc="require")
    realtime.next_step(0.0)
    realtime.on_connected({**GREETING, "spec": {"observation": {}}}, 0.0)
    with pytest.raises(ConfigError, match=r"rtc: expected a server whose spec lists rtc/prev_chunk"):
        realtime.observe({}, 0.0)


def test_actions_of_an_unknown_kind_need_a_word_of_the_users() -> None:
    realtime = machine()
    realtime.next_step(0.0)
    realtime.on_connected({}, 0.0)
    with pytest.raises(ConfigError, match=r'fallback: the server does not say .*action_kind="position"'):
        realtime.observe({}, 0.0)
    realtime.reset(0.1)
    assert isinstance(realtime.next_step(0.1), Connect), "after a reset all is looked at anew"


def test_after_a_reconnect_the_first_request_carries_the_rows_that_go_on() -> None:
    robot = Virtual(machine(), numbered(H), [0.1] * 100, greeting=RTC)
    robot.run(2)
    realtime, now = robot.realtime, 2.0
    robot._under_way = None  # pyright: ignore[reportPrivateUsage]
    realtime.on_failure(robot.asked[-1], ConnectionLost("the server went"), now)
    assert realtime.act(now).source in ("chunk", "blend")
    realtime.observe({"step": realtime.status(now).plan_step}, now)
    rest = realtime.next_step(now)
    assert isinstance(rest, Rest)
    assert rest.seconds is not None
    now += rest.seconds
    assert isinstance(realtime.next_step(now), Connect)
    realtime.on_connected(RTC, now, 99)
    ask = realtime.next_step(now)
    assert isinstance(ask, Ask)
    assert ask.prefix_rows == realtime.status(now).rows_left > 30
    assert ask.delay >= 5, "what the server before took is the best guess"


def test_merged_chunks_states_and_errors_are_told_to_who_listens() -> None:
    from policyserve.realtime.machine import Realtime
    from policyserve.realtime.settings import RealtimeSettings

    told: list[int] = []
    realtime = Realtime(RealtimeSettings(HZ, fallback=["stop"]), tell=lambda: told.append(1))
    realtime.on_connected({}, 0.0)
    ask = asked(realtime)
    realtime.on_answer(ask, [[1.0], [2.0]], 0.1, {"extra": 5})
    for number in range(4):
        realtime.act(0.1 + number / HZ)
    changes = realtime.changes()
    assert isinstance(changes[0], MergedChunk)
    assert (changes[0].first, changes[0].actions.tolist(), changes[0].fields) == (0, [[1], [2]], {"extra": 5})
    assert changes[1:] == ["STREAMING", "STOPPED"]
    assert len(told) == 3
    assert realtime.changes() == []


@pytest.mark.parametrize("keep_rows", [False, True])
def test_a_reset_while_a_chunk_is_being_merged_drops_it(keep_rows: bool) -> None:
    realtimes: list[Any] = []

    def reset_meanwhile(rows: Any) -> Any:
        if len(realtimes) > 1:
            realtimes[0].reset(0.2, keep_rows)
        return rows

    realtime = connected(on_action=reset_meanwhile)
    realtimes.append(realtime)
    first = asked(realtime)
    realtime.on_answer(first, np.zeros((H, 2)), 0.1)
    realtimes.append(None)
    realtime.on_answer(asked(realtime, 0.1), np.ones((H, 2)), 0.2)
    assert realtime.status(0.2).stale == 1
    action = realtime.act(0.2)
    assert action.values is None if not keep_rows else action.values.tolist() == [0, 0]


def test_numbers_to_interpolate_that_an_action_has_not_end_the_asking_and_are_never_raised_by_act() -> None:
    realtime = connected(interpolate=True, interpolate_dims=(0, 7))
    realtime.on_answer(asked(realtime), np.zeros((H, 2)), 0.1)
    told = "interpolate_dims: expected 0 … 1, since an action has 2 values, got [7]"
    assert (realtime.status(0.1).error, realtime.status(0.1).bad_answers) == (told, 0)
    with pytest.raises(ConfigError, match=r"^interpolate_dims: expected 0 … 1"):
        realtime.observe({"step": 0}, 0.1)
    assert realtime.next_step(5.0) == Rest(None)
    assert [realtime.act(0.1 + step / HZ / 3).source for step in range(4)] == ["none"] * 4


def test_a_server_that_sends_narrower_actions_later_is_asked_again_whatever_is_interpolated() -> None:
    realtime = connected(interpolate=True, interpolate_dims=(1,))
    realtime.on_answer(asked(realtime), np.zeros((H, 2)), 0.1)
    realtime.on_answer(asked(realtime, 0.1), np.zeros((H, 1)), 0.2)
    assert (realtime.failed, realtime.status(0.2).bad_answers) == (None, 1)


def test_an_error_that_comes_again_is_told_once_until_things_are_well() -> None:
    from policyserve.realtime.machine import Realtime
    from policyserve.realtime.settings import RealtimeSettings

    realtime, now = Realtime(RealtimeSettings(HZ, action_kind="position"), tell=lambda: None), 0.0

    def told(*errors: PolicyserveError) -> list[str]:
        for error in errors:
            realtime.on_failure(Connect(), error, now)
        return [str(one) for one in realtime.changes() if isinstance(one, PolicyserveError)]

    away, deaf = ConnectionLost("cannot connect: refused"), ConnectionLost("cannot connect: no answer")
    assert told(away, ConnectionLost("cannot connect: refused"), deaf, deaf) == [str(away), str(deaf)]
    now = 5.0
    realtime.on_connected({}, now)
    assert told(deaf) == [], "a connection is not yet an answer"
    now = 10.0
    realtime.on_connected({}, now)
    ask = asked(realtime, now)
    realtime.on_answer(ask, numbered(H)(ask), now)
    assert told(deaf, deaf) == [str(deaf)]
    realtime.reset(now)
    assert told(deaf, deaf) == [str(deaf)]


def test_an_error_from_before_a_reset_is_told_no_more() -> None:
    realtime = connected()
    realtime.on_failure(asked(realtime), BAD[1], 0.0)
    assert realtime.status(0.0).error == str(BAD[1])
    realtime.reset(0.1)
    assert realtime.status(0.1).error is None


def test_a_row_that_is_taken_while_a_chunk_is_being_merged_is_taken_once() -> None:
    taken: list[Any] = []

    def act_meanwhile(rows: Any) -> Any:
        if taken:
            taken.append(realtime.act(0.1 + len(taken) / HZ))
        return rows

    realtime = connected(on_action=act_meanwhile, blend_steps=0)
    first = asked(realtime)
    realtime.on_answer(first, numbered(H)(first), 0.1)
    taken.append(realtime.act(0.1))
    second = asked(realtime, 0.11, 1)
    realtime.on_answer(second, numbered(H)(second) + 100, 0.12)
    taken.append(realtime.act(0.1 + len(taken) / HZ))
    assert [action.plan_step for action in taken] == list(range(len(taken)))
    assert taken[-1].values.tolist() == [100 + taken[-1].plan_step] * 2


def test_a_step_of_the_whole_keeps_no_memory() -> None:
    robot = Virtual(machine(), lambda _: np.zeros((H, 14), np.float32), [0.1] * 2000)
    robot.run(12)  # past the hundred latencies that are kept
    out = np.zeros(14)

    def held_after(steps: range) -> int:
        for number in steps:
            now = 12 + number / 500
            robot.realtime.act(now, out)
            if number % 50 == 0:
                robot.realtime.observe({"step": 0}, now)
                robot.work(now)
                robot.deliver(now)
        robot.asked.clear()
        robot.took.clear()
        gc.collect()  # empties Python's own lists of free tuples and floats, too
        return tracemalloc.get_traced_memory()[0]

    with counted_memory():
        before = held_after(range(10_000))  # all that is kept, the hundred latencies among it, is from in here then
        after = held_after(range(10_000, 20_000))
    assert after - before < 10_000, (
        "less than a byte a step: Python 3.10 keeps some for functions that are called often"
    )
