"""Reads a connection's HTTP requests: they ask for a page, for a WebSocket, or bring a body. No socket, no clock.

HTTP is read by h11, the WebSocket handshake is checked by `websockets`. Extensions are never agreed on:
permessage-deflate costs ten times the transfer on images.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import TypeAlias
from urllib.parse import parse_qsl

import h11
from websockets.http11 import Request
from websockets.server import ServerProtocol

from policyserve.core.encoded_images import IMAGES_HEADER
from policyserve.core.messages import VERSION_KEY
from policyserve.server import routes

_TLS_HELLO = b"\x16\x03"  # no HTTP request begins so
_PROXY_HEADERS = (b"PROXY ", b"\r\n\r\n\x00\r\nQUIT\n")  # nor so

# The library's own lines (one per connection) say what ours say already.
_library_log = logging.getLogger("policyserve.websockets")
_library_log.setLevel(logging.WARNING)


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a request's headers say of who sends it; empty where it does not say."""

    host: str = ""
    origin: str = ""  # the page that a browser runs; robots send none
    authorization: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class PageRequest:
    """A plain HTTP request. query: what stands behind the path's `?`."""

    method: str
    path: str
    query: str
    credentials: Credentials


@dataclass(frozen=True, slots=True)
class UpgradeRequest:
    """A WebSocket handshake that is fine. accept: what to send to accept it. behind: bytes that came after it.

    asks_images: what its header `Policyserve-Images` says, in which a client asks which encoded pictures are taken.
    asks_version: whether its URL ends with `?policy_version=true`: answers then tell which policy gave them.
    """

    path: str
    accept: bytes
    behind: bytes
    credentials: Credentials
    asks_images: str = ""
    asks_version: bool = False


@dataclass(frozen=True, slots=True)
class BodyRequest:
    """A request whose body follows, which body() reads. size: its bytes, where that is known before.

    is_waiting: the peer sends its body when it is told to go on.
    """

    path: str
    credentials: Credentials
    size: int | None
    is_waiting: bool


Asked: TypeAlias = PageRequest | UpgradeRequest | BodyRequest | routes.Response


