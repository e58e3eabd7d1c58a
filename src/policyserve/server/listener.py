"""Where a server listens: a TCP port or a Unix socket, plain or TLS. And what to warn of there."""

from __future__ import annotations

import asyncio
import errno
import os
import shlex
import socket
import stat
from collections.abc import Callable, Sequence
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NamedTuple, cast
from urllib.parse import quote

from policyserve.core import listening
from policyserve.core.errors import ConfigError
from policyserve.server.config import Listen

_BACKLOG = 1024
_OWNER_ONLY = 0o600
_LONGEST_SILENCE_S = 2 * 32767  # Linux takes no longer TCP_KEEPIDLE than half of it
_NO_SUCH_FAMILY = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)  # an IPv6 address in a container without IPv6, say


class Address(NamedTuple):
    """A host and a port, as a socket has them."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """`ws://host:port`."""
        return f"ws://{self._place}"

    @property
    def health(self) -> str:
        """What to open, or call, to see whether the server lives."""
        return f"http://{self._place}/healthz"

    @property
    def page(self) -> str:
        """What to open in a browser; empty where a browser cannot."""
        return self.health.removesuffix("healthz")

    @property
    def reachable(self) -> Address:
        """The same as seen from this machine: a server on all its addresses is on localhost."""
        return self._replace(host="localhost") if self.host in ("0.0.0.0", "::", "127.0.0.1") else self

    @property
    def _place(self) -> str:
        return with_port(self.host, self.port)


class TlsAddress(Address):
    """A host and a port that speak TLS."""

    @property
    def url(self) -> str:
        """`wss://host:port`."""
        return f"wss://{self._place}"

    @property
    def health(self) -> str:
        """Its page."""
        return f"https://{self._place}/healthz"


class UnixAddress(Address):
    """A Unix socket: its path as the host, 0 as the port."""

    @property
    def url(self) -> str:
        """`ws+unix:///path`, whose characters are escaped as in every URL."""
        return f"ws+unix://{quote(self.host)}"

    @property
    def health(self) -> str:
        """The command for its page."""
        return f"curl --unix-socket {shlex.quote(self.host)} http://localhost/healthz"

    @property
    def page(self) -> str:
        """Empty: no browser opens a Unix socket."""
        return ""


class Listener:
    """Listening sockets, of each address that a host name has; close() takes a Unix socket's file with it."""

    def __init__(self, servers: Sequence[asyncio.Server], address: Address, file_number: int | None = None) -> None:
        self.address = address
        self._servers = servers
        self._names = [one.getsockname() for server in servers for one in server.sockets]
        self._file_number = file_number  # of a Unix socket's file: another server may have put its own there since
        listening.note(asyncio.get_running_loop(), self._names)

    def close(self) -> None:
        """Accept no more connections; open ones stay open."""
        listening.forget(self._servers[0].get_loop(), self._names)
        for server in self._servers:
            server.close()
        if self._file_number is not None:
            with suppress(OSError):
                if os.stat(self.address.host).st_ino == self._file_number:
                    os.unlink(self.address.host)

    def is_exposed(self) -> bool:
        """Whether other machines can reach it."""
        hosts = (name[0] for name in self._names if isinstance(name, tuple))
        return not all(ip_address(host.partition("%")[0]).is_loopback for host in hosts)


async def listen(config: Listen, make_connection: Callable[[], asyncio.BaseProtocol]) -> Listener:
    """Listen where `config` says; raises ConfigError that names the place and what is wrong with it."""
    loop = asyncio.get_running_loop()
    if config.uds is not None:
        bound = _bind_unix(config.uds)
        file_number, path = os.stat(config.uds).st_ino, os.path.abspath(config.uds)  # noqa: ASYNC240 - a look, once
        server = await loop.create_unix_server(make_connection, sock=bound, backlog=_BACKLOG)
        return Listener([server], UnixAddress(path, 0), file_number)
    sockets = await bind_tcp(config.host, config.port)
    name = sockets[0].getsockname()
    servers = [await loop.create_server(make_connection, sock=bound, backlog=_BACKLOG) for bound in sockets]
    return Listener(servers, (Address if config.tls_cert is None else TlsAddress)(name[0], name[1]))


def peer_of(transport: asyncio.BaseTransport) -> tuple[str, str]:
    """A peer's IP address, and the same with its port for the log; empty and "local" on a Unix socket."""
    name = transport.get_extra_info("peername")
    if not isinstance(name, tuple):
        return "", "local"
    host = plain_address(name[0])
    return host, with_port(host, name[1])


