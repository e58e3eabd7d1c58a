"""openpi's own runtime drives a robot with RealtimeActionChunkBroker in its broker's place, all else unmodified."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

import policyserve
from policyserve import PolicyServer
from policyserve.policies.demo_flow import FlowDemo
from policyserve.policies.rtc import Rtc
from tests.interop.environments import Environments

pytestmark = [pytest.mark.interop, pytest.mark.timeout(600)]

PROGRAM = Path(__file__).parent / "programs" / "openpi_runtime_program.py"
SOURCE = Path(policyserve.__file__).parents[1]


@pytest.fixture(scope="module")
def python(environments: Environments) -> str:
    """An interpreter with the original client, whose packages are all that the robot's half of ours needs."""
    return environments.python("openpi")


@pytest.mark.parametrize("how", [Rtc("guided"), None])
def test_the_original_runtime_moves_a_robot_through_two_episodes(python: str, how: Rtc | None) -> None:
    async def driven() -> tuple[str, str]:
        async with PolicyServer(FlowDemo(how, latency_s=0.1), "127.0.0.1", 0) as server:
            process = await asyncio.create_subprocess_exec(
                python,
                str(PROGRAM),
                str(server.address[1]),
                "2",
                "150",
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": str(SOURCE)},
            )
            out, err = await process.communicate()
            return out.decode().strip(), err.decode()

    out, err = asyncio.run(driven())
    method = None if how is None else how.method
    assert out == f"300 actions in 2 episodes, rtc {method}", err
