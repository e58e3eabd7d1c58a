"""How a WebSocket to the server begins: the handshake, and what stands between this machine and the server."""

from __future__ import annotations

import os
import socket
import time
from contextlib import closing
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
_KEY_CURE = "set POLICYSERVE_API_KEY, or name a file with --api-key-file"
_SLOW_PING_MS, _SLOWER = 20.0, 5.0  # a ping that takes so much more, and so many times, what connecting takes
_OF_PROXIES = ("via", "x-cache", "cf-ray", "x-served-by", "x-envoy-upstream-service-time")
_NO_COMPRESSION = "switch compression off at the proxy, or in the client: websockets.connect(…, compression=None)"


@dataclass(frozen=True)
class Opened:
    """A handshake that was made. extensions: those agreed on when compression was offered. ping_ms: None: no pong."""

    handshake_ms: float
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
    began = time.perf_counter()
    try:
        with closing(_opened(server, offers_deflate=False)[0]):
            took_ms = (time.perf_counter() - began) * 1e3
        opened = Opened(took_ms, *_offering(server), _ping_ms(server))
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
    return ok("handshake", f"it is a WebSocket server, {took_ms:.1f} ms", handshake_ms=took_ms), opened


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


def _opened(server: Examined, *, offers_deflate: bool) -> tuple[socket.socket, Handshake, bytes]:
    """A WebSocket, its handshake, and what came behind it."""
    deadline = server.deadline()
    connected = server.connect(deadline)
    try:
        handshake = Handshake(server.address, server.api_key, offers_deflate=offers_deflate)
        return connected, handshake, shake_hands(connected, handshake, deadline)
    except BaseException:
        connected.close()
        raise


def _offering(server: Examined) -> tuple[tuple[str, ...], dict[str, str]]:
    """What is agreed on where compression is offered, and the answer's headers."""
    connected, handshake, _ = _opened(server, offers_deflate=True)
    connected.close()
    return tuple(handshake.extensions), handshake.headers


def _ping_ms(server: Examined) -> float | None:
    """The quickest of several pings; None where none is answered in time."""
    connected, _, behind = _opened(server, offers_deflate=False)
    deadline, quickest = server.deadline(), None
    with closing(connected):
        wire = Wire(os.urandom)
        wire.feed(behind)
        for _ in range(_PINGS):
            took_ms = _ping(connected, wire, deadline)
            if took_ms is None:
                break
            quickest = min(took_ms, quickest or took_ms)
    return quickest


def _ping(connected: socket.socket, wire: Wire, deadline: float) -> float | None:
    before, began = wire.pongs, time.perf_counter()
    try:
        connected.sendall(wire.ping())
        while wire.pongs == before and wire.end is None:
            connected.settimeout(left_s(deadline))
            wire.advance(connected.recv_into(wire.get_buffer()))
            check_time(deadline)
    except OSError:
        return None
    return None if wire.pongs == before else (time.perf_counter() - began) * 1e3


def _refused(server: Examined, told: str) -> Finding:
    if HOW_TO_GIVE_A_KEY in told or "refused the API key" in told:
        if server.api_key is not None or "refused the API key" in told:
            return broken("handshake", "the server refuses this key", "compare it with the server's --api-key-file")
        return broken("handshake", "the server wants an API key, and none was given", _KEY_CURE)
    if "permessage-deflate" in told.lower() or "extension" in told.lower():
        told = f"the answer has an extension that nobody offered, so that clients refuse it: {without_place(told)}"
        return broken("handshake", told, f"a proxy adds it: {_NO_COMPRESSION}")
    cure = "another program, or a proxy without WebSockets, has this port: compare it with what the server prints"
    return broken("handshake", without_place(told), cure)


def _not_yet_cure(told: str) -> str:
    if "wants wss://" in told:
        return "write wss:// in place of ws://"
    if "HTTP 5" in told or "HTTP 429" in told:
        return "a proxy answers in the server's place, or the server is full: is it running, and who is connected?"
    return "look at the server's terminal: it closes connections at once"
