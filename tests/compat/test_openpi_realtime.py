"""RealtimeActionChunkBroker: openpi's broker that does not wait. Its clock is the test's."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from policyserve.compat.openpi import ActionChunkBroker, BasePolicy, RealtimeActionChunkBroker, WebsocketClientPolicy
from policyserve.core.errors import BadAction, ConfigError, NotReady, Unavailable
from policyserve.policies.demo_flow import FlowDemo, Scene
from policyserve.policies.rtc import Rtc
from policyserve.realtime.sync import RealtimeExecution
from tests.compat.running import running
from tests.compat.test_openpi_client import server_of
from tests.server.live import DEADLINE_S

HZ, HORIZON = 50, 8


class Numbered(BasePolicy):
    """Row i for an observation of step n is n + i. Each answer waits to be let out, once `gate` is one."""

    def __init__(self) -> None:
        self.gate: threading.Semaphore | None = None
        self.asked: list[int] = []
        self.resets: list[int] = []  # how many requests had been answered by then
        self.threads: set[int] = set()
        self.fails: BaseException | None = None
        self.is_asked = threading.Semaphore(0)
        self.horizon = HORIZON

    def infer(self, obs: dict[str, Any]) -> dict[str, Any]:
        self.threads.add(threading.get_ident())
        self.asked.append(obs["step"])
        self.is_asked.release()
        if self.gate is not None:
            assert self.gate.acquire(timeout=DEADLINE_S)
        if self.fails is not None:
            raise self.fails
        rows = (obs["step"] + np.arange(self.horizon, dtype=np.float32))[:, None]
        told = {"number": rows[:, 0].astype(int), "shorter": np.zeros(3), "note": "as it is"}
        return {"actions": np.repeat(rows, 2, 1), **told, "nested": {"rows": rows * 10}, "timing": {"infer_ms": 1.0}}

    def reset(self) -> None:
        self.resets.append(len(self.asked))


class Robot:
    """A loop at the broker's rate: each step takes one observation and one row."""

    def __init__(self, policy: Any, clock: Callable[[float], None], **settings: Any) -> None:
        self.broker = RealtimeActionChunkBroker(policy, HZ, **settings)
        self._clock = clock
        self.steps = 0

    def step(self) -> dict[str, Any]:
        row = self.broker.infer({"step": self.steps})
        self.steps += 1
        self._clock(1 / HZ)
        return row


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    time = [100.0]
    monkeypatch.setattr("policyserve.realtime.sync.time", SimpleNamespace(monotonic=lambda: time[0]))

    def forward(seconds: float) -> None:
        time[0] += seconds

    return forward


@pytest.fixture
def policy() -> Iterator[Numbered]:
    made = Numbered()
    yield made
    if made.gate is not None:
        made.gate.release(1000)


def asked_again(policy: Numbered) -> None:
    """Wait until the policy has been asked once more."""
    assert policy.is_asked.acquire(timeout=DEADLINE_S)


def test_rows_go_on_while_the_policy_is_asked(policy: Numbered, clock: Any) -> None:
    robot = Robot(policy, clock)
    assert robot.step()["actions"].tolist() == [0, 0]
    asked_again(policy)
    policy.gate = threading.Semaphore(0)
    told = [robot.step()["actions"][0] for _ in range(5)]
    assert told == [1, 2, 3, 4, 5], "though the policy has not answered"
    assert robot.broker.status.chunks <= 2
    policy.gate.release(1000)
    robot.broker.close()


def test_each_array_with_as_many_rows_gives_this_one_and_all_else_is_handed_on(policy: Numbered, clock: Any) -> None:
    policy.gate = threading.Semaphore(1)
    robot = Robot(policy, clock)
    robot.step()
    row = robot.step()
    assert row["actions"].tolist() == [1, 1]
    assert row["actions"].dtype == np.float32
    assert (row["number"], row["nested"]["rows"].tolist()) == (1, [10])
    assert (row["shorter"].shape, row["note"], row["timing"]) == ((3,), "as it is", {"infer_ms": 1.0})
    policy.gate.release(1000)
    robot.broker.close()


