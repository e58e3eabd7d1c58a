"""Where the servers of this process listen, by the event loop that serves them. Pure.

A client that blocks asks it before it waits: the event loop that runs in its own thread answers nobody meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

# As a socket's getsockname() and getpeername() have it: host and port first, or a Unix socket's path.
SocketName: TypeAlias = tuple[Any, ...] | str

_names: WeakKeyDictionary[Any, list[SocketName]] = WeakKeyDictionary()


def note(loop: object, names: Iterable[SocketName]) -> None:
    """Note that this event loop listens there. Called in its thread."""
    _names.setdefault(loop, []).extend(names)


def forget(loop: object, names: Iterable[SocketName]) -> None:
    """Take back what was noted. Called in the loop's thread."""
    gone = list(names)
    _names[loop] = [name for name in _names.get(loop, ()) if name not in gone]


def serves(loop: object, peer: SocketName, own: SocketName) -> bool:
    """Whether this event loop serves a client's connection. peer, own: the names of the client's socket."""
    return any(_is_reached(name, peer, own) for name in _names.get(loop, ()))


def _is_reached(name: SocketName, peer: SocketName, own: SocketName) -> bool:
    if isinstance(name, str) or isinstance(peer, str):
        return name == peer
    if name[1] != peer[1]:
        return False
    if name[0] == peer[0]:
        return True
    is_local = peer[0] == own[0] or ip_address(peer[0]).is_loopback
    return ip_address(name[0]).is_unspecified and is_local
