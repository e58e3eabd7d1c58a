"""One connection to a server of GR00T's over ZeroMQ, for both clients: it connects, asks, and notices the end.

ZeroMQ connects by itself, again and again, and tells nobody. So the port is tried first, and a monitor tells when the
connection has ended: an answer would never come.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from policyserve.client.address import Address
from policyserve.client.options import ClientOptions
from policyserve.client.reaching import aio_reach, reach
from policyserve.core.errors import ConnectionLost, DeadlineExceeded, MissingDependency
from policyserve.core.messages import Message, Part
from policyserve.dialects.gr00t.client_half import PING, check_pong, with_token
from policyserve.dialects.packing import joined

if TYPE_CHECKING:
    import socket

if sys.version_info >= (3, 11):
    from asyncio import timeout
else:
    from async_timeout import timeout


class _Asker:
    """ZeroMQ's two sockets: what asks, and what tells that the connection ended. Nothing here waits."""

    def __init__(self, address: Address, options: ClientOptions) -> None:
        try:
            import zmq
        except ImportError as error:
            raise MissingDependency("pyzmq", "gr00t") from error
        self._again = zmq.Again
        self._no_wait = zmq.NOBLOCK
        self._key = options.api_key or ""
        self._socket: Any = zmq.Context.instance().socket(zmq.REQ)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.IPV6, 1)
        if options.dead_after_s is not None:
            dead_ms = max(int(options.dead_after_s * 1000), 1)
            self._socket.setsockopt(zmq.HEARTBEAT_IVL, max(dead_ms // 3, 1))
            self._socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, dead_ms)
        self._monitor: Any = self._socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        host = f"[{address.host}]" if ":" in address.host else address.host
        self._socket.connect(f"tcp://{host}:{address.port}")
        self.numbers = [int(one.getsockopt(zmq.FD)) for one in (self._socket, self._monitor)]

    def send(self, parts: list[Part]) -> None:
        """Ask; ZeroMQ keeps it until it has connected."""
        self._socket.send(with_token(joined(parts), self._key), self._no_wait)

    def take(self) -> bytes | None:
        """The answer, if it is there; raises ConnectionLost where there will be none."""
        try:
            answer: bytes = self._socket.recv(self._no_wait)
            return answer
        except self._again:
            if self.has_ended:
                raise ConnectionLost("the connection ended without an answer") from None
            return None

    @property
    def has_ended(self) -> bool:
        """Whether the connection has ended since it was asked last."""
        try:
            self._monitor.recv_multipart(self._no_wait)
            return True
        except self._again:
            return False

    def close(self) -> None:
        """Let go of both."""
        if not self._socket.closed:
            self._socket.disable_monitor()
            self._monitor.close(linger=0)
            self._socket.close(linger=0)


class _Common:
    """What both clients' links have in common."""

    def __init__(self, address: Address, options: ClientOptions) -> None:
        self._address = address
        self._timeout_s = options.timeout_s
        self._asker = _Asker(address, options)

    def cut(self) -> None:
        """End it at once."""
        self._asker.close()

    def _no_answer(self, doubt: str = "") -> DeadlineExceeded:
        return DeadlineExceeded(f"no answer from {self._address.url} within {self._timeout_s:g} s{doubt}")


class ZmqLink(_Common):
    """A Client's connection. After an exception of any call but close() it must be cut."""

    def ask(self, parts: list[Part], deadline: float, doubt: str = "") -> Message:
        """Send one message and wait for its answer; raises DeadlineExceeded, or ConnectionLost.

        doubt: what the error of a time-out adds.
        """
        import zmq

        self._asker.send(parts)
        poller = zmq.Poller()
        for number in self._asker.numbers:
            poller.register(number, zmq.POLLIN)
        while True:
            answer = self._asker.take()
            if answer is not None:
                return memoryview(bytearray(answer))
            left = deadline - time.monotonic()
            if left <= 0:
                raise self._no_answer(doubt)
            poller.poll(max(int(left * 1000), 1))

    def is_usable(self, may_close: bool, deadline: float) -> bool:
        """Whether the connection is still open."""
        return not self._asker.has_ended

    def close(self, deadline: float) -> None:
        """End it; the server sees that, and its session ends."""
        self._asker.close()

    def forget(self) -> None:
        """After a fork: ZeroMQ's sockets are the parent's, and do nothing here."""


class AsyncZmqLink(_Common):
    """An AsyncClient's connection, of one event loop. After an exception of any call but close() it must be cut."""

    def __init__(self, address: Address, options: ClientOptions) -> None:
        super().__init__(address, options)
        self.loop = asyncio.get_running_loop()

    async def ask(self, parts: list[Part], deadline: float, doubt: str = "") -> Message:
        """Send one message and wait for its answer; raises DeadlineExceeded, or ConnectionLost.

        doubt: what the error of a time-out adds.
        """
        came = asyncio.Event()
        for number in self._asker.numbers:
            self.loop.add_reader(number, came.set)
        try:
            async with timeout(max(deadline - time.monotonic(), 0.0)):
                self._asker.send(parts)
                while True:
                    answer = self._asker.take()
                    if answer is not None:
                        return memoryview(bytearray(answer))
                    came.clear()
                    await came.wait()
        except asyncio.TimeoutError as error:
            raise self._no_answer(doubt) from error
        finally:
            for number in self._asker.numbers:
                self.loop.remove_reader(number)

    async def is_usable(self, may_close: bool, deadline: float) -> bool:
        """Whether the connection is still open."""
        return not self._asker.has_ended

    async def close(self, deadline: float) -> None:
        """End it; the server sees that, and its session ends."""
        self._asker.close()


def open_zmq(options: ClientOptions, deadline: float, check: Callable[[socket.socket, Address], None]) -> ZmqLink:
    """Connect, and have the server answer a ping; raises NotYet, RemoteError or DeadlineExceeded.

    check: called with a socket that is connected, raises ConfigError where its server can never answer.
    """
    address = options.address
    with reach(options, deadline) as tried:
        check(tried, address)
    link = ZmqLink(address, options)
    try:
        check_pong(link.ask([PING], deadline))
    except BaseException:
        link.cut()
        raise
    return link


async def open_async_zmq(options: ClientOptions, deadline: float) -> AsyncZmqLink:
    """As open_zmq()."""
    address = options.address
    (await aio_reach(options, deadline)).close()
    link = AsyncZmqLink(address, options)
    try:
        check_pong(await link.ask([PING], deadline))
    except BaseException:
        link.cut()
        raise
    return link
