"""Handshakes that fail, and what stands between."""

from __future__ import annotations

import base64
import hashlib
import re
import socket

import pytest

from policyserve.doctor.opening import Opened, proxy
from tests.doctor.sick import examined, of, stand_in, take_any_time, tcp_server, until_closed, worst
from tests.server.live import serving

KEY = "a-key-of-16-letters"


def respond(status: str) -> object:
    """Answers every request with this status and an empty page."""

    def answer(connected: socket.socket) -> None:
        connected.recv(1 << 16)
        connected.sendall(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())

    return answer


def test_a_server_that_never_answers_is_told_within_the_time() -> None:
    with tcp_server(until_closed) as port:
        found = worst(examined(f"ws://127.0.0.1:{port}", timeout_s=0.3))
    assert found.check == "handshake"
    assert found.found == "it accepts the connection and says nothing within 0.3 s"


@pytest.fixture
def keys(tmp_path: object) -> str:
    path = tmp_path / "keys"  # type: ignore[operator]
    path.write_text(f"robot: {KEY}\n")
    path.chmod(0o600)
    return str(path)


def test_a_missing_key_says_where_to_put_one(keys: str) -> None:
    with serving(api_key_file=keys) as live:
        found = worst(examined(f"ws://127.0.0.1:{live.port}"))
    assert found.found == "the server wants an API key, and none was given"
    assert "POLICYSERVE_API_KEY" in found.cure
    assert "--api-key-file" in found.cure


def test_a_wrong_key_is_refused_and_not_shown(keys: str) -> None:
    wrong = "another-key-of-letters"
    with serving(api_key_file=keys) as live:
        findings = examined(f"ws://127.0.0.1:{live.port}", api_key=wrong)
    assert worst(findings).found == "the server refuses this key"
    assert wrong not in repr(findings)


def test_the_right_key_opens(keys: str) -> None:
    with serving(api_key_file=keys) as live:
        findings = examined(f"ws://127.0.0.1:{live.port}", api_key=KEY)
        assert of(findings, "handshake").verdict == "ok"
        by_url = examined(f"ws://robot:{KEY}@127.0.0.1:{live.port}")
    assert of(by_url, "handshake").verdict == "ok"
    assert KEY not in repr(findings) + repr(by_url)


@pytest.mark.parametrize(
    ("status", "told", "cure"),
    [
        ("404 Not Found", "HTTP 404", "another program"),
        ("200 OK", "HTTP 200", "another program"),
        ("502 Bad Gateway", "HTTP 502", "a proxy answers in the server's place"),
    ],
)
def test_another_program_on_the_port_is_told(status: str, told: str, cure: str) -> None:
    with tcp_server(respond(status)) as port:  # type: ignore[arg-type]
        found = worst(examined(f"ws://127.0.0.1:{port}"))
    assert found.check == "handshake"
    assert told in found.found
    assert found.cure.startswith(cure)


def test_a_program_that_speaks_no_http_is_told() -> None:
    def speak(connected: socket.socket) -> None:
        connected.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
        until_closed(connected)

    with tcp_server(speak) as port:
        found = worst(examined(f"ws://127.0.0.1:{port}", timeout_s=2))
    assert (found.check, found.verdict) == ("handshake", "broken")


def test_a_server_or_proxy_that_compresses_is_told() -> None:
    with stand_in("openpi", [0.0], compression="deflate") as url:
        found = of(examined(url), "proxy")
    assert found.verdict == "warning"
    assert found.figures["extensions"] == ["permessage-deflate"]
    assert "compression=None" in found.cure


def test_a_proxy_that_compresses_though_nobody_offered_it_is_told() -> None:
    def upgrade(connected: socket.socket) -> None:
        asked = connected.recv(1 << 16).decode()
        if not asked:  # somebody who looks whether the port is open
            return
        (key,) = re.findall(r"Sec-WebSocket-Key: (\S+)", asked)
        digest = hashlib.sha1(key.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
        accept = base64.b64encode(digest).decode()
        head = f"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n"
        extension = "Sec-WebSocket-Extensions: permessage-deflate\r\n"
        connected.sendall(f"HTTP/1.1 101 Switching Protocols\r\n{head}{extension}\r\n".encode())

    with tcp_server(upgrade) as port:
        found = worst(examined(f"ws://127.0.0.1:{port}"))
    assert found.check == "handshake"
    assert "an extension that nobody offered" in found.found


def test_ours_never_compresses(monkeypatch: pytest.MonkeyPatch) -> None:
    take_any_time(monkeypatch)
    with serving() as live:
        found = of(examined(f"ws://127.0.0.1:{live.port}"), "proxy")
    assert found.verdict == "ok"
    assert found.found.startswith("nothing compresses or delays: a ping takes")


def test_pings_that_take_much_longer_than_connecting_are_told() -> None:
    assert proxy(Opened((), {}, 1.0), 1.0).verdict == "ok"
    held = proxy(Opened((), {}, 41.0), 1.0)
    assert held.verdict == "warning"
    assert "holds small messages back" in held.found
    assert proxy(Opened((), {}, 41.0), 40.0).verdict == "ok"


def test_a_proxy_is_told_by_its_headers() -> None:
    assert "via: 1.1 nginx" in proxy(Opened((), {"via": "1.1 nginx"}, 1.0), 1.0).found


def test_pings_without_an_answer_are_told() -> None:
    assert proxy(Opened((), {}, None), 1.0).verdict == "warning"