def test_without_a_fallback_it_waits_for_the_next_chunk_as_the_original_does(policy: Numbered, clock: Any) -> None:
    policy.gate = threading.Semaphore(1)
    robot = Robot(policy, clock)
    rows = [robot.step()["actions"][0] for _ in range(HORIZON)]
    assert rows == list(range(HORIZON))
    released = threading.Timer(0.05, policy.gate.release, (1000,))
    released.start()
    assert robot.step()["number"] >= HORIZON - 1, "a row of the next chunk"
    released.join()
    robot.broker.close()


def test_with_a_fallback_it_does_what_that_says_and_its_stop_is_an_error(policy: Numbered, clock: Any) -> None:
    policy.gate = threading.Semaphore(1)
    robot = Robot(policy, clock, fallback=(("hold", 0.05), "stop"))
    rows = [robot.step()["actions"][0] for _ in range(HORIZON + 2)]
    assert rows[HORIZON - 1 :] == [HORIZON - 1] * 3
    clock(1.0)
    with pytest.raises(Unavailable, match="the robot is stopped: no actions came"):
        robot.step()
    policy.gate.release(1000)
    robot.broker.close()


def test_a_reset_is_passed_on_and_what_was_asked_before_never_reaches_the_policy_behind_it(
    policy: Numbered, clock: Any
) -> None:
    policy.gate = threading.Semaphore(1)
    robot = Robot(policy, clock)
    robot.step()
    robot.step()
    asked_again(policy)
    asked_again(policy)  # the second request is under way
    robot.broker.reset()
    robot.steps = 100
    policy.gate.release(1000)
    assert robot.step()["actions"].tolist() == [100, 100], "the answer from before it is dropped"
    assert policy.resets == [2]
    assert policy.asked[2] == 100
    robot.broker.close()
    assert len(policy.threads) == 1, "one thread asks, and it is not the robot's"
    assert threading.get_ident() not in policy.threads


def test_what_the_policy_raises_is_raised_when_no_row_is_left(policy: Numbered, clock: Any) -> None:
    policy.gate = threading.Semaphore(1)
    robot = Robot(policy, clock)
    robot.step()
    policy.fails = RuntimeError("out of memory")
    policy.gate.release(1000)
    assert [robot.step()["actions"][0] for _ in range(HORIZON - 1)] == list(range(1, HORIZON))
    with pytest.raises(RuntimeError, match=r"^out of memory$"):
        robot.step()
    policy.fails = None
    robot.broker.reset()
    assert robot.step()["actions"].shape == (2,)
    robot.broker.close()


def test_two_resets_in_a_row_are_both_passed_on(policy: Numbered, clock: Any) -> None:
    robot = Robot(policy, clock)
    robot.broker.reset()
    robot.broker.reset()
    assert policy.resets == [0, 0]
    robot.broker.close()


def test_what_passes_is_asked_again(policy: Numbered, clock: Any) -> None:
    policy.fails = NotReady("loading")
    robot = Robot(policy, clock)
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(robot.step()))
    thread.start()
    asked_again(policy)
    policy.fails = None
    while thread.is_alive():
        clock(0.05)  # its pause ends
        thread.join(0.01)
    assert answers[0]["actions"].tolist() == [0, 0]
    robot.broker.close()


def test_a_reset_that_fails_is_told(policy: Numbered, clock: Any) -> None:
    def reset() -> None:
        raise OSError("no arm")

    policy.reset = reset  # type: ignore[method-assign]
    robot = Robot(policy, clock)
    with pytest.raises(OSError, match=r"^no arm$"):
        robot.broker.reset()
    robot.step()
    robot.broker.reset()  # by the thread that asks, when no request is under way
    with pytest.raises(OSError, match=r"^no arm$"):
        robot.step()
    robot.broker.close()


