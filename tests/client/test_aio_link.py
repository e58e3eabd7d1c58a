"""What a link in an event loop keeps of a server that sends without an end, over a transport that only notes it.

All else that links do is told by tests/contract, over sockets.
"""

from __future__ import annotations

import asyncio
import time
import tracemalloc
from typing import Any

import pytest
from websockets.http11 import Request
from websockets.server import ServerProtocol

from policyserve.client.address import read_address
from policyserve.client.aio_link import Link
from policyserve.client.handshake import Handshake
from tests.contract.stalling import HEADER_OF_A_GIB, frame
from tests.server.live import DEADLINE_S

MiB = 1 << 20
ROBOT = read_address("ws://robot:8000", "openpi")
ANSWER = frame(0x2, b"\x80")


class Transport(asyncio.Transport):
    """Takes what is written, or holds it as one whose peer reads nothing, and notes whether it may read."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.is_full = False
        self.is_paused = False

    def write(self, data: Any) -> None:
        self.written += data

    def get_write_buffer_size(self) -> int:
        return len(self.written) if self.is_full else 0

    def is_closing(self) -> bool:
        return False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def can_write_eof(self) -> bool:
        return False

    def pause_reading(self) -> None:
        assert not self.is_paused
        self.is_paused = True

    def resume_reading(self) -> None:
        assert self.is_paused
        self.is_paused = False

    def abort(self) -> None:
        pass


class Linked:
    """An open link and its transport."""

    def __init__(self) -> None:
        handshake = Handshake(ROBOT, None)
        self.transport = Transport()
        self.link = Link(ROBOT, handshake, DEADLINE_S)
        self.link.connection_made(self.transport)
        self.hear(accepted(handshake))

    def hear(self, data: bytes) -> None:
        """The server's bytes reach the link, as a transport brings them: while it may read."""
        left = memoryview(data)
        while left and not self.transport.is_paused:
            buffer = self.link.get_buffer(-1)
            count = min(len(buffer), len(left))
            buffer[:count] = left[:count]
            left = left[count:]
            del buffer
            self.link.buffer_updated(count)

    async def asked_when(self, when: str) -> None:
        """Ask, unless it is before the first call; in the middle of a call the server takes no request."""
        self.transport.is_full = when == "in a call"
        if when != "before the first":
            await self.link.ask([b"?"], time.monotonic() + DEADLINE_S)

    async def ask(self) -> bytes:
        asked = asyncio.ensure_future(self.link.ask([b"?"], time.monotonic() + DEADLINE_S))
        await asyncio.sleep(0)
        self.hear(ANSWER)
        return bytes(await asked)  # type: ignore[arg-type]  # no text


def accepted(handshake: Handshake) -> bytes:
    server = ServerProtocol()
    server.receive_data(handshake.request)
    (request,) = server.events_received()
    assert isinstance(request, Request)
    server.send_response(server.accept(request))
    return b"".join(server.data_to_send())


def heard_until_paused(linked: Linked, data: bytes) -> int:
    """How often a link hears it before it reads no more; 1000 times at most."""
    for count in range(1000):
        if linked.transport.is_paused:
            return count
        linked.hear(data)
    return 1000


FLOODS = {
    "messages": frame(0x2, bytes(MiB)),
    "small messages": frame(0x2, b"") * 100_000,
    "texts": frame(0x1, bytes(MiB)),
    "a message without an end": HEADER_OF_A_GIB + bytes(MiB),
    "fragments": frame(0x2, bytes(1000), is_final=False) + frame(0x0, bytes(1000), is_final=False) * 1000,
}


@pytest.mark.parametrize("when", ["between two calls", "before the first", "in a call"])
@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS)
def test_reading_pauses_when_more_comes_than_anybody_asked_for(flood: bytes, when: str) -> None:
    async def test() -> None:
        linked = Linked()
        asked = asyncio.ensure_future(linked.asked_when(when))
        await asyncio.sleep(0)
        if when != "before the first":
            linked.hear(ANSWER)
            await asyncio.sleep(0)
        assert asked.done() == (when != "in a call")
        assert not linked.transport.is_paused
        tracemalloc.start()
        try:
            assert heard_until_paused(linked, flood) == 1
            kept = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert kept < 3 * MiB + (1 << 30) * flood.startswith(HEADER_OF_A_GIB)  # it is asked for and not yet used
        asked.cancel()
        await asyncio.wait([asked])

    asyncio.run(test())


def test_a_greeting_that_came_early_is_read_when_it_is_waited_for_and_reading_goes_on() -> None:
    async def test() -> None:
        linked = Linked()
        linked.hear(ANSWER)
        assert linked.transport.is_paused
        assert bytes(await linked.link.receive(time.monotonic() + DEADLINE_S)) == b"\x80"  # type: ignore[arg-type]
        assert not linked.transport.is_paused
        assert await linked.ask() == b"\x80"
        assert not linked.transport.is_paused

    asyncio.run(test())


def test_a_close_reads_on_to_the_servers_close_frame() -> None:
    async def test() -> None:
        linked = Linked()
        linked.hear(ANSWER)
        assert linked.transport.is_paused
        closing = asyncio.ensure_future(linked.link.close(time.monotonic() + DEADLINE_S))
        await asyncio.sleep(0)
        assert not linked.transport.is_paused
        linked.hear(frame(0x8, b"\x03\xe8"))
        await closing

    asyncio.run(test())


def test_a_server_that_pings_and_reads_nothing_gets_no_heap_of_pongs() -> None:
    async def test() -> None:
        linked = Linked()
        before = len(linked.transport.written)
        linked.hear(frame(0x9, b"first"))
        linked.transport.is_full = True
        for number in range(10_000):
            linked.hear(frame(0x9, b"%04d" % number))
        first = len(linked.transport.written) - before
        assert first == 6 + len(b"first")
        linked.transport.is_full = False
        linked.link.resume_writing()
        assert len(linked.transport.written) - before - first == 6 + len(b"9999")

    asyncio.run(test())
