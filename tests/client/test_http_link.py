"""Both clients by HTTP: at a server's `/act`, and at servers that mean no good."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import pytest

from policyserve import ArraySpec, AsyncClient, Client, FunctionPolicy, PolicySpec
from policyserve.client.address import read_address
from policyserve.client.http_link import Exchange
from policyserve.core.errors import ConfigError, ConnectionLost, DeadlineExceeded, RemoteError, WireError
from policyserve.dialects import http_names
from policyserve.dialects.rest.recognition import FAMILIES
from tests.contract.clients import Waiting
from tests.server.live import DEADLINE_S, Live, none_open, serving

X = np.array([1, 2], np.float32)
SPEC = PolicySpec("twice", {"x": ArraySpec((2,))}, ArraySpec((2,)), horizon=1)
KEY = "a-key-of-sixteen-letters"
ANSWER = b'HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{"actions":[1]}'


def twice(seen: Any) -> Any:
    return seen["x"][None] * 2


@pytest.fixture(params=["sync", "async"])
def make(request: pytest.FixtureRequest) -> Iterator[Any]:
    made: list[Any] = []

    def make_one(url: str, **options: Any) -> Any:
        given = {"dialect": "json", "timeout_s": DEADLINE_S, "retry_for_s": 0.0, **options}
        made.append(Client(url, **given) if request.param == "sync" else Waiting(url, **given))
        return made[-1]

    yield make_one
    for one in made:
        one.end() if isinstance(one, Waiting) else one.close()


def url_of(live: Live) -> str:
    return f"http://127.0.0.1:{live.port}"


def test_a_client_asks_and_is_told_of_errors_and_goes_on(make: Any) -> None:
    with serving(FunctionPolicy(twice, SPEC)) as live:
        client = make(url_of(live))
        for _ in range(3):
            assert client.infer({"x": X}).actions.tolist() == [[2, 4]]
        with pytest.raises(RemoteError, match=r"x: expected float32 \(2,\), got float64 \(3,\)") as caught:
            client.infer({"x": np.zeros(3)})
        assert caught.value.code == "bad_observation"
        reply = client.infer({"x": X})
        assert reply.actions.tolist() == [[2, 4]]
        assert reply.timing["total_ms"] > 0
        assert client.sessions_opened == 1
        client.close()
        none_open(live)


def test_a_key_is_sent_with_each_request(make: Any, tmp_path: Any) -> None:
    path = tmp_path / "keys"
    path.write_text(f"robot: {KEY}\n")
    path.chmod(0o600)
    with serving(FunctionPolicy(twice, SPEC), api_key_file=str(path)) as live:
        assert make(url_of(live), api_key=KEY).infer({"x": X}).actions.tolist() == [[2, 4]]
        with pytest.raises(RemoteError, match="HTTP 401"):
            make(url_of(live)).infer({"x": X})


def test_a_reset_is_a_new_session(make: Any) -> None:
    with serving(FunctionPolicy(twice, SPEC)) as live:
        client = make(url_of(live))
        client.infer({"x": X})
        client.reset()
        client.infer({"x": X})
        assert client.sessions_opened == 2


def test_where_nobody_listens_is_told_at_once(make: Any) -> None:
    with pytest.raises(ConnectionLost, match=r"cannot connect to http://127.0.0.1:1/act: .*[Rr]efused"):
        make("http://127.0.0.1:1").infer({"x": X})


@contextmanager
def saying(*answers: bytes) -> Iterator[str]:
    """A server that says so to each connection when it has heard something, and then ends it; b"": says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            for answer in answers:
                with suppress(OSError), listener.accept()[0] as peer:
                    peer.recv(1 << 16)
                    peer.sendall(answer)
                    if not answer:
                        peer.recv(1 << 16)  # until the client goes

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            thread.join(DEADLINE_S)


def test_a_connection_that_the_server_ends_behind_an_answer_is_replaced(make: Any) -> None:
    with saying(ANSWER.replace(b"OK\r\n", b"OK\r\nConnection: close\r\n"), ANSWER) as url:
        client = make(url)
        assert [client.infer({"x": X}).actions.tolist() for _ in range(2)] == [[1], [1]]
        assert client.sessions_opened == 2


def test_a_server_that_says_nothing_is_left_at_the_deadline(make: Any) -> None:
    with saying(b"") as url, pytest.raises(DeadlineExceeded, match=f"no answer from {url}/act within 0.2 s"):
        make(url, timeout_s=0.2).infer({"x": X})


@pytest.mark.parametrize(
    ("said", "kind", "told"),
    [
        (ANSWER[:-3], ConnectionLost, "ended without an answer"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", WireError, "an answer of HTTP/1.1.*another program may have this port"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\nno\n", RemoteError, "^HTTP 404: no$"),
    ],
)
def test_what_is_no_answer_is_named(make: Any, said: bytes, kind: type[Exception], told: str) -> None:
    with saying(said) as url, pytest.raises(kind, match=told):
        make(url).infer({"x": X})


def exchange(url: str = "http://me:secret@robot:8000/act?x=1", key: str | None = None) -> Exchange:
    return Exchange(read_address(url, "json"), key)


def test_a_request_has_its_head_and_its_body() -> None:
    asked = exchange().request(b"{}")
    assert asked.startswith(b"POST /act?x=1 HTTP/1.1\r\nHost: robot:8000\r\n")
    assert b"Authorization: Bearer secret\r\n" in asked
    assert asked.endswith(b"Content-Length: 2\r\n\r\n{}")
    assert b"Bearer other\r\n" in exchange(key="other").request(b"{}")


def test_an_answer_comes_in_any_pieces_and_the_next_follows_on_the_connection() -> None:
    one = exchange()
    for _ in range(2):
        one.request(b"{}")
        assert [one.feed(bytes([byte])) for byte in ANSWER[:-1]] == [None] * (len(ANSWER) - 1)
        answer = one.feed(ANSWER[-1:])
        assert answer == b'{"actions":[1]}'
        assert answer.status == 200
        assert not one.is_over


def test_a_dialect_and_its_address_go_together() -> None:
    assert read_address("http://robot", "xvla").url == "http://robot/act"
    assert read_address("http://robot:8000/left/act", "xvla").http_url == "http://robot:8000/left/act"
    with pytest.raises(
        ConfigError, match="url: expected http://host:port for the dialect xvla, got ws://robot:8000/xvla"
    ):
        Client("ws://robot:8000", dialect="xvla")
    for dialect in (None, "openpi", "gr00t"):
        with pytest.raises(ConfigError, match="expected ws://host:port"):
            AsyncClient("http://robot:8000", dialect=dialect)
    assert http_names() == tuple(FAMILIES)
