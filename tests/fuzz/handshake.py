"""The HTTP side: any bytes give a request, a refusal or a wish for more, in however many pieces they come."""

from __future__ import annotations

import base64
import hashlib

from policyserve.client.address import read_address
from policyserve.client.handshake import Handshake as ClientHandshake
from policyserve.client.retries import NotYet
from policyserve.core.errors import RemoteError
from policyserve.observe.counters import Counters
from policyserve.server.admission import Admission
from policyserve.server.config import ServerConfig
from policyserve.server.handshake import Asked, BodyRequest, Handshake, PageRequest, UpgradeRequest
from policyserve.server.health import add_health
from policyserve.server.keys import read_file
from policyserve.server.routes import Response, Routes
from tests.fuzz.choices import Choices

_MOST = 2048
_ACCEPT = b"@@@@@@@@@@@@@@@@@@@@@@@@@@@="  # stands for what a handshake's own key asks for, and is as long
_KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_HEADERS: tuple[bytes, ...] = (
    b"Host: x", b"Upgrade: websocket", b"Connection: Upgrade", b"Sec-WebSocket-Version: 13",
    b"Sec-WebSocket-Key: " + _KEY,
    b"Upgrade: h2c, websocket", b"Connection: keep-alive, Upgrade", b"Sec-WebSocket-Version: 8",
    b"Sec-WebSocket-Key: x",
    b"Origin: http://127.0.0.1:8000", b"Origin: null", b"Origin: http://[::1", b"Host: [::1", b"Host: 127.0.0.1:8000",
    b"Authorization: Bearer a-long-enough-key", b"Authorization: Basic !!!", b"Authorization: \xff\xff",
    b"Authorization:",
    b"Content-Length: 5", b"Content-Length: x", b"Transfer-Encoding: chunked", b"Expect: 100-continue", b" folded: x",
    b"Sec-WebSocket-Extensions: permessage-deflate", b"Sec-WebSocket-Protocol: a, b", b"X: " + b"y" * 500,
    b"no colon",
)  # fmt: skip
_TARGETS = (
    b"/",
    b"/openpi",
    b"/healthz",
    b"/metadata",
    b"*",
    b"http://x/openpi",
    b"/%00",
    b"/\xff",
    b"/?q=1",
    b"",
    b"/" * 900,
)
_ANSWERS = (
    b"HTTP/1.1 101 Switching Protocols", b"HTTP/1.1 401 Unauthorized", b"HTTP/1.1 503 Busy", b"HTTP/1.1 200 OK",
    b"HTTP/1.1 302 Found", b"HTTP/2 101", b"HTTP/1.1 999 x", b"HTTP/1.1 101", b"RFB 003.008",
)  # fmt: skip


def check_server(data: bytes) -> None:
    """What may come where a request should."""
    choices = Choices(data)
    said = _request(choices)
    routes = Routes()
    add_health(routes, Counters(), lambda: "")
    whole = _ask(Handshake(_MOST, routes.is_page), [said])
    pieces = choices.pieces(said)
    asked = _ask(cut := Handshake(_MOST, routes.is_page), pieces)
    assert _kind(asked) == _kind(whole), (said, pieces)
    if isinstance(asked, PageRequest):
        caller = Admission(ServerConfig()).caller(asked.credentials)
        asked_for = routes.respond(asked.method, asked.path, asked.query, caller)
        assert cut.answer(asked_for).startswith(b"HTTP/1.1 ")
    elif isinstance(asked, UpgradeRequest):
        assert asked.accept.startswith(b"HTTP/1.1 101 ")
        accepted = _accept_of(said)
        assert accepted in asked.accept
        assert b"xtensions" not in asked.accept
    elif isinstance(asked, Response):
        assert 400 <= asked.status < 600
        assert cut.answer(asked).startswith(b"HTTP/1.1 %d" % asked.status)
    if isinstance(asked, (PageRequest, BodyRequest, UpgradeRequest)):
        admission = Admission(ServerConfig(allowed_origins=("https://lab.example",)))
        admission.keys = read_file("robot: a-long-enough-key-of-24", "fuzz")
        refusal = admission.refusal(asked.credentials, "10.0.0.1")
        assert refusal is None or 400 <= refusal.status < 600


def check_client(data: bytes) -> None:
    """What may come where the server's answer should."""
    choices = Choices(data)
    said = _answer(choices)
    key = choices.pick((None, "key"))
    handshakes = [ClientHandshake(read_address("ws://127.0.0.1:8000", "openpi"), key) for _ in range(2)]
    cut = choices.pieces(said)
    outcomes = [
        _outcome(handshake, [piece.replace(_ACCEPT, _accept_of(handshake.request)) for piece in pieces])
        for handshake, pieces in zip(handshakes, ([said], cut), strict=True)
    ]
    if any(_ACCEPT in piece for piece in cut) != (_ACCEPT in said):
        return  # cut in the middle of what each handshake has of its own
    assert outcomes[0] == outcomes[1], (said, outcomes)


def _outcome(handshake: ClientHandshake, pieces: list[bytes]) -> str:
    try:
        for place, piece in enumerate(pieces):
            behind = handshake.feed(piece)
            if behind is not None:
                return f"open {behind + b''.join(pieces[place + 1 :])!r}"
        handshake.feed(b"")
    except (RemoteError, NotYet) as error:
        return type(error).__name__
    return "waiting"


def _ask(handshake: Handshake, pieces: list[bytes]) -> Asked | None:
    for piece in pieces:
        asked = handshake.feed(piece)
        if asked is not None:
            return asked
    return None


def _kind(asked: Asked | None) -> object:
    """What must not depend on how the bytes were cut."""
    if isinstance(asked, PageRequest):
        return asked.method, asked.path, asked.query, asked.credentials
    if isinstance(asked, UpgradeRequest):
        return asked.path, asked.accept.partition(b"\r\nDate")[0], asked.credentials
    return asked and "refused"  # for its size or for its first bad byte: that depends on which is seen first


def _accept_of(said: bytes) -> bytes:
    (key,) = [line for line in said.split(b"\n") if line.lower().startswith(b"sec-websocket-key:")]
    return base64.b64encode(hashlib.sha1(key.partition(b":")[2].strip() + _GUID).digest())


def _request(choices: Choices) -> bytes:
    if choices.chance(6):
        return choices.rest()
    method = choices.pick((b"GET", b"GET", b"GET", b"HEAD", b"POST", b"get", b"PRI", b""))
    version = choices.pick((b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"HTTP/1.1 x", b""))
    headers: list[bytes] = list(_HEADERS[:5]) if choices.chance(2) else []
    for _ in range(choices.number(4)):
        headers.insert(choices.number(len(headers)), choices.pick(_HEADERS))
    end = choices.pick((b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r"))
    said = end.join((method + b" " + choices.pick(_TARGETS) + b" " + version, *headers, b"", b""))
    said += choices.pick((b"", b"", b"\x82\x81abcdx", b"12345"))
    return choices.scribbled(said) if choices.chance(3) else said


def _answer(choices: Choices) -> bytes:
    if choices.chance(6):
        return choices.rest()
    headers = [*_HEADERS[1:3], b"Sec-WebSocket-Accept: " + _ACCEPT] if choices.chance(2) else []
    for _ in range(choices.number(4)):
        headers.insert(choices.number(len(headers)), choices.pick(_HEADERS))
    said = b"\r\n".join((choices.pick(_ANSWERS), *headers, b"", b"")) + choices.pick((b"", b"\x82\x01x", b"a page"))
    return choices.scribbled(said) if choices.chance(3) else said
