"""`policyserve` with one piece of its machinery switched off, for ablations.py.

    python -m measuring.ablated PIECE serve measuring.policies:libero_inline

A piece is switched off by replacing what stands at one place of the package, so that the package needs no flags for it.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from websockets.frames import Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol

from policyserve.cli import main as serve
from policyserve.core import memory
from policyserve.core.messages import EncodedText
from policyserve.core.reading import _Worth  # pyright: ignore[reportPrivateUsage]
from policyserve.dialects.metadata_first import MetadataFirst, server_timing
from policyserve.engine.answering import Answering
from policyserve.engine.inline import Turns
from policyserve.websocket import frames, server_frames

_READ_BYTES = 1 << 18  # as asyncio reads at a time
_SCRATCH = bytearray(_READ_BYTES)


def replace(owner: Any, name: str, by: Any) -> None:
    """Put something else in the place of an attribute that is there."""
    assert hasattr(owner, name), f"{owner.__name__}.{name} is not there any more: say here where it is"
    setattr(owner, name, by)


def decode_every_request() -> None:
    replace(_Worth, "is_another", lambda _self, _size: False)


def pack_every_reply() -> None:
    def write_reply(self: MetadataFirst, chunk: Any, timing: Any) -> bytes:
        timings = {"server_timing": server_timing(timing)}
        return self.spelling.pack({**chunk.extras, **self.action_entries(chunk.actions), **timings})

    replace(MetadataFirst, "write_reply", write_reply)


def answer_each_request_alone() -> None:
    replace(Turns, "waits", lambda _self, _session: False)


def prepare_in_turn() -> None:
    replace(Answering, "prepares", property(lambda _self: False))


def read_every_frame_at_once() -> None:
    replace(server_frames, "_MOST_FRAMES", 1 << 30)


def read_by_websockets() -> None:
    replace(server_frames, "FrameReader", ProtocolReader)


def give_back_what_is_freed() -> None:
    """The C library does with freed memory as it does by default."""
    replace(memory, "keep_freed", lambda: None)
    replace(memory, "give_back", lambda: None)


def run_on_asyncio() -> None:
    sys.modules["uvloop"] = None  # type: ignore[assignment]  # importing it fails then


def run_on_uvloop() -> None:
    import uvloop

    def run(main: Coroutine[Any, Any, Any]) -> Any:
        loop = uvloop.new_event_loop()
        asyncio.set_event_loop(loop)
        try:
            return loop.run_until_complete(main)
        finally:
            loop.close()

    replace(asyncio, "run", run)
    replace(uvloop, "run", run)


PIECES: Mapping[str, Callable[[], None]] = {
    "nothing": lambda: None,
    "learned layouts": decode_every_request,
    "reply templates": pack_every_reply,
    "shared turns": answer_each_request_alone,
    "preparing ahead": prepare_in_turn,
    "few frames a turn": read_every_frame_at_once,
    "own framing": read_by_websockets,
    "freed memory kept": give_back_what_is_freed,
    "uvloop": run_on_asyncio,
    "asyncio": run_on_uvloop,
}


class ProtocolReader:
    """What server_frames.FrameReader does, by `websockets`' protocol without I/O."""

    def __init__(self, max_message_bytes: int, *_shared: Any) -> None:
        self._protocol = ServerProtocol(state=State.OPEN, max_size=max_message_bytes)
        self._fragments: list[bytes] = []
        self.on_growth: Callable[[int], object] = int
        self.is_mid_message = self.has_more = False
        self.idle_frames = 0

    def get_buffer(self) -> memoryview:
        return memoryview(_SCRATCH)

    def advance(self, count: int) -> Sequence[server_frames.PeerEvent]:
        return self.feed(memoryview(_SCRATCH)[:count])

    def feed(self, data: memoryview | bytes) -> list[server_frames.PeerEvent]:
        self._protocol.receive_data(bytes(data))
        events = [self._event(frame) for frame in self._protocol.events_received()]
        return [event for event in events if event is not None]

    def abandon(self) -> None:
        self._fragments.clear()

    def _event(self, frame: Any) -> server_frames.PeerEvent | None:
        if frame.opcode is Opcode.PING:
            return frames.Ping(bytes(frame.data))
        if frame.opcode is Opcode.CLOSE:
            return frames.PeerClose(int.from_bytes(frame.data[:2], "big") or frames.NO_CODE, "")
        if frame.opcode is Opcode.PONG:
            return None
        self._fragments.append(frame.data)
        if not frame.fin:
            return None
        message = bytearray().join(self._fragments)  # the policy may write into its arrays
        self._fragments.clear()
        whole = memoryview(message)
        return EncodedText(whole) if frame.opcode is Opcode.TEXT else whole


if __name__ == "__main__":
    PIECES[sys.argv[1]]()
    serve(sys.argv[2:])
