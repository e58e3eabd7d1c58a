"""Servers that a remote policy asks, and what asks it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import msgpack
import numpy as np
from websockets.sync.server import ServerConnection

from policyserve.core.effects import Answered
from policyserve.core.policy import ActionChunk, PolicyInput, open_spec
from policyserve.core.spec import ArraySpec, PolicySpec
from policyserve.engine.answering import Answering, Task
from policyserve.policies.remote.opening import Remote, spec_from
from policyserve.policies.remote.policy import RemotePolicy


class Summing:
    """Answers the sum of all that its session has sent as `obs`: what it remembers is the session's state."""

    buckets: Sequence[int] = ()
    spec = PolicySpec("summing", {"obs": ArraySpec((2,), doc="two numbers")}, ArraySpec((2,)), horizon=3, max_batch=8)

    def infer(self, batch: Sequence[PolicyInput]) -> list[ActionChunk]:
        return [self._answer(one) for one in batch]

    def close(self) -> None: ...

    def _answer(self, one: PolicyInput) -> ActionChunk:
        total = one.observation["obs"] + (0 if one.state is None else one.state)
        return ActionChunk(np.stack([total] * 3), total, {"note": "summed"})


class Raising:
    """Raises the error that it was made with."""

    buckets: Sequence[int] = ()
    spec = open_spec("raising")

    def __init__(self, error: Exception) -> None:
        self._error = error

    def infer(self, batch: Sequence[PolicyInput]) -> list[ActionChunk]:
        raise self._error

    def close(self) -> None: ...


class Meeting:
    """Answers nobody before `parties` sessions ask at the same time."""

    def __init__(self, parties: int) -> None:
        self._barrier = threading.Barrier(parties, timeout=60)

    def __call__(self, peer: ServerConnection) -> None:
        peer.send(packed({"robot": "arm"}))
        for _ in peer:
            self._barrier.wait()
            peer.send(packed({"actions": [[1.0]], "server_timing": {}}))


def openpi_original(peer: ServerConnection) -> None:
    """openpi's server: it greets, answers the double of `state`, and sends a traceback and ends at an error."""
    peer.send(packed({"robot": "arm"}))
    for message in peer:
        sent = msgpack.unpackb(message)
        if "state" not in sent:
            peer.send("Traceback (most recent call last):\nKeyError: 'state'")
            peer.close(1011, "Internal server error. Traceback included in previous frame.")
            return
        state = np.frombuffer(sent["state"][b"data"], sent["state"][b"dtype"])
        peer.send(packed({"actions": (2 * state).tolist(), "policy_timing": {"infer_ms": 1.5}}))


def packed(message: Any) -> bytes:
    return msgpack.packb(message) or b""


def remote_policy(url: str, max_sessions: int = 8, **options: Any) -> RemotePolicy:
    remote = Remote(url, **options)
    return RemotePolicy(remote, spec_from(remote.greeting(0.0), remote.shown), max_sessions)


def outcomes(answering: Answering, **observations: Any) -> list[Any]:
    """What sessions get that ask in one batch: a chunk's actions, or the error."""
    told = answering.answer([Task(session, sent) for session, sent in observations.items()])
    return [one.chunk.actions if isinstance(one, Answered) else one for one in told]
