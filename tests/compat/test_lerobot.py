"""RealtimeEngine: LeRobot's verbs, and a loop of LeRobot's shape that calls them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from policyserve.compat.lerobot import RealtimeEngine
from policyserve.core.errors import ConfigError
from policyserve.core.policy import FunctionPolicy
from policyserve.core.spec import ArraySpec, PolicySpec
from tests.policies.frameworks import import_or_skip
from tests.server.live import DEADLINE_S, serving

NAMES = ("shoulder_pan.pos", "gripper.pos")
HZ, HORIZON = 200, 400


def policy(**metadata: Any) -> FunctionPolicy:
    """Row i for a state s is s, and i more in its first number."""
    spec = PolicySpec(
        "arm",
        {"observation.state": ArraySpec((2,))},
        ArraySpec((2,)),
        horizon=HORIZON,
        metadata={"action_kind": "position", **metadata},
    )

    def act(observation: Any) -> Any:
        rows = np.repeat(observation["observation.state"][None], HORIZON, 0)
        rows[:, 0] += np.arange(HORIZON)
        return rows

    return FunctionPolicy(act, spec)


def state_of(obs: Any) -> dict[str, Any]:
    """What LeRobot's processors do: the robot's floats become one array."""
    return {"observation.state": np.array([obs[name] for name in NAMES], np.float32)}


@contextmanager
def started(served: FunctionPolicy | None = None, **options: Any) -> Iterator[RealtimeEngine]:
    with serving(policy() if served is None else served) as live:
        engine = RealtimeEngine(f"ws://127.0.0.1:{live.port}", control_hz=HZ, **options)
        engine.reset()  # a strategy of LeRobot's begins with both, in this order
        engine.start()
        yield engine
        engine.stop()


def until(condition: Callable[[], Any]) -> Any:
    """Wait until something is there."""
    ends = time.monotonic() + DEADLINE_S
    while (found := condition()) is None or found is False:
        assert time.monotonic() < ends
        time.sleep(0.001)
    return found


STATE = {"observation.state": np.array([100, 5], np.float32)}


def test_a_row_is_there_as_soon_as_the_first_chunk_is_and_none_before() -> None:
    with started() as engine:
        assert engine.get_action(STATE) is None
        assert not engine.ready
        engine.notify_observation(STATE)
        row = until(engine.get_action)
        assert (row.shape, row[1]) == ((2,), 5)
        assert engine.ready
        assert not engine.failed


def test_a_loop_of_lerobots_shape_runs_as_it_stands() -> None:
    torch = import_or_skip("torch")
    sent: list[dict[str, float]] = []
    observed = dict.fromkeys(NAMES, 3.0)
    with started(prepare=state_of, convert=torch.from_numpy) as engine:

        def send_next_action() -> Any:
            engine.notify_observation(observed)
            action_tensor = engine.get_action(observed)
            if action_tensor is None:
                return None
            action_tensor = action_tensor.cpu()
            sent.append({key: action_tensor[i].item() for i, key in enumerate(NAMES)})
            return len(sent) == 20

        until(send_next_action)
    assert all(one["gripper.pos"] == 3.0 for one in sent)


def test_rows_have_the_names_of_the_greeting_or_the_users() -> None:
    with started(policy(action_names=list(NAMES))) as engine:
        engine.notify_observation(STATE)
        named = until(engine.get_named_action)
        assert tuple(named) == NAMES == engine.action_names
        assert named["gripper.pos"] == 5.0
        assert type(named["gripper.pos"]) is float
        assert engine.metadata["action_kind"] == "position"
    with started(action_names=("a", "b")) as engine:
        assert engine.get_named_action() is None
        engine.notify_observation(STATE)
        assert tuple(until(engine.get_named_action)) == ("a", "b")


@pytest.mark.parametrize(
    ("names", "told"), [(None, "since the server tells none"), (("a",), "as an action has numbers, got 1")]
)
def test_names_that_nobody_said_or_too_few_are_told(names: Any, told: str) -> None:
    with started(action_names=names) as engine:
        engine.notify_observation(STATE)
        until(lambda: engine.ready)
        with pytest.raises(ConfigError, match=f"^action_names: expected 2 names, {told}"):
            engine.get_named_action()


def test_a_pause_gives_no_action_a_reset_leaves_it_and_resume_takes_a_new_observation() -> None:
    with started() as engine:
        engine.notify_observation(STATE)
        until(engine.get_action)
        engine.pause()
        assert engine.get_action() is None
        engine.reset()
        engine.notify_observation({"observation.state": np.array([200, 6], np.float32)})
        assert engine.get_action() is None
        assert engine.status.state == "STOPPED"
        engine.resume()
        assert engine.get_action() is None
        engine.notify_observation({"observation.state": np.array([300, 7], np.float32)})
        assert until(engine.get_action)[1] == 7


def test_after_a_stop_it_can_be_started_again() -> None:
    with started() as engine:
        engine.notify_observation(STATE)
        until(engine.get_action)
        engine.stop()
        engine.notify_observation(STATE)
        assert engine.get_action() is None
        engine.start()
        engine.notify_observation(STATE)
        assert until(engine.get_action)[1] == 5


def test_what_the_server_refuses_for_good_is_told_by_failed_and_never_raised() -> None:
    with started() as engine:
        engine.notify_observation({"observation.state": np.zeros(3, np.float32)})
        until(lambda: engine.failed)
        engine.notify_observation(STATE)
        assert engine.get_action() is None
        assert "observation.state: expected float32 (2,), got float32 (3,)" in str(engine.failure_traceback)
        engine.reset()
        assert not engine.failed
        assert engine.failure_traceback is None
        engine.notify_observation(STATE)
        assert until(engine.get_action)[1] == 5


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no rate": ({"control_hz": 0}, r"^control_hz: expected rows per second, more than 0"),
    "an unknown ladder": ({"fallback": ("wobble",)}, r"^fallback: expected one of hold, decay"),
    "a name for all": ({"action_names": "gripper.pos"}, r"^action_names: expected names of an action's numbers"),
    "a name twice": ({"action_names": ["a", "a"]}, r"^action_names: expected each name once"),
    "no names": ({"action_names": []}, r"^action_names: expected names of an action's numbers"),
    "no function": ({"convert": 3}, r"^convert: expected a function, got 3$"),
    "a misspelt setting": ({"blend_step": 3}, r"has no setting 'blend_step' \(did you mean blend_steps\?\)$"),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_a_mistake_is_one_line(mistake: str) -> None:
    options, told = WRONG[mistake]
    with pytest.raises(ConfigError, match=told):
        RealtimeEngine("ws://localhost:1", **{"control_hz": HZ, **options})


def test_names_of_a_server_that_are_none_are_told() -> None:
    with started(policy(action_names="gripper")) as engine:
        engine.notify_observation(STATE)
        until(lambda: engine.ready)
        with pytest.raises(ConfigError, match=r"^the server's action_names: expected names"):
            engine.get_named_action()
