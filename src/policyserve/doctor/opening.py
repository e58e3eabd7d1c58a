"""How a WebSocket to the server begins: the handshake, and what stands between this machine and the server."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass

from policyserve.client.address import HOW_TO_GIVE_A_KEY
from policyserve.client.connection import Wire
from policyserve.client.handshake import Handshake
from policyserve.client.retries import NotYet
from policyserve.client.sockets import check_time, left_s
from policyserve.client.sync_link import shake_hands
from policyserve.core.errors import RemoteError
from policyserve.doctor.findings import Finding, broken, ok, warning
from policyserve.doctor.server import Examined, without_place

_PINGS = 5
_CLOSE_S = 1.0
_KEY_CURE = "set POLICYSERVE_API_KEY, or name a file with --api-key-file"
_SLOW_PING_MS, _SLOWER = 20.0, 5.0  # a ping that takes so much more, and so many times, what connecting takes
_OF_PROXIES = ("via", "x-cache", "cf-ray", "x-served-by", "x-envoy-upstream-service-time")
_NO_COMPRESSION = "switch compression off at the proxy, or in the client: websockets.connect(…, compression=None)"


@dataclass(frozen=True)
class Opened:
    """A handshake that was made. extensions: those agreed on when compression was offered. ping_ms: None: no pong."""

    extensions: tuple[str, ...]
    headers: dict[str, str]
    ping_ms: float | None

    @property
    def proxy(self) -> str:
        """What a proxy says of itself in the answer's headers; empty where none does."""
        return ", ".join(f"{name}: {self.headers[name]}" for name in _OF_PROXIES if name in self.headers)


def opening(server: Examined) -> tuple[Finding, Opened | None]:
    """Make the handshake as clients do; with what was seen if it went well."""
    Handshake(server.address, None)  # imports what it needs, so that this is not measured
    try:
        with _websocket(server, offers_deflate=False) as one:
            took_ms, ping_ms = one.took_ms, _ping_ms(one, server.deadline())
        with _websocket(server, offers_deflate=True) as other:
            agreed = tuple(other.handshake.extensions), other.handshake.headers
    except NotYet as error:
        return broken("handshake", f"no WebSocket: {error}", _not_yet_cure(str(error))), None
    except RemoteError as error:
        return _refused(server, str(error)), None
    except TimeoutError:
        told = f"it accepts the connection and says nothing within {server.timeout_s:g} s"
        cure = "the server hangs or is stopped, or another program has this port: look at its terminal, restart it"
        return broken("handshake", told, cure), None
    except OSError as error:
        return broken("handshake", f"the connection ended: {error}", _not_yet_cure("")), None
    told = f"it is a WebSocket server, {took_ms:.1f} ms"
    return ok("handshake", told, handshake_ms=took_ms), Opened(*agreed, ping_ms)


def proxy(opened: Opened, connect_ms: float) -> Finding:
    """Whether something on the way compresses or delays. connect_ms: what connecting took, a round trip of its own."""
    named = f"; a proxy answers ({opened.proxy})" if opened.proxy else ""
    ping = "" if opened.ping_ms is None else f"a ping takes {opened.ping_ms:.1f} ms"
    figures = {"extensions": list(opened.extensions), "ping_ms": opened.ping_ms, "proxy": opened.proxy}
    if opened.extensions:
        told = f"{', '.join(opened.extensions)} is agreed on where a client offers it{named}"
        cure = f"pictures then take ten times as long: {_NO_COMPRESSION}"
        return warning("proxy", told, cure, **figures)
    if opened.ping_ms is None:
        cure = "clients that ping will take the connection for dead: look at what stands between"
        return warning("proxy", f"pings are not answered{named}", cure, **figures)
    if opened.ping_ms > connect_ms * _SLOWER + _SLOW_PING_MS:
        told = f"{ping}, and connecting {connect_ms:.1f} ms: something on the way holds small messages back{named}"
        cure = "switch buffering off at the proxy (nginx: proxy_buffering off), or reach the server without it"
        return warning("proxy", told, cure, **figures)
    return ok("proxy", f"nothing compresses or delays: {ping}{named}", **figures)


@dataclass(frozen=True)
class _WebSocket:
    """An open one. took_ms: the handshake, with the connection before it."""

    connected: socket.socket
    handshake: Handshake
    wire: Wire
    took_ms: float


@contextmanager
def _websocket(server: Examined, *, offers_deflate: bool) -> Iterator[_WebSocket]:
    """Open a WebSocket, and close it as RFC 6455 wants: many servers log a traceback where a peer just goes."""
    deadline, began = server.deadline(), time.perf_counter()
    with closing(server.connect(deadline)) as connected:
        handshake, wire = Handshake(server.address, server.api_key, offers_deflate=offers_deflate), Wire(os.urandom)
        behind = shake_hands(connected, handshake, deadline)
        took_ms = (time.perf_counter() - began) * 1e3
        with suppress(OSError):
            wire.feed(behind)
            yield _WebSocket(connected, handshake, wire, took_ms)
            connected.sendall(wire.close())
            _read_until(connected, wire, lambda: False, min(server.deadline(), time.monotonic() + _CLOSE_S))


def _ping_ms(opened: _WebSocket, deadline: float) -> float | None:
    """The quickest of several pings; None where one is not answered in time."""
    took_ms = [_ping(opened, deadline) for _ in range(_PINGS)]
    answered = [one for one in took_ms if one is not None]
    return min(answered) if len(answered) == _PINGS else None


def _ping(opened: _WebSocket, deadline: float) -> float | None:
    wire, began = opened.wire, time.perf_counter()
    before = wire.pongs
    try:
        opened.connected.sendall(wire.ping())
        _read_until(opened.connected, wire, lambda: wire.pongs > before, deadline)
    except OSError:
        return None
    return (time.perf_counter() - began) * 1e3 if wire.pongs > before else None


def _read_until(connected: socket.socket, wire: Wire, is_over: Callable[[], bool], deadline: float) -> None:
    """Take in what comes until it is over, or the connection is; raises an OSError, at the deadline too."""
    while not is_over() and wire.end is None:
        connected.settimeout(left_s(deadline))
        wire.advance(connected.recv_into(wire.get_buffer()))
        check_time(deadline)


def _refused(server: Examined, told: str) -> Finding:
    if HOW_TO_GIVE_A_KEY in told or "refused the API key" in told:
        if server.api_key is not None or "refused the API key" in told:
            return broken("handshake", "the server refuses this key", "compare it with the server's --api-key-file")
        return broken("handshake", "the server wants an API key, and none was given", _KEY_CURE)
    if "permessage-deflate" in told.lower() or "extension" in told.lower():
        told = f"the answer has an extension that nobody offered, so that clients refuse it: {without_place(told)}"
        return broken("handshake", told, f"a proxy adds it: {_NO_COMPRESSION}")
    if "no policy is at" in told:  # a server of ours that has several
        return broken("handshake", without_place(told), "connect to one of those that there are")
    cure = "another program, or a proxy without WebSockets, has this port: compare it with what the server prints"
    return broken("handshake", without_place(told), cure)


def _not_yet_cure(told: str) -> str:
    if "wants wss://" in told:
        return "write wss:// in place of ws://"
    if "HTTP 5" in told or "HTTP 429" in told:
        return "a proxy answers in the server's place, or the server is full: is it running, and who is connected?"
    return "look at the server's terminal: it closes connections at once"
