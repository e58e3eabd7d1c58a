"""Connecting to a host within one deadline, however many addresses its name has and however silent they are.

The addresses are tried in the order of the name service, each a quarter of a second after the one before it, or as soon
as that one has failed. An address that never answers then delays the others and keeps none of them from its turn, and
all of them share the deadline (RFC 8305, "happy eyeballs", without its sorting).
"""

from __future__ import annotations

import os
import selectors
import socket
import threading
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress
from typing import Any, TypeAlias, cast

from policyserve.client.sockets import check_time, left_s

HEAD_START_S = 0.25
Place: TypeAlias = tuple[int, int, int, str, Any]  # as socket.getaddrinfo() gives it


def look_up(host: str, port: int) -> Future[list[Place]]:
    """Find a host's addresses. Of a name, in a thread: a name service that is silent would block for half a minute.

    The thread ends when the name service answers or gives up, whether or not somebody still waits for it.
    """
    found: Future[list[Place]] = Future()
    found.set_running_or_notify_cancel()  # it cannot be cancelled, so that the thread may always set its result

    def ask() -> None:
        try:
            found.set_result([*socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)])
        except Exception as error:  # a name that is none is a UnicodeError
            found.set_exception(error)

    if is_address(host):
        ask()
    else:
        threading.Thread(target=ask, name="policyserve-look-up", daemon=True).start()
    return found


def is_address(host: str) -> bool:
    """Whether a host is given by its address, which nobody needs to be asked for."""
    try:
        socket.getaddrinfo(host, None, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return False
    return True


def connect(host: str, port: int, deadline: float) -> socket.socket:
    """Connect to the first address that answers; the socket blocks nowhere.

    Raises TimeoutError at the deadline, UnicodeError for a name that is none, else the OSError of the last address that
    failed.
    """
    try:
        left = list(look_up(host, port).result(left_s(deadline)))
    except FutureTimeoutError as error:  # not a TimeoutError on Python 3.10
        raise TimeoutError(f"no name service told the address of {host} in time") from error
    failure = OSError(f"{host} has no address")
    with selectors.DefaultSelector() as under_way:
        try:
            while left or under_way.get_map():
                if left:
                    try:
                        under_way.register(_begin(left.pop(0)), selectors.EVENT_WRITE)
                    except OSError as error:
                        failure = error
                        continue
                wait_s = min(left_s(deadline), HEAD_START_S) if left else left_s(deadline)
                for key, _ in under_way.select(wait_s):
                    under_way.unregister(key.fileobj)
                    ended = cast(socket.socket, key.fileobj)
                    number = ended.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                    if number == 0:
                        return ended
                    ended.close()
                    failure = OSError(number, os.strerror(number))
                check_time(deadline)
        finally:
            for key in under_way.get_map().values():
                cast(socket.socket, key.fileobj).close()
    raise failure


def new_socket(place: Place) -> socket.socket:
    """A socket for a place's family of addresses; it blocks nowhere, and sends small frames at once."""
    family, kind, protocol, _, _ = place
    made = socket.socket(family, kind, protocol)
    made.setblocking(False)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


def _begin(place: Place) -> socket.socket:
    """A socket that is connecting."""
    begun = new_socket(place)
    try:
        with suppress(BlockingIOError):
            begun.connect(place[-1])
    except BaseException:
        begun.close()
        raise
    return begun
