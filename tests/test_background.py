"""`policyserve.start`: a server in a thread of the program that asks it, however the two come together and part."""

from __future__ import annotations

import asyncio
import gc
import inspect
import logging
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import policyserve
from policyserve import ActionChunk, AsyncClient, Client, ConfigError, ConnectionLost, PolicySpec, Recipe
from policyserve.background import _ServerThread  # pyright: ignore[reportPrivateUsage]
from policyserve.server.config import ServerConfig
from tests.server.live import DEADLINE_S

X = {"x": np.array([1.0, 2.0])}


def double(observation: Any) -> Any:
    return observation["x"] * 2


class Doubling:
    def infer(self, observation: Any) -> Any:
        return {"actions": double(observation)}


def make() -> Doubling:
    return Doubling()


def answer_of(server: policyserve.RunningServer) -> list[float]:
    with Client(server.url) as client:
        return client.infer(X).actions.tolist()


def threads() -> list[_ServerThread]:
    return [one for one in threading.enumerate() if isinstance(one, _ServerThread)]


def thread_of(server: policyserve.RunningServer) -> _ServerThread:
    return server._thread  # pyright: ignore[reportPrivateUsage]


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    yield
    assert threads() == []
    gc.collect()  # a loop or a socket that nobody closed warns here, and warnings are errors


# What is served


@pytest.mark.parametrize(
    "policy",
    [double, Doubling(), Doubling, make, policyserve.FunctionPolicy(double), Recipe(f"{__name__}:make")],
    ids=["function", "object", "class", "factory", "Policy", "Recipe"],
)
def test_whatever_serve_takes_is_served_and_answers_at_once(policy: Any) -> None:
    with policyserve.start(policy) as server:
        assert answer_of(server) == [2, 4]


@pytest.mark.parametrize("name", ["doubling:double", "doubling.py:double", "doubling:Doubling"])
@pytest.mark.parametrize("isolate", ["thread", "process"])
def test_a_name_is_served_as_the_command_serves_it(
    name: str, isolate: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = "class Doubling:\n    def infer(self, seen):\n        return {'actions': double(seen)}\n"
    (tmp_path / "doubling.py").write_text(f"def double(seen):\n    return seen['x'] * 2\n{program}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    sys.modules.pop("doubling", None)
    with policyserve.start(name, isolate=isolate) as server:
        assert answer_of(server) == [2, 4]


def test_a_preset_is_served_by_its_name_and_says_what_it_takes() -> None:
    with policyserve.start("cartpole_ppo") as server, Client(server.url) as client:
        assert server.spec.name == "cartpole_ppo"
        assert int(client.infer(server.spec.example()).action) in (0, 1)


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ("cartpole_pp", r"did you mean cartpole_ppo\?"),
        ("no_such_module:policy", "there is no module 'no_such_module'"),
        (3, "a policy is a Policy, an object with infer.*: got int"),
        (dict, "a policy is a Policy, an object with infer.*: got dict"),
    ],
)
def test_what_cannot_be_served_is_refused(policy: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        policyserve.start(policy)


def test_what_loading_raises_is_raised_by_start() -> None:
    def load() -> Any:
        raise MemoryError("no room for the weights")

    with pytest.raises(ConfigError, match=r"load\(\) failed: MemoryError: no room for the weights"):
        policyserve.start(load)
    with pytest.raises(ConfigError, match="there is no module 'nowhere'"):
        policyserve.start(Recipe("nowhere:policy"))


# Settings


def test_settings_are_those_of_the_server_on_this_machine_alone() -> None:
    with policyserve.start(double, max_sessions=1) as server:
        config = thread_of(server).server.config
        assert (config.host, config.max_sessions) == ("127.0.0.1", 1)
        assert server.url.startswith("ws://127.0.0.1:")
    with policyserve.start(double, host="0.0.0.0") as server:
        assert server.url.startswith("ws://localhost:")
        assert answer_of(server) == [2, 4]


def test_a_unix_socket_is_served(tmp_path: Path) -> None:
    with policyserve.start(double, uds=str(tmp_path / "policy.sock")) as server:
        assert server.url == f"ws+unix://{tmp_path}/policy.sock"
        assert answer_of(server) == [2, 4]


def test_the_signature_names_every_setting_and_host_and_port_first() -> None:
    policy, *settings = inspect.signature(policyserve.start).parameters.values()
    assert policy.name == "policy"
    assert {one.name for one in settings} == set(inspect.signature(ServerConfig).parameters)
    assert [(one.name, one.default) for one in settings[:2]] == [("host", "127.0.0.1"), ("port", 0)]


def test_a_setting_that_is_none_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"start\(\) has no setting 'prot' \(did you mean port\?\)"):
        policyserve.start(double, prot=8000)  # pyright: ignore[reportCallIssue]
    with pytest.raises(ConfigError, match="port: expected 0 … 65535, got 70000"):
        policyserve.start(double, port=70_000)


