"""Real-time execution for programs with an event loop: a task does what the state machine says."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from policyserve.client.aio import AsyncClient
from policyserve.core.errors import ConfigError
from policyserve.core.log import Log
from policyserve.realtime.machine import Realtime
from policyserve.realtime.options import (
    OWN_DEFAULTS,
    Callbacks,
    split_options,
    warn_of_another_kind,
    warn_of_single_actions,
)
from policyserve.realtime.sync import CLOSED, actions_of, not_ready
from policyserve.realtime.values import Action, Ask, RealtimeStatus, Renew, Rest, Step

if TYPE_CHECKING:
    from policyserve.core.arrays import Array

log = Log(__name__)

_CLOSE_S = 1.0


class AsyncRealtimeClient:
    """`RealtimeClient` for an event loop: the same arguments; a task asks, and observe() and act() are no coroutines.

    Enter it with `async with`, or await wait_until_ready(). observe(), act(), reset(), stop() and resume() may be
    called from any thread; the functions on_state, on_error and on_chunk are called in the loop and must not wait.
    """

    def __init__(
        self,
        url: str,
        *,
        control_hz: float,
        on_state: Callable[[str], None] | None = None,
        on_error: Callable[[Exception], None] | None = None,
        on_chunk: Callable[[Any], None] | None = None,
        **options: Any,
    ) -> None:
        settings, of_client = split_options(type(self).__name__, control_hz, options)
        self._client = AsyncClient(url, **{**OWN_DEFAULTS, **of_client})
        self._callbacks = Callbacks(on_state, on_error, on_chunk)
        tell = self._tell_soon if self._callbacks else None
        self._realtime = Realtime(settings, lock=threading.Lock(), wake=self._wake_soon, tell=tell)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._wakes: asyncio.Event | None = None
        self._progress: asyncio.Event | None = None
        self._is_closed = False

    def __repr__(self) -> str:
        return f"<policyserve.{type(self).__name__} {self.url}, {self.status.state}>"

    def observe(self, observation: Any) -> None:
        """Give the newest observation, as RealtimeClient.observe(); a function for it is called in the loop.

        Raises what ended the asking for good, until reset(), and ConfigError after close().
        """
        if self._is_closed:
            raise ConfigError(CLOSED)
        self._realtime.observe(observation, time.monotonic())

    def act(self, out: Array | None = None, now: float | None = None) -> Action:
        """The action that is due now, as RealtimeClient.act(): it never waits."""
        return self._realtime.act(time.monotonic() if now is None else now, out)

    async def wait_until_ready(self, timeout_s: float = 30.0) -> None:
        """Wait until a first chunk is there, as RealtimeClient.wait_until_ready()."""
        self._start()
        deadline = time.monotonic() + timeout_s
        while not self._is_settled and not self._is_closed:
            assert self._progress is not None
            self._progress.clear()
            left_s = deadline - time.monotonic()
            try:
                await asyncio.wait_for(self._progress.wait(), max(left_s, 0))
            except asyncio.TimeoutError:
                break
        failed = self._realtime.failed
        if failed is not None:
            raise failed.with_traceback(None)
        if not self._realtime.has_rows:
            raise not_ready(self.status, timeout_s, self._is_closed)

    def reset(self, keep_rows: bool = False) -> None:
        """Begin a new episode, as RealtimeClient.reset()."""
        self._realtime.reset(time.monotonic(), keep_rows)

    def stop(self) -> None:
        """Hand out no action any more, as RealtimeClient.stop()."""
        self._realtime.stop(time.monotonic())

    def resume(self) -> None:
        """Wait for a chunk of a new observation after a stop, as RealtimeClient.resume()."""
        self._realtime.resume(time.monotonic())

    @property
    def status(self) -> RealtimeStatus:
        """A snapshot: state, latencies, counters, the last error."""
        return self._realtime.status(time.monotonic())

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What the server said when the connection was opened; empty before."""
        return self._client.metadata

    @property
    def url(self) -> str:
        """The server's URL, with the path that is asked for and without a password."""
        return self._client.url

    async def close(self) -> None:
        """End the task and the connection; an answer under way is dropped."""
        self._is_closed = True
        self._realtime.stop(time.monotonic())
        task, self._task = self._task, None
        if self._progress is not None:
            self._progress.set()  # whoever waits for a first chunk
        if task is not None:
            task.cancel()
            await asyncio.wait([task], timeout=_CLOSE_S)
        await self._client.close()

    async def __aenter__(self) -> AsyncRealtimeClient:
        self._start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    @property
    def _is_settled(self) -> bool:
        return self._realtime.has_rows or self._realtime.failed is not None

    def _start(self) -> None:
        """Start the task in the running loop, unless it was closed."""
        if self._is_closed:
            return
        if self._task is None or self._loop is not asyncio.get_running_loop():
            self._loop = asyncio.get_running_loop()
            self._wakes, self._progress = asyncio.Event(), asyncio.Event()
            self._task = self._loop.create_task(self._work())

    def _wake_soon(self) -> None:
        wakes = self._wakes
        if wakes is not None:
            self._in_loop(wakes.set)

    def _tell_soon(self) -> None:
        self._in_loop(lambda: self._callbacks.call(self._realtime.changes()))

    def _in_loop(self, call: Callable[[], None]) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(call)

    async def _work(self) -> None:
        """Do the state machine's steps."""
        assert self._wakes is not None
        assert self._progress is not None
        while True:
            self._wakes.clear()
            step = self._realtime.next_step(time.monotonic())
            if not isinstance(step, Rest):
                await self._do(step)
                if self._is_settled:
                    self._progress.set()
                continue
            try:
                await asyncio.wait_for(self._wakes.wait(), step.seconds)
            except asyncio.TimeoutError:
                continue

    async def _do(self, step: Step) -> None:
        realtime, client = self._realtime, self._client
        try:
            if isinstance(step, Ask):
                reply = await client.infer(step.observation)
                realtime.on_answer(step, actions_of(reply), time.monotonic(), reply)
                warn_of_single_actions(step, realtime.newest_chunk)
                return
            if isinstance(step, Renew):
                await client.reset()
            else:
                await client.connect()
        except Exception as error:  # whatever the other end raises
            realtime.on_failure(step, error, time.monotonic())
            if realtime.failed is not None:
                log.error("real-time execution asks no more until reset(): %s", error)
            return
        if not self.status.sessions:
            warn_of_another_kind(realtime.settings.action_kind, client.metadata)
        realtime.on_connected(client.metadata, time.monotonic(), client.sessions_opened)
