"""Decodes the pictures of requests, and reads large bodies, in threads of its own: the event loop never does.

Before the engine and not in it, so that observers and every kind of engine see arrays, and so that the pictures of one
request are decoded while the policy works on another.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeAlias, TypeVar

from policyserve.core.errors import PolicyserveError, failed
from policyserve.core.messages import Observation
from policyserve.transforms.jpeg import decode_images, load

_MOST_THREADS = 4  # three pictures of a robot take one some 3 ms

T = TypeVar("T")
OnDecoded: TypeAlias = Callable[[Observation | Any | PolicyserveError], None]


class Decoder:
    """Threads that begin with the first picture, or when one is expected. It is called in the event loop's thread."""

    def __init__(self) -> None:
        self._threads: ThreadPoolExecutor | None = None
        self._under_way: set[asyncio.Future[Any]] = set()

    def decode(self, observation: Observation | Any, on_decoded: OnDecoded) -> None:
        """Call `on_decoded` in the event loop with the observation and arrays in place of encoded pictures.

        Or with the error that says which picture is broken.
        """
        self.run(partial(_decoded, observation), on_decoded)

    def run(self, make: Callable[[], T], on_made: Callable[[T], object]) -> None:
        """Call `make`, which raises nothing, in a thread, and `on_made` in the event loop with what it gave."""
        future = asyncio.get_running_loop().run_in_executor(self._started(), make)
        self._under_way.add(future)
        future.add_done_callback(lambda done: self._end(done, on_made))

    def expect(self) -> None:
        """Pictures will come: begin with what the first one would wait for."""
        if self._threads is None:
            self._started().submit(load)

    async def drained(self) -> None:
        """Wait until all that was given is decoded, and told."""
        while self._under_way:
            await asyncio.wait(self._under_way)

    def close(self) -> None:
        """Decode nothing more; what was begun ends by itself, and nobody is told."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    def _started(self) -> ThreadPoolExecutor:
        if self._threads is None:
            count = min(_MOST_THREADS, os.cpu_count() or 1)
            self._threads = ThreadPoolExecutor(count, thread_name_prefix="preparing pictures")
        return self._threads

    def _end(self, done: asyncio.Future[Any], on_made: Callable[[Any], object]) -> None:
        self._under_way.discard(done)
        if not done.cancelled():
            on_made(done.result())


def _decoded(observation: Observation | Any) -> Observation | Any | PolicyserveError:
    try:
        return decode_images(observation)
    except PolicyserveError as error:
        error.__traceback__ = None  # its frames hold the message
        return error
    except BaseException as error:  # no memory: this request alone is lost
        return failed("decoding the request's pictures raised", error)
