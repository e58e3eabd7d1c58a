"""What broken and hostile peers do, each with the end that it must come to. All ends have a deadline.

A misdeed returns what the server did wrong; nothing if it did what it should.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias

import msgpack

from policyserve.core.errors import RemoteError, WireError
from policyserve.dialects import by_name

from .asks import MISWORDED, Ask, Fault
from .clients import DIALECTS, PATIENCE_S, Books
from .forged import forged_frames
from .ledger import Ledger
from .raw import RawPeer, connect_raw, frame, handshake, open_raw
from .rig import Place

_BINARY, _TEXT, _CLOSE, _PING, _PONG = 2, 1, 8, 9, 10
_MIB = 1 << 20
_TINY, _FLOOD = 40, 30_000  # frames: as a sensible client may send them, and as none does
_LONGEST_TOLD = 8192  # bytes of an error: who reads it is a person, or a program that keeps it


class Visit:
    """What a misdeed needs: where to go, its dice, and the names for its requests."""

    def __init__(self, place: Place, ledger: Ledger, dice: random.Random, client: int, session: int) -> None:
        self.place = place
        self.dice = dice
        self.dialect = dice.choice(DIALECTS)
        self.books = Books(ledger, f"hostile, {self.dialect}")
        self._client, self._session, self._number = client, session, 0
        self.peer: RawPeer | None = None

    def ask(self, picture_bytes: int = 0, padding: int = 0, fault: Fault = Fault.NONE) -> Ask:
        """A request of its own."""
        self._number += 1
        return Ask(self._client, self._session, self._number, fault, picture_bytes=picture_bytes, padding=padding)

    async def enter(self) -> RawPeer:
        """Open a session and read the greeting."""
        self.peer = peer = await self.open()
        return peer

    async def open(self) -> RawPeer:
        """Open a session that whoever asked for it has to close, and read the greeting."""
        peer = await open_raw(self.place, f"/{self.dialect}")
        self.books.account["sessions"] += 1
        if by_name(self.dialect).greets:
            assert await peer.read_frame() is not None, "no greeting"
        return peer

    def frame_of(self, ask: Ask) -> bytes:
        """A request, counted as sent."""
        self.books.sent()
        return frame(_BINARY, self.payload_of(ask))

    def payload_of(self, ask: Ask) -> bytes:
        written = by_name(self.dialect).write_request(ask.observation())
        assert isinstance(written, bytes)
        return written

    async def take_answer(self, peer: RawPeer, ask: Ask) -> str:
        """Read and book the answer of the oldest request."""
        got = await peer.read_frame()
        if got is not None and got[0] == _CLOSE and not by_name(self.dialect).greets:
            self.books.refused(ask, f"{int.from_bytes(got[1][:2], 'big')}: {got[1][2:].decode()}")
            return ""
        if got is None or got[0] == _CLOSE:
            self.books.closed()
            return f"a good request was answered with {got}"
        self.book(ask, got)
        return ""

    def book(self, ask: Ask, got: tuple[int, bytes]) -> None:
        """Book a data frame as the answer of this request."""
        try:
            reply = by_name(self.dialect).read_reply(got[1].decode() if got[0] == _TEXT else memoryview(got[1]))
            self.books.answered(ask, reply)
        except RemoteError as error:
            self.books.refused(ask, str(error))
        except WireError as error:
            self.books.answered_wrongly(ask, error)


Misdeed: TypeAlias = Callable[[Visit], Awaitable[str]]


async def reset_in_a_frame(visit: Visit) -> str:
    peer = await visit.enter()
    await peer.send(visit.frame_of(visit.ask()))
    cut = frame(_BINARY, visit.payload_of(visit.ask(picture_bytes=visit.dice.choice((10, 200_000)))))
    await peer.send(cut[: visit.dice.randrange(1, len(cut))])
    peer.reset()
    visit.books.closed()
    return ""


async def end_in_a_frame(visit: Visit) -> str:
    peer = await visit.enter()
    cut = frame(_BINARY, visit.payload_of(visit.ask(picture_bytes=visit.dice.choice((10, 200_000)))))
    await peer.send(cut[: visit.dice.randrange(1, len(cut))])
    peer.half_close()
    await peer.rest()
    return ""


async def vanish_with_requests(visit: Visit) -> str:
    peer = await visit.enter()
    count = visit.dice.randrange(1, 40)
    await peer.send(b"".join(visit.frame_of(visit.ask(padding=visit.dice.choice((0, 5000)))) for _ in range(count)))
    if visit.dice.random() < 0.5:
        peer.reset()
    visit.books.closed(count)
    return ""


async def black_hole(visit: Visit) -> str:
    """Neither read nor write, and answer no ping: the server has to find out."""
    peer = await visit.enter()
    asks = [visit.ask(padding=50_000) for _ in range(visit.dice.choice((0, 3)))]
    await peer.send(b"".join(map(visit.frame_of, asks)))
    visit.books.closed(len(asks))
    await peer.rest()
    return ""


async def read_nothing(visit: Visit) -> str:
    """Ask for a lot and read none of it."""
    peer = await visit.enter()
    asks = [visit.ask(padding=200_000) for _ in range(24)]
    await asyncio.wait_for(peer.send(b"".join(map(visit.frame_of, asks))), PATIENCE_S)
    await asyncio.sleep(visit.dice.uniform(1.0, 6.0))
    for place, ask in enumerate(asks):
        got = await peer.read_frame()
        if got is None or got[0] == _CLOSE:
            visit.books.closed(len(asks) - place)
            return ""
        visit.book(ask, got)
    return ""


async def half_a_handshake(visit: Visit) -> str:
    peer = visit.peer = await connect_raw(visit.place)
    head = handshake("/openpi")
    await peer.send(head[: visit.dice.randrange(0, len(head) - 1)])
    said = await peer.rest()
    return "" if b"408" in said or b"no request within" in said else f"not told of the time-out: {said!r}"


async def a_slow_handshake(visit: Visit) -> str:
    peer = visit.peer = await connect_raw(visit.place)
    end = asyncio.create_task(peer.rest())
    for byte in handshake("/openpi"):
        await peer.send(bytes([byte]))
        if (await asyncio.wait([end], timeout=0.5))[0]:
            break
    await end
    return ""


async def a_slow_message(visit: Visit) -> str:
    """A byte a second, which no time-out for silence would find."""
    peer = await visit.enter()
    end = asyncio.create_task(peer.read_frame())
    for byte in frame(_BINARY, visit.payload_of(visit.ask())):
        await peer.send(bytes([byte]))
        if (await asyncio.wait([end], timeout=1.0))[0]:
            break
    got = await end
    await peer.rest()
    return "" if got is not None and got[0] == _CLOSE and b"not whole" in got[1] else f"expected a close, got {got}"


async def a_giant(visit: Visit) -> str:
    """A frame whose header says more than a message may have."""
    peer = await visit.enter()
    await peer.send(frame(_BINARY, bytes(1000), claims=visit.dice.choice((9 * _MIB, 1 << 40, (1 << 63) - 1))))
    return await _closes_with(peer, 1009)


async def fragments_without_end(visit: Visit) -> str:
    peer = await visit.enter()
    sending = asyncio.create_task(_send_fragments(peer))
    told = await _closes_with(peer, 1009)
    await sending
    return told


async def _send_fragments(peer: RawPeer) -> None:
    await peer.send(frame(_BINARY, bytes(_MIB), fin=False))
    for _ in range(9):
        await peer.send(frame(0, bytes(_MIB), fin=False))


async def a_large_good_one(visit: Visit) -> str:
    peer = await visit.enter()
    ask = visit.ask(picture_bytes=3_900_000)
    await peer.send(visit.frame_of(ask))
    return await visit.take_answer(peer, ask)


async def forged(visit: Visit) -> str:
    """A frame that ends other servers: refused, and a session that stays open goes on to answer."""
    peer = await visit.enter()
    frames = forged_frames(visit.dialect)
    name = visit.dice.choice(list(frames))
    payload = frames[name]
    sent = frame(_TEXT, payload.encode()) if isinstance(payload, str) else frame(_BINARY, payload)
    visit.books.sent()
    await asyncio.wait_for(peer.send(sent), PATIENCE_S)
    got = await peer.read_frame()
    if got is None:
        visit.books.closed()
        return f"{name}: the connection ended without a word"
    visit.books.account["refused"] += 1
    if not by_name(visit.dialect).greets:
        return "" if got[0] == _CLOSE and got[1][:2] == (1008).to_bytes(2, "big") else f"{name}: {got[0]} {got[1][:90]}"
    if got[0] != _TEXT or not got[1].startswith((b"bad_frame", b"bad_observation")):
        return f"{name}: {got[0]} {got[1][:90]!r}"
    ask = visit.ask()
    await peer.send(visit.frame_of(ask))
    return await visit.take_answer(peer, ask)


async def another_dialect(visit: Visit) -> str:
    """A frame of one dialect on another one's path: told which path to use."""
    peer = await visit.enter()
    other = visit.dice.choice([name for name in DIALECTS if name != visit.dialect])
    written = by_name(other).write_request(visit.ask().observation())
    assert isinstance(written, bytes)
    visit.books.sent()
    await peer.send(frame(_BINARY, written))
    got = await peer.read_frame()
    visit.books.account["refused"] += 1
    said = b"" if got is None else got[1]
    return "" if f"/{other}".encode() in said else f"{other} on /{visit.dialect}: {got}"


