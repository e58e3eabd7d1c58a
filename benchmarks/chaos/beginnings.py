"""The first act: sessions that send large texts while the policy loads, each of which has to hear how that ended."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from policyserve.dialects import by_name
from policyserve.websocket.frames import BINARY, CLOSE, TEXT

from .clients import PATIENCE_S
from .ledger import Ledger
from .misdeeds import Visit, is_told_why
from .raw import RawPeer, frame, open_raw
from .rig import Rig

NAME = "a large text while the policy loads"
_SESSIONS = 63  # of texts of 4 MiB: just what the server may hold by their bytes, four times that as Python's texts
_AT_ONCE = 10
# One letter beyond 16 bits makes Python keep four bytes for each.
_TEXT = ("x" * 4_190_000 + "\U0001f916").encode()


async def write_while_it_loads(rig: Rig, ledger: Ledger, load: Callable[[], object], dice: random.Random) -> None:
    """Send the texts, have the policy `load`, and look how each session ends."""
    await rig.listen()
    visits = [Visit(rig.place, ledger, dice, number, 0) for number in range(_SESSIONS)]
    try:
        for start in range(0, len(visits), _AT_ONCE):
            await asyncio.gather(*(_write(visit) for visit in visits[start : start + _AT_ONCE]))
        load()
        await rig.ready()
        for visit in visits:
            ledger.misdeed(NAME, await _ending(visit))
    finally:
        for visit in visits:
            if visit.peer is not None:
                await visit.peer.close()


async def _write(visit: Visit) -> None:
    visit.peer = peer = await open_raw(visit.place, f"/{visit.dialect}")
    visit.books.account["sessions"] += 1
    visit.books.sent()
    await asyncio.wait_for(peer.send(frame(TEXT, _TEXT)), PATIENCE_S)


async def _ending(visit: Visit) -> str:
    assert visit.peer is not None
    try:
        return await asyncio.wait_for(_read_end(visit, visit.peer), PATIENCE_S)
    except asyncio.TimeoutError:
        visit.books.closed()
        return f"{visit.dialect} heard nothing within {PATIENCE_S:g} s"


async def _read_end(visit: Visit, peer: RawPeer) -> str:
    """The text is refused, and the session closed by name or, where its dialect has words for errors, served."""
    got = await peer.read_frame()
    if got is not None and got[0] == BINARY and by_name(visit.dialect).greets:
        got = await peer.read_frame()
    if got is None:
        visit.books.closed()
        return f"{visit.dialect} was cut without a word"
    visit.books.account["refused"] += 1
    if got[0] == CLOSE:
        return "" if is_told_why(got, 1008, 1013) else f"{visit.dialect} was closed with {got[1][:90]!r}"
    if got[0] != TEXT or not got[1].startswith(b"bad_frame"):
        return f"{visit.dialect} was told {got[0]} {got[1][:90]!r}"
    ask = visit.ask()
    await peer.send(visit.frame_of(ask))
    return await visit.take_answer(peer, ask)
