"""An inline policy's requests of one turn of the event loop share a call."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable, Hashable, Sequence
from itertools import cycle, islice
from typing import Any

import numpy as np
import pytest

from policyserve.core.effects import Answered, Outcome
from policyserve.core.errors import Overloaded
from policyserve.core.observer import Observer, Observers
from policyserve.core.policy import ActionChunk
from policyserve.engine.batcher import Batcher
from policyserve.engine.inline import Turns
from policyserve.engine.runner import OnDone, Task
from policyserve.engine.scheduler import Scheduler
from tests.engine.running import NOBODY, PATIENCE_S, until
from tests.policies.frameworks import needs_uvloop

LOOPS = ["asyncio", pytest.param("uvloop", marks=needs_uvloop)]


class InlineRunner:
    """Answers in the event loop while it is_inline, else keeps the batch until the test ends it."""

    def __init__(self) -> None:
        self.is_inline = True
        self.calls: list[str] = []  # in the event loop, a letter per task
        self.batches: list[str] = []  # elsewhere
        self._on_done: OnDone | None = None

    @property
    def inline(self) -> Any:
        return self if self.is_inline else None

    def answer_one(self, task: Task) -> Outcome:
        return self.answer((task,))[0]

    def answer(self, batch: Sequence[Task]) -> Sequence[Outcome]:
        assert self._on_done is None, "the policy runs in one place at a time"
        self.calls.append("".join(task.observation for task in batch))
        return [_answer(task) for task in batch]

    def infer(self, batch: Sequence[Task], on_done: OnDone) -> None:
        self.batches.append("".join(task.observation for task in batch))
        self._on_done = on_done

    def end_batch(self) -> None:
        on_done, self._on_done = self._on_done, None
        assert on_done is not None
        on_done([_answer(task) for task in (Task(0, name) for name in self.batches[-1])])

    def take_back(self, session: Hashable) -> None: ...
    def forget(self, session: Hashable) -> None: ...


def _answer(task: Task) -> Answered:
    return Answered(ActionChunk(np.array(task.observation)), 0.0, 0.0)


class Bench:
    """A scheduler whose sessions shared a turn lately, and the outcomes since, in the order of their coming."""

    def __init__(self, max_batch: int = 8, max_queue: int = 100, observers: Observers = NOBODY) -> None:
        self.runner = InlineRunner()
        self.scheduler = Scheduler(self.runner, Batcher(max_batch, max_queue), 1_000.0, observers)
        self.outcomes: list[tuple[str, Outcome]] = []

    async def share_a_turn(self) -> None:
        for session, name in enumerate("wxyz"):
            self.submit(session, name)
        await asyncio.sleep(0)
        assert self.answered == "wxyz"
        self.outcomes.clear()
        self.runner.calls.clear()

    def submit(self, session: Hashable, name: str, batch_size: int | None = None) -> None:
        task = Task(session, name, batch_size)
        self.scheduler.submit(task, time.monotonic(), lambda outcome: self.outcomes.append((name, outcome)))

    @property
    def answered(self) -> str:
        """Whose answers have come."""
        assert all(one.chunk.actions == name for name, one in self.outcomes if isinstance(one, Answered))
        return "".join(name for name, one in self.outcomes if isinstance(one, Answered))


def run(talk: Callable[[Bench], Awaitable[None]], **options: Any) -> None:
    async def bounded() -> None:
        bench = Bench(**options)
        await bench.share_a_turn()
        await asyncio.wait_for(talk(bench), PATIENCE_S)

    asyncio.run(bounded())


def test_a_session_that_asks_alone_is_answered_at_once() -> None:
    async def alone() -> None:
        bench = Bench()
        for name in "abcdefgh" * 8:
            before = len(bench.outcomes)
            bench.submit(1, name)
            assert len(bench.outcomes) == before + 1

    asyncio.run(alone())


def test_observers_are_told_of_each_call_whether_one_asks_or_several() -> None:
    class Watching(Observer):
        def __init__(self) -> None:
            self.told: list[object] = []

        def on_batch_started(self, sessions: Sequence[Hashable], started_at: float) -> None:
            self.told.append(list(sessions))

        def on_batch_ended(self, size: int, seconds: float) -> None:
            assert seconds >= 0
            self.told.append(size)

    async def watched() -> None:
        watching = Watching()
        observers = Observers(lambda _observer, error: pytest.fail(str(error)))
        observers.add(watching)
        Bench(observers=observers).submit(7, "a")
        assert watching.told == [[7], 1]
        await Bench(observers=observers).share_a_turn()
        assert watching.told[2:] == [[0], 1, [1, 2, 3], 3]

    asyncio.run(watched())


def test_the_session_that_is_left_of_several_is_soon_answered_at_once_again() -> None:
    async def talk(bench: Bench) -> None:
        were_at_once: list[bool] = []
        for name in "abcdefghijklmnop":
            bench.submit(1, name)
            were_at_once.append(bench.answered.endswith(name))
            await bench.scheduler.drained()
        assert bench.answered == "abcdefghijklmnop"
        assert were_at_once == [False] * 8 + [True] * 8

    run(talk)


def test_requests_of_one_turn_share_a_call_at_its_end() -> None:
    async def talk(bench: Bench) -> None:
        for session, name in enumerate("abcd"):
            bench.submit(session, name)
        assert (bench.answered, bench.scheduler.load) == ("", 4)
        await asyncio.sleep(0)
        assert bench.answered == "abcd"
        assert bench.runner.calls == ["abcd"]
        assert bench.scheduler.load == 0

    run(talk)


def test_a_second_request_of_a_session_waits_for_the_call_that_has_its_first() -> None:
    async def talk(bench: Bench) -> None:
        for session, name in ((1, "a"), (2, "b"), (1, "c"), (3, "d")):
            bench.submit(session, name)
        assert bench.answered == "ab"
        await bench.scheduler.drained()
        assert bench.runner.calls == ["ab", "cd"]
        assert bench.answered == "abcd"

    run(talk)


def test_a_call_has_no_more_requests_than_the_policy_takes() -> None:
    async def talk(bench: Bench) -> None:
        for session, name in enumerate("abcdefg"):
            bench.submit(session, name)
        assert bench.answered == "abcdef"
        await bench.scheduler.drained()
        assert bench.runner.calls == ["abc", "def", "g"]

    run(talk, max_batch=3)


def test_a_policy_that_takes_one_at_a_time_answers_each_at_once() -> None:
    async def one_at_a_time() -> None:
        bench = Bench(max_batch=1)
        for session, name in enumerate("abc"):
            bench.submit(session, name)
        assert bench.answered == "abc"

    asyncio.run(one_at_a_time())


def test_a_clients_own_batch_goes_elsewhere_when_what_waits_has_been_answered() -> None:
    async def talk(bench: Bench) -> None:
        bench.submit(1, "a")
        bench.submit(2, "b", batch_size=4)
        assert bench.runner.calls == ["a"]
        assert bench.runner.batches == ["b"]
        bench.submit(3, "c")  # the policy is not to be called at two places
        bench.runner.end_batch()
        bench.runner.end_batch()
        await bench.scheduler.drained()
        assert bench.answered == "abc"
        assert bench.runner.batches == ["b", "c"]

    run(talk)


def test_who_leaves_before_the_turn_ends_gets_nothing_and_the_others_are_answered() -> None:
    async def talk(bench: Bench) -> None:
        bench.submit(1, "a")
        bench.submit(2, "b")
        bench.scheduler.forget(1)
        await bench.scheduler.drained()
        assert bench.runner.calls == ["b"]
        bench.submit(2, "c")
        bench.scheduler.forget(2)
        await bench.scheduler.drained()
        assert bench.answered == "b"

    run(talk)


def test_what_waits_is_queued_if_the_policy_has_left_the_event_loop() -> None:
    async def talk(bench: Bench) -> None:
        for session, name in enumerate("abc"):
            bench.submit(session, name)
        bench.runner.is_inline = False
        await asyncio.sleep(0)
        assert bench.scheduler.load == 3
        bench.runner.end_batch()
        bench.runner.end_batch()
        await bench.scheduler.drained()
        assert bench.runner.batches == ["a", "bc"]
        assert bench.answered == "abc"

    run(talk)


def test_what_waits_and_finds_no_place_in_the_queue_is_refused() -> None:
    async def talk(bench: Bench) -> None:
        for session, name in enumerate("abc"):
            bench.submit(session, name)
        bench.runner.is_inline = False
        await asyncio.sleep(0)
        assert [(name, type(outcome)) for name, outcome in bench.outcomes] == [("c", Overloaded)]
        bench.runner.end_batch()
        bench.runner.end_batch()
        assert bench.answered == "ab"

    run(talk, max_queue=1)


def test_what_waits_outlives_a_policy_that_is_replaced() -> None:
    async def talk(bench: Bench) -> None:
        bench.submit(1, "a")
        bench.runner.is_inline = False
        bench.scheduler.hold()
        await asyncio.sleep(0)
        assert (bench.runner.batches, bench.scheduler.load) == ([], 1)
        bench.scheduler.resume()
        bench.runner.end_batch()
        await bench.scheduler.drained()
        assert bench.answered == "a"
        bench.runner.is_inline = True
        bench.submit(1, "b")
        await bench.scheduler.drained()
        assert bench.answered == "ab"

    run(talk)


def test_a_listeners_exception_costs_the_others_of_its_turn_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def fall(_: Outcome) -> None:
        raise RuntimeError("a bug of ours")

    async def talk(bench: Bench) -> None:
        bench.scheduler.submit(Task(1, "a"), time.monotonic(), fall)
        bench.submit(2, "b")
        await bench.scheduler.drained()
        assert bench.answered == "b"
        assert "a bug of ours" in caplog.text

    run(talk)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_turn_ends_when_every_socket_that_was_ready_has_been_read(loop: str) -> None:
    calls: list[str] = []

    async def talk() -> None:
        bench = Bench(max_batch=100)
        await bench.share_a_turn()
        peers: set[_Reader] = set()
        server = await asyncio.get_running_loop().create_server(lambda: _Reader(bench, peers), "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        clients = [socket.create_connection(address) for _ in range(8)]
        await until(lambda: len(peers) == len(clients))
        for client in clients:
            client.sendall(b"!")  # on the loopback it is there when this returns
        await until(lambda: bench.outcomes)
        calls.extend(bench.runner.calls)
        for client in clients:
            client.close()
        await until(lambda: not peers)
        server.close()
        await server.wait_closed()

    _run_in(loop, talk())
    assert calls == ["!" * 8]


class _Reader(asyncio.BufferedProtocol):
    """Makes a request of whatever it reads."""

    def __init__(self, bench: Bench, peers: set[_Reader]) -> None:
        self._bench = bench
        self._peers = peers  # that are connected
        self._buffer = bytearray(16)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._peers.add(self)

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._bench.submit(self, self._buffer[:nbytes].decode())

    def connection_lost(self, exc: Exception | None) -> None:
        self._peers.discard(self)


def _run_in(loop: str, main: Any) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(main, PATIENCE_S)

    if loop == "uvloop":
        import uvloop

        uvloop.run(bounded())
    else:
        asyncio.run(bounded())


# Who waits for the turn's end


def waits_of_two(turns: Turns, requests: int) -> list[bool]:
    """Two sessions ask by turns, each request in a turn of its own."""
    waits: list[bool] = []
    for session in islice(cycle("ab"), requests):
        waits.append(turns.waits(session))
        if waits[-1]:
            turns.on_end(1)
    return waits


def test_a_session_that_asks_alone_never_waits() -> None:
    turns = Turns()
    assert not any(turns.waits("a") for _ in range(100))


def test_a_second_session_is_a_reason_to_try_and_all_wait_after_a_shared_turn() -> None:
    turns = Turns()
    assert not turns.waits("a")
    assert [turns.waits(session) for session in "bca"] == [True, True, True]
    turns.on_end(3)
    assert [turns.waits(session) for session in "aaa"] == [True, True, True]


def test_sessions_that_never_share_a_turn_seldom_wait() -> None:
    waits = waits_of_two(Turns(), 1000)
    assert 1000 // 20 <= sum(waits) <= 1000 // 16


def test_a_turn_that_is_shared_again_is_noticed_after_vain_ones() -> None:
    turns = Turns()
    waits_of_two(turns, 100)
    tried = next(number for number, session in enumerate(cycle("ab")) if turns.waits(session))
    assert tried <= 17
    turns.on_end(2)
    assert turns.waits("a")


def test_the_one_who_is_left_of_a_crowd_soon_waits_no_more() -> None:
    turns = Turns()
    turns.waits("a")
    turns.waits("b")
    turns.on_end(32)
    waits: list[bool] = []
    for _ in range(50):
        waits.append(turns.waits("a"))
        if waits[-1]:
            turns.on_end(1)
    assert waits == [True] * 8 + [False] * 42


def test_a_turn_of_one_now_and_then_changes_nothing_for_a_crowd() -> None:
    turns = Turns()
    turns.waits("a")
    turns.waits("b")
    for count in (5, 1, 1, 7, 1, 2):
        assert turns.waits("a")
        turns.on_end(count)
    assert turns.waits("a")
