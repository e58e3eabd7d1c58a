"""A policy that runs in the event loop, asked by several clients at once."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from policyserve.core.policy import ActionChunk, PolicyInput
from policyserve.policies.fakes import CountingPolicy
from tests.server.live import DEADLINE_S, Live, answer, frame, masked, open_raw, read_frame, serving

BINARY = 2


class Reflex(CountingPolicy):
    """Runs in the event loop, which it holds up while a test keeps `gate` closed; then `entered` is set.

    Answers an observation plus the sum of its session's before.
    """

    def __init__(self) -> None:
        super().__init__(1, max_batch=64)
        self.spec = replace(self.spec, inline=True)
        self.threads: set[str] = set()
        self.gate, self.entered = threading.Event(), threading.Event()
        self.gate.set()

    def infer(self, batch: Sequence[PolicyInput]) -> list[ActionChunk]:
        self.sizes.append(len(batch))
        self.threads.add(threading.current_thread().name)
        if not self.gate.is_set():
            self.entered.set()
            assert self.gate.wait(DEADLINE_S)
        sums = [one.observation["obs"] + (0 if one.state is None else one.state) for one in batch]
        return [ActionChunk(total, state=total) for total in sums]


class Peers:
    """Clients of a policy that holds the event loop up until `meanwhile`'s block ends."""

    def __init__(self, live: Live, policy: Reflex, count: int) -> None:
        self.sockets = [open_raw(live)[0] for _ in range(count)]
        self._policy = policy

    @contextmanager
    def meanwhile(self) -> Iterator[None]:
        """What is sent in the block is read in the turn of the loop that follows it."""
        self._policy.gate.clear()
        self._policy.entered.clear()
        send(self.sockets[0], 0.0)
        assert self._policy.entered.wait(DEADLINE_S)
        self._policy.sizes.clear()
        try:
            yield
        finally:
            self._policy.gate.set()
        assert receive(self.sockets[0]) is not None


@contextmanager
def clients(policy: Reflex, count: int) -> Iterator[Peers]:
    with serving(policy, isolate="thread") as live:
        peers = Peers(live, policy, count)
        ask(peers.sockets[0], 0.0)
        yield peers
        for peer in peers.sockets:
            peer.close()
    assert policy.threads == {"server"}


def send(peer: socket.socket, *numbers: float) -> None:
    peer.sendall(b"".join(masked(BINARY, frame([number])) for number in numbers))


def receive(peer: socket.socket) -> float:
    opcode, payload = read_frame(peer)
    assert opcode == BINARY
    return answer(payload)


def ask(peer: socket.socket, number: float) -> Any:
    send(peer, number)
    return receive(peer)


def test_requests_that_are_there_at_the_same_time_share_a_call_and_each_gets_its_own_answer() -> None:
    policy = Reflex()
    with clients(policy, 5) as peers:
        with peers.meanwhile():
            for number, peer in enumerate(peers.sockets[1:], start=1):
                send(peer, float(number))
        assert [receive(peer) for peer in peers.sockets[1:]] == [1, 2, 3, 4]
        assert policy.sizes == [4]


def test_a_session_that_sends_ahead_among_others_is_answered_in_its_order_with_its_state() -> None:
    policy = Reflex()
    with clients(policy, 4) as peers:
        with peers.meanwhile():
            send(peers.sockets[1], 1.0)
            send(peers.sockets[2], 1.0, 2.0, 3.0)
            send(peers.sockets[3], 10.0)
        assert [receive(peers.sockets[2]) for _ in range(3)] == [1, 3, 6]
        assert [receive(peers.sockets[place]) for place in (1, 3)] == [1, 10]
        assert sum(policy.sizes) == 5
        assert max(policy.sizes) > 1


def test_who_leaves_while_requests_wait_costs_the_others_nothing() -> None:
    policy = Reflex()
    with clients(policy, 4) as peers:
        with peers.meanwhile():
            for peer in peers.sockets[1:]:
                send(peer, 5.0)
            peers.sockets[2].close()
        assert [receive(peers.sockets[place]) for place in (1, 3)] == [5, 5]
        assert ask(peers.sockets[1], 1.0) == 6
