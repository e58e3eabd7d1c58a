"""The proxy hands on each message and close as it is, and its recording holds what went through, of any server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed, InvalidStatus

from policyserve import AsyncClient, ConfigError, FunctionPolicy
from policyserve.dialects import by_name
from policyserve.policies.fakes import demo_image
from policyserve.recordings.plan import Plan
from policyserve.recordings.proxy import Proxy
from policyserve.recordings.reading import Recording, open_recording
from policyserve.recordings.recorder import Recorder
from tests.dialects.recorded import message
from tests.policies.frameworks import import_or_skip
from tests.server.live import serving

import_or_skip("mcap.writer")

from tests.recordings.written import actions, reply, request  # noqa: E402

OBSERVATION = {"image": np.zeros((64, 64, 3), np.uint8), "state": np.ones(3, np.float32)}


def through(url: str, directory: Path, talk: Callable[[str], Awaitable[Any]]) -> Recording:
    """Have somebody talk through a proxy to `url`; what was recorded of it."""

    async def run() -> None:
        proxy = Proxy(url, Recorder(Plan(str(directory))), port=0)
        async with proxy.serving() as own:
            await talk(own)

    asyncio.run(run())
    (path,) = directory.glob("*.mcap")
    return open_recording(path)


@pytest.mark.parametrize("dialect", ["openpi", "wall_x", "vibe_rl", "vla_eval", "behavior1k"])
def test_a_client_of_ours_gets_our_servers_answers(tmp_path: Path, dialect: str) -> None:
    answers: list[Any] = []

    async def talk(url: str) -> None:
        async with AsyncClient(url, dialect=dialect) as client:
            for _ in range(3):
                answers.append((await client.infer(OBSERVATION)).actions)

    with serving(demo_image()) as live:
        recording = through(f"ws://127.0.0.1:{live.port}", tmp_path, talk)
    (session,) = recording.sessions
    assert session.dialect == dialect
    exchanges = list(recording.exchanges(1))
    before = 2 if dialect == "vla_eval" else 0  # a hello, and that an episode begins
    assert [exchange.number - before for exchange in exchanges] == [1, 2, 3]
    for exchange, answer in zip(exchanges, answers, strict=True):
        assert np.array_equal(exchange.observation["image"], OBSERVATION["image"])
        assert exchange.actions is not None
        assert np.array_equal(exchange.actions, answer)
    if dialect != "vibe_rl":  # a greeting tells the spec, or the answer to a hello
        assert recording.facts.spec is not None
        assert "image" in recording.facts.spec.leaves


def test_resets_without_an_answer_leave_each_reply_with_its_request(tmp_path: Path) -> None:
    async def talk(url: str) -> None:
        async with connect(url, compression=None) as client:
            await client.recv()
            for name in ("reset_first_frame", "act", "reset", "act"):
                await client.send(message("behavior1k", name))
                if name == "act":
                    await client.recv()

    with serving(FunctionPolicy(lambda seen: np.full(23, seen["task_id"][0], np.float32), None)) as live:
        recording = through(f"ws://127.0.0.1:{live.port}/behavior1k", tmp_path, talk)
    (session,) = recording.sessions
    assert session.dialect == "behavior1k", "by the path of its server"
    exchanges = list(recording.exchanges(1))
    assert [(exchange.number, exchange.reset) for exchange in exchanges] == [(2, True), (4, True)]
    assert all(exchange.actions is not None for exchange in exchanges)


async def foreign(peer: ServerConnection) -> None:
    """A server of openpi's family that tells nothing of itself, and fails at the third request."""
    await peer.send(by_name("openpi").write_request({"name": "theirs"}))
    for number in (1, 2):
        await peer.recv()
        await peer.send(reply(number))
    await peer.recv()
    await peer.send("Traceback: KeyError")
    await peer.close(1011, "Internal server error. Traceback included in previous frame.")


def test_another_server_is_recorded_with_its_texts_and_closes(tmp_path: Path) -> None:
    heard: list[Any] = []

    async def talk_to_foreign(directory: Path) -> None:
        async with serve(foreign, "127.0.0.1", 0, compression=None) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            proxy = Proxy(f"ws://127.0.0.1:{port}", Recorder(Plan(str(directory))), port=0)
            async with proxy.serving() as url, connect(url, compression=None) as client:
                heard.append(await client.recv())
                for number in (1, 2, 3):
                    await client.send(request(number))
                    heard.append(await client.recv())
                with pytest.raises(ConnectionClosed) as closed:
                    await client.recv()
                assert closed.value.rcvd is not None
                heard.append((closed.value.rcvd.code, closed.value.rcvd.reason))

    asyncio.run(talk_to_foreign(tmp_path))
    assert heard[1:] == [
        reply(1),
        reply(2),
        "Traceback: KeyError",
        (1011, "Internal server error. Traceback included in previous frame."),
    ]
    (path,) = tmp_path.glob("*.mcap")
    recording = open_recording(path)
    assert recording.facts.spec is None
    one, two, three = recording.exchanges(1)
    for number, exchange in ((1, one), (2, two)):
        assert exchange.actions is not None
        assert np.array_equal(exchange.actions, actions(number))
    assert three.error == ("remote", "Traceback: KeyError")


def test_a_key_reaches_the_server_and_its_refusal_the_client(tmp_path: Path, key_file: Path) -> None:
    statuses: list[int] = []

    async def talk(url: str) -> None:
        with pytest.raises(InvalidStatus) as refused:
            await connect(url)
        statuses.append(refused.value.response.status_code)
        async with AsyncClient(url, api_key="a-key-of-16-letters") as client:
            await client.infer(OBSERVATION)

    with serving(demo_image(), api_key_file=str(key_file)) as live:
        recording = through(f"ws://127.0.0.1:{live.port}", tmp_path / "out", talk)
    assert statuses == [401]
    assert len(list(recording.exchanges(1))) == 1
    assert b"a-key-of-16-letters" not in recording.path.read_bytes()


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.write_text("robot: a-key-of-16-letters\n")
    path.chmod(0o600)
    return path


def test_pages_are_the_servers_and_a_dead_one_is_told(tmp_path: Path) -> None:
    async def get(url: str, path: str) -> tuple[int, str]:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        answer = (await reader.read()).decode()
        writer.close()
        return int(answer.split()[1]), answer

    async def talk(url: str) -> None:
        assert (await get(url, "/readyz"))[0] == 200
        assert (await get(url, "/nothing"))[0] == 404

    async def talk_to_nobody(url: str) -> None:
        status, answer = await get(url, "/healthz")
        assert status == 502
        assert "cannot be reached" in answer
        with pytest.raises(InvalidStatus, match="502"):
            await connect(url)

    with serving(demo_image()) as live:
        through(f"ws://127.0.0.1:{live.port}", tmp_path / "one", talk)
        port = live.port
    through(f"ws://127.0.0.1:{port}", tmp_path / "other", talk_to_nobody)


def test_a_port_that_is_taken_and_a_url_that_is_none_are_refused(tmp_path: Path) -> None:
    recorder = Recorder(Plan(str(tmp_path)))
    with pytest.raises(ConfigError, match="expected ws://host:port"):
        Proxy("http://robot", recorder)

    async def listen(port: int) -> None:
        with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{port}: "):
            async with Proxy("ws://127.0.0.1:1", recorder, port=port).serving():
                pass

    with serving(demo_image()) as live:
        asyncio.run(listen(live.port))
