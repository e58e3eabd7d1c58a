"""Where a server listens: Unix sockets, what stands in their place, and what is warned of on a network."""

from __future__ import annotations

import asyncio
import io
import logging
import os
import socket
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import policyserve
from policyserve.cli.foreground.start_screen import Screen
from policyserve.core.errors import ConfigError
from policyserve.server.config import Listen, ServerConfig
from policyserve.server.listener import Address, TlsAddress, UnixAddress
from policyserve.server.policy_server import PolicyServer
from policyserve.server.server import Server
from tests.server.live import (
    DEADLINE_S,
    HANDSHAKE,
    always,
    answer,
    frame,
    making,
    masked,
    open_raw,
    read_frame,
    serving,
    until_eof,
)

pytestmark = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no Unix sockets here")


def start_at(path: Path) -> None:
    asyncio.run(PolicyServer(lambda x: x, config=ServerConfig(uds=str(path))).run(on_ready=None))


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_unix_socket_serves_its_owner_and_goes_with_the_server(tmp_path: Path, loop: str) -> None:
    run = asyncio.run if loop == "asyncio" else pytest.importorskip("uvloop").run
    path = tmp_path / "po licy:7.sock"
    image = np.arange(300 * 300 * 3, dtype=np.uint8).reshape(300, 300, 3)

    async def main(server: Server) -> None:
        async with server:
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert server.address.url == f"ws+unix://{tmp_path}/po%20licy%3A7.sock"
            async with policyserve.AsyncClient(server.address.url) as client:
                for _ in range(3):
                    np.testing.assert_array_equal((await client.infer({"image": image})).actions, image)
        assert not path.exists()

    with making(always(lambda seen: seen["image"]), uds=str(path)) as server:
        run(main(server))


def connected(path: Path) -> socket.socket:
    peer = socket.socket(socket.AF_UNIX)
    peer.settimeout(DEADLINE_S)
    peer.connect(str(path))
    return peer


def is_alive(path: Path) -> bool:
    with connected(path) as page:
        page.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        return until_eof(page).startswith(b"HTTP/1.1 200")


def test_pages_and_raw_peers_are_served_on_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "policy.sock"
    with serving(uds=str(path)):
        assert is_alive(path)
        with connected(path) as peer:
            peer.sendall(HANDSHAKE + b"\r\n" + masked(2, frame([6.0])))
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += peer.recv(1)
            assert answer(read_frame(peer)[1]) == 6.0


def test_a_dead_servers_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "policy.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with serving(uds=str(path)):
        assert is_alive(path)
    assert not path.exists()


def test_a_socket_in_use_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "policy.sock"
    with serving(uds=str(path)):
        with pytest.raises(ConfigError, match=f"uds: {path} is in use by another program"):
            start_at(path)
        assert is_alive(path)


def test_what_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("mine")
    with pytest.raises(ConfigError, match="exists and is no socket"):
        start_at(path)
    assert path.read_text() == "mine"
    link = tmp_path / "link"
    link.symlink_to(path)
    with pytest.raises(ConfigError, match="exists and is no socket"):
        start_at(link)
    with pytest.raises(ConfigError, match="exists and is no socket"):
        start_at(tmp_path)


def test_a_missing_directory_and_a_path_too_long_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"no directory {tmp_path}/nowhere"):
        start_at(tmp_path / "nowhere" / "policy.sock")
    with pytest.raises(ConfigError, match=r"uds: expected a path of at most 10\d bytes, got '/xxx"):
        ServerConfig(uds="/" + "x" * 200)
    with pytest.raises(ConfigError, match="uds: expected a path, got nothing"):
        ServerConfig(uds="")


def test_a_successors_socket_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "policy.sock"
    with serving(uds=str(path)):
        path.unlink()
        with socket.socket(socket.AF_UNIX) as successor:
            successor.bind(str(path))
    assert path.exists()


# Addresses


