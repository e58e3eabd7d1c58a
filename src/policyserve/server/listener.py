"""Where a server listens: a TCP port or a Unix socket, plain or TLS. And what to warn of there."""

from __future__ import annotations

import asyncio
import errno
import os
import shlex
import socket
import stat
import sys
from collections.abc import Callable
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from policyserve.core.errors import ConfigError
from policyserve.server.config import ServerConfig

_BACKLOG = 1024
_LONGEST_PATH = 103 if sys.platform == "darwin" else 107  # bytes: what sockaddr_un holds
_OWNER_ONLY = 0o600


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
    def reachable(self) -> Address:
        """The same as seen from this machine: a server on all its addresses is on localhost."""
        return self._replace(host="localhost") if self.host in ("0.0.0.0", "::", "127.0.0.1") else self

    @property
    def _place(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


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


class Listener:
    """A listening socket; close() takes a Unix socket's file with it."""

    def __init__(self, server: asyncio.Server, address: Address, file_number: int | None = None) -> None:
        self.address = address
        self._server = server
        self._file_number = file_number  # of a Unix socket's file: another server may have put its own there since

    def close(self) -> None:
        """Take no more connections; those that exist stay."""
        self._server.close()
        if self._file_number is not None:
            with suppress(OSError):
                if os.stat(self.address.host).st_ino == self._file_number:
                    os.unlink(self.address.host)

    def is_exposed(self) -> bool:
        """Whether other machines can reach it."""
        names = (name for listening in self._server.sockets if isinstance(name := listening.getsockname(), tuple))
        return not all(ip_address(name[0].partition("%")[0]).is_loopback for name in names)


async def listen(config: ServerConfig, make_connection: Callable[[], asyncio.BaseProtocol]) -> Listener:
    """Listen where `config` says; raises ConfigError that names the place and what is wrong with it."""
    loop = asyncio.get_running_loop()
    if config.uds is not None:
        bound = _bind_unix(config.uds)
        file_number, path = os.stat(config.uds).st_ino, os.path.abspath(config.uds)  # noqa: ASYNC240 - a look, once
        server = await loop.create_unix_server(make_connection, sock=bound, backlog=_BACKLOG)
        return Listener(server, UnixAddress(path, 0), file_number)
    host, port = config.host, config.port
    try:
        server = await loop.create_server(make_connection, host, port, backlog=_BACKLOG)
    except OSError as error:
        in_use = error.errno == errno.EADDRINUSE
        what = "is in use by another program" if in_use else f"cannot be bound: {error.strerror or error}"
        raise ConfigError(f"port {port} on {host} {what}") from error
    name = server.sockets[0].getsockname()
    return Listener(server, (Address if config.tls_cert is None else TlsAddress)(name[0], name[1]))


def end_if_silent(transport: asyncio.BaseTransport, timeout_s: float) -> None:
    """Have the system end a TCP connection whose peer's machine answers nothing for so long, whatever is under way."""
    peer = transport.get_extra_info("socket")
    total = max(int(timeout_s), 4)
    options = {"TCP_KEEPIDLE": total // 2, "TCP_KEEPINTVL": total // 8 or 1, "TCP_KEEPCNT": 4}
    with suppress(OSError):  # the connection is over already: nobody is left to wait for
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in {**options, "TCP_USER_TIMEOUT": total * 1000}.items():
            if hasattr(socket, name):  # not every system has each
                peer.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _bind_unix(path: str) -> socket.socket:
    """A bound Unix socket for its owner alone; a dead one's file in its place is replaced."""
    if not hasattr(socket, "AF_UNIX"):
        raise ConfigError("uds: this system has no Unix sockets")
    if len(os.fsencode(path)) > _LONGEST_PATH:
        raise ConfigError(f"uds: expected a path of at most {_LONGEST_PATH} bytes, got {len(os.fsencode(path))}")
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
