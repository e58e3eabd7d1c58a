"""Both clients over ZeroMQ: at a server's GR00T port, and at servers that mean no good."""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from policyserve import ArraySpec, AsyncClient, Client, FunctionPolicy, PolicySpec
from policyserve.core.errors import ConfigError, ConnectionLost, DeadlineExceeded, MissingDependency, RemoteError
from tests.contract.clients import Waiting
from tests.policies.frameworks import import_or_skip
from tests.server.live import DEADLINE_S, Live, none_open, serving
from tests.server.test_life_cycle import gate

zmq = import_or_skip("zmq")

X = np.array([1, 2], np.float32)
SPEC = PolicySpec("twice", {"x": ArraySpec((2,))}, ArraySpec((2,)), horizon=1)
KEY = "a-key-of-sixteen-letters"


def twice(seen: Any) -> Any:
    return seen["x"][None] * 2


@pytest.fixture(params=["sync", "async"])
def make(request: pytest.FixtureRequest) -> Iterator[Any]:
    made: list[Any] = []

    def make_one(url: str, **options: Any) -> Any:
        given = {"timeout_s": DEADLINE_S, "retry_for_s": 0.0, **options}
        made.append(Client(url, **given) if request.param == "sync" else Waiting(url, **given))
        return made[-1]

    yield make_one
    for one in made:
        one.end() if isinstance(one, Waiting) else one.close()


def url_of(live: Live) -> str:
    port = live.server.gr00t
    assert port is not None
    return f"zmq://127.0.0.1:{port.port}"


def test_a_client_asks_and_is_told_of_errors_and_goes_on(make: Any) -> None:
    with serving(FunctionPolicy(twice, SPEC), gr00t=0) as live:
        client = make(url_of(live))
        for _ in range(3):
            assert client.infer({"x": X}).actions.tolist() == [[2, 4]]
        with pytest.raises(RemoteError, match=r"x: expected float32 \(2,\), got float32 \(3,\)") as caught:
            client.infer({"x": np.zeros(3)})
        assert caught.value.code == "bad_observation"
        assert client.infer({"x": X}).actions.tolist() == [[2, 4]]
        assert client.sessions_opened == 1
        client.close()
        none_open(live)


def test_a_reset_is_a_new_session(make: Any) -> None:
    with serving(FunctionPolicy(twice, SPEC), gr00t=0) as live:
        client = make(url_of(live))
        client.infer({"x": X})
        client.reset()
        client.infer({"x": X})
        assert client.sessions_opened == 2
        live.until(lambda server: server.counters.sessions_opened == 2 and server.counters.sessions_open == 1)


def test_a_key_is_sent_with_each_message(make: Any, tmp_path: Any) -> None:
    path = tmp_path / "keys"
    path.write_text(f"robot: {KEY}\n")
    path.chmod(0o600)
    with serving(FunctionPolicy(twice, SPEC), gr00t=0, api_key_file=str(path)) as live:
        assert make(url_of(live), api_key=KEY).infer({"x": X}).actions.tolist() == [[2, 4]]
        with pytest.raises(RemoteError, match="Unauthorized"):
            make(url_of(live)).infer({"x": X})


def test_where_nobody_listens_is_told_at_once(make: Any) -> None:
    with pytest.raises(ConnectionLost, match=r"cannot connect to zmq://127.0.0.1:1: .*[Rr]efused"):
        make("zmq://127.0.0.1:1").infer({"x": X})


@contextmanager
def router(answers: bool) -> Iterator[tuple[str, Any]]:
    """A ROUTER that answers pings, or nothing; its URL and its socket, whose closing ends all connections."""
    context = zmq.Context()
    peers = context.socket(zmq.ROUTER)
    peers.setsockopt(zmq.LINGER, 0)
    port = peers.bind_to_random_port("tcp://127.0.0.1")
    ended = threading.Event()

    def serve() -> None:
        while not ended.is_set():
            if peers.poll(20):
                identity, empty, message = peers.recv_multipart()
                if answers and b"ping" in message:
                    peers.send_multipart([identity, empty, b"\x80"])
                elif answers:
                    ended.set()
        peers.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"zmq://127.0.0.1:{port}", ended
    finally:
        ended.set()
        thread.join(DEADLINE_S)
        context.term()


def test_a_server_that_says_nothing_is_left_at_the_deadline(make: Any) -> None:
    with router(answers=False) as (url, _), pytest.raises(DeadlineExceeded, match=f"no answer from {url} within 0.2 s"):
        make(url, timeout_s=0.2).infer({"x": X})


def test_a_connection_that_ends_without_an_answer_is_lost(make: Any) -> None:
    with router(answers=True) as (url, _), pytest.raises(ConnectionLost, match="ended without an answer"):
        make(url).infer({"x": X})


def test_a_call_that_timed_out_does_not_get_its_answer_later(make: Any) -> None:
    started, release = threading.Event(), threading.Event()
    wait = gate(started, release)

    def slow_once(seen: Any) -> Any:
        if seen["x"][0] == 7:
            wait(seen["x"])
        return seen["x"][None] * 2

    with serving(FunctionPolicy(slow_once, SPEC), gr00t=0) as live:
        client = make(url_of(live), timeout_s=1.0)
        with pytest.raises(DeadlineExceeded):
            client.infer({"x": np.array([7, 7], np.float32)})
        release.set()
        assert client.infer({"x": X}).actions.tolist() == [[2, 4]]
        assert client.sessions_opened == 2


def test_an_event_loop_goes_on_while_its_client_waits() -> None:
    with serving(FunctionPolicy(twice, SPEC), gr00t=0) as live:

        async def ask_both() -> list[Any]:
            clients = [AsyncClient(url_of(live), timeout_s=DEADLINE_S) for _ in range(3)]
            replies = await asyncio.gather(*(client.infer({"x": X * n}) for n, client in enumerate(clients)))
            for client in clients:
                await client.close()
            return [reply.actions.tolist() for reply in replies]

        assert asyncio.run(ask_both()) == [[[0, 0]], [[2, 4]], [[4, 8]]]


@pytest.mark.parametrize(
    "url", ["zmq://host", "zmq://", "zmq://host:5555/path", "zmq://robot:secret@host:5555", "zmq://host:0"]
)
def test_a_url_is_a_host_and_a_port(url: str) -> None:
    with pytest.raises(ConfigError, match="url: expected") as caught:
        Client(url)
    assert "secret" not in str(caught.value)


def test_over_zeromq_no_other_dialect_is_spoken() -> None:
    assert "gr00t" in repr(Client("zmq://host:5555"))
    with pytest.raises(ConfigError, match="dialect: expected gr00t with a URL of zmq://, got 'openpi'"):
        Client("zmq://host:5555", dialect="openpi")


def test_without_pyzmq_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zmq", None)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = Client(f"zmq://127.0.0.1:{listener.getsockname()[1]}")
        with pytest.raises(MissingDependency, match=r"policyserve\[gr00t\]"):
            client.infer({"x": X})
