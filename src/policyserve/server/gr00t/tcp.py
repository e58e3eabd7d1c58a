"""What the system knows of ZeroMQ's connections, which are its own: who is there, how much came, and how to end one.

ZeroMQ has no call for any of these. It names each connection by the number of its descriptor, which it may have closed
meanwhile, so that the system has given the number away again: nothing is done to one that is not the same connection.
"""

from __future__ import annotations

import os
import socket
import struct
from contextlib import suppress
from typing import NamedTuple

_TCP_INFO_BYTES = 136  # up to tcpi_bytes_received, which is its last field here
_NOTHING_LINGERS = struct.pack("ii", 1, 0)
_RECEIVED = struct.Struct("Q")


class Place(NamedTuple):
    """The two ends of a connection, as the system names them."""

    own: tuple[str, int]
    peer: tuple[str, int]


def place_of(number: int) -> Place | None:
    """The ends of the connection with this descriptor; None if it is gone."""
    with suppress(OSError), _twin(number) as twin:
        return _place(twin)
    return None


def received(number: int, place: Place) -> int | None:
    """How many bytes came in over a connection so far; None where it is gone, or the system does not tell."""
    if not hasattr(socket, "TCP_INFO"):
        return None
    with suppress(OSError, struct.error), _twin(number) as twin:
        if _place(twin) == place:
            told = twin.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
            count: int = _RECEIVED.unpack_from(told, _TCP_INFO_BYTES - _RECEIVED.size)[0]
            return count
    return None


def cut(number: int, place: Place) -> None:
    """End a connection at once, whatever waits to be sent; ZeroMQ finds its end, and closes it."""
    with suppress(OSError), _twin(number) as twin:
        if _place(twin) == place:
            twin.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NOTHING_LINGERS)
            twin.shutdown(socket.SHUT_RDWR)


def _twin(number: int) -> socket.socket:
    """Another socket of the same connection, which may be closed without harm; raises OSError."""
    copied = os.dup(number)
    try:
        return socket.socket(fileno=copied)
    except OSError:
        os.close(copied)
        raise


def _place(twin: socket.socket) -> Place | None:
    own, peer = twin.getsockname(), twin.getpeername()
    if not isinstance(own, tuple) or not isinstance(peer, tuple):  # of another family: a Unix socket, say
        return None
    return Place((own[0], own[1]), (peer[0], peer[1]))
