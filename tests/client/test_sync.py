"""What only the client without an event loop has to bear."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserve import Client
from policyserve.core.errors import ClientInUse, ConfigError
from policyserve.server.config import ServerConfig
from policyserve.server.server import Server
from tests.server.live import DEADLINE_S, always, serving


def test_an_interrupted_calls_answer_is_never_the_next_ones() -> None:
    """A robot's program catches Ctrl-C and sends the arm home: it must not get the action of the call it broke off."""
    release = threading.Event()

    def interrupt(x: Any) -> Any:
        if x[0] == 1:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            assert release.wait(DEADLINE_S)
        return x

    with serving(interrupt) as live, Client(f"ws://127.0.0.1:{live.port}", dialect="vibe_rl") as client:
        with pytest.raises(KeyboardInterrupt):
            client.infer({"obs": np.array([1.0])})
        release.set()
        assert client.infer({"obs": np.array([2.0])}).actions.tolist() == [2.0]


def test_a_with_statement_connects_and_closes() -> None:
    with serving() as live:
        with Client(f"ws://127.0.0.1:{live.port}", dialect="vibe_rl"):
            live.until(lambda server: server.counters.sessions_open == 1)
        live.until(lambda server: server.counters.sessions_open == 0)


def test_a_client_in_the_event_loop_of_its_own_server_is_told_and_does_not_wait(tmp_path: Path) -> None:
    """As in a notebook, whose cells run in an event loop: the server cannot answer while the client waits for it."""

    async def main(settings: dict[str, Any]) -> None:
        async with Server(always(lambda x: x), ServerConfig(host="localhost", **settings)) as server:
            await server.ready()
            client = Client(server.address.url, dialect="vibe_rl", timeout_s=DEADLINE_S)
            said = f"{re.escape(client.url)} is served by this thread's own event loop, .* use policyserve.AsyncClient"
            for ask in (client.connect, client.reset, lambda: client.infer({"obs": np.array([1.0])})):
                with pytest.raises(ConfigError, match=said):
                    ask()
            answer = await asyncio.to_thread(client.infer, {"obs": np.array([1.0])})
            assert answer.actions.tolist() == [1.0]
            await asyncio.to_thread(client.close)

    asyncio.run(main({"port": 0}))
    asyncio.run(main({"uds": str(tmp_path / "policy.sock")}))


def test_a_client_in_the_event_loop_of_another_server_is_answered() -> None:
    async def main(port: int) -> None:
        async with Server(always(lambda x: x), ServerConfig(host="127.0.0.1", port=0)):
            with Client(f"ws://127.0.0.1:{port}", dialect="vibe_rl") as client:
                assert client.infer({"obs": np.array([2.0])}).actions.tolist() == [2.0]

    with serving() as live:
        asyncio.run(main(live.port))


def test_a_client_says_where_it_connects_and_how_far_it_is() -> None:
    with serving() as live:
        client = Client(live.url())
        shown = f"<policyserve.Client ws://127.0.0.1:{live.port}/vibe_rl vibe_rl, "
        assert repr(client) == f"{shown}not connected>"
        client.connect()
        assert repr(client) == f"{shown}session 1, open>"
        client.reset()
        assert repr(client) == f"{shown}session 2, open>"
        client.close()
        assert repr(client) == f"{shown}session 2, closed>"


def test_a_signal_handlers_call_is_refused_while_another_runs() -> None:
    refused: list[bool] = []

    def ask_too(*_: object) -> None:
        with pytest.raises(ClientInUse):
            client.infer({"obs": np.array([3.0])})
        refused.append(True)
        release.set()

    def signal_us(x: Any) -> Any:
        if x[0] == 1:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
            assert release.wait(DEADLINE_S)
        return x

    release = threading.Event()
    before = signal.signal(signal.SIGUSR1, ask_too)
    try:
        with serving(signal_us) as live, Client(live.url(), dialect="vibe_rl") as client:
            assert client.infer({"obs": np.array([1.0])}).actions.tolist() == [1.0]
            assert client.sessions_opened == 1
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert refused == [True]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_after_a_fork_the_child_has_a_connection_of_its_own() -> None:
    """A program that forks while a thread of it asks: the child is in nobody's call, and the parent's goes on."""
    with serving() as live:
        program = [sys.executable, "-c", FORKING, live.url()]
        result = subprocess.run(program, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
        assert result.stdout.splitlines() == ["child [2.0] 2", "parent [3.0] 1"], result.stderr


FORKING = """
import os, sys
import numpy as np
from policyserve import Client
from policyserve.core.errors import ClientInUse

client = Client(sys.argv[1], dialect="vibe_rl")
client.infer({"obs": np.array([1.0])})
client._lock.acquire()  # as if another thread were in the middle of a call
child = os.fork()
if child == 0:
    print("child", client.infer({"obs": np.array([2.0])}).actions.tolist(), client.sessions_opened, flush=True)
    client.close()
    os._exit(0)
os.waitpid(child, 0)
client._lock.release()
print("parent", client.infer({"obs": np.array([3.0])}).actions.tolist(), client.sessions_opened)
client.close()
"""


def test_a_large_request_takes_no_page_faults_in_the_steady_state() -> None:
    pytest.importorskip("resource")
    with serving(lambda seen: np.zeros(7, np.float32)) as live:
        program = [sys.executable, "-c", FAULTING, live.url()]
        result = subprocess.run(program, capture_output=True, text=True, timeout=DEADLINE_S, check=True)
    assert float(result.stdout) < 20, "one copy of an image would take 225"


FAULTING = """
import resource, sys
import numpy as np
from policyserve import Client
from policyserve.core.errors import ClientInUse

client = Client(sys.argv[1], dialect="vibe_rl")
images = {f"camera_{number}": np.zeros((480, 640, 3), np.uint8) for number in range(3)}
for _ in range(5):
    client.infer(images)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    client.infer(images)
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 20)
client.close()
"""
