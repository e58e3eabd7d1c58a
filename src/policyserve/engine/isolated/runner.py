"""Runs a policy in a process of its own, where its crashes, its memory and its hold on the interpreter do no harm.

Control messages cross a socket pair as MessagePack, arrays cross in shared memory: one copy in, none out.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Hashable, Sequence
from typing import Any, cast

import msgpack

from policyserve.core.effects import Answered, Outcome
from policyserve.core.errors import ConfigError, PolicyFailed, PolicyLost, PolicyserveError
from policyserve.core.log import Log
from policyserve.core.policy import ActionChunk
from policyserve.core.printable import text_of
from policyserve.core.recipe import Recipe
from policyserve.core.spec import PolicySpec
from policyserve.engine.answering import OnStage, Task
from policyserve.engine.isolated.arena import Arena, ArenaReader, Slot, shared_memory
from policyserve.engine.isolated.child import Child, describe_exit
from policyserve.engine.isolated.codec import Packed, pack, unpack
from policyserve.engine.isolated.faults import read_error
from policyserve.engine.runner import OnBroken, OnDone
from policyserve.logs.start import settings_of_children

log = Log(__name__)

_CUT_S = 0.2  # from the process's end to the last of its answers being read
_KILLED_S = 5.0  # for a killed process to be gone

# In the place of a session's policy state, which stays in the policy's process.
STATE_ELSEWHERE = object()


class ProcessRunner(asyncio.Protocol):
    """Runs the policy of a recipe in a child process. device: the only one that the child sees, cpu or cuda:N.

    Sessions are named by ints or texts. Raises ConfigError on systems other than Linux and macOS.
    """

    def __init__(self, recipe: Recipe, device: str | None = None) -> None:
        if os.name != "posix":
            raise ConfigError("isolate: a process of the policy's own needs Linux or macOS; serve it in a thread here")
        self.on_broken: OnBroken | None = None
        self.sources: Sequence[str] = ()
        self._recipe = recipe
        self._device = device
        self._child: Child | None = None
        self._transport: asyncio.WriteTransport | None = None
        self._ahead_transport: asyncio.WriteTransport | None = None  # a second channel, to the thread that prepares
        self._unpacker = msgpack.Unpacker(strict_map_key=False, unicode_errors="surrogatepass")
        self._calls: dict[int, tuple[int, OnDone]] = {}  # by number: how many tasks, and where the outcomes go
        self._numbers = 0
        self._is_serving = False  # the policy is loaded
        self._prepares = False  # the policy prepares a batch while another runs
        self._is_ending = False  # its end is wanted
        self._exit_code: int | None = None
        self._how_it_ended = ""
        self._is_cut = False  # nothing more can be read from it

    # The Runner protocol

    inline = None  # nothing of it runs in the event loop

    async def start(self, on_stage: OnStage) -> PolicySpec:
        """Start the process and load the policy there; raises what loading raised, PolicyFailed if the process died."""
        loop = self._loop = asyncio.get_running_loop()
        self._on_stage = on_stage
        self._loaded: asyncio.Future[PolicySpec] = loop.create_future()
        self._ended: asyncio.Future[None] = loop.create_future()
        to_child, from_child = shared_memory(), shared_memory()
        self._observations, self._actions = Arena(to_child), ArenaReader(from_child)
        (ours, theirs), (our_ahead, their_ahead) = socket.socketpair(), socket.socketpair()
        ours.setblocking(False)
        our_ahead.setblocking(False)
        with theirs, their_ahead:
            descriptors = (theirs.fileno(), their_ahead.fileno(), to_child, from_child)
            try:
                # In the loop's thread: PR_SET_PDEATHSIG kills the child when the *thread* that started it ends.
                self._child = Child(descriptors, self._device, self._note_exit_from_thread)
            except BaseException:
                ours.close()
                our_ahead.close()
                self._let_go_of_memory()
                raise
        try:
            self._ahead_transport, _ = await loop.create_unix_connection(asyncio.Protocol, sock=our_ahead)
            await loop.create_unix_connection(lambda: self, sock=ours)
        except BaseException:  # a server that stops cancels it: a socket without a transport would stay open
            if self._transport is None:
                ours.close()
            if self._ahead_transport is None:
                our_ahead.close()
            raise
        self._send(["load", list(settings_of_children(log.level)), pack(self._recipe)])
        return await self._loaded

    def infer(self, batch: Sequence[Task], on_done: OnDone) -> None:
        """Answer a batch; `on_done` is called in the event loop with one outcome per task, in order."""
        if self._exit_code is not None:
            self._loop.call_soon(on_done, [PolicyLost("the policy's process has ended")] * len(batch))
            return
        try:
            tasks = [self._write_task(task) for task in batch]
        except Exception as error:  # no memory to share, or an observation that no dialect makes
            failed = PolicyFailed(f"the observations cannot go to the policy's process: {error}")
            failed.__cause__ = error
            self._loop.call_soon(on_done, [failed] * len(batch))
            return
        self._numbers += 1
        is_ahead = self._prepares and bool(self._calls)
        if is_ahead:
            _write(self._ahead_transport, [self._numbers, tasks])
        self._calls[self._numbers] = (len(batch), on_done)
        self._send(["infer", self._numbers, None if is_ahead else tasks, self._actions.take_released()])

    def take_back(self, session: Hashable) -> None:
        """Undo what a session's last request did to its policy state, after the batch that may be running."""
        self._send(["take back", session])

    def forget(self, session: Hashable) -> None:
        """Drop a session's policy state, after the batch that may be running."""
        self._send(["forget", session])

    async def close(self, timeout_s: float) -> None:
        """Close the policy after the calls before, and end its process; kills it after timeout_s."""
        if self._child is None:
            return
        self._is_ending = True
        self._send(["close"])
        await asyncio.wait([self._ended], timeout=timeout_s)
        if not self._ended.done():
            await asyncio.wait([self.abandon()], timeout=_KILLED_S)

    def abandon(self) -> asyncio.Future[None]:
        """Kill the process; the future is done when it is gone."""
        self._is_ending = True
        if self._child is not None:
            self._child.kill()
        return self._ended

    # The channel

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)

    def data_received(self, data: bytes) -> None:
        self._unpacker.feed(data)
        for kind, *content in self._unpacker:
            if kind == "answers":
                self._take_answers(*content)
            elif kind == "stage":
                self._on_stage(*content)
            elif not self._loaded.done():
                self._end_loading(kind, *content)

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_cut = True
        if self._exit_code is not None:
            self._end()
        elif self._child is not None and not self._is_ending:
            self._child.kill()  # nobody can talk to it any more

    def _send(self, message: list[Any]) -> None:
        _write(self._transport, message)

    def _end_loading(self, kind: str, content: bytes, prepares: bool = False, sources: Sequence[str] = ()) -> None:
        try:
            outcome = unpack(content)
        except Exception as error:  # a spec may hold anything, as its metadata
            self._loaded.set_exception(PolicyFailed(f"the policy's spec cannot leave its process: {error}"))
            return
        if kind == "ready":
            self._is_serving, self._prepares, self.sources = True, prepares, sources
            self._loaded.set_result(outcome)
        else:
            self._loaded.set_exception(read_error(outcome))

    # Batches

    def _write_task(self, task: Task) -> list[Any]:
        packed = Packed(task.observation)
        slot = None
        if packed.size:
            slot, memory = self._observations.take(packed.size)
            packed.write_arrays(memory)
        return [task.session, task.batch_size, packed.data, None if slot is None else list(slot)]

    def _take_answers(self, number: int, answers: list[list[Any]], released: list[int], broken: str) -> None:
        self._observations.give_back(released)
        _, on_done = self._calls.pop(number)
        outcomes = [self._read_outcome(*answer) for answer in answers]
        if broken:
            self._tell_broken(broken)
        on_done(outcomes)

    def _read_outcome(self, times: list[Any] | None, data: bytes, slot: list[int] | None) -> Outcome:
        try:
            if times is None:
                error = read_error(unpack(data))
                return error if isinstance(error, PolicyserveError) else PolicyFailed(text_of(error))
            memory = None if slot is None else self._actions.view(Slot(*slot))
            actions, extras = unpack(data, memory)
        except Exception as error:  # extras are a stranger's
            return PolicyFailed(f"the answer cannot leave the policy's process: {error}")
        started_at, ended_at, has_state = times
        return Answered(ActionChunk(actions, STATE_ELSEWHERE if has_state else None, extras), started_at, ended_at)

    # The end

    def _note_exit_from_thread(self, code: int) -> None:
        try:
            self._loop.call_soon_threadsafe(self._note_exit, code)
        except RuntimeError:
            log.debug("the policy's process ended after the server")

    def _note_exit(self, code: int) -> None:
        assert self._child is not None
        self._exit_code = code
        self._how_it_ended = f"its process {self._child.number} {describe_exit(code)}"
        if self._is_serving:
            self._tell_broken(self._how_it_ended)
        if self._is_cut:
            self._end()
        else:  # what it answered before its end is still being read
            self._loop.call_later(_CUT_S, self._end)

    def _end(self) -> None:
        if self._ended.done():
            return
        for transport in (self._transport, self._ahead_transport):
            if transport is not None:
                transport.close()
        if not self._loaded.done():
            self._loaded.set_exception(PolicyFailed(f"the policy was not loaded: {self._how_it_ended}"))
            self._loaded.exception()  # asyncio complains of one that nobody asks for: start() may have been cancelled
        calls, self._calls = self._calls, {}
        for count, on_done in calls.values():
            told = (
                f"the policy was lost at this request: {self._how_it_ended}; what it remembered of this session is gone"
            )
            on_done([PolicyLost(told)] * count)
        self._let_go_of_memory()

    def _let_go_of_memory(self) -> None:
        self._observations.close()
        self._actions.close()
        self._ended.set_result(None)

    def _tell_broken(self, reason: str) -> None:
        if self.on_broken is not None and not self._is_ending:
            self.on_broken(reason)


def _write(transport: asyncio.WriteTransport | None, message: list[Any]) -> None:
    packed = msgpack.packb(message, unicode_errors="surrogatepass")
    assert isinstance(packed, bytes)
    if transport is not None and not transport.is_closing():
        transport.write(packed)