@pytest.mark.parametrize("answer", [{"state": np.zeros(3)}, {"actions": np.zeros(3)}, {"actions": [1]}, 3])
def test_an_answer_without_a_chunk_never_reaches_the_robot(
    answer: Any, clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    class Wrong(BasePolicy):
        def infer(self, obs: dict[str, Any]) -> Any:
            return answer

    broker, told = RealtimeActionChunkBroker(Wrong(), HZ), []

    def waits() -> None:
        with pytest.raises(ConfigError) as raised:
            broker.infer({})
        told.append(str(raised.value))

    thread = threading.Thread(target=waits)
    thread.start()
    while broker.status.bad_answers < 1 or not caplog.records:
        thread.join(0.01)
    assert str(broker.status.error).startswith("infer: expected ")
    assert thread.is_alive(), "it waits for a better one"
    broker.close()
    thread.join(DEADLINE_S)
    assert told == ["infer: expected a broker that is open, got a call after close()"]
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "infer() waits for a chunk" in warning
    assert "infer: expected " in warning


def test_a_bad_answer_from_before_a_reset_is_not_the_reason_of_a_wait_after_it(
    policy: Numbered, clock: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    observed = threading.Semaphore(0)
    observe = RealtimeExecution.observe

    def counted(execution: RealtimeExecution, observation: Any) -> None:
        observe(execution, observation)
        observed.release()

    policy.gate = threading.Semaphore(1)
    robot = Robot(policy, clock)
    robot.step()
    policy.fails = BadAction("actions: expected finite numbers, got NaN or Inf")
    policy.gate.release()
    while not robot.broker.status.bad_answers:
        robot.broker.infer({"step": 1})  # a row is there: it waits for nothing
    policy.fails = None
    robot.broker.reset()
    monkeypatch.setattr(RealtimeExecution, "observe", counted)
    thread = threading.Thread(target=robot.step)
    thread.start()
    for _ in range(3):  # it looks again, and again
        assert observed.acquire(timeout=DEADLINE_S)
    policy.gate.release(1000)
    thread.join(DEADLINE_S)
    robot.broker.close()
    assert caplog.messages == []


WRONG: dict[str, tuple[Any, dict[str, Any], str]] = {
    "no policy": (3, {}, r"^policy: expected an object with infer\(observation\), got int$"),
    "no rate": (Numbered(), {"control_hz": 0}, r"^control_hz: expected rows per second, more than 0"),
    "a misspelt setting": (Numbered(), {"blend_step": 3}, r"^RealtimeActionChunkBroker has no .*mean blend_steps\?\)$"),
    "an unknown ladder": (Numbered(), {"fallback": ("wobble",)}, r"^fallback: expected one of hold, decay, zero"),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_a_mistake_is_one_line(mistake: str) -> None:
    policy, settings, told = WRONG[mistake]
    with pytest.raises(ConfigError, match=told):
        RealtimeActionChunkBroker(policy, **{"control_hz": HZ, **settings})


def test_after_close_it_says_so(policy: Numbered) -> None:
    broker = RealtimeActionChunkBroker(policy, HZ)
    broker.close()
    with pytest.raises(ConfigError, match=r"got a call after close\(\)$"):
        broker.infer({"step": 0})


def test_over_a_real_connection_the_policy_gets_the_rows_that_run_meanwhile(clock: Any) -> None:
    with running(server_of(FlowDemo(Rtc("guided")))) as url:
        remote = WebsocketClientPolicy(url)
        broker, scene = RealtimeActionChunkBroker(remote, HZ), Scene(300)
        place = scene.start
        for step in range(200):
            row = broker.infer(dict(scene.observation(step, place)))
            place = scene.moved(place, row["actions"])
            clock(1 / HZ)
        assert broker.status.rtc == "guided"
        assert broker.metadata["action_kind"] == "position"
        broker.close()
        remote.close()


def test_it_stands_where_the_original_stood() -> None:
    waiting = ActionChunkBroker(Numbered(), action_horizon=4)
    moving = RealtimeActionChunkBroker(Numbered(), control_hz=HZ)
    first = [broker.infer({"step": 0}) for broker in (waiting, moving)]
    assert first[0]["actions"].tolist() == first[1]["actions"].tolist()
    assert first[0].keys() == first[1].keys()
    moving.close()
