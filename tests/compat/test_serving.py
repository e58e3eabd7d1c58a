"""openpi's and Wall-X's WebsocketPolicyServer, and vibe_rl's PolicyServer: what they serve and to whom."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from policyserve import Client, Server
from policyserve.compat import openpi, vibe_rl, wall_x
from policyserve.core.errors import RemoteError
from policyserve.core.policy import ActionChunk, PolicyInput
from policyserve.policies.fakes import CountingPolicy, EchoPolicy
from policyserve.server.config import ServerConfig
from tests.compat.running import running

LOOPBACK = {"host": "127.0.0.1", "port": 0}


class Doubling(openpi.BasePolicy):
    """Answers twice the state, and says where it ran."""

    def __init__(self, key: str = "actions") -> None:
        self._key = key
        self.threads: set[str] = set()

    def infer(self, obs: dict[str, Any]) -> dict[str, Any]:
        self.threads.add(threading.current_thread().name)
        return {self._key: obs["state"][None] * 2, "policy_timing": {"infer_ms": 1.5}}

    @property
    def metadata(self) -> dict[str, Any]:
        return {"robot": "arm", "rate_hz": 20}


class DuckPolicy:
    """No base class: `infer` is enough."""

    def infer(self, obs: dict[str, Any]) -> dict[str, Any]:
        return {"action": np.zeros((2, 3), np.float32)}


@pytest.mark.parametrize("module", [openpi, wall_x])
def test_a_base_policy_is_served_with_all_that_it_answers(module: Any) -> None:
    policy = Doubling()
    with running(module.WebsocketPolicyServer(policy, **LOOPBACK)) as url:
        for dialect in ("openpi", "wall_x"):
            with Client(url, dialect=dialect) as client:
                reply = client.infer({"state": np.arange(3.0, dtype=np.float32)})
                assert reply.actions.tolist() == [[0, 2, 4]]
                assert reply["policy_timing"] == {"infer_ms": 1.5}
                assert reply["server_timing"]["infer_ms"] >= 0
    assert policy.threads == {"policy"}


@pytest.mark.parametrize(("module", "key"), [(openpi, "actions"), (wall_x, "action")])
def test_a_reply_has_the_key_of_its_family_whatever_the_policy_calls_it(module: Any, key: str) -> None:
    with (
        running(module.WebsocketPolicyServer(DuckPolicy(), **LOOPBACK)) as url,
        Client(url, dialect="openpi" if module is openpi else "wall_x") as client,
    ):
        assert client.infer({"state": np.zeros(1, np.float32)})[key].shape == (2, 3)


class Preparing(EchoPolicy):
    """Answers only what it has prepared."""

    def prepare(self, batch: Sequence[PolicyInput]) -> list[ActionChunk]:
        return super().infer(batch)

    def infer_prepared(self, batch: Sequence[PolicyInput], prepared: list[ActionChunk]) -> list[ActionChunk]:
        return prepared

    def infer(self, batch: Sequence[PolicyInput]) -> list[ActionChunk]:
        raise AssertionError("a policy that prepares is asked to")


def test_a_policy_that_prepares_does_so_under_its_metadata_too() -> None:
    server = openpi.WebsocketPolicyServer(Preparing(), **LOOPBACK, metadata={"robot": "arm"})
    with running(server) as url, Client(url, dialect="openpi") as client:
        assert client.infer({"obs": np.ones(4, np.float32)}).actions.tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("module", [openpi, wall_x])
def test_the_metadata_given_goes_over_the_policys_own(module: Any) -> None:
    server = module.WebsocketPolicyServer(Doubling(), "127.0.0.1", 0, {"robot": "two arms"})
    with running(server) as url, Client(url, dialect="openpi") as client:
        assert client.metadata["robot"] == "two arms"
        assert client.metadata["rate_hz"] == 20


def test_a_policy_of_ours_is_served_in_batches_with_its_spec_and_its_metadata() -> None:
    policy = CountingPolicy()
    server = openpi.WebsocketPolicyServer(policy, **LOOPBACK, metadata={"robot": "arm"})
    with running(server) as url, Client(url, dialect="openpi") as client:
        assert client.metadata["robot"] == "arm"
        assert client.metadata["spec"]["observation"]["obs"]["shape"] == [4]
        assert client.infer({"obs": np.ones(4, np.float32)}).actions.tolist() == [1, 1, 1, 1]
        with pytest.raises(RemoteError, match="obs"):
            client.infer({"obz": np.ones(4, np.float32)})
    assert policy.sizes == [1]
    assert policy.closed


@pytest.mark.parametrize(
    ("server", "dialect"),
    [
        (openpi.WebsocketPolicyServer(EchoPolicy(), **LOOPBACK), "openpi"),
        (wall_x.WebsocketPolicyServer(EchoPolicy(), **LOOPBACK), "wall_x"),
        (vibe_rl.PolicyServer(EchoPolicy(), **LOOPBACK), "vibe_rl"),
    ],
)
def test_a_founding_server_is_pinned_to_its_dialect_and_serves_the_others_under_their_paths(
    server: Server, dialect: str
) -> None:
    assert server.config.dialect == dialect
    with running(server) as url:
        for path, spoken in (("/somewhere", dialect), ("/vibe_rl", "vibe_rl"), ("/openpi", "openpi")):
            with Client(url + path, dialect=spoken) as client:
                assert client.infer({"obs": np.ones(4, np.float32)}).actions.tolist() == [1, 1, 1, 1]


def test_vibe_rls_server_keeps_the_config_that_it_is_given() -> None:
    config = ServerConfig(max_sessions=3, dialect="openpi")
    server = vibe_rl.PolicyServer(EchoPolicy(), config=config)
    assert (server.config.max_sessions, server.config.dialect, server.config.port) == (3, "vibe_rl", 8000)


def test_serve_forever_answers_what_is_in_flight_when_a_signal_ends_it() -> None:
    class Stopping(DuckPolicy):
        def infer(self, obs: dict[str, Any]) -> dict[str, Any]:
            os.kill(os.getpid(), signal.SIGINT)
            return super().infer(obs)

    class Announcing(openpi.WebsocketPolicyServer):
        async def __aenter__(self) -> Server:
            entered = await super().__aenter__()
            listening.set()
            return entered

    def ask() -> None:
        assert listening.wait(timeout=30)
        host, port = server.address
        with Client(f"ws://{host}:{port}", dialect="openpi") as client:
            answers.append(client.infer({"state": np.zeros(1, np.float32)}).actions.shape)

    server = Announcing(Stopping(), **LOOPBACK)
    listening = threading.Event()
    answers: list[tuple[int, ...]] = []
    client = threading.Thread(target=ask)
    client.start()
    server.serve_forever()
    client.join()
    assert answers == [(2, 3)]


def test_run_is_a_coroutine_that_stop_ends() -> None:
    async def serve() -> None:
        server = wall_x.WebsocketPolicyServer(DuckPolicy(), **LOOPBACK)
        await server.run(on_ready=lambda _spec: server.stop())

    asyncio.run(serve())
