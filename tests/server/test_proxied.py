"""Behind a load balancer: limits per address mean clients, a stranger's header is not believed, TLS comes behind it."""

from __future__ import annotations

import socket
from pathlib import Path

import numpy as np
import pytest

from policyserve.client.sync import Client
from policyserve.core.errors import ConfigError
from policyserve.server.config import ServerConfig
from tests.haproxy import haproxy
from tests.server.certificates import make_certificate, trusting
from tests.server.live import HANDSHAKE, Live, serving, until_eof

BALANCER = {"proxy_protocol": True, "trusted_proxies": ("127.0.0.0/8",)}
HEADER = b"PROXY TCP4 192.0.2.%d 10.0.0.1 5000 8000\r\n"


def peers(live: Live) -> list[str]:
    return [facts.peer for facts in live.call(lambda: live.server.reception.sessions)]


def opened(live: Live, header: bytes) -> tuple[socket.socket, bytes]:
    """A peer that has sent a header and a handshake in one piece, and the first line of what it got."""
    peer = live.tcp()
    peer.sendall(header + HANDSHAKE + b"\r\n")
    return peer, peer.recv(4096).partition(b"\r\n")[0]


def ended(peer: socket.socket) -> bool:
    try:
        return until_eof(peer) == b""
    except ConnectionResetError:  # what it had sent was not read to its end
        return True


def test_limits_count_the_clients_that_the_balancer_names() -> None:
    with serving(**BALANCER, max_sessions_per_address=1) as live:
        first, told_first = opened(live, HEADER % 7)
        second, told_second = opened(live, HEADER % 7)
        third, told_third = opened(live, HEADER % 8)
        with first, second, third:
            assert [told.split()[1] for told in (told_first, told_second, told_third)] == [b"101", b"503", b"101"]
            assert peers(live) == ["192.0.2.7:5000", "192.0.2.8:5000"]


@pytest.mark.parametrize("header", [b"PROXY UNKNOWN\r\n", b"\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"])
def test_the_balancers_own_health_checks_are_answered(header: bytes) -> None:
    with serving(**BALANCER) as live, live.tcp() as peer:
        peer.sendall(header + b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert until_eof(peer).startswith(b"HTTP/1.1 200")


def test_a_header_that_comes_byte_by_byte_is_read() -> None:
    with serving(**BALANCER) as live, live.tcp() as peer:
        for byte in (HEADER % 9) + HANDSHAKE + b"\r\n":
            peer.sendall(bytes([byte]))
        assert peer.recv(4096).startswith(b"HTTP/1.1 101")
        assert peers(live) == ["192.0.2.9:5000"]


def test_a_stranger_who_sends_a_header_is_refused_and_believed_by_nobody() -> None:
    with serving(proxy_protocol=True, trusted_proxies=("192.0.2.1",)) as live:
        peer, told = opened(live, HEADER % 7)
        with peer:
            assert told.startswith(b"HTTP/1.1 400")
        assert live.answers()


def test_a_client_that_comes_directly_is_served_where_it_is_not_a_balancer() -> None:
    with serving(proxy_protocol=True, trusted_proxies=("192.0.2.1",)) as live:
        assert live.answers()


def test_without_the_setting_a_header_is_told_what_it_is() -> None:
    with serving() as live, live.tcp() as peer:
        peer.sendall(HEADER % 7)
        assert b"--trusted-proxies" in until_eof(peer)


@pytest.mark.parametrize("sent", [b"GET / HTTP/1.1\r\n\r\n", b"PROXY TCP4 nobody 10.0.0.1 1 2\r\n", b"PROXY TC", b""])
def test_a_balancer_that_says_nothing_sensible_is_cut_off_and_nobody_is_disturbed(sent: bytes) -> None:
    with serving(**BALANCER, handshake_timeout_s=0.3) as live:
        with live.tcp() as peer:
            peer.sendall(sent)
            if sent == b"PROXY TC":
                peer.shutdown(socket.SHUT_WR)
            assert ended(peer)
        live.until(lambda server: server.reception.waiting == 0)
        with live.tcp() as peer:
            peer.sendall((HEADER % 7) + b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert until_eof(peer).startswith(b"HTTP/1.1 200")


def test_a_stopping_server_does_not_wait_for_a_header() -> None:
    with serving(**BALANCER) as live, live.tcp():
        live.until(lambda server: server.reception.waiting == 1)
        live.stop()


@pytest.mark.parametrize(
    ("settings", "got"),
    [({"proxy_protocol": True}, "--proxy-protocol"), ({"trusted_proxies": ("10.0.0.1",)}, "--trusted-proxies")],
)
def test_one_setting_without_the_other_is_refused(settings: dict[str, object], got: str) -> None:
    with pytest.raises(ConfigError, match=f"both or none, got {got} alone"):
        ServerConfig(**settings)  # pyright: ignore[reportArgumentType]


def before(server: Live, more: str) -> str:
    return (
        "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n"
        "frontend robots\n  bind :8000\n  default_backend policies\n"
        f"backend policies\n  server one 127.0.0.1:{server.port} {more}\n"
    )


@pytest.mark.parametrize("version", ["send-proxy", "send-proxy-v2"])
def test_behind_haproxy_a_client_has_its_own_address(version: str, tmp_path: Path) -> None:
    with (
        serving(**BALANCER) as live,
        haproxy(tmp_path, before(live, version)) as port,
        socket.create_connection(("127.0.0.1", port)) as peer,
    ):
        peer.sendall(HANDSHAKE + b"\r\n")
        assert peer.recv(4096).startswith(b"HTTP/1.1 101")
        assert peers(live) == [f"127.0.0.1:{peer.getsockname()[1]}"]


def test_behind_haproxy_tls_is_the_servers_own(tmp_path: Path) -> None:
    cert, key = make_certificate(tmp_path)
    with (
        serving(lambda x: x["x"], **BALANCER, tls_cert=cert, tls_key=key) as live,
        haproxy(tmp_path, before(live, "send-proxy-v2")) as port,
        Client(f"wss://localhost:{port}", dialect="openpi", ssl_context=trusting(cert)) as client,
    ):
        assert client.infer({"x": np.ones(2, np.float32)}).actions.tolist() == [1, 1]
