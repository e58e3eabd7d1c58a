"""What both clients need of sockets and the clock.

A Stream's socket never blocks, since a call has one deadline for all its waits: it sends and receives what it can, and
polls for the rest. Most calls then make four system calls, of which two are the message and its answer.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from policyserve.core.messages import Part
from policyserve.core.polling import RecentWaits

Poll = Callable[[float], Any]  # waits for so many milliseconds; gives something true if it may go on

PIECES = 512  # of one system call; Linux takes 1024
_UNIX_BUFFER = 1 << 20  # bytes that the kernel takes before the server reads: fewer turns for a camera frame
_give_way: Callable[[], object] = getattr(os, "sched_yield", int)  # to whoever shares the core
_WANTS_READ, _WANTS_WRITE = 2, 3  # how TLS says what it waits for, whatever it was asked to do


class Stream:
    """A connected socket, with deadlines by time.monotonic(); one thread at a time.

    not_now: what it raises where it would have to wait. busy_poll_s: how long to poll for bytes before sleeping, while
    they come that soon. Every call may raise TimeoutError or another OSError. A deadline ends a call that has more to
    do, however much of it is done; what is there already is received after it, too.
    """

    def __init__(
        self,
        connected: socket.socket,
        not_now: tuple[type[OSError], ...] = (BlockingIOError,),
        *,
        busy_poll_s: float = 0.0,
    ) -> None:
        connected.setblocking(False)
        self._waits = RecentWaits(busy_poll_s)
        self.is_readable = readable(connected)
        self._is_writable = writable(connected)
        self._socket = connected
        self._not_now = not_now
        self._send = connected.send
        self._receive = connected.recv_into

    def send(self, data: Part, deadline: float) -> None:
        """Send all of it."""
        while True:
            try:
                sent = self._send(data)
            except self._not_now as error:
                self._await(error, self._is_writable, deadline)
                continue
            if sent == len(data):
                return
            data = memoryview(data)[sent:]
            check_time(deadline)

    def send_pieces(self, pieces: Sequence[Part], deadline: float) -> None:
        """Send all of them, without a copy of ours."""
        left = list(pieces)
        while left:
            try:
                sent = self._socket.sendmsg(left[:PIECES])
            except self._not_now as error:
                self._await(error, self._is_writable, deadline)
                continue
            left = behind(left, sent)
            if left:
                check_time(deadline)

    def receive(self, buffer: memoryview, deadline: float) -> int:
        """Wait for bytes; returns how many were written into the buffer, 0: the peer has ended its side."""
        began = time.monotonic()
        is_there = self._waits.are_short and self._polled(began + self._waits.max_poll_s)
        if not is_there and not self.is_readable(left_ms(deadline)):
            raise TimeoutError
        self._waits.add(time.monotonic() - began)
        while True:
            try:
                return self._receive(buffer)
            except self._not_now as error:  # TLS has read a part of a record, or somebody else was quicker
                self._await(error, self.is_readable, deadline)

    def _polled(self, until: float) -> bool:
        """Poll for something to read; False if nothing came in time."""
        while time.monotonic() < until:
            if self.is_readable(0):
                return True
            _give_way()
        return False

    def receive_waiting(self, buffer: memoryview) -> int | None:
        """What is there already; None: nothing."""
        try:
            return self._receive(buffer)
        except self._not_now:
            return None

    def end_writing(self) -> None:
        """Tell the peer that nothing more comes."""
        self._socket.shutdown(socket.SHUT_WR)

    def cut(self) -> None:
        """End it at once, for both sides."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def close(self) -> None:
        """Close this process's descriptor; the connection stays open where another process has one."""
        self._socket.close()

    def _await(self, error: OSError, usual: Poll, deadline: float) -> None:
        poll = {_WANTS_READ: self.is_readable, _WANTS_WRITE: self._is_writable}.get(error.errno or 0, usual)
        check_time(deadline)  # a peer that gives or takes a byte at a time lets poll() never wait in vain
        if not poll(left_ms(deadline)):
            raise TimeoutError


def readable(connected: Any) -> Poll:
    """Waits until there is something to read; 0 ms: looks, which costs half a microsecond."""
    poll = _poll(connected, is_for_reading=True)
    has_pending = getattr(connected, "pending", None)  # what TLS has decrypted already
    if has_pending is None:
        return poll
    return lambda wait_ms: has_pending() or poll(wait_ms)


def writable(connected: Any) -> Poll:
    """Waits until more can be sent."""
    return _poll(connected, is_for_reading=False)


def widen(connected: Any) -> None:
    """Give a Unix socket a larger send buffer, so that it takes more at once."""
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _UNIX_BUFFER)


def left_s(deadline: float) -> float:
    """The time until `deadline`, by time.monotonic(); 1 ms if it has passed, since 0 would mean not to wait."""
    return max(deadline - time.monotonic(), 0.001)


def left_ms(deadline: float) -> float:
    """left_s() in milliseconds."""
    return max((deadline - time.monotonic()) * 1e3, 1.0)


def _poll(connected: Any, *, is_for_reading: bool) -> Poll:
    if hasattr(select, "poll"):
        poller = select.poll()
        poller.register(connected, select.POLLIN if is_for_reading else select.POLLOUT)
        return poller.poll
    wanted = ([connected], []) if is_for_reading else ([], [connected])
    return lambda wait_ms: any(select.select(*wanted, [], wait_ms / 1e3))


def check_time(deadline: float) -> None:
    """Raise TimeoutError if the deadline has passed: to be asked after each step of what has many."""
    if time.monotonic() >= deadline:
        raise TimeoutError


def behind(pieces: Sequence[Part], sent: int) -> list[Part]:
    """What is left of the pieces behind so many bytes."""
    for index, piece in enumerate(pieces):
        if sent < len(piece):
            return [memoryview(piece)[sent:], *pieces[index + 1 :]]
        sent -= len(piece)
    return []
