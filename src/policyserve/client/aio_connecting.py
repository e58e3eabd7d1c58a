"""`connecting.connect` for a program with an event loop, whose other tasks go on meanwhile."""

from __future__ import annotations

import asyncio
import socket

from policyserve.client.connecting import HEAD_START_S, Place, look_up, new_socket


async def connect(host: str, port: int) -> socket.socket:
    """Connect to the first address that answers; raises what connecting.connect() raises, but knows no deadline.

    Whoever calls it ends it by a time-out; all that it has begun then ends with it.
    """
    left = list(await asyncio.wrap_future(look_up(host, port)))
    failure: BaseException = OSError(f"{host} has no address")
    under_way: set[asyncio.Task[socket.socket]] = set()
    try:
        while left or under_way:
            if left:
                under_way.add(asyncio.ensure_future(_connected(left.pop(0))))
            wait_s = HEAD_START_S if left else None
            ended, _ = await asyncio.wait(under_way, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
            for one in ended:
                under_way.remove(one)
                error = one.exception()
                if error is None:
                    return one.result()
                failure = error
    finally:
        await _end(under_way)
    raise failure


async def _connected(place: Place) -> socket.socket:
    made = new_socket(place)
    try:
        await asyncio.get_running_loop().sock_connect(made, place[-1])
    except BaseException:
        made.close()
        raise
    return made


async def _end(under_way: set[asyncio.Task[socket.socket]]) -> None:
    """Close what lost the race, or came too late for it."""
    for one in under_way:
        one.cancel()
    for outcome in await asyncio.gather(*under_way, return_exceptions=True):
        if isinstance(outcome, socket.socket):
            outcome.close()
