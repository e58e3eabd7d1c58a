"""Every call of every client ends within its time-out, whatever a server sends in place of what it is waited for.

The servers here send without an end, so that a client which compares the clock with its deadline only when nothing came
never ends. A call has DEADLINE_S, three hundred times its time-out, to prove that it does.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest

from policyserve.compat.openpi import WebsocketClientPolicy
from policyserve.compat.wall_x import WallXClient
from policyserve.core.dialect import Dialect
from policyserve.core.errors import DeadlineExceeded, WireError
from policyserve.core.messages import Timing
from policyserve.core.policy import ActionChunk
from policyserve.dialects import by_name
from tests.contract.clients import Make
from tests.contract.stalling import NO_ANSWERS, UNASKED, Peer, Traffic, stalling
from tests.server.certificates import make_certificate, trusting
from tests.server.live import DEADLINE_S

SHORT_S = 0.1
X = {"obs": np.array([1, 2], np.float32)}
LARGE = {"obs": np.zeros(8_000_000, np.float32)}  # more than sockets hold
OPENPI, VIBE_RL = by_name("openpi"), by_name("vibe_rl")

any_traffic = pytest.mark.parametrize("traffic", NO_ANSWERS.values(), ids=NO_ANSWERS)
DIALECTS = [by_name(name) for name in ("openpi", "wall_x", "vibe_rl")]
any_dialect = pytest.mark.parametrize("dialect", DIALECTS, ids=lambda it: it.name)


def greet(peer: Peer, dialect: Dialect) -> None:
    peer.shake_hands()
    if dialect.greets:
        peer.send(dialect.greeting({}))


def answer(peer: Peer, dialect: Dialect) -> None:
    peer.receive()
    peer.send(dialect.write_reply(ActionChunk(np.ones(1)), Timing(0, 0, 1)))


def ended(call: Callable[[], Any]) -> Any:
    """What a call gives or raises, in a thread of its own: one that never ends must not keep this one."""
    outcome: Future[Any] = Future()

    def run() -> None:
        try:
            outcome.set_result(call())
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return outcome.result(DEADLINE_S)


def answered(client: Any) -> None:
    """Ask until there is an answer: on a busy machine it may take longer than a short time-out."""
    while True:
        try:
            ended(lambda: client.infer(X))
            return
        except DeadlineExceeded:
            pass


def is_late(call: Callable[[], Any], reached: threading.Event) -> None:
    """The call ends with DeadlineExceeded, at the place that the server means."""
    while not reached.is_set():  # on a busy machine the time may be over before
        with pytest.raises(DeadlineExceeded):
            ended(call)


def client_of(make: Make, port: int, dialect: Dialect = VIBE_RL, **options: Any) -> Any:
    scheme, host = ("wss", "localhost") if "ssl_context" in options else ("ws", "127.0.0.1")
    url = f"{scheme}://{host}:{port}"
    return make(url, dialect=dialect.name, timeout_s=SHORT_S, retry_for_s=0, **options)


@any_dialect
@any_traffic
def test_no_traffic_in_place_of_an_answer_stretches_a_call(make: Make, traffic: Traffic, dialect: Dialect) -> None:
    reached = threading.Event()

    def script(peer: Peer) -> None:
        greet(peer, dialect)
        peer.receive()
        reached.set()
        peer.send_on(traffic)

    with stalling(script) as port:
        client = client_of(make, port, dialect)
        is_late(lambda: client.infer(X), reached)


FOUNDING: dict[str, Callable[[str], Any]] = {
    "openpi's": lambda url: WebsocketClientPolicy(url, timeout_s=SHORT_S).infer(X),
    "wall_x's": lambda url: WallXClient(url, timeout_s=SHORT_S).predict_sync(X),
    "wall_x's with await": lambda url: asyncio.run(WallXClient(url, timeout_s=SHORT_S).predict(X)),
}


@pytest.mark.parametrize("infer", FOUNDING.values(), ids=FOUNDING)
@any_traffic
def test_the_founding_clients_are_as_punctual(infer: Callable[[str], Any], traffic: Traffic) -> None:
    reached = threading.Event()

    def script(peer: Peer) -> None:
        greet(peer, OPENPI)  # wall_x's greeting is the same
        peer.receive()
        reached.set()
        peer.send_on(traffic)

    with stalling(script) as port:
        is_late(lambda: infer(f"ws://127.0.0.1:{port}"), reached)


@pytest.mark.parametrize("dialect", [one for one in DIALECTS if one.greets], ids=lambda it: it.name)
@any_traffic
def test_no_traffic_in_place_of_a_greeting_stretches_a_call(make: Make, traffic: Traffic, dialect: Dialect) -> None:
    reached = threading.Event()

    def script(peer: Peer) -> None:
        peer.shake_hands()
        reached.set()
        peer.send_on(traffic)

    with stalling(script) as port:
        client = client_of(make, port, dialect)
        is_late(client.connect, reached)


@any_dialect
@any_traffic
def test_no_traffic_beside_a_request_that_nobody_reads_stretches_a_call(
    make: Make, traffic: Traffic, dialect: Dialect
) -> None:
    reached = threading.Event()

    def script(peer: Peer) -> None:
        greet(peer, dialect)
        peer.socket.recv(1)
        reached.set()
        peer.send_on(traffic)

    with stalling(script) as port:
        client = client_of(make, port, dialect)
        is_late(lambda: client.infer(LARGE), reached)


@any_dialect
@any_traffic
def test_no_traffic_between_two_calls_stretches_the_second(make: Make, traffic: Traffic, dialect: Dialect) -> None:
    def script(peer: Peer) -> None:
        greet(peer, dialect)
        answer(peer, dialect)
        peer.send_on(traffic)

    with stalling(script) as port:
        client = client_of(make, port, dialect)
        answered(client)
        with pytest.raises((DeadlineExceeded, WireError)):  # WireError: a message that began before the call
            ended(lambda: client.infer(X))


@any_dialect
@pytest.mark.parametrize("traffic", UNASKED.values(), ids=UNASKED)
def test_messages_that_nobody_asked_for_end_the_next_call_with_an_error_that_says_so(
    make: Make, traffic: Traffic, dialect: Dialect
) -> None:
    begun = threading.Event()

    def script(peer: Peer) -> None:
        is_first = not begun.is_set()
        greet(peer, dialect)
        answer(peer, dialect)
        if is_first:
            peer.socket.sendall(traffic.more[:1000])
            begun.set()
            peer.socket.sendall(traffic.more[1000:])
            peer.send_on(traffic)
        peer.wait()

    with stalling(script) as port:
        client = make(f"ws://127.0.0.1:{port}", dialect=dialect.name)
        ended(lambda: client.infer(X))
        assert begun.wait(DEADLINE_S)
        with pytest.raises(WireError, match="one answer to each request, got another message"):
            ended(lambda: client.infer(X))
        assert ended(lambda: client.infer(X)).actions.tolist() == [1.0]


ANY = {**NO_ANSWERS, **UNASKED}


@pytest.mark.parametrize("traffic", ANY.values(), ids=ANY)
def test_no_traffic_in_place_of_a_close_frame_stretches_a_close(make: Make, traffic: Traffic) -> None:
    def script(peer: Peer) -> None:
        greet(peer, VIBE_RL)
        answer(peer, VIBE_RL)
        peer.send_on(traffic)

    with stalling(script) as port:
        client = client_of(make, port)
        answered(client)
        ended(client.close)


@any_dialect
@pytest.mark.parametrize("traffic", ["nothing", "pings", "a message without an end", "messages"])
def test_a_reset_has_time_to_connect_whatever_the_old_connection_does(
    make: Make, traffic: str, dialect: Dialect
) -> None:
    def script(peer: Peer) -> None:
        greet(peer, dialect)
        answer(peer, dialect)
        peer.send_on(ANY[traffic])

    with stalling(script) as port:
        client = client_of(make, port, dialect)
        answered(client)
        before = client.sessions_opened
        reset_in_time(client)
        assert client.sessions_opened == before + 1


def reset_in_time(client: Any) -> None:
    try:
        ended(client.reset)
    except DeadlineExceeded:  # on a busy machine
        reset_in_time(client)


@any_dialect
@pytest.mark.parametrize(
    "head", [b"", b"HTTP/1.1 101 Switching Protocols\r\nX: ", b"HTTP/1.1 503 Service Unavailable\r\n\r\n"]
)
def test_no_answer_to_the_handshake_stretches_a_call(make: Make, head: bytes, dialect: Dialect) -> None:
    reached = threading.Event()

    def script(peer: Peer) -> None:
        peer.socket.recv(1)
        peer.socket.sendall(head)
        reached.set()
        peer.send_slowly(b"x" if head else b"")

    with stalling(script) as port:
        client = client_of(make, port, dialect)
        is_late(lambda: client.infer(X), reached)


# TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def served(certificate: tuple[str, str]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    return context


@pytest.mark.parametrize("record", [b"", b"\x16\x03\x03\x40\x00\x02\x00\x3f\xf0"])
def test_no_answer_to_tls_stretches_a_call(make: Make, certificate: tuple[str, str], record: bytes) -> None:
    reached = threading.Event()

    def script(peer: Peer) -> None:
        peer.socket.recv(1)
        peer.socket.sendall(record)
        reached.set()
        peer.send_slowly(record[-1:])

    with stalling(script) as port:
        client = client_of(make, port, ssl_context=trusting(certificate[0]))
        is_late(lambda: client.infer(X), reached)


@any_traffic
def test_no_traffic_within_tls_stretches_a_call(
    make: Make, traffic: Traffic, certificate: tuple[str, str], served: ssl.SSLContext
) -> None:
    reached = threading.Event()

    def script(peer: Peer) -> None:
        greet(peer, VIBE_RL)
        peer.receive()
        reached.set()
        peer.send_on(traffic)

    with stalling(script, served) as port:
        client = client_of(make, port, ssl_context=trusting(certificate[0]))
        is_late(lambda: client.infer(X), reached)


def test_a_tls_record_a_byte_at_a_time_does_not_stretch_a_call(
    make: Make, certificate: tuple[str, str], served: ssl.SSLContext
) -> None:
    reached = threading.Event()

    def script(peer: Peer) -> None:
        greet(peer, VIBE_RL)
        peer.receive()
        reached.set()
        socket.socket.send(peer.socket, b"\x17\x03\x03\x40\x00")
        peer.send_slowly(b"x")

    with stalling(script, served) as port:
        client = client_of(make, port, ssl_context=trusting(certificate[0]))
        is_late(lambda: client.infer(X), reached)
