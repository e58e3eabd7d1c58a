"""Programs that ask their policy by HTTP, unmodified, all at once on one port of one server of one policy."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserve import PolicyServer
from tests.interop.environments import Environments

pytestmark = [pytest.mark.interop, pytest.mark.timeout(600)]

PROGRAM = Path(__file__).parent / "programs" / "rest_program.py"
FAMILIES = ("widowx", "yam", "openvla", "oft", "xvla")


@pytest.fixture(scope="module")
def python(environments: Environments) -> str:
    """An interpreter with the clients and nothing of ours."""
    return environments.python("rest")


def act(observation: Any) -> Any:
    """Of the first picture its colour, and what the instruction says."""
    salt, size = (int(word) for word in observation["prompt"].split())
    colours = {int(picture.max()) for picture in observation["images"].values()}
    assert len(colours) == 1
    actions = np.full((3, size), colours.pop() / 256, np.float32)
    actions[:, 0] = salt + np.arange(3)
    return actions


async def run_all(python: str, count: int) -> list[str]:
    async with PolicyServer(act, "127.0.0.1", 0) as server:
        port = str(server.address[1])

        async def run(family: str, salt: int) -> str:
            pipe, arguments = asyncio.subprocess.PIPE, (str(PROGRAM), family, port, str(count), str(salt))
            process = await asyncio.create_subprocess_exec(python, *arguments, stdout=pipe, stderr=pipe)
            out, err = await process.communicate()
            return out.decode().strip() or err.decode()

        return await asyncio.gather(*(run(family, salt) for salt, family in enumerate(FAMILIES)))


def test_the_original_clients_get_right_answers_at_once_on_one_port(python: str) -> None:
    assert asyncio.run(run_all(python, 200)) == ["200 right answers"] * len(FAMILIES)