async def a_wrong_key(visit: Visit) -> str:
    peer = visit.peer = await connect_raw(visit.place)
    wrong = visit.dice.choice((None, "Bearer wrong", "Api-Key ", "Basic !!!", "Bearer \xff\xff", "x" * 900))
    await peer.send(handshake("/openpi", wrong))
    head = await peer.read_head()
    await peer.rest()
    return "" if head.startswith(b"HTTP/1.1 401") else f"{wrong!r}: {head[:80]!r}"


async def an_origin_that_drives_a_terminal(visit: Visit) -> str:
    """A page's name with control characters: it is refused, and neither the answer nor the log shows them."""
    peer = visit.peer = await connect_raw(visit.place)
    origin = b"\r\nOrigin: http://a\x9b31m\x85forged\xc2\x9b\r\n\r\n"
    await peer.send(handshake("/openpi").replace(b"\r\n\r\n", origin))
    head = await peer.read_head()
    said = (await peer.rest()).strip()
    if not head.startswith(b"HTTP/1.1 403"):
        return f"{head[:80]!r}"
    return "" if _is_printable(said) else f"the answer shows them: {said!r}"


async def no_http(visit: Visit) -> str:
    """Bytes of all kinds in the place of a request: an HTTP answer that says what is wrong, and an end."""
    peer = visit.peer = await connect_raw(visit.place)
    said = visit.dice.choice(
        (
            visit.dice.randbytes(300), b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET\r\n\r\n", b"\r\n" * 5000,
            b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 5000 + b"\r\n", b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n",
            b"POST /openpi HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n" + bytes(200_000),
            b"GET / HTTP/9.9\r\nHost: x\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\0" * 20_000,
            handshake("/openpi").replace(b"13", b"8"), handshake("/openpi").replace(b"dGhl", b"!!!!"),
        )
    )  # fmt: skip
    await peer.send(said)
    peer.half_close()
    await peer.rest()
    return ""