def test_a_port_that_another_program_has_is_named_with_the_cure() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = f"port {port} on 127.0.0.1 is in use by another program: take another, or leave port out"
        with pytest.raises(ConfigError, match=said):
            policyserve.start(double, port=port)


def test_a_port_that_a_server_of_this_program_has_is_named_with_the_server() -> None:
    with policyserve.start(double) as server:
        port = int(server.url.rpartition(":")[2])
        said = rf"in use by <policyserve.Server {server.url} serving double, 0 sessions> of this program: call its stop"
        with pytest.raises(ConfigError, match=said):
            policyserve.start(make, port=port)
        assert answer_of(server) == [2, 4]


# Beside what


def test_it_serves_the_clients_of_a_loop_that_runs_already_even_those_that_block() -> None:
    """As in a notebook, whose cells run in an event loop."""

    async def cell() -> None:
        with policyserve.start(double) as server:
            assert answer_of(server) == [2, 4]
            async with AsyncClient(server.url) as client:
                assert (await client.infer(X)).actions.tolist() == [2, 4]

    asyncio.run(cell())


def test_it_needs_nothing_that_notebooks_patch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(asyncio, "run")
    with policyserve.start(double) as server:
        assert answer_of(server) == [2, 4]


def test_several_threads_start_and_stop_servers_at_once() -> None:
    together = threading.Barrier(4)

    def start_and_ask(_: int) -> tuple[str, list[float]]:
        together.wait(DEADLINE_S)
        with policyserve.start(double) as server:
            together.wait(DEADLINE_S)
            return server.url, answer_of(server)

    with ThreadPoolExecutor(4) as pool:
        seen = list(pool.map(start_and_ask, range(4)))
    assert len({url for url, _ in seen}) == 4
    assert [answer for _, answer in seen] == [[2, 4]] * 4


def test_servers_in_several_threads_never_answer_with_what_another_was_sent() -> None:
    """Their event loops read at the same time: where they shared a buffer, one answer in a thousand was another's."""

    def ask(url: str, base: int) -> list[float]:
        with Client(url, dialect="vibe_rl", timeout_s=DEADLINE_S) as client:
            sent = [np.full(3, base + step, np.float32) for step in range(500)]
            return [float(client.infer({"x": x}).actions[0] - x[0]) for x in sent]

    with (
        policyserve.start(lambda seen: seen["x"]) as first,
        policyserve.start(lambda seen: seen["x"]) as second,
        ThreadPoolExecutor(4) as pool,
    ):
        urls = [first.url, second.url] * 2
        assert list(pool.map(ask, urls, (0, 10_000, 20_000, 30_000))) == [[0.0] * 500] * 4


def test_each_server_reads_into_memory_of_its_own() -> None:
    buffers = []
    for server in (policyserve.PolicyServer(double), policyserve.PolicyServer(double)):
        connection: Any = server._connection()  # pyright: ignore[reportPrivateUsage]
        buffers.append(connection.get_buffer(-1).obj)
    assert buffers[0] is not buffers[1]


# The end


class Closing:
    """A policy that says when it is closed."""

    spec = PolicySpec("closing", None, None)

    def __init__(self) -> None:
        self.is_closed = False

    def infer(self, batch: Any) -> Any:
        return [ActionChunk(np.zeros(1)) for _ in batch]

    def close(self) -> None:
        self.is_closed = True


def test_stop_closes_sessions_policy_and_port_once() -> None:
    policy = Closing()
    server = policyserve.start(policy)
    client = Client(server.url, retry_for_s=0)
    client.infer(X)
    assert not policy.is_closed
    server.stop()
    assert policy.is_closed
    assert repr(server) == f"<policyserve.RunningServer {server.url} stopped>"
    server.stop()
    with pytest.raises(ConnectionLost, match="Connection refused"):
        client.infer(X)
    with policyserve.start(double, port=int(server.url.rpartition(":")[2])) as again:
        assert answer_of(again) == [2, 4]


