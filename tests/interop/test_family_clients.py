"""Clients of RoboArena, MolmoSpaces, DreamZero, starVLA and BEHAVIOR-1K, all at once against one server and one policy.

Positronic's and AI2's are the originals. starVLA's and BEHAVIOR-1K's are in no package: openpi's own codec, which they
carry, does what they do.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserve import PolicyServer
from policyserve.core.policy import FunctionPolicy
from policyserve.core.spec import PolicySpec

pytestmark = [pytest.mark.interop, pytest.mark.timeout(900)]

PROGRAMS = Path(__file__).parent / "programs"
POSITRONIC = ("positronic-wire[websocket]==0.12.0", "positronic-model-server==0.3.1")
PACKAGES: dict[str, list[list[str]]] = {
    # Without what they need for robots and simulators, which nothing here imports.
    "roboarena": [
        [*POSITRONIC, "opentelemetry-api", "pydantic", "pos3", "pyyaml"],
        ["--no-deps", "positronic==0.4.1", "positronic-eval-vocabulary==0.6.0"],
    ],
    "openpi_codec": [["openpi-client==0.1.2", "typing_extensions"]],
    "molmospaces": [["msgpack-numpy==0.4.8", "websockets", "numpy"], ["--no-deps", "molmo-spaces==0.2.9"]],
}
COUNT = 200


@pytest.fixture(scope="module")
def pythons(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An interpreter for each client, with that client's packages and nothing of ours."""
    home = tmp_path_factory.mktemp("families")
    found = {name: str(home / name / "bin" / "python") for name in PACKAGES}
    for name, steps in PACKAGES.items():
        subprocess.run([sys.executable, "-m", "venv", home / name], check=True)
        for packages in steps:
            subprocess.run([found[name], "-m", "pip", "install", "--quiet", *packages], check=True)
    return found


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

    assert asyncio.run(run_all()) == [f"{COUNT} right answers"] * len(PACKAGES)
