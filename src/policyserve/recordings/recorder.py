"""Records what a server hears and says: an observer that hands each message to a process, which writes it.

In the event loop a message costs one copy and one entry in a pipe. A thread that writes would fight with the event loop
for Python's interpreter: compressing and making pictures in one made the slowest round trips twice as long.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from policyserve.core.callbacks import do_nothing
from policyserve.core.errors import ConfigError, MissingDependency, PolicyserveError
from policyserve.core.events import Event
from policyserve.core.log import Log
from policyserve.core.messages import EncodedText, Message, Timing
from policyserve.core.observer import Observer, SessionFacts
from policyserve.core.policy import ActionChunk
from policyserve.core.spec import PolicySpec
from policyserve.engine.isolated.child import SAME_PATH, child_environment, describe_exit, log_descriptor
from policyserve.recordings.layout import PolicyFacts, json_of
from policyserve.recordings.plan import Plan
from policyserve.recordings.queue import Kind, Outgoing

log = Log(__name__)

_START = SAME_PATH + "from policyserve.recordings.writer import main; main(sys.argv[1])"
_SPARE = 16  # of the queue one part in so many is for replies and events: what was asked should have its answer
_TOLD_EVERY_S = 10.0
_LOOK_S = 0.02
_FINISH_S = 10.0  # how long a stopping server waits until all is written
_MOST_EVENTS = 10_000  # that wait for room


class Recorder(Observer):
    """Tells the writing process what it is told. left_out: requests that there was no room for.

    on_end: called when nothing more can be recorded. Raises ConfigError for a directory that cannot be written, and
    MissingDependency without mcap.
    """

    def __init__(self, plan: Plan, on_end: Callable[[], object] = do_nothing) -> None:
        check_directory(plan.directory)
        self.plan = plan
        self.on_end = on_end
        self.left_out = 0
        self._untold = 0  # of those left out, to the file
        self._logged_at = float("-inf")
        self._logged = 0
        self._asked: dict[int, int] = {}  # requests so far, of open sessions
        self._missing: dict[int, set[int]] = {}  # of them those that were left out and have no reply yet
        self._replies_to: tuple[int, int | None] | None = None  # session and ticket of the next message that is sent
        self._late: deque[tuple[bytes, int]] = deque(maxlen=_MOST_EVENTS)  # events that wait for room
        self._spare = max(plan.queue_bytes // _SPARE, 1)
        self._queue: Outgoing | None = None  # while it records
        self._process: subprocess.Popen[bytes] | None = None
        self._status = -1  # what its process says
        self._heard = b""
        self._has_hung_up = asyncio.Event()
        self._has_begun = self._has_failed = False

    @property
    def is_recording(self) -> bool:
        """Whether what it is told is written."""
        return self._queue is not None

    @property
    def number(self) -> int:
        """The writing process's id, once it has begun its first file; 0 before."""
        return self._process.pid if self._process is not None and self._has_begun else 0

    # Life cycle

    def start(self) -> None:
        """Start the writing process; there is an event loop. Raises ConfigError if it cannot be started."""
        queue = Outgoing(self.plan.queue_bytes)
        self._status, status = os.pipe()
        passed = (*queue.other_end, status)
        offset = time.time_ns() - time.monotonic_ns()
        told = {**asdict(self.plan), "queue": queue.other_end, "status": status, "clock_offset_ns": offset}
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _START, json.dumps(told)],
                pass_fds=passed,
                stdin=subprocess.DEVNULL,
                stdout=log_descriptor(),
                stderr=log_descriptor(),
                env=child_environment(),
                start_new_session=True,  # Ctrl-C is for the server, which tells it when all is said
            )
            self._queue = queue
        except OSError as error:
            raise ConfigError(f"record: the process that writes cannot be started: {error}") from error
        finally:
            for descriptor in passed:
                os.close(descriptor)
        os.set_blocking(self._status, False)
        asyncio.get_running_loop().add_reader(self._status, self._listen)

    async def close(self) -> None:
        """Have all that was told written, and wait for it for a while."""
        if self._process is None:
            return
        self._tell_left_out()
        self._log_left_out()
        try:
            await asyncio.wait_for(self._finish(), _FINISH_S)
        except asyncio.TimeoutError:
            self._stop_telling()
            asyncio.get_running_loop().remove_reader(self._status)
            log.warning("the recording's process still writes, and ends by itself", event=Event("recording_behind"))

    async def _finish(self) -> None:
        """Hand over the events that wait for room, then wait until the process has written all."""
        while not self._put_late():  # noqa: ASYNC110 - the process that makes room tells nobody
            await asyncio.sleep(_LOOK_S)
        self._stop_telling()
        await self._has_hung_up.wait()

    # What it is told

    def on_session_opened(self, session: SessionFacts) -> None:
        self._asked[session.number] = 0
        told = {"peer": session.peer, "dialect": session.dialect, "key": session.key, "policy": session.policy}
        self._event("opened", session=session.number, **told)

    def on_session_closed(self, session: int) -> None:
        self._asked.pop(session, None)
        self._missing.pop(session, None)
        self._event("closed", session=session)

    def on_dialect(self, session: int, dialect: str) -> None:
        self._event("dialect", session=session, dialect=dialect)

    def on_policy_ready(self, spec: PolicySpec) -> None:
        self.tell_policy(PolicyFacts.of(spec))

    def tell_policy(self, facts: PolicyFacts) -> None:
        """What is served from now on."""
        self._event("policy", **facts.record())

    def on_message(self, session: int, message: Message | EncodedText, arrived_at: float) -> None:
        number = self._asked[session] = self._asked.get(session, 0) + 1
        is_text, data = _bytes_of(message)
        if self._queue is None:
            return
        if self._untold and self._put_late():
            self._tell_left_out()
        if not self._put(Kind.REQUEST, session, number, data, int(arrived_at * 1e9), is_text, self._spare):
            self._missing.setdefault(session, set()).add(number)
            self._leave_out()

    def on_answer(self, session: int, ticket: int, chunk: ActionChunk, timing: Timing) -> None:
        self._replies_to = session, ticket

    def on_refusal(self, session: int, ticket: int | None, error: PolicyserveError) -> None:
        self._replies_to = session, ticket
        if ticket is None or not self._is_missing(session, ticket):
            self._event("refused", session=session, request=ticket, code=error.code, text=str(error))

    def on_sent(self, session: int, message: Message) -> None:
        answered, self._replies_to = self._replies_to, None
        self.say(session, (answered[1] or 0) if answered is not None and answered[0] == session else 0, message)

    def say(self, session: int, number: int, message: Message) -> None:
        """The server's message leaves. number: of the request that it answers, 0 for a greeting."""
        if number and self._is_missing(session, number):
            self._missing[session].discard(number)
            return
        is_text, data = _bytes_of(message)
        if self._queue is not None and not self._put(Kind.REPLY, session, number, data, time.monotonic_ns(), is_text):
            self._leave_out(session, number)

    # Inside

    def _is_missing(self, session: int, number: int) -> bool:
        missing = self._missing.get(session)
        return missing is not None and number in missing

    def _event(self, event: str, /, **told: Any) -> None:
        if self._queue is not None:
            self._late.append((json_of({"event": event, **told}), time.monotonic_ns()))
            self._put_late()

    def _put_late(self) -> bool:
        """Hand over the events that wait; whether none does any more, or none can."""
        while self._late and self._queue is not None:
            data, at = self._late[0]
            if not self._try(Kind.EVENT, 0, 0, data, at, False, 0):
                return False
            self._late.popleft()
        return True

    def _put(
        self, kind: Kind, session: int, number: int, data: bytes | memoryview, at: int, is_text: bool, spare: int = 0
    ) -> bool:
        return (not self._late or self._put_late()) and self._try(kind, session, number, data, at, is_text, spare)

    def _try(
        self, kind: Kind, session: int, number: int, data: bytes | memoryview, at: int, is_text: bool, spare: int
    ) -> bool:
        if self._queue is None:
            return True
        try:
            return self._queue.put(kind, session, number, data, at, is_text=is_text, spare=spare)
        except OSError:  # nobody reads any more; why, _listen hears in a moment
            return True

    def _leave_out(self, session: int = 0, number: int = 0) -> None:
        """Count a request; number: it is in the file, and its reply is not."""
        self.left_out += 1
        if number:
            self._event("left_out", session=session, request=number, count=1)
        else:
            self._untold += 1
        if time.monotonic() - self._logged_at >= _TOLD_EVERY_S:
            self._log_left_out()

    def _log_left_out(self) -> None:
        count = self.left_out - self._logged
        self._logged_at, self._logged = time.monotonic(), self.left_out
        if count:
            told = "recording: %d request%s left out, since the disk or the processor does not keep up"
            values = count, " was" if count == 1 else "s were"
            event = Event("recording_behind")
            log.warning(f"{told} (--record-queue-mib, --no-record-views)", *values, event=event)

    def _tell_left_out(self) -> None:
        count, self._untold = self._untold, 0
        if count:
            self._event("left_out", count=count)

    def _listen(self) -> None:
        """The writing process says something, or has ended."""
        try:
            data = os.read(self._status, 1 << 16)
        except BlockingIOError:
            return
        self._heard += data
        *lines, self._heard = self._heard.split(b"\n")
        for line in lines:
            self._hear(line.decode("utf-8", "replace"))
        if not data:
            self._hang_up()

    def _hear(self, line: str) -> None:
        kind, _, text = line.partition(" ")
        if kind == "file":
            self._has_begun = True
            log.info("recording to %s", text, event=Event("recording_begun"))
        else:
            self._end(text)

    def _end(self, why: str) -> None:
        """Record nothing more, and say so once."""
        if self._has_failed:
            return
        self._has_failed = True
        self._stop_telling()
        log.error("recording ended: %s; serving goes on", why, event=Event("recording_ended"))
        self.on_end()

    def _stop_telling(self) -> None:
        if self._queue is not None:
            self._queue.close()
            self._queue = None

    def _hang_up(self) -> None:
        """The process has closed its end: it is about to be gone, or is."""
        asyncio.get_running_loop().remove_reader(self._status)
        os.close(self._status)
        self._has_hung_up.set()
        assert self._process is not None
        with suppress(subprocess.TimeoutExpired):
            code = self._process.wait(1.0)
            if code or self._queue is not None:
                self._end(f"its process {describe_exit(code)}")


def check_directory(name: str) -> Path:
    """Make a directory for recordings, if it is not there; raises ConfigError where none can be, MissingDependency."""
    for module in ("mcap", "zstandard"):
        if find_spec(module) is None:
            raise MissingDependency(module, "record")
    if os.name != "posix":
        raise ConfigError("record: expected Linux or macOS, where a process of its own can write")
    directory = Path(name)
    try:
        directory.mkdir(0o700, parents=True, exist_ok=True)
        probe = directory / f".policyserve-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(f"record: expected a directory that can be written, got {name}: {reason}") from error
    return directory


def _bytes_of(message: Message | EncodedText) -> tuple[bool, bytes | memoryview]:
    """Whether it is a text, and its bytes."""
    if isinstance(message, EncodedText):
        return True, message.data
    if isinstance(message, str):
        return True, message.encode("utf-8", "replace")
    return False, message if isinstance(message, (bytes, memoryview)) else memoryview(message)
