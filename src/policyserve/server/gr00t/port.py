"""The port of GR00T's clients in the event loop: what a ROUTER of ZeroMQ brings goes to one peer for each connection.

ZeroMQ tells by a descriptor that something came, once, and then no more until nothing is left: so all is read after
each word of it, and after each message that was sent, which may have taken the word.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from functools import partial
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from policyserve.core.events import Event
from policyserve.core.log import Log
from policyserve.server.config import ServerConfig
from policyserve.server.gr00t import tcp
from policyserve.server.gr00t.opening import Opened, check_installed, open_router
from policyserve.server.gr00t.peer import Gr00tPeer
from policyserve.server.gr00t.senders import Senders
from policyserve.server.guards import not_whole, nothing_asked
from policyserve.server.listener import plain_address, with_port
from policyserve.server.reception import Reception

if TYPE_CHECKING:
    import zmq

log = Log(__name__)

_AT_ONCE = 16  # messages that are taken in one turn of the loop, so that WebSockets have theirs
_LOOKED_EVERY_S = 0.25
_LEAVING_S = 1.0  # at the end: for peers to take their last answers
_LARGE = 1 << 16  # bytes, from which on a message that is coming in is looked after
_HEARTBEAT = 64  # bytes that ZeroMQ itself may send between two looks
_MOST_FRAMES = 4  # of the largest size, that may wait in ZeroMQ's thread and in the system


class _Link:
    """A connection. number: its descriptor. name: what ROUTER calls it; empty until it was heard.

    counted: of the bytes that came in, those of messages that were whole, and ZeroMQ's own.
    """

    __slots__ = ("counted", "is_over", "name", "number", "peer", "place", "unfinished_since")

    def __init__(self, number: int, place: tcp.Place) -> None:
        self.number = number
        self.place = place
        self.name = b""
        self.peer: Gr00tPeer
        self.is_over = False
        self.counted = 0
        self.unfinished_since: float | None = None


class Gr00tPort:
    """Takes GR00T's clients in. Everything here runs in the event loop's thread; ZeroMQ has one of its own.

    port: to listen on; 0: any free one. policy: the name of the one that answers there, or of a route; empty: the
    default one. Raises MissingDependency without pyzmq.
    """

    def __init__(self, config: ServerConfig, reception: Reception, port: int, policy: str = "") -> None:
        check_installed()
        self._config = config
        self._wanted = port
        self._policy = policy
        self._reception = reception
        self._opened: Opened | None = None
        self._links: dict[int, _Link] = {}  # by descriptor
        self._senders = Senders()
        self._numbers = -1 << 40  # of peers without a session; those of the server's own port count down from -1
        self._is_woken = False
        self._looking: asyncio.TimerHandle | None = None

    @property
    def url(self) -> str:
        """What clients connect to: `tcp://host:port`."""
        assert self._opened is not None, "open it first"
        host, port = self._opened.host, self._opened.port
        return f"tcp://{with_port(host, port)}"

    @property
    def port(self) -> int:
        """The port where it listens, the real one where the config says 0."""
        assert self._opened is not None, "open it first"
        return self._opened.port

    @property
    def peers(self) -> list[Gr00tPeer]:
        """Who is connected."""
        return [link.peer for link in self._links.values()]

    async def open(self) -> None:
        """Listen; raises ConfigError."""
        import zmq

        setting = f"gr00t_for: {self._policy}" if self._policy else "gr00t"
        opened = self._opened = await open_router(self._config, self._wanted, setting)
        loop = asyncio.get_running_loop()
        for one in (opened.router, opened.monitor):
            loop.add_reader(int(one.getsockopt(zmq.FD)), self._wake)
        self._look_after()
        log.info("GR00T's clients connect to %s%s", self.url, f" for {self._policy}" if self._policy else "")
        if self._config.tls_cert is not None and not ip_address(opened.host).is_loopback:
            what = "what GR00T's clients send to %s crosses the network in the clear, API keys too; see SECURITY.md"
            log.warning(what, self.url, event=Event("access_warned"))

    async def close(self) -> None:
        """End all connections, once what is written has gone out."""
        opened, self._opened = self._opened, None
        if opened is None:
            return
        import zmq

        loop = asyncio.get_running_loop()
        for one in (opened.router, opened.monitor):
            loop.remove_reader(int(one.getsockopt(zmq.FD)))
        if self._looking is not None:
            self._looking.cancel()
        opened.router.disable_monitor()
        opened.monitor.close(linger=0)
        opened.router.close(linger=int(_LEAVING_S * 1000))
        for link in list(self._links.values()):
            self._lose(link)
        await loop.run_in_executor(None, opened.context.term)  # returns once nothing is left, or at the linger's end

    # What comes

    def _wake(self) -> None:
        """Take what came; what is left after that has its turn soon."""
        import zmq

        self._is_woken = False
        if self._opened is None:
            return
        router = self._opened.router
        for _ in range(_AT_ONCE):
            try:
                frames = router.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                self._follow()
                return
            self._follow()  # behind the message: who sent it is known by then, or gone
            try:
                self._take(frames)
            except Exception as error:  # a bug: it must not keep the messages of others from being read
                log.error("a message was lost", cause=error)
        self._wake_soon()

    def _wake_soon(self) -> None:
        if not self._is_woken:
            self._is_woken = True
            asyncio.get_running_loop().call_soon(self._wake)

    def _take(self, frames: Sequence[zmq.Frame]) -> None:
        """A message came: who it is from, nothing, and the message; of clients of another kind without the nothing."""
        import zmq

        identity, parts = frames[0].bytes, frames[1:]
        try:
            link = self._sender(int(parts[-1].get(zmq.SRCFD)), identity) if parts else None
        except zmq.ZMQError:  # a peer of ZeroMQ 2, of which it tells nothing: there are no such clients
            return
        if link is None or link.is_over:  # its connection is gone, and nobody would read an answer
            return
        link.counted += sum(_on_the_wire(len(part)) for part in parts)
        is_asked = len(parts) > 1 and len(parts[0]) == 0
        route = [identity, b""] if is_asked else [identity]
        whole = parts[1:] if is_asked else parts
        message = whole[0].buffer if len(whole) == 1 else memoryview(b"")  # of several parts none is a request
        link.peer.take(route, message, time.monotonic())

    def _sender(self, number: int, name: bytes) -> _Link | None:
        """The connection that a message came by; None if it is gone."""
        link = self._links.get(number)
        verdict = self._senders.judge(number, name, b"" if link is None else link.name)
        if link is None or verdict == "gone":
            return None
        if verdict == "another's":
            self._lose(link)
            self._enter(number)
            link = self._links.get(number)
        if link is not None:
            link.name = name
        return link

    def _follow(self) -> None:
        """Learn which connections came and went."""
        import zmq
        from zmq.utils.monitor import recv_monitor_message

        if self._opened is None:
            return
        while True:
            try:
                told: Any = recv_monitor_message(self._opened.monitor, zmq.NOBLOCK)
            except zmq.Again:
                return
            number = int(told["value"])
            if number in self._links:
                self._lose(self._links[number])
            if told["event"] == zmq.EVENT_ACCEPTED:
                self._enter(number)

    def _enter(self, number: int) -> None:
        place = tcp.place_of(number)
        if place is None:  # it is gone, which is told next
            return
        host = plain_address(place.peer[0])
        shown = with_port(host, place.peer[1])
        link = self._links[number] = _Link(number, place)
        self._numbers -= 1
        end, write = partial(self._cut, link), partial(self._write, link)
        path = f"/{self._policy}"
        link.peer = Gr00tPeer(self._numbers, host, shown, self._reception, self._config, write, end, path)
        self._reception.enter(link.peer)

    def _cut(self, link: _Link) -> None:
        link.is_over = True
        tcp.cut(link.number, link.place)

    def _lose(self, link: _Link) -> None:
        link.is_over = True
        self._links.pop(link.number, None)
        link.peer.lose()

    # What goes out

    def _write(self, link: _Link, frames: Sequence[bytes]) -> None:
        import zmq

        if self._opened is None or link.is_over:
            return
        try:
            self._opened.router.send_multipart(frames, zmq.NOBLOCK)
        except zmq.Again:
            link.peer.cut("it reads none of its answers")
        except zmq.ZMQError as error:  # it is gone, which is told next
            log.debug("not sent: %s", error)
        self._wake_soon()

    # Time

    def look(self) -> None:
        """End sessions that ask nothing, and connections whose messages never end or take all memory."""
        now = time.monotonic()
        for link in list(self._links.values()):
            self._look_at(link, now)

    def _look_after(self) -> None:
        self.look()
        self._looking = asyncio.get_running_loop().call_later(_LOOKED_EVERY_S, self._look_after)

    def _look_at(self, link: _Link, now: float) -> None:
        config, peer = self._config, link.peer
        idle_s = config.idle_timeout_s
        if idle_s is not None and peer.has_session and not peer.pending and now - peer.asked_at > idle_s:
            peer.leave(nothing_asked(idle_s))
        came = tcp.received(link.number, link.place)
        if came is None:
            return
        link.counted += min(max(came - link.counted - peer.unfinished, 0), _HEARTBEAT)
        grown, peer.unfinished = came - link.counted - peer.unfinished, max(came - link.counted, 0)
        if peer.unfinished <= _LARGE:
            link.unfinished_since = None
            return
        self._reception.grow(max(grown, 0))
        if link.unfinished_since is None:
            link.unfinished_since = now
        if peer.unfinished > config.max_frame_bytes * _MOST_FRAMES + _LARGE:
            peer.cut(f"{peer.unfinished >> 20} MiB came that are no whole message (--max-frame-mib)")
        elif now - link.unfinished_since > config.message_timeout_s:
            peer.cut(not_whole("a message", config.message_timeout_s))


def _on_the_wire(size: int) -> int:
    """How many bytes a part takes on ZeroMQ's wire: its flags and its size stand before it."""
    return size + (9 if size > 255 else 2)