def take_socket(transport: asyncio.BaseTransport) -> socket.socket:
    """The socket of a transport that has read nothing yet, for another one; this one ends."""
    taken = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))
    taken.setblocking(False)
    cast(asyncio.Transport, transport).abort()
    return taken


def plain_address(host: str) -> str:
    """An IP address; of an IPv4 peer that an IPv6 socket shows, the IPv4 one."""
    return host.removeprefix("::ffff:") if "." in host else host


def with_port(host: str, port: int) -> str:
    """`host:port`, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def end_if_silent(transport: asyncio.BaseTransport, timeout_s: float) -> None:
    """Have the system end a TCP connection whose peer's machine answers nothing for so long, whatever is under way."""
    peer = transport.get_extra_info("socket")
    total = min(max(int(timeout_s), 4), _LONGEST_SILENCE_S)
    options = {"TCP_KEEPIDLE": total // 2, "TCP_KEEPINTVL": total // 8 or 1, "TCP_KEEPCNT": 4}
    with suppress(OSError):  # the connection is over already: nobody is left to wait for
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in {**options, "TCP_USER_TIMEOUT": total * 1000}.items():
            if hasattr(socket, name):  # not every system has each
                peer.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


async def bind_tcp(host: str, port: int) -> list[socket.socket]:
    """Bound sockets, one for each address of `host`, all on one port; raises ConfigError.

    Addresses of families that are not here are left out.

    Bound here and not by asyncio, which makes every IPv6 socket refuse IPv4, gives each address a port of its own where
    any free one is asked for, and refuses `localhost` where the hosts file knows an IPv6 address that the system lacks.
    """
    sockets: list[socket.socket] = []
    try:
        found = await asyncio.get_running_loop().getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        lacking: OSError | None = None
        for family, address in dict.fromkeys((one[0], one[4]) for one in found):
            try:
                sockets.append(_bind(family, (address[0], port, *address[2:])))
                port = sockets[0].getsockname()[1]
            except OSError as error:
                if error.errno not in _NO_SUCH_FAMILY:
                    raise
                lacking = error
        if lacking is not None and not sockets:
            raise lacking
    except OSError as error:
        for bound in sockets:
            bound.close()
        raise ConfigError(_why_not_bound(host, port, error)) from error
    return sockets


def _bind(family: int, address: tuple[Any, ...]) -> socket.socket:
    """A socket on one address; on all of IPv6's it takes IPv4 peers, too, where the system can."""
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # by it asyncio knows to set TCP_NODELAY
    try:
        if os.name == "posix":
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            with suppress(OSError):  # OpenBSD has no such sockets
                bound.setsockopt(
                    socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(not ip_address(address[0]).is_unspecified)
                )
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    return bound


def _why_not_bound(host: str, port: int, error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return f"host: expected an address of this machine, got {host!r}: {error.strerror}"
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is in use by another program: take another, or 0 for any that is free"
    if error.errno == errno.EAFNOSUPPORT:
        return f"host: this system has no IPv6 for {host}; 0.0.0.0 is all of IPv4"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"host: {host} is no address of this machine; 0.0.0.0 listens on all of IPv4, :: on IPv6 too"
    return f"port {port} on {host} cannot be bound: {error.strerror or error}"


def _bind_unix(path: str) -> socket.socket:
    """A bound Unix socket for its owner alone; a dead one's file in its place is replaced."""
    if not hasattr(socket, "AF_UNIX"):
        raise ConfigError("uds: this system has no Unix sockets")
    _remove_dead(path)
    bound = socket.socket(socket.AF_UNIX)
    try:
        bound.bind(path)
        os.chmod(path, _OWNER_ONLY)  # nobody can connect before it listens
    except OSError as error:
        bound.close()
        where = f"no directory {Path(path).parent}" if error.errno == errno.ENOENT else error.strerror
        raise ConfigError(f"uds: {path} cannot be made: {where}") from error
    return bound


def _remove_dead(path: str) -> None:
    """Remove a socket that nobody listens on; raises ConfigError if somebody does, or if it is something else."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise ConfigError(f"uds: {path} exists and is no socket; remove it, or take another path")
        with socket.socket(socket.AF_UNIX) as probe:
            probe.setblocking(False)
            probe.connect(path)
    except ConnectionRefusedError:
        os.unlink(path)
    except FileNotFoundError:
        pass
    except BlockingIOError as error:
        raise ConfigError(f"uds: {path} is in use by another program") from error
    except OSError as error:
        raise ConfigError(f"uds: {path} cannot be used: {error.strerror}") from error
    else:
        raise ConfigError(f"uds: {path} is in use by another program")
