"""Clients of RoboArena, MolmoSpaces, DreamZero, starVLA and BEHAVIOR-1K, all at once against one server and one policy.

Positronic's and AI2's are the originals. starVLA's and BEHAVIOR-1K's are in no package: openpi's own codec, which they
carry, does what they do.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserve import PolicyServer
from policyserve.core.policy import FunctionPolicy
from policyserve.core.spec import PolicySpec
from tests.interop.environments import Environments

pytestmark = [pytest.mark.interop, pytest.mark.timeout(900)]

PROGRAMS = Path(__file__).parent / "programs"
# Programs, and whose packages each needs.
CLIENTS = {"roboarena": "roboarena", "openpi_codec": "openpi", "molmospaces": "molmospaces"}
COUNT = 200


@pytest.fixture(scope="module")
def pythons(environments: Environments) -> dict[str, str]:
    """An interpreter for each client, with that client's packages and nothing of ours."""
    return {name: environments.python(environment) for name, environment in CLIENTS.items()}


def state_of(observation: Any) -> Any:
    """Where each family puts the robot's state."""
    state = next(observation[key] for key in ("state", "observation/state") if key in observation)
    return state["arm"] if isinstance(state, dict) else state


def policy(observation: Any) -> Any:
    state = state_of(observation)
    return np.stack([state, state * 2])


def test_original_clients_of_five_families_get_their_own_answers_at_once(pythons: dict[str, str]) -> None:
    parts = PolicySpec("parts", None, None, metadata={"modality": {"arm": 2, "gripper": 1}, "pred_horizon": 2})

    async def run_all() -> list[str]:
        async with PolicyServer(FunctionPolicy(policy, parts), "127.0.0.1", 0) as server:
            port = str(server.address[1])

            async def run(name: str, salt: int) -> str:
                program, pipe = str(PROGRAMS / f"{name}_program.py"), asyncio.subprocess.PIPE
                arguments = program, port, str(COUNT), str(salt)
                process = await asyncio.create_subprocess_exec(pythons[name], *arguments, stdout=pipe, stderr=pipe)
                out, err = await process.communicate()
                return out.decode().strip() or err.decode()

            return await asyncio.gather(*(run(name, salt) for salt, name in enumerate(pythons)))

    assert asyncio.run(run_all()) == [f"{COUNT} right answers"] * len(CLIENTS)