class Handshake:
    """Reads a connection's requests one by one, and writes HTTP answers to them.

    max_head_bytes: of a URL and headers. is_page: whether a path is answered over HTTP even to a WebSocket handshake.
    takes_body: whether a path is asked by POST, with a body.
    """

    def __init__(
        self,
        max_head_bytes: int,
        is_page: Callable[[str], bool],
        takes_body: Callable[[str], bool] = lambda path: False,
    ) -> None:
        self._max_head_bytes = max_head_bytes
        self._is_page = is_page
        self._takes_body = takes_body
        self._parser = h11.Connection(h11.SERVER, max_incomplete_event_size=max_head_bytes)
        self._head = bytearray()  # what the parser has read: the handshake's protocol reads it again
        self._is_head = False  # a HEAD request, whose answer has no body

    @property
    def has_more(self) -> bool:
        """Whether something came behind the request that is being answered."""
        return bool(self._parser.trailing_data[0])

    @property
    def may_go_on(self) -> bool:
        """Whether another request may follow on this connection, once this one's answer is sent."""
        return self._parser.our_state is h11.DONE and self._parser.their_state is h11.DONE

    def feed(self, data: bytes) -> Asked | None:
        """What the peer asks for; a Response if its request must be refused; None if more is to come."""
        self._head += data
        if self._head.startswith(_TLS_HELLO):
            return routes.text(400, "a TLS handshake, but this port speaks plain ws:// and http://; see --tls-cert")
        if self._head.startswith(_PROXY_HEADERS):
            told = "a load balancer's PROXY header, but this peer is not trusted: see --proxy-protocol"
            return routes.text(400, f"{told}, --trusted-proxies")
        try:
            if data:
                self._parser.receive_data(data)
            request = self._parser.next_event()
        except h11.RemoteProtocolError as error:
            if error.error_status_hint == 431:
                return self._too_long()
            return routes.text(error.error_status_hint, str(error))
        if not isinstance(request, h11.Request):
            return None
        self._is_head = request.method == b"HEAD"
        if len(self._head) - len(self._parser.trailing_data[0]) > self._max_head_bytes:  # it came in one piece
            return self._too_long()
        path, _, query = request.target.decode("ascii", "replace").partition("?")
        if request.method == b"POST" and self._takes_body(path):
            return self._with_body(path, request)
        if not _is_upgrade(request) or self._is_page(path):
            return PageRequest(request.method.decode(), path, query, _credentials(request))
        upgrade = self._upgrade(path, _credentials(request), _header(request, IMAGES_HEADER.lower().encode()))
        asks = dict(parse_qsl(query)).get(VERSION_KEY) == "true"
        return replace(upgrade, asks_version=asks) if asks and isinstance(upgrade, UpgradeRequest) else upgrade

    def body(self, data: bytes = b"") -> bytes | routes.Response | None:
        """The next piece of a BodyRequest's body: empty at its end, None if more is to come, a Response if it is wrong.

        Call it without data until it gives None: several pieces may have come at once.
        """
        try:
            if data:
                self._parser.receive_data(data)
            event = self._parser.next_event()
        except h11.RemoteProtocolError as error:
            return routes.text(error.error_status_hint, str(error))
        if isinstance(event, h11.Data):
            return bytes(event.data)
        return b"" if isinstance(event, h11.EndOfMessage) else None

    def keep(self, data: bytes) -> None:
        """Keep what comes behind a request that is being answered, for go_on()."""
        self._parser.receive_data(data)

    def go_on(self) -> Asked | None:
        """The request is answered, and may_go_on: what the peer asks for next, as feed() tells it."""
        self._parser.start_next_cycle()
        behind, _ = self._parser.trailing_data
        self._head = bytearray(behind)
        self._is_head = False
        return self.feed(b"") if behind else None

    def go_ahead(self) -> bytes:
        """The bytes that have a peer send its body that waits with it."""
        return self._parser.send(h11.InformationalResponse(status_code=100, headers=[], reason="Continue")) or b""

    def _with_body(self, path: str, request: h11.Request) -> BodyRequest | routes.Response:
        encoding = _header(request, b"content-encoding").lower()
        if encoding not in ("", "identity"):
            return routes.text(415, f"Content-Encoding: expected a body as it is, got {encoding[:40]!r}")
        sizes = [value for name, value in request.headers if name == b"content-length"]
        is_chunked = any(name == b"transfer-encoding" for name, _ in request.headers)
        size = None if is_chunked else int(sizes[0]) if sizes else 0
        waits = self._parser.they_are_waiting_for_100_continue
        return BodyRequest(path, _credentials(request), size, waits)

    def _too_long(self) -> routes.Response:
        return routes.text(431, f"a URL and headers of more than {self._max_head_bytes} bytes (--max-head-kib)")

    def answer(self, response: routes.Response, closes: bool = True) -> bytes:
        """The bytes of an HTTP answer, after which the connection closes, or may go on (see may_go_on)."""
        headers = [
            ("Content-Type", response.content_type),
            ("Content-Length", str(len(response.body))),
            *([("Connection", "close")] if closes else []),
            *response.headers,
        ]
        reason = HTTPStatus(response.status).phrase
        head = self._parser.send(h11.Response(status_code=response.status, headers=headers, reason=reason)) or b""
        body = b"" if self._is_head else self._parser.send(h11.Data(data=response.body)) or b""
        if not closes:
            self._parser.send(h11.EndOfMessage())
        return head + body

    def _upgrade(self, path: str, credentials: Credentials, asks_images: str) -> UpgradeRequest | routes.Response:
        websocket = ServerProtocol(logger=_library_log)
        behind, _ = self._parser.trailing_data
        websocket.receive_data(bytes(self._head.removesuffix(behind)))
        requests = [event for event in websocket.events_received() if isinstance(event, Request)]
        if not requests:
            return routes.text(400, f"not a WebSocket handshake: {websocket.handshake_exc}")
        response = websocket.accept(requests[0])
        if response.status_code != 101:
            return routes.text(
                response.status_code, " ".join((response.body or b"").decode("utf-8", "replace").split())
            )
        websocket.send_response(response)
        return UpgradeRequest(path, b"".join(websocket.data_to_send()), behind, credentials, asks_images)


def _is_upgrade(request: h11.Request) -> bool:
    upgrades = {value.strip().lower() for name, value in request.headers if name == b"upgrade"}
    return request.method == b"GET" and b"websocket" in upgrades


def _credentials(request: h11.Request) -> Credentials:
    """The headers as text."""
    return Credentials(*(_header(request, name) for name in (b"host", b"origin", b"authorization")))


def _header(request: h11.Request, name: bytes) -> str:
    """A header as text, empty without it; of one that comes twice both, which matches nothing."""
    return ",".join(value.decode("latin-1") for header, value in request.headers if header == name)
