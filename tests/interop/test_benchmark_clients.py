"""vla-eval's harness and an XPolicyLab client, unmodified, in an environment of their own, at once on one port."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserve import ArraySpec, Client, FunctionPolicy, ImageSpec, PolicyServer, PolicySpec, TextSpec
from tests.interop.environments import Environments

pytestmark = [pytest.mark.interop, pytest.mark.timeout(600)]

PROGRAMS = Path(__file__).parent / "programs"
COUNT = 200
SPEC = PolicySpec(
    "benchmarked",
    {"images": {"view": ImageSpec()}, "state": ArraySpec((8,)), "prompt": TextSpec()},
    ArraySpec((8,)),
    horizon=2,
)


@pytest.fixture(scope="module")
def python(environments: Environments) -> str:
    """An interpreter with the clients' packages and nothing of ours."""
    return environments.python("vla_eval")


prompts: set[str] = set()  # that were heard


def act(observation: Any) -> Any:
    """The state once and twice, and above it the picture's brightness."""
    state, bright = observation["state"], observation["images"]["view"][0, 0, 0]
    prompts.add(observation["prompt"])
    return np.stack([state + bright, state * 2 + bright])


def test_the_original_clients_get_right_answers_at_once_on_one_port(python: str) -> None:
    async def run(port: int, name: str, salt: int) -> str:
        pipe = asyncio.subprocess.PIPE
        words = [str(PROGRAMS / f"{name}_program.py"), str(port), str(COUNT), str(salt)]
        process = await asyncio.create_subprocess_exec(python, *words, stdout=pipe, stderr=pipe)
        out, err = await process.communicate()
        return out.decode().strip() or err.decode()

    async def main() -> list[str]:
        async with PolicyServer(FunctionPolicy(act, SPEC), "127.0.0.1", 0) as server:
            names = ("vla_eval", "xpolicylab", "vla_eval", "xpolicylab")
            return await asyncio.gather(*(run(server.address[1], name, salt) for salt, name in enumerate(names)))

    assert asyncio.run(main()) == [f"{COUNT} right answers"] * 4
    assert prompts == {"", "pick up the bowl", "stack the bowls"}, "zeros have an empty one"


def test_our_client_gets_right_answers_of_the_original_server(python: str) -> None:
    program = [python, str(PROGRAMS / "vla_eval_server.py")]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            port = int(server.stdout.readline())
            with Client(f"ws://127.0.0.1:{port}", dialect="vla_eval") as client:
                assert client.metadata["observation_params"] == {"send_state": True}
                for number in range(COUNT):
                    if number == COUNT // 2:
                        client.reset()
                    state = np.array([number - number % 2, 0.5], np.float32)
                    seen = {"images": {"agentview": np.zeros((24, 32, 3), np.uint8)}, "states": state}
                    reply = client.infer(seen)
                    assert reply.actions.tolist() == (state * (2 + number % 2)).tolist()
                    assert reply.timing == {}
        finally:
            server.terminate()
