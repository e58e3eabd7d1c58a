"""Every original client that can be had as a package, unmodified, all at once against one process and one policy."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping, Sequence
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
FAMILIES = ("widowx", "yam", "openvla", "oft", "xvla", "gr00t_http")  # of those who ask by HTTP
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
    "vllm_omni": "openpi",
    "cosmos": "vibe_rl",
}
ZEROMQ = ("gr00t_n15", "gr00t_n16", "gr00t_n17")
GRPC = ("lerobot",)  # whose environment has torch


class Served(NamedTuple):
    """One server: the port of WebSockets and HTTP, GR00T's and LeRobot's."""

    process: Serving
    port: str
    gr00t: str
    lerobot: str


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    """`policyserve serve` of one policy, with a port for each way in."""
    for module in ("zmq", "grpc"):
        import_or_skip(module)
    ports = [word for flag in ("--port", "--gr00t", "--lerobot") for word in (flag, "0")]
    command = [*POLICYSERVE, "serve", "together_policy:policy", "--host", "127.0.0.1", *ports]
    with serving(command, cwd=PROGRAMS) as process:
        gr00t, lerobot = (
            re.search(rf"^ *{name} .*127\.0\.0\.1:(\d+)", "".join(process.lines), re.MULTILINE)
            for name in ("gr00t", "lerobot")
        )
        assert gr00t, process.lines
        assert lerobot, process.lines
        yield Served(process, process.url.rpartition(":")[2], gr00t.group(1), lerobot.group(1))


def commands(environments: Environments, served: Served, over_grpc: Sequence[str]) -> Mapping[str, list[str]]:
    """How each client is run: each has a salt of its own, which its answers must bear. over_grpc: those of GRPC."""
    made: dict[str, list[str]] = {}

    def add(name: str, environment: str, port: str, before: tuple[str, ...] = (), more: tuple[str, ...] = ()) -> None:
        program = str(PROGRAMS / f"{'rest' if before else name}_program.py")
        salt = str(len(made) + 1)
        made[name] = [environments.python(environment), program, *before, port, str(COUNT), salt, *more]

    for name in over_grpc:
        add(name, name, served.lerobot)
    wheel = (environments.n16_wheel(),)  # has a client of Cosmos 3, too
    files = {
        "vibe_rl": (str(shared_path("founding", "vibe_rl_policy_server.md")),),
        "cosmos": wheel,
        "gr00t_n16": wheel,
    }
    for name, environment in WEBSOCKETS.items():
        add(name, environment, served.port, more=files.get(name, ()))
    for family in FAMILIES:
        add(family, "rest", served.port, before=(family,))
    for name in ZEROMQ:
        add(name, name, served.gr00t, more=files.get(name, ()))
    return made


@pytest.mark.parametrize(
    "over_grpc", [pytest.param((), id="light"), pytest.param(GRPC, id="all", marks=pytest.mark.heavy)]
)
def test_every_original_client_gets_two_hundred_right_answers_at_once(
    environments: Environments, served: Served, tmp_path: Path, over_grpc: Sequence[str]
) -> None:
    async def start(name: str, command: list[str]) -> asyncio.subprocess.Process:
        pipe = asyncio.subprocess.PIPE  # LeRobot's client writes a log where it runs
        process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe, cwd=tmp_path)
        if name in over_grpc and process.stdout is not None:
            await process.stdout.readline()  # it says when it asks, after importing torch: the others begin then
        return process

    async def end(process: asyncio.subprocess.Process) -> str:
        out, err = await process.communicate()
        return out.decode().strip() if process.returncode == 0 else err.decode()[-2000:]

    async def run_all(all_of_them: Mapping[str, list[str]]) -> dict[str, str]:
        running = [await start(name, command) for name, command in all_of_them.items()]
        said = await asyncio.gather(*map(end, running))
        return dict(zip(all_of_them, said, strict=True))

    told = asyncio.run(run_all(commands(environments, served, over_grpc)))
    assert {name: text for name, text in told.items() if text != f"{COUNT} right answers"} == {}
    assert len(told) == len(WEBSOCKETS) + len(FAMILIES) + len(ZEROMQ) + len(over_grpc)
    assert served.process.process.poll() is None
