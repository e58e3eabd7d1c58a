"""POST /act: any bytes of a connection end in answers, any body in a request or a refusal that is JSON."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np

from policyserve.core.dialect import ErrorReply
from policyserve.core.effects import Answered, Send, Submit
from policyserve.core.errors import PolicyserveError
from policyserve.core.limits import WireLimits
from policyserve.core.messages import Control, Request, Timing, Unreadable
from policyserve.core.policy import ActionChunk
from policyserve.core.session import Session
from policyserve.core.spec import ArraySpec, ImageSpec, PolicySpec, TextSpec
from policyserve.dialects.rest.bodies import ReplyBody, RequestBody
from policyserve.dialects.rest.recognition import FAMILIES, ByBody, read_body
from policyserve.server.handshake import BodyRequest, Handshake, PageRequest
from policyserve.server.rest.body import Body, Read
from policyserve.server.routes import Response
from tests.fuzz.choices import Choices

LIMITS = WireLimits(max_items=500, max_arrays=8, max_text=300)
SPEC = PolicySpec(
    "fuzzed",
    observation={
        "image": ImageSpec(optional=True),
        "state": ArraySpec((None,), optional=True),
        "prompt": TextSpec(default=""),
    },
    action=None,
)
_KEYS = (
    "image", "images", "image0", "image1", "full_image", "left_wrist_image", "top_cam", "left_cam", "right_cam",
    "state", "proprio", "instruction", "language_instruction", "prompt", "domain_id", "steps", "num_steps",
    "unnorm_key", "observation", "video.a", "state.a", "annotation.a", "encoded", "__numpy__", "dtype", "shape", "x",
    "", "é", "\ud800",
)  # fmt: skip
_RAW = (
    "NaN", "-Infinity", "1e999", "18446744073709551616", "-9223372036854775809", "1E5", "-0", "0.1e-400", "01", "1.",
    "[" * 30, "{", '"', '"\\u0000"', '"\\ud83d\\ude00"', '"\\x"', "'a'", "//", "\ufeff1",
)  # fmt: skip
_DTYPES = ("<f4", "|u1", "float32", ">f8", "|b1", "|O", "V4", "<U2", "f4,f4", "bfloat16", 4, None)
_TEXTS = ("", "go", "/etc/passwd", "http://x/y.png", "data:image/png;base64,AAAA", "ä😀", "x" * 400)
_PICTURES = (b"\xff\xd8\xff" + bytes(60), b"\x89PNG\r\n\x1a\n" + bytes(60), b"GIF89a" + bytes(60))
_HEADS = (
    b"Host: x", b"Content-Length: 12", b"Content-Length: 5", b"Content-Length: 99999999999", b"Content-Length: -1",
    b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip", b"Connection: close", b"Connection: keep-alive",
    b"Expect: 100-continue", b"Content-Encoding: gzip", b"Content-Type: text/plain", b"X: " + b"y" * 500, b"no colon",
)  # fmt: skip
_BODIES = (
    b"",
    b'{"obs": [1]}',
    b'5\r\n{"a":\r\n3\r\n 1}\r\n0\r\n\r\n',
    b"0\r\n\r\n",
    b"fffffffff\r\n",
    b"x",
    b"1\r\na",
)
_MOST = 256  # bytes of a body


def check_bodies(data: bytes) -> None:
    """A body that may be anything, through its family, to a session and back."""
    choices = Choices(data)
    body = _body(choices)
    read = read_body(body, "/act", LIMITS, choices.chance(3))
    assert bytes(read) == body
    family = FAMILIES[read.family]
    assert isinstance(read.heard, (Request, Unreadable))
    session = Session(None, max_pending=2, choice=ByBody(), limits=LIMITS)
    with np.errstate(all="raise"):
        assert session.serve(SPEC, {}) == []
        effects = session.receive(read, 0.0)
    assert session.dialect is family
    submits = [effect for effect in effects if isinstance(effect, Submit)]
    if submits:
        chunk = ActionChunk(np.arange(6.0).reshape(2, 3), extras={"note": "x"})
        effects = session.answer(submits[0].ticket, Answered(chunk, 0.0, 0.0), 0.0)
    (sent,) = [effect.message for effect in effects if isinstance(effect, Send)]
    assert isinstance(sent, ReplyBody)
    json.loads(sent)
    if submits:
        assert sent.status == 200
        assert family.read_reply(sent).actions.shape[-1] == 3
    else:
        assert sent.status != 200 or sent == b'"error"'
        ((_, told),) = sent.headers
        assert told.isascii()
        assert told.isprintable()
    assert not session.closed
    _read_again(body, read)


def _read_again(body: bytes, read: RequestBody) -> None:
    """As a recording does, which has the bytes alone."""
    try:
        FAMILIES[read.family].read_request(body, LIMITS)
    except PolicyserveError:
        assert not isinstance(read.heard, Request)
    told = FAMILIES[read.family].write_error(PolicyserveError("x"))
    assert isinstance(told, ErrorReply)
    assert not isinstance(read.heard, Control)
    FAMILIES[read.family].write_reply(ActionChunk(np.zeros((1, 2))), Timing(0.0, 0.0, 0.0))


def check_connection(data: bytes) -> None:
    """What may come where requests with bodies should, in however many pieces: the same answers."""
    choices = Choices(data)
    said = b"".join(_request(choices) for _ in range(1 + choices.number(2)))
    assert _answers([said]) == _answers(choices.pieces(said)), said


def _answers(pieces: list[bytes]) -> list[object]:
    """What a connection is answered, one request after the other: bodies, and what ended it."""
    handshake = Handshake(2048, lambda path: False, lambda path: path == "/act")
    found: list[object] = []
    body: Body | None = None
    for data in pieces:
        asked = None
        if body is None:
            asked, data = handshake.feed(data), b""
        while asked is not None or body is not None:
            if body is None:
                if not isinstance(asked, BodyRequest):
                    return [*found, "page" if isinstance(asked, PageRequest) else "refused"]
                body = Body(_MOST, 0.0)
                if body.refusal_of_size(asked.size) is not None:
                    return [*found, "refused"]
            outcome, data, asked = _outcome(body, handshake, data), b"", None
            if isinstance(outcome, Response):
                return [*found, "refused"]
            if outcome != "whole":
                break
            found.append(bytes(body.data))
            body = None
            handshake.answer(Response(200, b""), closes=False)
            if not handshake.may_go_on:
                return found
            asked = handshake.go_on()
    return found


def _outcome(body: Body, handshake: Handshake, data: bytes) -> Read | Response:
    outcome = body.read(handshake, data)
    while outcome == "more":
        outcome = body.read(handshake, b"")
    return outcome


def _request(choices: Choices) -> bytes:
    if choices.chance(8):
        return choices.some_bytes(60)
    method = choices.pick((b"POST", b"POST", b"POST", b"GET", b"PUT"))
    heads = [b"Host: x", choices.pick(_HEADS)]
    for _ in range(choices.number(2)):
        heads.append(choices.pick(_HEADS))
    version = choices.pick((b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0"))
    said = b"\r\n".join((method + b" /act " + version, *heads, b"", b"")) + choices.pick(_BODIES)
    return choices.scribbled(said) if choices.chance(4) else said


def _body(choices: Choices) -> bytes:
    if choices.chance(8):
        return choices.rest()
    value = {choices.pick(_KEYS): _value(choices, 4) for _ in range(1 + choices.number(4))}
    text = _text(value, choices)
    if choices.chance(6):
        text = json.dumps({"encoded": text})
    body = text.encode("utf-8", "surrogatepass")
    return choices.scribbled(body) if choices.chance(4) else body


def _text(value: Any, choices: Choices) -> str:
    text = json.dumps(value, ensure_ascii=choices.chance(2))
    return text.replace('"raw"', choices.pick(_RAW), 1)


def _value(choices: Choices, depth: int) -> Any:
    kind = choices.number(9)
    if kind == 0 and depth:
        return {choices.pick(_KEYS): _value(choices, depth - 1) for _ in range(choices.number(3))}
    if kind == 1 and depth:
        return [_value(choices, depth - 1) for _ in range(choices.number(3))]
    if kind in (2, 3):
        marked = _marked(choices)
        return json.dumps(marked) if choices.chance(3) else marked
    if kind == 4:
        data = base64.b64encode(choices.pick(_PICTURES)).decode()
        return choices.pick(("", "data:image/png;base64,")) + data
    if kind == 5:
        return [choices.pick((0, 1.5, -3, True, None, 1 << 62)) for _ in range(choices.number(5))]
    return choices.pick(("raw", 0, 1.5, True, None, *_TEXTS))


def _marked(choices: Choices) -> dict[str, Any]:
    count = choices.pick((0, 3, 18, 64))
    marked: dict[str, Any] = {
        "__numpy__": base64.b64encode(bytes(count)).decode(),
        "dtype": choices.pick(("|u1", "|u1", *_DTYPES)),
        "shape": choices.pick(([count], [2, 3, 3], [1, 1, 1, 3], [], [-1], [1 << 62], 3, None)),
    }
    if choices.chance(5):
        marked.pop(choices.pick(tuple(marked)))
    if choices.chance(6):
        marked["__numpy__"] = choices.pick(("?", "AAA", [0], None, "AA==AA=="))
    return marked
