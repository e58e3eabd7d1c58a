"""The echo server that Autobahn's fuzzing client judges, on the kinds of cases that Autobahn has.

Autobahn itself runs on Python 2.7: programs/echo_server.py says how. These are its kinds without it: echoes of all
sizes, pings, reserved bits, opcodes, fragments, UTF-8, closing, limits.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from websockets.sync.client import ClientConnection, connect

from tests.server.live import DEADLINE_S, HANDSHAKE, masked, read_frame, until_eof

PROGRAM = Path(__file__).parent / "programs" / "echo_server.py"
CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
SIZES = (0, 1, 125, 126, 127, 128, 65_535, 65_536, 1 << 20, 1 << 24)
GOODBYE = b"\x03\xe8"
LETTERS = "Hello-µ@ßöäüàá-UTF-8!! κόσμε \U0001f916"

Frames = Sequence[tuple[int, bytes]]


@pytest.fixture(scope="module", name="port")
def serve() -> Iterator[int]:
    with subprocess.Popen([sys.executable, str(PROGRAM)], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield int(server.stdout.readline())
        finally:
            server.terminate()
            assert server.wait(DEADLINE_S) == 0


def open_raw(port: int) -> socket.socket:
    peer = socket.create_connection(("127.0.0.1", port), DEADLINE_S)
    peer.sendall(HANDSHAKE + b"\r\n")
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += peer.recv(1)
    assert head.startswith(b"HTTP/1.1 101"), head
    return peer


def said_to(port: int, sent: bytes, at_a_time: int = 1 << 16) -> list[tuple[int, bytes]]:
    """All frames that the server sends to a peer that sends this and a close frame behind it."""
    sent += masked(CLOSE, GOODBYE)
    with open_raw(port) as peer:
        for start in range(0, len(sent), at_a_time):
            peer.sendall(sent[start : start + at_a_time])
        frames: list[tuple[int, bytes]] = []
        while not frames or frames[-1][0] != CLOSE:
            frames.append(read_frame(peer))
        assert until_eof(peer) == b""
    return frames


def endings(frames: Frames) -> tuple[Frames, int]:
    """What came before the close frame, and its code; 1005: it had none."""
    *before, (_, last) = frames
    return before, int.from_bytes(last[:2], "big") if last else 1005


@pytest.mark.interop
@pytest.mark.timeout(600)
@pytest.mark.skipif(shutil.which("wstest") is None, reason="no wstest here: programs/echo_server.py says how to get it")
def test_autobahns_fuzzing_client_fails_none_of_its_cases(tmp_path: Path) -> None:
    command = [sys.executable, str(PROGRAM), "--wstest", "wstest", "--report", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "301 cases: 294 OK, 4 NON-STRICT, 3 INFORMATIONAL" in done.stdout


# Echoes


@pytest.mark.parametrize("size", SIZES)
def test_messages_of_any_size_come_back_as_they_were(port: int, size: int) -> None:
    with client(port) as peer:
        for message in ("*" * size, b"\xfe" * size):
            peer.send(message)
            assert peer.recv(timeout=DEADLINE_S) == message


def client(port: int) -> ClientConnection:
    return connect(f"ws://127.0.0.1:{port}", compression=None, max_size=None, ping_interval=None)


@pytest.mark.parametrize("at_a_time", [1, 7, 997])
def test_bytes_may_come_in_any_pieces(port: int, at_a_time: int) -> None:
    sent = masked(TEXT, LETTERS.encode()) + masked(PING, b"there?") + masked(BINARY, bytes(range(256)))
    before, code = endings(said_to(port, sent, at_a_time))
    assert before == [(TEXT, LETTERS.encode()), (PONG, b"there?"), (BINARY, bytes(range(256)))]
    assert code == 1000


# Pings


@pytest.mark.parametrize("payload", [b"", b"Hello", b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff", b"\xfe" * 125])
def test_a_ping_is_answered_with_what_it_brought(port: int, payload: bytes) -> None:
    assert endings(said_to(port, masked(PING, payload) * 10)) == ([(PONG, payload)] * 10, 1000)


def test_a_pong_that_nobody_asked_for_means_nothing(port: int) -> None:
    sent = masked(PONG, b"") + masked(PONG, b"unasked") + masked(PING, b"asked")
    assert endings(said_to(port, sent)) == ([(PONG, b"asked")], 1000)


# What the protocol forbids: what came before it is answered, nothing behind it is.

FORBIDDEN = {
    "a ping of 126 bytes": masked(PING, bytes(126)),
    "a ping in fragments": masked(PING, b"", fin=False) + masked(CONT, b""),
    "a pong in fragments": masked(PONG, b"", fin=False) + masked(CONT, b""),
    "a continuation of nothing": masked(CONT, b"no beginning"),
    "a fragment of nothing": masked(CONT, b"no beginning", fin=False) + masked(CONT, b""),
    "a message inside another": masked(TEXT, b"one", fin=False) + masked(TEXT, b"two"),
    "a frame without a mask": b"\x81\x02hi",
    "a close frame of one byte": masked(CLOSE, b"\x03"),
    "a close frame of 126 bytes": masked(CLOSE, GOODBYE + b"*" * 124),
    **{f"reserved bits {bits}": bytes([0x81 | bits << 4]) + masked(TEXT, b"x")[1:] for bits in range(1, 8)},
    **{f"reserved bits {bits} of a ping": bytes([0x89 | bits << 4]) + masked(PING, b"")[1:] for bits in range(1, 8)},
    **{f"opcode {opcode}": masked(opcode, b"") for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)},
    **{
        f"close code {code}": masked(CLOSE, code.to_bytes(2, "big"))
        for code in (0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999, 5000, 65_535)
    },
}


@pytest.mark.parametrize("name", FORBIDDEN)
def test_what_is_forbidden_closes_1002_behind_what_came_before(port: int, name: str) -> None:
    sent = masked(TEXT, b"before") + FORBIDDEN[name] + masked(PING, b"") + masked(TEXT, b"behind")
    assert endings(said_to(port, sent)) == ([(TEXT, b"before")], 1002)


# Fragments


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_fragments_are_one_message_and_pings_between_them_are_answered_at_once(port: int, opcode: int) -> None:
    sent = masked(opcode, b"one ", fin=False) + masked(PING, b"1") + masked(CONT, b"", fin=False)
    sent += masked(CONT, b"two ", fin=False) + masked(PING, b"2") + masked(PONG, b"") + masked(CONT, b"three")
    assert endings(said_to(port, sent)) == ([(PONG, b"1"), (PONG, b"2"), (opcode, b"one two three")], 1000)


@pytest.mark.parametrize("size", [64, 256, 4096, 1 << 16, 1 << 22])
def test_four_mebibytes_in_fragments_come_back_whole(port: int, size: int) -> None:
    message = bytes(range(256)) * (1 << 14)
    with client(port) as peer:
        peer.send(message[start : start + size] for start in range(0, len(message), size))
        assert peer.recv(timeout=DEADLINE_S) == message


def test_a_thousand_messages_there_and_back(port: int) -> None:
    with client(port) as peer:
        for number in range(1000):
            peer.send(str(number) * (number % 40))
            assert peer.recv(timeout=DEADLINE_S) == str(number) * (number % 40)


# UTF-8

BROKEN_TEXTS = {
    "a lone continuation byte": b"\x80",
    "an end in a letter": b"\xce\xba\xe1\xbd",
    "a surrogate": b"\xed\xa0\x80",
    "a pair of surrogates": b"\xed\xa0\x80\xed\xb0\x80",
    "an overlong letter": b"\xc0\xaf",
    "an overlong zero": b"\xf0\x80\x80\x80",
    "beyond the last letter": b"\xf4\x90\x80\x80",
    "five bytes": b"\xf8\x88\x80\x80\x80",
    "no beginning of a letter": b"\xff",
}


@pytest.mark.parametrize("text", [LETTERS, "\x00\x7f\x80\u07ff\u0800\ud7ff\ue000\ufffe\uffff\U00010000\U0010ffff"])
@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_a_letter_may_lie_in_several_fragments(port: int, text: str, size: int) -> None:
    data = text.encode()
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    sent = masked(TEXT, b"", fin=False) + b"".join(masked(CONT, piece, fin=False) for piece in pieces)
    assert endings(said_to(port, sent + masked(CONT, b""))) == ([(TEXT, data)], 1000)


@pytest.mark.parametrize("name", BROKEN_TEXTS)
@pytest.mark.parametrize("cuts", [1, 3])
def test_a_text_that_is_no_utf_8_closes_1007_and_never_comes_back(port: int, name: str, cuts: int) -> None:
    data = "κόσμε".encode() + BROKEN_TEXTS[name] + b"edited" * (name != "an end in a letter")
    step = -(-len(data) // cuts)
    pieces = [data[start : start + step] for start in range(0, len(data), step)]
    sent = masked(TEXT, b"", fin=False) + b"".join(masked(CONT, piece, fin=False) for piece in pieces)
    sent = masked(BINARY, data) + sent + masked(CONT, b"") + masked(TEXT, b"behind")
    assert endings(said_to(port, sent)) == ([(BINARY, data)], 1007)


# Closing


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999])
def test_a_close_code_comes_back(port: int, code: int) -> None:
    sent = masked(CLOSE, code.to_bytes(2, "big") + b"*" * 123)
    assert endings(said_to(port, masked(TEXT, b"before") + sent)) == ([(TEXT, b"before")], code)


def test_a_close_without_a_code_is_answered_by_one(port: int) -> None:
    assert endings(said_to(port, masked(CLOSE, b""))) == ([], 1005)


def test_a_close_reason_that_is_no_utf_8_closes_1007(port: int) -> None:
    assert endings(said_to(port, masked(CLOSE, GOODBYE + b"\xce\xba\xff"))) == ([], 1007)


def test_nothing_is_read_behind_a_close(port: int) -> None:
    behind = masked(CLOSE, b"\x03\xe9") + masked(PING, b"") + masked(TEXT, b"behind")
    assert endings(said_to(port, masked(CLOSE, GOODBYE) + behind)) == ([], 1000)


def test_a_close_in_the_middle_of_a_message_ends_it(port: int) -> None:
    assert endings(said_to(port, masked(TEXT, b"half", fin=False) + masked(CLOSE, GOODBYE))) == ([], 1000)