async def healthz(visit: Visit) -> str:
    """No misdeed: what a probe asks in the middle of it all."""
    peer = visit.peer = await connect_raw(visit.place)
    await peer.send(b"GET /healthz HTTP/1.1\r\nHost: soak\r\n\r\n")
    head = await peer.read_head()
    await peer.rest()
    return "" if head.startswith((b"HTTP/1.1 200", b"HTTP/1.1 503")) else f"{head[:80]!r}"


async def a_broken_frame(visit: Visit) -> str:
    """What RFC 6455 forbids."""
    peer = await visit.enter()
    broken = visit.dice.choice(
        (
            (b"\x82\x01x", 1002), (b"\xc2\x81" + bytes(5), 1002), (frame(3, b"x"), 1002), (frame(0, b"x"), 1002),
            (frame(_PING, bytes(126)), 1002), (frame(_PING, b"x", fin=False), 1002), (frame(_TEXT, b"\xff\xfe"), 1007),
            (frame(_CLOSE, b"x"), 1002), (frame(_CLOSE, b"\x03\xee"), 1002), (frame(_CLOSE, b"\x03\xe8\xff"), 1007),
            (frame(_BINARY, b"x", fin=False) + frame(_BINARY, b"y"), 1002), (b"\xff" * 64, 1002),
        )
    )  # fmt: skip
    await peer.send(broken[0])
    return await _closes_with(peer, broken[1])


