"""GR00T's clients of three versions, which nobody here wrote, unmodified, all at once against one policy."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserve import ArraySpec, FunctionPolicy, PolicyServer, PolicySpec, ServerConfig
from tests.interop.environments import Environments

pytestmark = [pytest.mark.interop, pytest.mark.timeout(600)]

PROGRAMS = Path(__file__).parent / "programs"
VERSIONS = ("n15", "n16", "n17")
GROUPS = {"left_arm": 7, "right_arm": 7, "left_hand": 1, "right_hand": 1}
SPEC = PolicySpec("g1", None, ArraySpec((16,)), horizon=4, metadata={"modality": GROUPS})


async def run_clients(environments: Environments, count: int) -> list[str]:
    """Serve one policy and run every client at once; gives what each printed, or how it failed."""

    def act(seen: Any) -> Any:
        return np.full((4, 16), seen["state"]["left_arm"][0], np.float32)

    async with PolicyServer(
        FunctionPolicy(act, SPEC), config=ServerConfig(host="127.0.0.1", port=0, gr00t=0)
    ) as server:
        assert server.gr00t is not None
        port = server.gr00t.port

        async def run(name: str, salt: int) -> str:
            wheel = [environments.n16_wheel()] if name == "n16" else []
            python, program = environments.python(f"gr00t_{name}"), str(PROGRAMS / f"gr00t_{name}_program.py")
            pipe = asyncio.subprocess.PIPE
            process = await asyncio.create_subprocess_exec(
                python, program, str(port), str(count), str(salt), *wheel, stdout=pipe, stderr=pipe
            )
            out, err = await process.communicate()
            return out.decode().strip() or err.decode()

        return await asyncio.gather(*(run(name, salt) for salt, name in enumerate(VERSIONS, start=1)))


def test_clients_of_three_versions_get_two_hundred_right_answers_each_at_once(environments: Environments) -> None:
    assert asyncio.run(run_clients(environments, 200)) == ["200 right answers"] * 3
