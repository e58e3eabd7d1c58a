"""Clients that ask by HTTP and mean well: connections that stay, bursts, bodies of known size and in chunks."""

from __future__ import annotations

import asyncio
import json
import random
from collections import deque

import numpy as np

from policyserve.dialects.rest.json_numpy import written

from .asks import Ask, draw
from .clients import PATIENCE_S, Books
from .ledger import Ledger
from .rig import KEY, Place

_MOST_BYTES = 64 << 20  # of an answer


async def live_http(place: Place, ledger: Ledger, dice: random.Random, client: int, session: int) -> None:
    """One connection: requests one by one or several at once, and one of several ends."""
    books = Books(ledger, "POST /act")
    bursts = [dice.choice((1, 1, 1, 2, 5)) for _ in range(dice.randrange(1, 12))]
    asks = [[draw(dice, client, session, place * 100 + n) for n in range(count)] for place, count in enumerate(bursts)]
    end = dice.choice(("close", "close", "reset"))
    try:
        reader, writer = await asyncio.wait_for(_opened(place), PATIENCE_S)
    except OSError as error:
        books.wrong("unexpected", f"not connected: {error!r}")
        return
    books.account["sessions"] += 1
    waiting: deque[Ask] = deque()
    try:
        for number, burst in enumerate(asks):
            for ask in burst:
                books.sent()
                waiting.append(ask)
                writer.write(_request(ask, dice))
            if end == "reset" and number == len(asks) - 1:
                writer.transport.abort()
                break
            while waiting:
                _book(await asyncio.wait_for(_answer(reader), PATIENCE_S), waiting.popleft(), books)
    except asyncio.TimeoutError:
        books.lost(waiting.popleft())
    except (OSError, EOFError):  # the server ended it, or was ended
        pass
    finally:
        books.closed(len(waiting))
        writer.close()


async def _opened(place: Place) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if place.uds is not None:
        return await asyncio.open_unix_connection(place.uds)
    return await asyncio.open_connection("127.0.0.1", place.port)


def _request(ask: Ask, dice: random.Random) -> bytes:
    body = written(ask.observation()).encode()
    head = f"POST /act HTTP/1.1\r\nHost: soak\r\nAuthorization: Bearer {KEY}\r\n"
    if dice.random() < 0.7:
        return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    step = dice.randrange(300, 100_000)
    pieces = [body[start : start + step] for start in range(0, len(body), step)]
    coded = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    return f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + coded + b"0\r\n\r\n"


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """The status and the body."""
    status, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines if line)
    size = int(headers["content-length"])
    assert size <= _MOST_BYTES
    return int(status.split()[1]), await reader.readexactly(size)


def _book(answer: tuple[int, bytes], ask: Ask, books: Books) -> None:
    status, body = answer
    if not body.startswith(b"{"):  # it ends the connection, and says why in words
        books.closed()
        return
    told = json.loads(body)
    if status == 200:
        books.account["answered"] += 1
        complaint = ask.complaint(np.asarray(told["actions"]))
        if complaint:
            books.wrong("crossed", f"{ask}: {complaint}")
    else:
        books.refused(ask, f"{told['error']['code']}: {told['error']['message']}")
