"""Programs that nobody here wrote, unmodified, in virtual environments of their own, all at once on one port."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from websockets.sync.server import ServerConnection

from policyserve import ArraySpec, FunctionPolicy, PolicyServer, PolicySpec, load_policy
from policyserve.core.policy import Policy
from policyserve.policies.prefix import read_prefix, rtc_facts, rtc_leaves
from tests.interop.environments import Environments
from tests.plain_servers import plain_server
from tests.shared import shared_path

pytestmark = [pytest.mark.interop, pytest.mark.timeout(600)]

PROGRAMS = Path(__file__).parent / "programs"
CLIENTS = ("openpi", "wall_x", "vibe_rl")


@pytest.fixture(scope="module")
def pythons(environments: Environments) -> dict[str, str]:
    """An interpreter for each original client, with that client's packages and nothing of ours."""
    return {name: environments.python(name) for name in CLIENTS}


def state_of(observation: Any) -> np.ndarray[Any, Any]:
    """Where each family puts the robot's state."""
    if isinstance(observation, np.ndarray):
        return observation
    return next(observation[key] for key in ("state", "observation/state", "obs") if key in observation)


async def run_clients(pythons: dict[str, str], policy: Policy | Callable[[Any], Any], count: int) -> list[str]:
    """Serve `policy` and run every client at once; gives what each printed, or how it failed."""
    document = str(shared_path("founding", "vibe_rl_policy_server.md"))
    async with PolicyServer(policy, "127.0.0.1", 0) as server:
        port = str(server.address[1])

        async def run(name: str, salt: int) -> str:
            program = str(PROGRAMS / f"{name}_program.py")
            arguments = [program, port, str(count), str(salt), *([document] if name == "vibe_rl" else [])]
            pipe = asyncio.subprocess.PIPE
            process = await asyncio.create_subprocess_exec(pythons[name], *arguments, stdout=pipe, stderr=pipe)
            out, err = await process.communicate()
            return out.decode().strip() or err.decode()

        return await asyncio.gather(*(run(name, salt) for salt, name in enumerate(pythons)))


def test_the_original_clients_get_a_thousand_right_answers_each_at_once_on_one_port(pythons: dict[str, str]) -> None:
    def policy(observation: Any) -> Any:
        state = state_of(observation)
        return np.stack([state, state * 2])

    assert asyncio.run(run_clients(pythons, policy, 1000)) == ["1000 right answers"] * 3


def test_the_original_clients_get_right_answers_of_a_policy_that_takes_a_prefix(pythons: dict[str, str]) -> None:
    """They know nothing of real-time chunking, and send none of it."""
    leaves = {"state": ArraySpec((3,)), **rtc_leaves(2, 3)}
    spec = PolicySpec(
        "prefixed",
        leaves,
        ArraySpec((3,)),
        horizon=2,
        metadata=rtc_facts("guided", "position"),
        aliases={"observation/state": "state"},
    )
    prefixes: list[object] = []

    def act(observation: Any) -> Any:
        prefixes.append(read_prefix(observation))
        return np.stack([observation["state"], observation["state"] * 2])

    clients = {name: pythons[name] for name in ("openpi", "wall_x")}
    assert asyncio.run(run_clients(clients, FunctionPolicy(act, spec), 50)) == ["50 right answers"] * 2
    assert prefixes[-100:] == [None] * 100


def test_an_inference_of_a_minute_loses_no_client(pythons: dict[str, str]) -> None:
    never = threading.Event()
    calls: list[float] = []

    def policy(observation: Any) -> Any:
        state = state_of(observation)
        calls.append(float(state[0]))
        if len(calls) == 1:
            never.wait(60)  # longer than every client's default ping time-out
        return np.stack([state, state * 2])

    assert asyncio.run(run_clients(pythons, policy, 3)) == ["3 right answers"] * 3
    assert len(calls) == 9


def openpi_server(peer: ServerConnection) -> None:
    """openpi's server: a greeting, then actions for observations, with one session for each connection."""
    peer.send(msgpack.packb({"robot": "arm"}) or b"")
    for message in peer:
        state = state_of(msgpack.unpackb(message, object_hook=unpacked))
        actions = np.stack([state, state * 2])
        marked = {b"__ndarray__": True, b"data": actions.tobytes(), b"dtype": actions.dtype.str, b"shape": (2, 3)}
        peer.send(msgpack.packb({"actions": marked, "server_timing": {"infer_ms": 0.1}}) or b"")


def unpacked(found: dict[Any, Any]) -> Any:
    if b"__ndarray__" not in found:
        return found
    return np.frombuffer(found[b"data"], found[b"dtype"]).reshape(found[b"shape"])


def test_the_original_clients_get_right_answers_of_an_openpi_server_behind_ours(pythons: dict[str, str]) -> None:
    """`remote:` translates: of the three, openpi's client alone speaks what the server behind speaks."""
    with plain_server(openpi_server, max_size=None, compression=None) as port:
        policy = load_policy(f"remote:ws://127.0.0.1:{port}")
        assert asyncio.run(run_clients(pythons, policy, 100)) == ["100 right answers"] * 3
