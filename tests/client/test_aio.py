"""What only the client with an event loop has to bear."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from typing import Any

import numpy as np
import pytest

from policyserve import AsyncClient
from tests.server.live import DEADLINE_S, Live, serving


def test_a_cancelled_calls_answer_is_never_the_next_ones() -> None:
    started, release = threading.Event(), threading.Event()

    def slow(x: Any) -> Any:
        if x[0] == 1:
            started.set()
            assert release.wait(DEADLINE_S)
        return x

    async def talk(port: int) -> list[float]:
        async with AsyncClient(f"ws://127.0.0.1:{port}", dialect="vibe_rl") as client:
            broken_off = asyncio.ensure_future(client.infer({"obs": np.array([1.0])}))
            await asyncio.to_thread(started.wait, DEADLINE_S)
            broken_off.cancel()
            await asyncio.wait([broken_off])
            assert broken_off.cancelled()
            release.set()
            return (await client.infer({"obs": np.array([2.0])})).actions.tolist()

    with serving(slow) as live:
        assert asyncio.run(talk(live.port)) == [2.0]


def test_many_clients_share_one_loop() -> None:
    async def one(port: int, number: int) -> None:
        async with AsyncClient(f"ws://127.0.0.1:{port}", dialect="vibe_rl") as client:
            for step in range(20):
                sent = np.array([number * 100 + step], np.float32)
                assert (await client.infer({"obs": sent})).actions.tolist() == sent.tolist()

    async def talk(port: int) -> None:
        await asyncio.gather(*(one(port, number) for number in range(20)))

    with serving() as live:
        asyncio.run(talk(live.port))


def test_a_client_says_where_it_connects_and_how_far_it_is() -> None:
    async def talk(url: str) -> None:
        async with AsyncClient(url) as client:
            assert repr(client) == f"<policyserve.AsyncClient {url} vibe_rl, session 1, open>"
        assert repr(client) == f"<policyserve.AsyncClient {url} vibe_rl, session 1, closed>"

    with serving() as live:
        asyncio.run(talk(live.url()))


def test_a_with_statement_connects_and_knows_the_metadata() -> None:
    async def talk(port: int) -> bool:
        async with AsyncClient(f"ws://127.0.0.1:{port}") as client:
            return "policyserve" in client.metadata

    with serving() as live:
        assert asyncio.run(talk(live.port))


def test_a_client_outlives_its_event_loop() -> None:
    with serving() as live:
        client = AsyncClient(live.url(), dialect="vibe_rl")

        async def ask(number: float) -> list[float]:
            reply = await client.infer({"obs": np.array([number])})
            return reply.actions.tolist()

        async def ask_and_close(number: float) -> list[float]:
            answer = await ask(number)
            await client.close()
            return answer

        assert asyncio.run(ask_and_close(1)) == [1.0]
        assert asyncio.run(ask_and_close(2)) == [2.0]
        assert client.sessions_opened == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_after_a_fork_the_child_has_a_connection_of_its_own() -> None:
    """The child has a loop of its own, too: the parent's is in the middle of its work."""
    with serving() as live:
        program = [sys.executable, "-c", FORKING, live.url()]
        result = subprocess.run(program, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
        assert result.stdout.splitlines() == ["child [2.0] 2", "parent [3.0] 1"], result.stderr


FORKING = """
import asyncio, os, sys, threading
import numpy as np
from policyserve import AsyncClient

client = AsyncClient(sys.argv[1], dialect="vibe_rl")

async def ask(number):
    return (await client.infer({"obs": np.array([number])})).actions.tolist()

def in_child():
    print("child", asyncio.run(ask(2.0)), client.sessions_opened, flush=True)

async def main():
    await ask(1.0)
    client._is_in_use = True  # as if another task were in the middle of a call
    child = os.fork()
    if child == 0:
        worker = threading.Thread(target=in_child)  # this thread has the parent's loop
        worker.start()
        worker.join()
        os._exit(0)
    os.waitpid(child, 0)
    client._is_in_use = False
    print("parent", await ask(3.0), client.sessions_opened)
    await client.close()

asyncio.run(main())
"""


def test_a_program_that_kept_its_loop_busy_finds_a_closed_connection_in_time() -> None:
    async def talk(live: Live) -> list[float]:
        async with AsyncClient(live.url(), dialect="vibe_rl") as client:
            await client.infer({"obs": np.array([1.0])})
            live.call(lambda: [one.abort() for one in live.server.reception.peers])
            live.until(lambda server: server.counters.sessions_open == 0)  # and this loop has not run meanwhile
            return (await client.infer({"obs": np.array([2.0])})).actions.tolist()

    with serving() as live:
        assert asyncio.run(talk(live)) == [2.0]