async def a_flood_of_pings(visit: Visit) -> str:
    """And a request behind them, which is answered all the same."""
    peer = await visit.enter()
    ask = visit.ask()
    await peer.send(b"".join(frame(_PING, bytes(visit.dice.randrange(126))) for _ in range(200)) + visit.frame_of(ask))
    for _ in range(200):
        got = await peer.read_frame()
        if got is None or got[0] != 10:
            visit.books.closed()
            return f"expected a pong, got {got}"
    return await visit.take_answer(peer, ask)


async def some_tiny_frames(visit: Visit) -> str:
    """Dozens of the smallest frames that there are, and a request among them: answered all the same."""
    peer = await visit.enter()
    ask = visit.ask()
    visit.books.sent()
    payload = visit.payload_of(ask)
    pieces = [payload[:-_TINY], *(payload[place : place + 1] for place in range(len(payload) - _TINY, len(payload)))]
    idle = [frame(_PONG, b""), frame(_PONG, b"x"), frame(0, b"", fin=False)]
    sent = [frame(_BINARY, b"", fin=False)]
    for piece in pieces:
        sent += [visit.dice.choice(idle), frame(0, piece, fin=False)]
    await peer.send(b"".join([*sent, frame(0, b"")]))
    return await visit.take_answer(peer, ask)


async def a_flood_of_tiny_frames(visit: Visit) -> str:
    """As many of one kind as would fill seconds: another session is answered meanwhile."""
    flooding = await visit.enter()
    begin, tiny = visit.dice.choice(
        (
            (b"", frame(_BINARY, b"\x80")), (b"", frame(_BINARY, b"")), (b"", frame(_TEXT, b"")),
            (b"", frame(_PING, b"")), (b"", frame(_PONG, b"")),
            (frame(_BINARY, b"", fin=False), frame(0, b"", fin=False)),
            (frame(_TEXT, b"", fin=False), frame(0, b"x", fin=False)),
        )
    )  # fmt: skip
    peer = await visit.open()
    tasks = [asyncio.create_task(flooding.send(begin + tiny * _FLOOD)), asyncio.create_task(flooding.rest())]
    try:
        ask = visit.ask()
        await peer.send(visit.frame_of(ask))
        return await visit.take_answer(peer, ask)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await peer.close()


async def long_keys(visit: Visit) -> str:
    """Keys as long as a message, above thousands of entries or none, beside a good observation: the bound is named."""
    peer = await visit.enter()
    keys: Mapping[str, object] = visit.dice.choice(
        (
            lambda: {"k" * 65_536: {f"a{number}": number for number in range(16_000)}},
            lambda: {"k" * 3_900_000: 0},
            lambda: {"\U0001f916" * 16_000: {"a": [{}] * 5_000}},
            lambda: {f"{number:05}" * 6_000: number for number in range(100)},
        )
    )()  # fmt: skip
    ask = visit.ask()
    payload = with_keys(visit.payload_of(ask), keys)
    visit.books.sent()
    await asyncio.wait_for(peer.send(frame(_BINARY, payload)), PATIENCE_S)
    got = await peer.read_frame()
    if got is None:
        visit.books.closed()
        return "the connection ended without a word"
    visit.books.account["refused"] += 1
    if not by_name(visit.dialect).greets:
        return "" if is_told_why(got, 1008) else f"expected a close with 1008, got {got[0]} {got[1][:90]!r}"
    if got[0] != _TEXT or b"max-key" not in got[1] or len(got[1]) > _LONGEST_TOLD:
        return f"expected an error that names --max-key, got {got[0]} {got[1][:90]!r}"
    ask = visit.ask()
    await peer.send(visit.frame_of(ask))
    return await visit.take_answer(peer, ask)


def with_keys(observation: bytes, more: Mapping[str, object]) -> bytes:
    """A small map with more entries behind its own."""
    packed = msgpack.packb(more)
    assert isinstance(packed, bytes)
    header = 1 if len(more) < 16 else 3
    count = (observation[0] & 0x0F) + len(more)
    assert observation[0] & 0xF0 == 0x80, "a map of up to fifteen entries"
    return b"\xde" + count.to_bytes(2, "big") + observation[1:] + packed[header:]


