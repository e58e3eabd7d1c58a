"""Plain HTTP on the robots' port: every request gets a whole answer, never a dropped connection."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from websockets.exceptions import InvalidStatus

from policyserve.core.messages import Timing
from policyserve.core.policy import ActionChunk, Policy, as_policy
from policyserve.observe.counters import Counters
from policyserve.server.admission import Admission
from policyserve.server.config import Access
from policyserve.server.handshake import Credentials
from policyserve.server.health import add_health
from policyserve.server.routes import Asked, Caller, Response, Route, Routes, text
from tests.server.live import DEADLINE_S, HANDSHAKE, Live, ask, frame, serving, until_eof


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    with serving() as live:
        yield live


def exchange(live: Live, sent: bytes) -> tuple[int, dict[str, str], bytes]:
    """Send raw bytes; the status, headers and body of the answer, which must be whole and end the connection."""
    with live.tcp() as peer:
        peer.sendall(sent)
        return parse(until_eof(peer))


def parse(data: bytes) -> tuple[int, dict[str, str], bytes]:
    head, _, body = data.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    assert "content-length" in headers, data
    return int(status.split()[1]), headers, body


# The table of routes

STRANGER = Caller(has_key=False, is_trusted_page=False)


def health(counters: Counters, stage: str = "") -> Routes:
    routes = Routes()
    add_health(routes, counters, lambda: stage)
    return routes


def test_what_changes_something_takes_put_from_an_admins_key_alone() -> None:
    routes = Routes()
    routes.add("/policies/arm", Route(lambda asked: text(200, asked.method), changes=True))
    assert routes.respond("PUT", "/policies/arm", "", Caller(is_admin=True)).body == b"PUT\n"
    assert get(routes, "/policies/arm").body == b"GET\n"
    refused = routes.respond("PUT", "/policies/arm", "", Caller())
    assert refused.status == 403
    assert b"a line `NAME admin: KEY` in --api-key-file" in refused.body
    wrong = routes.respond("POST", "/policies/arm", "", Caller(is_admin=True))
    assert (wrong.status, wrong.headers) == (405, (("Allow", "GET, PUT"),))


def test_a_policy_that_is_not_there_is_answered_with_those_that_the_caller_may_know() -> None:
    routes = Routes()
    for path in ("/metrics", "/policies/arm", "/policies/leg"):
        routes.add(path, Route(lambda asked: text(200, "here"), is_listed=path == "/metrics"))
    routes.add("/policies/hidden", Route(lambda asked: text(200, "here"), is_private=True, is_listed=False))
    beside = "there are /policies/arm, /policies/leg"
    assert (
        get(routes, "/policies/none", Caller(is_trusted_page=False)).body
        == f"no page at this path; {beside}\n".encode()
    )
    assert routes.respond("PUT", "/policies/none", "", Caller()).body.endswith(b"/policies/leg, /policies/hidden\n")
    for told in (get(routes, "/policies/none", STRANGER), get(routes, "/none")):
        assert told.status == 404
        assert told.body.endswith(b"robots connect here by WebSocket, pages are /metrics\n")


def get(routes: Routes, path: str, caller: Caller = Caller()) -> Response:  # noqa: B008 (it is frozen)
    return routes.respond("GET", path, "", caller)


def test_routes_are_pure() -> None:
    counters = Counters()
    for _ in range(4):
        counters.on_answer(1, 1, ActionChunk(np.zeros(1)), Timing(0.0, 1.0, 1.25))
    routes = health(counters)
    assert json.loads(get(routes, "/healthz").body) == {"status": "ok", "requests": 4, "avg_latency_ms": 1.25}
    assert get(routes, "/readyz").status == 200
    assert get(health(Counters(), "loading"), "/readyz").status == 503
    assert routes.respond("POST", "/healthz", "", Caller()).status == 405
    assert get(routes, "/").status == 404
    assert routes.is_page("/healthz")
    assert not routes.is_page("/vibe_rl")


def test_the_founding_json_is_there_before_the_first_request() -> None:
    body = get(health(Counters()), "/healthz").body
    assert json.loads(body) == {"status": "ok", "requests": 0, "avg_latency_ms": 0.0}
    assert b" " not in body


def test_health_needs_no_key_and_tells_the_stage_only_to_who_has_one() -> None:
    routes = health(Counters(), "reading /secret/weights")
    assert get(routes, "/healthz", STRANGER).status == 200
    assert json.loads(get(routes, "/readyz", STRANGER).body) == {"status": "loading"}
    assert json.loads(get(routes, "/readyz").body)["stage"] == "reading /secret/weights"


def test_a_page_gets_its_query_and_who_asks() -> None:
    routes, seen = Routes(), []

    def page(asked: Asked) -> Response:
        seen.append(asked)
        return text(200, "here")

    routes.add("/page", Route(page))
    assert routes.respond("GET", "/page", "session=3&camera=a%20b&session=4&bad", Caller()).body == b"here\n"
    assert seen == [Asked(Caller(), {"session": "4", "camera": "a b"})]


def test_a_page_that_needs_a_key_asks_a_browser_for_it() -> None:
    routes = Routes()
    routes.add("/page", Route(lambda asked: text(200, "here")))
    refused = get(routes, "/page", Caller(has_key=False))
    assert refused.status == 401
    assert dict(refused.headers)["WWW-Authenticate"].startswith("Basic ")
    assert get(routes, "/page").status == 200


def test_a_private_page_is_not_shown_under_a_name_that_a_stranger_may_own() -> None:
    routes = Routes()
    routes.add("/page", Route(lambda asked: text(200, "here"), is_private=True))
    refused = get(routes, "/page", Caller(is_trusted_page=False))
    assert refused.status == 403
    assert b"--allowed-origins" in refused.body


def test_a_page_may_share_its_path_with_sessions() -> None:
    routes = Routes()
    routes.add("/", Route(lambda asked: text(200, "here"), shares_path=True))
    assert not routes.is_page("/")
    assert get(routes, "/").status == 200


@pytest.mark.parametrize(
    ("host", "is_trusted"),
    [
        ("127.0.0.1:8000", True),
        ("[::1]:8000", True),
        ("10.0.0.7", True),
        ("localhost:8000", True),
        ("lab-gpu:8000", True),
        ("Lab-GPU.local:8000", True),
        ("lab.example:8000", True),  # allowed by name
        ("lab.example", False),  # another port
        ("evil.example:8000", False),
        ("", False),
        ("[::1", False),
    ],
)
def test_a_host_name_of_the_local_network_is_trusted(host: str, is_trusted: bool) -> None:
    admission = Admission(Access(allowed_origins=("http://lab.example:8000",)))
    assert admission.caller(Credentials(host=host)) == Caller(has_key=True, is_trusted_page=is_trusted)


# Over a socket


@pytest.mark.parametrize("path", ["/healthz", "/healthz?full=1"])
def test_healthz_is_the_founding_json(live: Live, path: str) -> None:
    status, body, headers = live.http("GET", path)
    assert status == 200
    assert headers["content-type"] == "application/json"
    assert int(headers["content-length"]) == len(body)
    assert json.loads(body)["status"] == "ok"


def test_healthz_counts_requests() -> None:
    with serving() as live, live.websocket() as peer:
        for number in range(3):
            ask(peer, number)
        health = json.loads(live.http("GET", "/healthz")[1])
        assert health["requests"] == 3
        assert health["avg_latency_ms"] > 0


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nope", 404),
        ("POST", "/", 405),
        ("GET", "/vibe_rl", 404),
        ("POST", "/nope", 404),
        ("POST", "/healthz", 405),
        ("PUT", "/healthz", 405),
        ("DELETE", "/readyz", 405),
        ("OPTIONS", "/healthz", 405),
    ],
)
def test_other_requests_get_a_proper_refusal(live: Live, method: str, path: str, status: int) -> None:
    got, body, headers = live.http(method, path)
    assert got == status
    assert int(headers["content-length"]) == len(body) > 0
    assert headers.get("allow") == ("GET" if status == 405 else None)


@pytest.mark.parametrize("size", [0, 1_000, 900_000, 20_000_000])
def test_a_refused_body_does_not_cost_its_sender_the_answer(live: Live, size: int) -> None:
    assert live.http("POST", "/nope", bytes(size))[0] == 404


@pytest.mark.parametrize("path", ["/healthz", "/nope"])
def test_head_gets_a_head_alone(live: Live, path: str) -> None:
    status, headers, body = exchange(live, b"HEAD %s HTTP/1.1\r\nHost: x\r\n\r\n" % path.encode())
    assert 400 <= status < 500
    assert int(headers["content-length"]) > 0
    assert body == b""


def test_a_head_that_is_too_long_is_refused_with_a_head_alone(live: Live) -> None:
    status, headers, body = exchange(live, b"HEAD / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 30_000 + b"\r\n\r\n")
    assert status == 431
    assert int(headers["content-length"]) > 0
    assert body == b""


RAW: dict[str, tuple[bytes, int]] = {
    "HTTP/1.0": (b"GET /healthz HTTP/1.0\r\n\r\n", 200),
    "HTTP/1.1 without a host": (b"GET /healthz HTTP/1.1\r\n\r\n", 400),
    "garbage": (b"\x00\x01\x02 hello\r\n\r\n", 400),
    "garbage without an end": (b"\xff" * 20_000, 431),
    "a TLS hello": (bytes.fromhex("1603010200010001fc0303") + bytes(range(200)), 400),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 404),
    "a header of 400 kB": (b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 400_000 + b"\r\n\r\n", 431),
    "ten thousand headers": (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 10_000 + b"\r\n", 431),
    "a handshake without a key": (HANDSHAKE.replace(b"Sec-WebSocket-Key", b"X-Key") + b"\r\n", 400),
    "a handshake of version 8": (HANDSHAKE.replace(b"Version: 13", b"Version: 8") + b"\r\n", 426),
    "a handshake by POST": (HANDSHAKE.replace(b"GET", b"POST") + b"\r\n", 404),
    "a handshake on a page": (HANDSHAKE.replace(b"/vibe_rl", b"/healthz") + b"\r\n", 200),
    "a handshake with a long cookie": (HANDSHAKE + b"Cookie: " + b"y" * 10_000 + b"\r\n\r\n", 400),
    "a handshake with bare newlines": (HANDSHAKE.replace(b"\r\n", b"\n") + b"\n", 400),
    "a handshake with a body": (HANDSHAKE + b"Content-Length: 3\r\n\r\nabc", 400),
}  # fmt: skip


@pytest.mark.parametrize(("sent", "status"), RAW.values(), ids=RAW.keys())
def test_whatever_speaks_to_the_port_gets_an_http_answer(live: Live, sent: bytes, status: int) -> None:
    got, headers, body = exchange(live, sent)
    assert got // 100 == status // 100
    if sent.startswith((b"GET /healthz", b"\x00", b"PRI", b"SSH")):
        assert got == status
    assert int(headers["content-length"]) == len(body)
    assert live.answers()


def test_a_request_byte_by_byte_is_answered(live: Live) -> None:
    with live.tcp() as peer:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n":
            peer.send(bytes([byte]))
        assert parse(until_eof(peer))[0] == 200


def test_a_peer_that_ends_its_side_first_still_reads_the_answer(live: Live) -> None:
    with live.tcp() as peer:
        peer.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        peer.shutdown(socket.SHUT_WR)
        assert parse(until_eof(peer))[0] == 200


def test_a_handshake_that_never_ends_is_told_so() -> None:
    with serving(handshake_timeout_s=0.5) as live:
        for sent in (b"", b"GET /hea", HANDSHAKE, b"SSH-2.0-OpenSSH_9.6\r\n"):
            assert exchange(live, sent)[0] == 408
        assert live.answers()


def test_a_thousand_connections_that_say_nothing_disturb_nobody() -> None:
    with serving() as live:
        idle = [live.tcp() for _ in range(200)]
        assert live.answers()
        for peer in idle:
            peer.close()


# While the policy is busy


def test_pages_answer_from_the_first_moment_while_the_policy_loads() -> None:
    release = threading.Event()

    def load(on_stage: Callable[[str], None]) -> Policy:
        on_stage("reading weights")
        assert release.wait(DEADLINE_S)
        return as_policy(lambda x: x)

    with serving(load=load) as live:
        assert live.http("GET", "/healthz")[0] == 200
        live.until(lambda server: server.reception.stage == "reading weights")
        status, body, _ = live.http("GET", "/readyz")
        assert status == 503
        assert json.loads(body)["stage"] == "reading weights"
        release.set()
        live.ready()
        assert live.http("GET", "/readyz")[0] == 200


def test_pages_answer_and_sessions_open_while_a_call_blocks() -> None:
    started, release = threading.Event(), threading.Event()

    def block(x: Any) -> Any:
        started.set()
        assert release.wait(DEADLINE_S)
        return x

    with serving(block) as live, live.websocket() as peer:
        peer.send(frame([1.0]))
        assert started.wait(DEADLINE_S)
        assert live.http("GET", "/healthz")[0] == 200
        assert live.http("GET", "/readyz")[0] == 200
        with live.websocket() as other:
            assert other.ping().wait(DEADLINE_S)
        assert peer.ping().wait(DEADLINE_S)
        release.set()
        peer.recv(timeout=DEADLINE_S)


def test_a_full_server_says_so_in_http() -> None:
    with serving(max_sessions=2) as live:
        with live.websocket() as first, live.websocket():
            with pytest.raises(InvalidStatus) as caught:
                live.websocket()
            assert caught.value.response.status_code == 503
            assert b"2 sessions are open" in (caught.value.response.body or b"")
            assert live.http("GET", "/healthz")[0] == 200
            assert ask(first, 1.0) == 1.0
        live.until(lambda server: server.counters.sessions_open == 0)
        assert live.answers()
