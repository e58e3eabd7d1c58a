"""A server in a thread of its own, for clients that block."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager

from policyserve import Server


@contextmanager
def running(server: Server) -> Iterator[str]:
    """Serve until the block ends; gives the server's URL once its policy is ready."""
    url: Future[str] = Future()

    async def serve() -> None:
        try:
            async with server:
                await server.ready()
                host, port = server.address
                stop = asyncio.Event()
                stopping.append((asyncio.get_running_loop(), stop))
                url.set_result(f"ws://{host}:{port}")
                await stop.wait()
        except BaseException as error:
            if url.done():
                raise
            url.set_exception(error)

    stopping: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []
    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    try:
        yield url.result(timeout=30)
    finally:
        for loop, stop in stopping:
            loop.call_soon_threadsafe(stop.set)
        thread.join()
