"""How the sessions of a server end when it stops: what is in flight is answered, then each is closed with 1001."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from policyserve.core.events import Event
from policyserve.core.log import Log
from policyserve.server.reception import Reception

log = Log(__name__)


async def end_sessions(reception: Reception, hurry: asyncio.Event, drain_s: float, farewell_s: float) -> bool:
    """End all sessions and cut off who is still connected; returns whether all that was in flight was answered.

    The listener is closed. hurry: when it is set, nothing in flight is waited for. drain_s: how long that is waited
    for otherwise. farewell_s: how long for peers to answer the close frame.
    """
    reception.close()
    for _ in range(3):
        # An accepted connection reaches connection_made() after up to three turns of asyncio's loop.
        await asyncio.sleep(0)
    for conversation in reception.conversations:
        conversation.drain()
    is_drained = await _drain(reception, hurry, drain_s)
    for conversation in reception.conversations:
        conversation.leave(1001, "the server is stopping")
    with suppress(asyncio.TimeoutError):
        await asyncio.wait_for(reception.everybody_left.wait(), farewell_s)
    reception.abort_all()
    return is_drained


async def _drain(reception: Reception, hurry: asyncio.Event, drain_s: float) -> bool:
    """Wait for what is in flight, up to drain_s; returns whether all of it was answered."""
    drained = asyncio.ensure_future(_drained(reception))
    hurried = asyncio.ensure_future(hurry.wait())
    done, waiting = await asyncio.wait([drained, hurried], timeout=drain_s, return_when=asyncio.FIRST_COMPLETED)
    for future in waiting:
        future.cancel()
    if drained not in done:
        log.warning("stopping with requests unanswered", event=Event("unanswered"))
    return drained in done


async def _drained(reception: Reception) -> None:
    await reception.decoder.drained()  # what it has decoded goes to the engine
    for served in reception.catalogue:  # one by one: where nothing waits, this takes no turn of the loop
        await served.engine.drained()
