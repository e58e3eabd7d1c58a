"""A thread with an event loop of its own, in which connections live: it answers pings while nothing is asked."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")


class LoopThread:
    """Runs coroutines for other threads until close()."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine and wait for its end; raises what it raises. Called by any other thread."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def begin(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Have work() run and do not wait; nothing happens behind close(). A finalizer of any thread may call it."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._start, work)

    def close(self) -> None:
        """Wait for what was begun and end the thread; once."""
        self.run(self._finished())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _start(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        task = self._loop.create_task(work())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _finished(self) -> None:
        while self._tasks:
            await asyncio.wait(self._tasks)