async def words_that_cannot_be_told(visit: Visit) -> str:
    """A policy whose errors or answers have no text, or one that nobody should see: one short readable line."""
    peer = await visit.enter()
    ask = visit.ask(fault=visit.dice.choice(MISWORDED))
    await peer.send(visit.frame_of(ask))
    got = await peer.read_frame()
    if got is None:
        visit.books.closed()
        return f"{ask.fault.name}: the connection ended without a word"
    if got[0] == _BINARY:
        visit.book(ask, got)
        return ""
    told = got[1] if got[0] == _TEXT else got[1][2:]
    code = f"{int.from_bytes(got[1][:2], 'big')}: " if got[0] == _CLOSE else ""
    visit.books.refused(ask, code + told.decode("utf-8", "replace"))
    is_readable = len(told) <= _LONGEST_TOLD and _is_printable(told)
    return "" if is_readable else f"{ask.fault.name}: {len(told)} bytes, {told[:90]!r}"


def _is_printable(told: bytes) -> bool:
    try:
        return told.decode().isprintable()
    except UnicodeDecodeError:
        return False


async def a_close_among_requests(visit: Visit) -> str:
    """Requests, a close frame, and more behind it, in one piece."""
    peer = await visit.enter()
    count = visit.dice.randrange(1, 5)
    before = b"".join(visit.frame_of(visit.ask()) for _ in range(count))
    await peer.send(before + frame(_CLOSE, b"\x03\xe8") + frame(_BINARY, b"more"))
    visit.books.closed(count)
    await peer.rest()
    return ""


async def complaint_of(deed: Awaitable[str], patience_s: float = PATIENCE_S) -> str:
    """What a misdeed says that the server did wrong, or that it did not come to its end."""
    try:
        return await asyncio.wait_for(deed, patience_s)
    except asyncio.TimeoutError:
        return f"not over after {patience_s:g} s"
    except (AssertionError, OSError) as error:
        return f"{type(error).__name__}: {error}"


def is_told_why(got: tuple[int, bytes], *codes: int) -> bool:
    """Whether this is a close frame with one of these codes and a reason."""
    return got[0] == _CLOSE and int.from_bytes(got[1][:2], "big") in codes and len(got[1]) > 2


async def _closes_with(peer: RawPeer, code: int) -> str:
    got = await peer.read_frame()
    await peer.rest()
    is_fine = got is not None and got[0] == _CLOSE and got[1][:2] == code.to_bytes(2, "big")
    return "" if is_fine else f"expected a close with {code}, got {got}"


SWIFT: tuple[Misdeed, ...] = (
    reset_in_a_frame, end_in_a_frame, vanish_with_requests, a_giant, fragments_without_end, a_large_good_one, forged,
    forged, forged, another_dialect, a_wrong_key, an_origin_that_drives_a_terminal, no_http, healthz, a_broken_frame,
    a_flood_of_pings, a_close_among_requests, some_tiny_frames, a_flood_of_tiny_frames, long_keys,
    words_that_cannot_be_told,
)  # fmt: skip
SLOW: tuple[Misdeed, ...] = (black_hole, read_nothing, half_a_handshake, a_slow_handshake, a_slow_message)


def misbehaving(has_time: bool) -> Callable[[Place, Ledger, random.Random, int, int], Awaitable[None]]:
    """A client of misdeeds, one each visit. has_time: for those that try the server's time-outs, too."""

    async def live(place: Place, ledger: Ledger, dice: random.Random, client: int, session: int) -> None:
        misdeed = dice.choice(SLOW) if has_time and dice.random() < 0.05 else dice.choice(SWIFT)
        await _visit(misdeed, Visit(place, ledger, dice, client, session), ledger)

    return live


async def _visit(misdeed: Misdeed, visit: Visit, ledger: Ledger) -> None:
    try:
        complaint = await complaint_of(misdeed(visit))
    finally:
        if visit.peer is not None:
            visit.peer.reset() if visit.dice.random() < 0.5 else await visit.peer.close()
    ledger.misdeed(misdeed.__name__.replace("_", " "), complaint)
