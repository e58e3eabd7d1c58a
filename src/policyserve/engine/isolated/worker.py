"""A policy's own process: it loads the policy that a recipe names, and answers batches until its server is gone.

Its life is the server's: a terminal's Ctrl-C and a service manager's SIGTERM are the server's to answer. Everything
runs in the main thread, as in a program of the policy author's own, but for what a policy prepares: of a batch that
comes while another runs, the server sends the tasks over a channel that a second thread reads.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from queue import SimpleQueue
from typing import Any

import msgpack

from policyserve.core.effects import Answered, Outcome
from policyserve.core.errors import ConfigError, PolicyFailed, PolicyserveError, failed
from policyserve.core.events import Event
from policyserve.core.log import Log
from policyserve.core.memory import keep_freed
from policyserve.core.output import make_output_lossy
from policyserve.core.policy import ActionChunk
from policyserve.core.printable import error_text, text_of
from policyserve.core.spec import PolicySpec
from policyserve.engine.answering import Answering, Task, warm_up
from policyserve.engine.isolated.arena import Arena, ArenaReader, Slot
from policyserve.engine.isolated.codec import Packed, pack, unpack
from policyserve.engine.isolated.faults import write_error
from policyserve.engine.isolated.sources import own_sources
from policyserve.engine.preparing import Prepared, Progress
from policyserve.logs.start import LogSettings, start_log, take_over_others

log = Log(__name__)

_PR_SET_PDEATHSIG = 1
_READ_SIZE = 1 << 16


def main(server: int, channel: int, ahead: int, observations: int, actions: int) -> None:
    """Work until the server closes the channel.

    server: the process to end with, the server or the keeper between. The others: file descriptors.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _end_with(server)
    # A policy that prints must not fail where nobody can read it. The server shows its progress on the same terminal.
    make_output_lossy(erases=os.environ.get("TERM", "dumb") != "dumb")
    keep_freed()  # of one batch, for the next
    with socket.socket(fileno=channel) as connection, socket.socket(fileno=ahead) as second:
        Worker(connection, second, ArenaReader(observations), Arena(actions)).run()