@pytest.mark.parametrize(
    ("address", "url", "health"),
    [
        (Address("0.0.0.0", 8000), "ws://localhost:8000", "http://localhost:8000/healthz"),
        (Address("10.0.0.7", 80), "ws://10.0.0.7:80", "http://10.0.0.7:80/healthz"),
        (Address("fe80::1", 80), "ws://[fe80::1]:80", "http://[fe80::1]:80/healthz"),
        (TlsAddress("::", 443), "wss://localhost:443", "https://localhost:443/healthz"),
        (UnixAddress("/run/a b", 0), "ws+unix:///run/a%20b", "curl --unix-socket '/run/a b' http://localhost/healthz"),
    ],
)
def test_a_person_is_told_the_url_the_page_and_the_client_line(address: Address, url: str, health: str) -> None:
    spec = policyserve.PolicySpec("p", {"obs": policyserve.ArraySpec((4,))}, None)
    told = Screen(io.StringIO()).description(spec, address, needs_key=True)
    assert f"  url     {url}" in told[0]
    assert f"  health  {health}" in told
    assert f"  client  python -m policyserve.client {url}" in told
    assert "          with POLICYSERVE_API_KEY set to the key" in told
    assert not any("KEY" in line for line in Screen(io.StringIO()).description(spec, address))


# Families of addresses


def has_ipv6() -> bool:
    with suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        return True
    return False


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")


