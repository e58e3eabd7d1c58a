"""Programs that ask their policy by HTTP, unmodified, all at once on one port of one server of one policy."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserve import PolicyServer

pytestmark = [pytest.mark.interop, pytest.mark.timeout(600)]

PROGRAM = Path(__file__).parent / "programs" / "rest_program.py"
FAMILIES = ("widowx", "yam", "openvla", "oft", "xvla")
# Without what they depend on: a simulator's worth of packages, none of which asks a server.
CLIENTS = ["inspect-robots==0.60.0", "inspect-robots-widowx==0.1.0", "inspect-robots-yam==0.37.0"]
PACKAGES = ["numpy", "requests", "json-numpy==2.1.1", "pillow"]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An interpreter with the clients and nothing of ours."""
    home = tmp_path_factory.mktemp("interop") / "rest"
    subprocess.run([sys.executable, "-m", "venv", home], check=True)
    for packages in (["--no-deps", *CLIENTS], PACKAGES):
        subprocess.run([home / "bin" / "python", "-m", "pip", "install", "--quiet", *packages], check=True)
    return str(home / "bin" / "python")


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