class Worker:
    """The policy's end of the channel. ahead: the one for what is prepared."""

    def __init__(self, channel: socket.socket, ahead: socket.socket, observations: ArenaReader, actions: Arena) -> None:
        self._channel = channel
        self._ahead_channel = ahead
        self._observations = observations
        self._actions = actions
        self._inbox = _Inbox(channel)
        self._progress = Progress()
        # Batches whose "infer" comes, or has come, without their tasks.
        self._ahead: SimpleQueue[tuple[list[Task], Prepared] | BaseException] = SimpleQueue()

    def run(self) -> None:
        """Load, answer until told to close or until the server is gone, and close the policy."""
        answering = self._load()
        if answering is None:
            return
        preparing = threading.Thread(target=self._prepare, args=(answering,), name="preparing", daemon=True)
        if answering.prepares:
            preparing.start()
        while (message := self._next_message(answering)) is not None and message[0] != "close":
            if message[0] == "infer":
                self._infer(answering, *message[1:])
            elif message[0] == "take back":
                answering.take_back(message[1])
            else:
                answering.forget(message[1])
        if answering.prepares:
            self._progress.end()
            with suppress(OSError):  # the server may be gone
                self._ahead_channel.shutdown(socket.SHUT_RD)
            preparing.join()
        try:
            answering.policy.close()
        except BaseException as error:  # a stranger's close: the process ends all the same
            name = answering.spec.name
            event = Event("policy_close_failed", policy=name)
            log.error("policy %s failed to close: %s", name, error_text(error), event=event, cause=error)

    def _load(self) -> Answering | None:
        message = self._inbox.receive()
        if message is None:
            return None
        _, log_settings, recipe = message
        with suppress(ConfigError):  # its file was there when the server began: without it lines go to stderr
            start_log(LogSettings(*log_settings))
        try:
            policy = unpack(recipe, trusted=True)(self._tell_stage)
            answering = Answering(policy)
            warm_up(policy, self._tell_stage)
            spec = _pack_spec(answering.spec)
            take_over_others()
        except BaseException as error:  # a stranger's loader: whatever it raises belongs to the server
            self._send(["failed", Packed(write_error(error)).data])
            return None
        self._send(["ready", spec, answering.prepares, own_sources()])
        return answering

    def _next_message(self, answering: Answering) -> Any:
        while self._inbox.is_empty() and answering.settle():
            pass
        return self._inbox.receive()

    def _tell_stage(self, stage: str) -> None:
        self._send(["stage", str(stage)])

    def _prepare(self, answering: Answering) -> None:
        """In the second thread: prepare what comes ahead, until the channel ends."""
        inbox = _Inbox(self._ahead_channel)
        while (message := inbox.receive()) is not None:
            number, packed_tasks = message
            if self._progress.wait_for(number):
                self._ahead.put(self._prepared(answering, packed_tasks))

    def _prepared(
        self, answering: Answering, packed_tasks: Sequence[Any]
    ) -> tuple[list[Task], Prepared] | BaseException:
        try:
            batch = [self._read_task(*packed) for packed in packed_tasks]
        except BaseException as error:  # the main thread, which waits for this batch, raises it and ends
            return error
        return batch, answering.prepare(batch)

    def _infer(
        self, answering: Answering, number: int, packed_tasks: Sequence[Any] | None, released: list[int]
    ) -> None:
        self._actions.give_back(released)
        answers = self._answer(answering, number, packed_tasks)
        # Only now: what _answer() held of the observations is gone, unless the policy keeps it.
        self._send(["answers", number, answers, self._observations.take_released(), answering.broken])

    def _answer(self, answering: Answering, number: int, packed_tasks: Sequence[Any] | None) -> list[Any]:
        started_at = time.monotonic()
        if packed_tasks is not None:
            batch = [self._read_task(*packed) for packed in packed_tasks]
            prepared = answering.prepare(batch) if answering.prepares else None
        else:
            ahead = self._ahead.get()
            if isinstance(ahead, BaseException):
                raise ahead
            batch, prepared = ahead
        self._progress.take_up(number)
        return [self._write_outcome(outcome) for outcome in answering.answer(batch, prepared, started_at)]

    def _read_task(self, session: Any, batch_size: int | None, data: bytes, slot: list[int] | None) -> Task:
        memory = None if slot is None else self._observations.view(Slot(*slot))
        return Task(session, unpack(data, memory), batch_size)

    def _write_outcome(self, outcome: Outcome) -> list[Any]:
        if isinstance(outcome, PolicyserveError):
            return [None, Packed(write_error(outcome)).data, None]
        try:
            return self._write_answer(outcome)
        except BaseException as error:  # extras are a stranger's: what cannot be written is the policy's fault
            return [None, Packed(write_error(failed("the answer cannot be written:", error))).data, None]

    def _write_answer(self, outcome: Answered) -> list[Any]:
        chunk: ActionChunk = outcome.chunk
        packed = Packed([chunk.actions, dict(chunk.extras)])
        slot = None
        if packed.size:
            slot, memory = self._actions.take(packed.size)
            packed.write_arrays(memory)
        times = [outcome.started_at, outcome.ended_at, chunk.state is not None]
        return [times, packed.data, None if slot is None else list(slot)]

    def _send(self, message: list[Any]) -> None:
        packed = msgpack.packb(message, unicode_errors="surrogatepass")
        assert isinstance(packed, bytes)
        try:
            self._channel.sendall(packed)
        except OSError:
            sys.exit(1)  # the server is gone


class _Inbox:
    """What the server sends over a channel."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._unpacker = msgpack.Unpacker(strict_map_key=False, unicode_errors="surrogatepass")
        self._next: Any = None  # a message that was read already

    def is_empty(self) -> bool:
        """Whether receive() would wait, as far as can be told: the rest of a message may not have come."""
        if self._next is None:
            self._next = next(iter(self._unpacker), None)
        return self._next is None and not select.select([self._channel], [], [], 0)[0]

    def receive(self) -> Any:
        """The next message; None at the channel's end."""
        if self._next is not None:
            found, self._next = self._next, None
            return found
        while True:
            for message in self._unpacker:
                return message
            data = self._channel.recv(_READ_SIZE)
            if not data:
                return None
            self._unpacker.feed(data)


def _pack_spec(spec: PolicySpec) -> bytes:
    try:
        return pack(spec)
    except BaseException as error:  # a stranger's metadata: it may hold anything
        raise PolicyFailed(f"the policy's spec cannot leave its process: {text_of(error)}") from error


def _end_with(server: int) -> None:
    """Have this process end when that one does, even in a policy that never returns."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != server:
            sys.exit(1)  # it ended before that
    else:
        threading.Thread(target=_watch, args=(server,), daemon=True).start()


def _watch(server: int) -> None:
    while os.getppid() == server:
        time.sleep(1)
    os._exit(1)
