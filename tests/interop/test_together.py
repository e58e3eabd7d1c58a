"""Every original client that can be had as a package, unmodified, all at once against one process and one policy."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.cli.serving import POLICYSERVE, Serving, serving
from tests.interop.environments import Environments
from tests.policies.frameworks import import_or_skip
from tests.shared import shared_path

pytestmark = [pytest.mark.interop, pytest.mark.timeout(1800)]

PROGRAMS = Path(__file__).parent / "programs"
COUNT = 200
FAMILIES = ("widowx", "yam", "openvla", "oft", "xvla")  # of those who ask by HTTP
# Programs, and whose packages each needs.
WEBSOCKETS = {
    "openpi": "openpi",
    "wall_x": "wall_x",
    "vibe_rl": "vibe_rl",
    "roboarena": "roboarena",
    "openpi_codec": "openpi",
    "molmospaces": "molmospaces",
    "vla_eval": "vla_eval",
    "xpolicylab": "vla_eval",
}
ZEROMQ = ("gr00t_n15", "gr00t_n16", "gr00t_n17")


class Served(NamedTuple):
    """One server: the port of WebSockets and HTTP, and GR00T's."""

    process: Serving
    port: str
    gr00t: str


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    """`policyserve serve` of one policy, with a port for each way in."""
    for module in ("zmq", "grpc"):
        import_or_skip(module)
    ports = [word for flag in ("--port", "--gr00t", "--lerobot") for word in (flag, "0")]
    command = [*POLICYSERVE, "serve", "together_policy:policy", "--host", "127.0.0.1", *ports]
    with serving(command, cwd=PROGRAMS) as process:
        found = re.search(r"tcp://127\.0\.0\.1:(\d+)", "".join(process.lines))
        assert found, process.lines
        yield Served(process, process.url.rpartition(":")[2], found.group(1))


def commands(environments: Environments, served: Served) -> Mapping[str, list[str]]:
    """How each client is run: each has a salt of its own, which its answers must bear."""
    made: dict[str, list[str]] = {}

    def add(name: str, environment: str, port: str, before: tuple[str, ...] = (), more: tuple[str, ...] = ()) -> None:
        program = str(PROGRAMS / f"{'rest' if before else name}_program.py")
        salt = str(len(made) + 1)
        made[name] = [environments.python(environment), program, *before, port, str(COUNT), salt, *more]

    document = (str(shared_path("founding", "vibe_rl_policy_server.md")),)
    for name, environment in WEBSOCKETS.items():
        add(name, environment, served.port, more=document if name == "vibe_rl" else ())
    for family in FAMILIES:
        add(family, "rest", served.port, before=(family,))
    for name in ZEROMQ:
        add(name, name, served.gr00t, more=(environments.n16_wheel(),) if name == "gr00t_n16" else ())
    return made


def test_every_original_client_gets_two_hundred_right_answers_at_once(
    environments: Environments, served: Served
) -> None:
    async def run(command: list[str]) -> str:
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe)
        out, err = await process.communicate()
        return out.decode().strip() or err.decode()[-2000:]

    async def run_all(all_of_them: Mapping[str, list[str]]) -> dict[str, str]:
        said = await asyncio.gather(*map(run, all_of_them.values()))
        return dict(zip(all_of_them, said, strict=True))

    told = asyncio.run(run_all(commands(environments, served)))
    assert {name: text for name, text in told.items() if text != f"{COUNT} right answers"} == {}
    assert len(told) == len(WEBSOCKETS) + len(FAMILIES) + len(ZEROMQ)
    assert served.process.process.poll() is None
