"""Both clients over gRPC: at a server's LeRobot port, and where no robot is let in."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from policyserve import Client, FunctionPolicy
from policyserve.client.address import read_address
from policyserve.core.errors import ConfigError, ConnectionLost, DeadlineExceeded, MissingDependency, RemoteError
from tests.contract.clients import Waiting
from tests.policies.frameworks import import_or_skip
from tests.server.lerobot_grpc.calling import STATE, SlowPolicy, doubled
from tests.server.live import DEADLINE_S, Live, serving

import_or_skip("grpc")

ROBOT = {"state": np.array([0.5, 1.0, 2.0], np.float32), "prompt": "fold"}
KEY = "a-key-of-sixteen-letters"


@pytest.fixture(params=["sync", "async"])
def make(request: pytest.FixtureRequest) -> Iterator[Any]:
    made: list[Any] = []

    def make_one(url: str, **options: Any) -> Any:
        given = {"dialect": "lerobot", "timeout_s": DEADLINE_S, "retry_for_s": 0.0, **options}
        made.append(Client(url, **given) if request.param == "sync" else Waiting(url, **given))
        return made[-1]

    yield make_one
    for one in made:
        one.end() if isinstance(one, Waiting) else one.close()


def url_of(live: Live, name: str = "double%20rows") -> str:
    port = live.server.lerobot
    assert port is not None
    return f"grpc://127.0.0.1:{port.address.port}/{name}"


def policy() -> FunctionPolicy:
    return FunctionPolicy(doubled, STATE)


def test_a_client_asks_as_a_robot_and_is_told_of_errors_and_goes_on(make: Any) -> None:
    with serving(policy(), lerobot=0) as live:
        client = make(url_of(live))
        first = client.infer(ROBOT).actions
        assert first.shape == (4, 3)
        with pytest.raises(RemoteError, match=r"state/state.2: expected a number") as caught:
            client.infer({"state": np.zeros(2)})
        assert caught.value.code == "bad_frame"
        np.testing.assert_array_equal(client.infer(ROBOT).actions, first)
        assert client.sessions_opened == 1


def test_each_client_is_a_robot_of_its_own(make: Any) -> None:
    with serving(policy(), lerobot=0) as live:
        clients = [make(url_of(live)) for _ in range(3)]
        for client in clients:
            client.infer(ROBOT)
        live.until(lambda server: server.counters.sessions_open == 3)
        clients[0].reset()
        clients[0].infer(ROBOT)
        assert clients[0].sessions_opened == 2


def test_a_policy_that_is_not_served_is_told_with_those_that_are(make: Any) -> None:
    with serving(policy(), lerobot=0) as live:
        for name in ("", "act"):
            with pytest.raises(RemoteError, match=r"expected a policy that is served here \('double rows'\)"):
                make(url_of(live, name)).infer(ROBOT)


def test_a_key_is_sent(make: Any, tmp_path: Any) -> None:
    path = tmp_path / "keys"
    path.write_text(f"robot: {KEY}\n")
    path.chmod(0o600)
    with serving(policy(), lerobot=0, api_key_file=str(path)) as live:
        assert make(url_of(live), api_key=KEY).infer(ROBOT).actions.shape == (4, 3)
        with pytest.raises(RemoteError, match="key"):
            make(url_of(live)).infer(ROBOT)


def test_a_wrong_port_is_told_in_one_line(make: Any) -> None:
    with pytest.raises(ConnectionLost, match=r"cannot connect to grpc://127.0.0.1:1/x: .*[Rr]efused"):
        make("grpc://127.0.0.1:1/x").infer(ROBOT)
    with (
        serving(policy()) as live,
        pytest.raises(ConnectionLost, match="no server of LeRobot's answers there") as caught,
    ):
        make(f"grpc://127.0.0.1:{live.port}/x").infer(ROBOT)
    assert "\n" not in str(caught.value)


def test_a_policy_that_takes_too_long_is_left_at_the_deadline(make: Any) -> None:
    slow = SlowPolicy()
    with serving(slow, lerobot=0) as live:
        try:
            with pytest.raises(DeadlineExceeded, match=r"no answer from grpc://127.0.0.1:\d+/double%20rows within 1 s"):
                make(url_of(live), timeout_s=1.0).infer(ROBOT)
        finally:
            slow.go_on.release(100)


def test_without_grpcio_the_extra_is_named(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "grpc", None)
    with pytest.raises(MissingDependency, match="lerobot-client"):
        make("grpc://127.0.0.1:1/x").infer(ROBOT)


def test_a_dialect_and_its_address_go_together() -> None:
    address = read_address("grpc://robot:8080/user/act%20one", "lerobot")
    assert (address.url, address.policy) == ("grpc://robot:8080/user/act%20one", "user/act one")
    assert repr(Client("grpc://robot:8080/act")).startswith("<policyserve.Client grpc://robot:8080/act lerobot")
    with pytest.raises(ConfigError, match="dialect: expected lerobot with a URL of grpc://, got 'openpi'"):
        Client("grpc://robot:8080/act", dialect="openpi")
    with pytest.raises(ConfigError, match="url: expected ws://host:port"):
        Client("grpc://robot/act")
