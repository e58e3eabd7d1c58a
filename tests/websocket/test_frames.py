"""The rules of frames that clients and servers share; each side's reader is tested beside it, against websockets'."""

from __future__ import annotations

import pytest

from policyserve.core.messages import EncodedText
from policyserve.websocket.frames import (
    BAD_TEXT,
    BINARY,
    CLOSE,
    CONTINUATION,
    MASKED,
    NO_CODE,
    PING,
    PONG,
    PROTOCOL_ERROR,
    TEXT,
    TOO_BIG,
    Assembler,
    FrameEvent,
    PeerClose,
    Ping,
    Pong,
    Violation,
    close_payload,
    frame_header,
)


def end(
    opcode: int, payload: bytes, is_final: bool = True, to: Assembler | None = None
) -> FrameEvent | EncodedText | None:
    assembler = to or Assembler(100, is_masked=False)
    if opcode >= CLOSE:
        return assembler.end_control(opcode, payload)
    return assembler.end_data(opcode, is_final, memoryview(bytearray(payload)))


def test_fragments_become_one_message_with_controls_between() -> None:
    assembler = Assembler(100, is_masked=False)
    assert end(TEXT, b"Gr\xc3", False, assembler) is None
    assert assembler.check_header(0x80 | BINARY, 1) == Violation(PROTOCOL_ERROR, "a new message inside another")
    assert end(PING, b"?", to=assembler) == Ping(b"?")
    assert end(PONG, b"!", to=assembler) == Pong(b"!")
    assert assembler.check_header(0x80, 1) is None
    assert end(CONTINUATION, b"\xbc\xc3\x9fe", True, assembler) == EncodedText(memoryview("Grüße".encode()))
    assert assembler.check_header(0x80, 1) == Violation(PROTOCOL_ERROR, "a continuation of nothing")
    assert not assembler.is_over


@pytest.mark.parametrize("is_masked", [True, False])
def test_a_client_masks_and_a_server_does_not(is_masked: bool) -> None:
    assembler = Assembler(100, is_masked)
    right, wrong = (MASKED, 0) if is_masked else (0, MASKED)
    assert assembler.check_header(0x80 | BINARY, right | 5) is None
    problem = assembler.check_header(0x80 | BINARY, wrong | 5)
    assert isinstance(problem, Violation)
    assert problem.code == PROTOCOL_ERROR


@pytest.mark.parametrize(
    ("first", "size", "told"),
    [
        (0xC0 | BINARY, 1, "reserved bits"),
        (0x83, 1, "unknown opcode 3"),
        (CLOSE, 1, "a control frame that is fragmented"),
        (0x80 | PING, 126, "longer than 125 bytes"),
    ],
)
def test_headers_that_break_a_rule_are_named(first: int, size: int, told: str) -> None:
    problem = Assembler(100, is_masked=False).check_header(first, size)
    assert isinstance(problem, Violation)
    assert told in problem.reason


def test_fragments_count_together() -> None:
    assembler = Assembler(100, is_masked=False)
    end(BINARY, bytes(60), False, assembler)
    assert assembler.check_size(CONTINUATION, 40) is None
    assert assembler.check_size(CONTINUATION, 41) == Violation(TOO_BIG, "a message of more than 100 bytes")
    assert assembler.check_size(PING, 41) is None


@pytest.mark.parametrize(
    ("payload", "event"),
    [
        (b"", PeerClose(NO_CODE, "")),
        (close_payload(1001, "bye"), PeerClose(1001, "bye")),
        (close_payload(4999, ""), PeerClose(4999, "")),
        (b"\x03", Violation(PROTOCOL_ERROR, "a close frame without a valid code")),
        (close_payload(1006, ""), Violation(PROTOCOL_ERROR, "a close frame without a valid code")),
        (b"\x03\xe8\xff", Violation(BAD_TEXT, "a close reason that is not UTF-8")),
    ],
)
def test_nothing_follows_a_close_frame(payload: bytes, event: FrameEvent) -> None:
    assembler = Assembler(100, is_masked=False)
    assert end(CLOSE, payload, to=assembler) == event
    assert assembler.is_over


@pytest.mark.parametrize(("size", "length"), [(0, 2), (125, 2), (126, 4), (65_535, 4), (65_536, 10)])
def test_a_header_is_as_short_as_its_size_allows(size: int, length: int) -> None:
    header = frame_header(BINARY, size)
    assert len(header) == length
    masked = frame_header(BINARY, size, MASKED)
    assert (masked[0], masked[1], masked[2:]) == (header[0], header[1] | 0x80, header[2:])