def test_stop_answers_what_is_in_flight_unless_it_is_called_twice() -> None:
    started, release = threading.Event(), threading.Event()

    def wait(observation: Any) -> Any:
        started.set()
        assert release.wait(DEADLINE_S)
        return double(observation)

    for is_hurried in (False, True):
        started.clear()
        release.clear()
        server = policyserve.start(wait, drain_s=1_000)
        with ThreadPoolExecutor(3) as pool:
            answer = pool.submit(answer_of, server)
            assert started.wait(DEADLINE_S)
            ends = [pool.submit(server.stop)]
            until_stopping(thread_of(server))
            if is_hurried:
                ends.append(pool.submit(server.stop))
                with pytest.raises(ConnectionLost):
                    answer.result(DEADLINE_S)
            release.set()
            if not is_hurried:
                assert answer.result(DEADLINE_S) == [2, 4]
            for end in ends:
                end.result(DEADLINE_S)


def test_a_stop_in_the_servers_own_thread_does_not_wait_for_itself() -> None:
    server = policyserve.start(double)
    thread = thread_of(server)
    thread.loop.call_soon_threadsafe(server.stop)  # as an observer may, which is told in the event loop
    thread.join(DEADLINE_S)
    assert not thread.is_alive()


def test_a_server_that_nothing_refers_to_ends_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    server = policyserve.start(double)
    url, thread = server.url, thread_of(server)
    del server
    gc.collect()
    thread.join(DEADLINE_S)
    assert not thread.is_alive()
    said = f"the server at {url} ends, since nothing refers to it any more: keep what start() returns"
    assert [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING] == [said]


def test_a_start_that_is_interrupted_leaves_nothing_behind() -> None:
    """A notebook's cell, say, whose user has lost patience."""

    class Slow(Doubling):
        def __init__(self) -> None:
            (thread,) = threads()
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            until_stopping(thread)

    with pytest.raises(KeyboardInterrupt):
        policyserve.start(Slow)
    until(lambda: "policy" not in [one.name for one in threading.enumerate()])


def test_it_ends_with_the_program_and_its_policy_is_closed() -> None:
    assert output_of(CLOSING) == ("closed\n", "")


def test_a_policy_that_hangs_does_not_keep_the_program_from_ending() -> None:
    assert output_of(HANGING) == ("", "stopping with requests unanswered\n")


def test_a_forks_child_leaves_its_parents_server_alone() -> None:
    assert output_of(FORKING) == ("child\nparent [2.0]\n", "")


CLOSING = """
import policyserve
class Closing:
    spec = policyserve.PolicySpec("closing", None, None)
    def infer(self, batch): ...
    def close(self): print("closed", flush=True)
server = policyserve.start(Closing())
client = policyserve.Client(server.url)
client.connect()
"""
HANGING = """
import threading, numpy as np, policyserve
asked = threading.Event()
def hang(seen):
    asked.set()
    threading.Event().wait()
def ask():
    try:
        policyserve.Client(server.url).infer({"x": np.ones(1)})
    except policyserve.ConnectionLost:
        pass
server = policyserve.start(hang, drain_s=1000)
threading.Thread(target=ask, daemon=True).start()
asked.wait()
"""
FORKING = """
import os, warnings, numpy as np, policyserve
warnings.simplefilter("ignore")  # newer Pythons warn of a fork beside threads
server = policyserve.start(lambda seen: seen["x"] * 2)
child = os.fork()
if child == 0:
    server.stop()
    print("child", flush=True)
    os._exit(0)
os.waitpid(child, 0)
with policyserve.Client(server.url) as client:
    print("parent", client.infer({"x": np.ones(1)}).actions.tolist())
"""


def output_of(program: str) -> tuple[str, str]:
    """What a program that ends well prints, and what it says to stderr."""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=True)
    return done.stdout, done.stderr


def until_stopping(thread: _ServerThread) -> None:
    until(lambda: "stopping" in repr(thread.server))


def until(condition: Any) -> None:
    """Wait until it holds."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


# What is shown


def test_a_server_says_where_it_is_and_what_it_serves() -> None:
    with policyserve.start(double) as server:
        assert repr(server) == f"<policyserve.RunningServer {server.url} serving double>"


def test_another_policy_takes_over_while_a_client_stays() -> None:
    with policyserve.start(lambda observation: np.full(2, 1.0)) as server, policyserve.Client(server.url) as client:
        assert client.infer({"x": 1.0}).actions.tolist() == [1, 1]
        assert server.swap(lambda observation: np.full(2, 2.0), title="the second").title == "the second"
        assert client.infer({"x": 1.0}).actions.tolist() == [2, 2]
        with pytest.raises(policyserve.ConfigError, match="another spec"):
            server.swap("cartpole_ppo")
        server.swap("cartpole_ppo", force=True)
        assert server.spec.name == "cartpole_ppo"
        assert client.infer({"obs": np.zeros(4, np.float32)}).actions.shape == ()
