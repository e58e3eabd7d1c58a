"""openpi's client names: WebsocketClientPolicy over a real socket, and ActionChunkBroker."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from policyserve import Server
from policyserve.compat.openpi import ActionChunkBroker, BasePolicy, WebsocketClientPolicy, WebsocketPolicyServer
from policyserve.core.errors import ConnectionLost, DeadlineExceeded
from policyserve.policies.fakes import EchoPolicy, FailingPolicy, SlowPolicy
from tests.compat.running import running


def server_of(policy: Any, **options: Any) -> Server:
    return WebsocketPolicyServer(policy, "127.0.0.1", 0, **options)


def test_it_reads_the_metadata_when_it_is_made_and_asks_for_actions() -> None:
    with running(server_of(EchoPolicy(), metadata={"robot": "arm"})) as url:
        policy = WebsocketClientPolicy(url)
        assert policy.get_server_metadata()["robot"] == "arm"
        assert policy.metadata == policy.get_server_metadata()
        answer = policy.infer({"obs": np.arange(4, dtype=np.float32)})
        assert type(answer) is dict
        assert answer["actions"].tolist() == [0, 1, 2, 3]
        assert "prev_total_ms" not in answer["server_timing"]
        assert "prev_total_ms" in policy.infer({"obs": np.zeros(4, np.float32)})["server_timing"]
        policy.close()


@pytest.mark.parametrize("scheme", ["", "ws://"])
def test_a_host_goes_with_or_without_its_scheme(scheme: str) -> None:
    with running(server_of(EchoPolicy())) as url:
        host, port = url.removeprefix("ws://").split(":")
        policy = WebsocketClientPolicy(f"{scheme}{host}", int(port), api_key="secret")
        assert policy.infer({"obs": np.zeros(4, np.float32)})["actions"].shape == (4,)
        policy.close()


def test_a_host_without_a_port_may_name_it_itself() -> None:
    with running(server_of(EchoPolicy())) as url:
        policy = WebsocketClientPolicy(url.removeprefix("ws://"), None)
        assert policy.get_server_metadata()["policyserve"]
        policy.close()


def test_a_refusal_is_a_runtime_error_and_the_connection_goes_on() -> None:
    with running(server_of(EchoPolicy())) as url:
        policy = WebsocketClientPolicy(url)
        with pytest.raises(RuntimeError, match=r"bad_observation: obs: expected float32 \(4,\)"):
            policy.infer({"obs": np.zeros(5, np.float32)})
        answer = policy.infer({"obs": np.zeros(4, np.float32)})
        assert "prev_total_ms" not in answer["server_timing"], "the same session, its first answer"
        policy.close()


def test_a_failing_policy_is_a_runtime_error_too() -> None:
    with running(server_of(FailingPolicy())) as url:
        policy = WebsocketClientPolicy(url)
        with pytest.raises(RuntimeError, match="policy_failed"):
            policy.infer({"obs": np.zeros(4, np.float32)})
        policy.close()


def test_reset_changes_nothing() -> None:
    with running(server_of(EchoPolicy())) as url:
        policy = WebsocketClientPolicy(url)
        policy.infer({"obs": np.zeros(4, np.float32)})
        policy.reset()
        answer = policy.infer({"obs": np.zeros(4, np.float32)})
        assert "prev_total_ms" in answer["server_timing"], "the same session"
        policy.close()


def test_nobody_there_is_a_lost_connection() -> None:
    with running(server_of(EchoPolicy())) as url:
        pass
    with pytest.raises(ConnectionLost, match="cannot connect"):
        WebsocketClientPolicy(url)


def test_a_time_limit_may_be_given() -> None:
    slow = SlowPolicy()
    with running(server_of(slow)) as url:
        policy = WebsocketClientPolicy(url, timeout_s=1.0)
        with pytest.raises(DeadlineExceeded):
            policy.infer({"obs": np.zeros(4, np.float32)})
        slow.release.set()
        policy.close()


def test_a_robot_that_asks_loads_no_server_and_no_command_line() -> None:
    program = (
        "import sys\n"
        "from policyserve.compat.openpi import ActionChunkBroker, WebsocketClientPolicy\n"
        "from policyserve.compat.wall_x import WallXClient\n"
        "WallXClient()\n"
        "print(*sorted(name for name in sys.modules if name.startswith(('policyserve', 'tyro', 'h11', 'PIL'))))\n"
    )
    loaded = subprocess.run([sys.executable, "-c", program], text=True, capture_output=True, check=True).stdout.split()
    rooms = ("core", "dialects", "websocket", "client", "compat")
    allowed = tuple(f"policyserve.{room}" for room in rooms)
    assert [name for name in loaded if not name.startswith(allowed)] == ["policyserve"]


class Chunks(BasePolicy):
    """Answers chunks of three steps, the first beginning at 0, the next at 10, …"""

    def __init__(self) -> None:
        self.asked = 0
        self.resets = 0

    def infer(self, obs: dict[str, Any]) -> dict[str, Any]:
        steps = np.arange(3) + 10 * self.asked
        self.asked += 1
        return {
            "actions": np.stack([steps, -steps], axis=1),
            "nested": {"gripper": steps * 2, "list": [steps, "left"]},
            "server_timing": {"infer_ms": 1.5},
            "scalar": np.array(7),
        }

    def reset(self) -> None:
        self.resets += 1


def test_a_broker_hands_a_chunk_out_step_by_step_and_then_asks_again() -> None:
    policy = Chunks()
    broker = ActionChunkBroker(policy, 3)
    steps = [broker.infer({})["actions"].tolist() for _ in range(4)]
    assert steps == [[0, 0], [1, -1], [2, -2], [10, -10]]
    assert policy.asked == 2


def test_a_broker_asks_again_before_the_chunk_ends_if_its_horizon_is_shorter() -> None:
    broker = ActionChunkBroker(Chunks(), 2)
    assert [broker.infer({})["actions"][0] for _ in range(3)] == [0, 1, 10]


def test_a_broker_slices_nested_arrays_and_passes_everything_else_on() -> None:
    broker = ActionChunkBroker(Chunks(), 3)
    broker.infer({})
    step = broker.infer({})
    assert step["nested"] == {"gripper": 2, "list": [1, "left"]}
    assert step["server_timing"] == {"infer_ms": 1.5}
    assert step["scalar"] == 7


def test_a_broker_whose_chunk_is_shorter_than_its_horizon_says_so() -> None:
    broker = ActionChunkBroker(Chunks(), 4)
    for _ in range(3):
        broker.infer({})
    with pytest.raises(IndexError):
        broker.infer({})


def test_resetting_a_broker_drops_its_chunk_and_resets_its_policy() -> None:
    policy = Chunks()
    broker = ActionChunkBroker(policy, 3)
    broker.infer({})
    broker.reset()
    assert policy.resets == 1
    assert broker.infer({})["actions"].tolist() == [10, -10]


def test_a_broker_over_a_served_policy_asks_once_per_chunk() -> None:
    served = Chunks()
    with running(server_of(served)) as url:
        remote = WebsocketClientPolicy(url)
        broker = ActionChunkBroker(remote, 3)
        assert [broker.infer({"state": 1})["actions"].tolist() for _ in range(3)] == [[0, 0], [1, -1], [2, -2]]
        remote.close()
    assert served.asked == 1