@needs_ipv6
@pytest.mark.parametrize(
    ("host", "loop"),
    [("::", "asyncio"), ("::", "uvloop"), ("0::0", "asyncio"), ("localhost", "asyncio")],  # uvloop resolves in C
)
def test_clients_of_both_families_are_served_on_one_port(
    host: str, loop: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = asyncio.run if loop == "asyncio" else pytest.importorskip("uvloop").run
    caplog.set_level("INFO")
    found = [(socket.AF_INET6, ("::1", 0, 0, 0)), (socket.AF_INET, ("127.0.0.1", 0))]
    if host == "localhost":  # as the hosts file of most machines has it
        monkeypatch.setattr(socket, "getaddrinfo", resolving(found))

    async def main(server: Server) -> None:
        async with server:
            await server.ready()
            for place in ("127.0.0.1", "[::1]"):
                async with policyserve.AsyncClient(f"ws://{place}:{server.address.port}") as client:
                    assert (await client.infer({"x": np.ones(1)})).actions == 1
        monkeypatch.undo()

    with making(always(lambda seen: seen["x"]), host=host) as server:
        run(main(server))
    assert "peer=127.0.0.1:" in caplog.text
    assert "peer=[::1]:" in caplog.text


def resolving(found: list[tuple[int, Any]]) -> Any:
    """A resolver that knows these addresses of every name."""
    resolve = socket.getaddrinfo

    def getaddrinfo(host: Any, *rest: Any, **options: Any) -> Any:
        if host != "localhost":
            return resolve(host, *rest, **options)
        return [(family, socket.SOCK_STREAM, 6, "", address) for family, address in found]

    return getaddrinfo


def test_a_name_is_served_on_the_addresses_that_this_machine_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container without IPv6, whose hosts file says ::1 all the same: 2001:db8:: is nobody's address."""
    found = [(socket.AF_INET6, ("2001:db8::1", 0, 0, 0)), (socket.AF_INET, ("127.0.0.1", 0))]
    monkeypatch.setattr(socket, "getaddrinfo", resolving(found))
    with serving(host="localhost") as live:
        monkeypatch.undo()
        assert live.server.address.host == "127.0.0.1"
        assert live.answers()


@pytest.mark.parametrize(
    ("host", "told"),
    [
        ("203.0.113.7", "host: 203.0.113.7 is no address of this machine; 0.0.0.0 listens on all of IPv4"),
        ("nowhere.invalid", "host: expected an address of this machine, got 'nowhere.invalid': "),
    ],
)
def test_a_host_that_is_not_this_machine_is_named(host: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        asyncio.run(PolicyServer(lambda x: x, host, 0).run())


@needs_ipv6
def test_a_port_that_is_taken_on_one_address_of_a_name_is_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(socket.AF_INET6, ("::1", 0, 0, 0)), (socket.AF_INET, ("127.0.0.1", 0))]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr(socket, "getaddrinfo", resolving(found))
        with pytest.raises(ConfigError, match=f"port {port} on localhost is in use"):
            asyncio.run(PolicyServer(lambda x: x, "localhost", port).run())


# Warnings


KEYS = "0f4be1d2a9c34c1e8f7a"


@pytest.mark.parametrize(
    ("host", "key", "told"),
    [
        ("0.0.0.0", "", "anyone who reaches ws://0.0.0.0:"),
        ("0.0.0.0", KEYS, "API keys cross the network in the clear: set --tls-cert"),
        ("127.0.0.1", "", None),
        ("localhost", "", None),
        ("127.0.0.1", KEYS, None),
    ],
)
def test_a_bind_to_the_network_is_warned_of_once(
    host: str, key: str, told: str | None, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    if key:
        monkeypatch.setenv("POLICYSERVE_API_KEY", key)
    with serving(host=host):
        pass
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == (told is not None)
    assert told is None or (told in warnings[0] and "SECURITY.md" in warnings[0])


def test_a_unix_socket_is_no_reason_to_warn(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with serving(uds=str(tmp_path / "policy.sock"), host=Listen.host, port=Listen.port):
        pass
    assert caplog.text == ""


def test_a_host_and_a_port_beside_a_unix_socket_are_said_to_be_unused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "policy.sock"
    both: dict[str, Any] = {"host": "127.0.0.1", "port": 0}
    port: dict[str, Any] = {"host": Listen.host, "port": 9}
    for given, told in ((port, "--port 9"), (both, "--host 127.0.0.1 and --port 0")):
        caplog.clear()
        with serving(uds=str(path), **given):
            pass
        assert f"{told}: not used, since the server listens on {path} alone (--uds)" in caplog.text


# Peers whose machine is gone


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="no TCP_USER_TIMEOUT here")
def test_the_system_looks_for_peers_that_vanished_without_a_word() -> None:
    """A cable that is pulled sends nothing: the options that find it out must be set on the accepted socket."""

    def options(server: Any) -> dict[str, int]:
        (connection,) = server.reception.peers
        peer = connection._pipe.transport.get_extra_info("socket")
        names = ("TCP_USER_TIMEOUT", "TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_NODELAY")
        found = {name: peer.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in names}
        return {**found, "SO_KEEPALIVE": peer.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)}

    with serving() as live:
        peer, _ = open_raw(live)
        live.until(lambda server: server.counters.sessions_open == 1)
        found = live.call(lambda: options(live.server))
        peer.close()
    assert found["SO_KEEPALIVE"] == 1
    assert found["TCP_NODELAY"] == 1
    patience_s = ServerConfig().ping_timeout_s
    assert patience_s >= 120
    assert found["TCP_USER_TIMEOUT"] == patience_s * 1000
    assert found["TCP_KEEPIDLE"] + found["TCP_KEEPINTVL"] * found["TCP_KEEPCNT"] == pytest.approx(patience_s, rel=0.05)


@pytest.mark.parametrize("timeout_s", [0.5, 1e9])
def test_every_time_out_that_a_config_takes_is_one_that_the_system_takes(timeout_s: float) -> None:
    with serving(ping_timeout_s=timeout_s) as live:
        assert live.answers()


def test_the_directory_of_tests_has_no_socket_left(tmp_path: Path) -> None:
    with serving(uds=str(tmp_path / "policy.sock")):
        assert os.listdir(tmp_path) == ["policy.sock"]
    assert os.listdir(tmp_path) == []
