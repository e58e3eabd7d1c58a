"""LeRobot's client as gRPC sees it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from policyserve.core.arrays import Array
from policyserve.core.policy import FunctionPolicy
from policyserve.core.spec import ArraySpec, PolicySpec
from policyserve.dialects.lerobot.answers import read_actions
from policyserve.dialects.lerobot.messages import BEGIN, END, MIDDLE
from tests.dialects.lerobot.written import seen, setup
from tests.server.live import DEADLINE_S, Live

STATE = PolicySpec("double rows", {"state": ArraySpec((3,))}, ArraySpec((3,)), horizon=4)


def doubled(observation: Any) -> Any:
    return rows(*observation.get("state", observation.get("observation.state")))


def policy(spec: PolicySpec = STATE) -> FunctionPolicy:
    return FunctionPolicy(doubled, spec)


class SlowPolicy(FunctionPolicy):
    """Doubles each row once a test has released `go_on`; a warm-up waits for nobody. `began` tells of each call."""

    def __init__(self) -> None:
        super().__init__(self._double_later, STATE)
        self.began, self.go_on = threading.Semaphore(0), threading.Semaphore(0)

    def _double_later(self, observation: Any) -> Any:
        if observation["state"].any():
            self.began.release()
            assert self.go_on.acquire(timeout=DEADLINE_S)
        return doubled(observation)


def refused(call: Any) -> Any:
    """The status and the text that a call is refused with."""
    import grpc

    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code().name, caught.value.details()


def varint(value: int) -> bytes:
    return bytes([value]) if value < 0x80 else bytes([value & 0x7F | 0x80]) + varint(value >> 7)


def part(state: int, data: bytes) -> bytes:
    """An Observation message."""
    return b"\x08" + varint(state) + b"\x12" + varint(len(data)) + data


def parts(data: bytes, size: int = 2 << 20) -> list[bytes]:
    """An observation in parts, as LeRobot's client cuts it."""
    if len(data) <= size:
        return [part(END, data)]
    cut = [data[start : start + size] for start in range(0, len(data), size)]
    states = [BEGIN, *[MIDDLE] * (len(cut) - 2), END]
    return [part(state, one) for state, one in zip(states, cut, strict=True)]


def setup_message(data: bytes) -> bytes:
    return b"\x0a" + varint(len(data)) + data


class Caller:
    """One channel, as each client has one."""

    def __init__(self, port: int) -> None:
        import grpc

        options = [("grpc.use_local_subchannel_pool", 1)]  # else channels of one process share a connection
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}", options)
        one, stream = self.channel.unary_unary, self.channel.stream_unary
        head = "/transport.AsyncInference/"
        self._ready, self._instruct = one(f"{head}Ready"), one(f"{head}SendPolicyInstructions")
        self.observing, self.acting = stream(f"{head}SendObservations"), one(f"{head}GetActions")

    def ready(self) -> None:
        assert self._ready(b"", timeout=DEADLINE_S) == b""

    def instruct(self, data: bytes, **options: Any) -> None:
        assert self._instruct(setup_message(data), timeout=DEADLINE_S, **options) == b""

    def instructing(self, data: bytes) -> Any:
        """The same, not waited for."""
        return self._instruct.future(setup_message(data), timeout=DEADLINE_S)

    def observe(self, *joints: float, **more: Any) -> None:
        self.send(seen(*joints, **more))

    def send(self, data: bytes) -> None:
        assert self.observing(iter(parts(data)), timeout=DEADLINE_S) == b""

    def raw_actions(self) -> bytes:
        """The pickle of the next answer that is one; empty answers are asked again, as LeRobot's client does."""
        while True:
            message = self.acting(b"", timeout=DEADLINE_S)
            if message:
                return pickled_in(message)

    def actions(self) -> tuple[Array, list[int]]:
        return read_actions(self.raw_actions())

    def close(self) -> None:
        self.channel.close()


def pickled_in(message: bytes) -> bytes:
    """The pickle in an Actions message."""
    assert message[0] == 0x0A
    size, place = 0, 1
    for shift in range(0, 35, 7):
        size |= (message[place] & 0x7F) << shift
        place += 1
        if message[place - 1] < 0x80:
            break
    assert len(message) == place + size
    return message[place:]


def lerobot_port(live: Live) -> int:
    assert live.server.lerobot is not None
    return live.server.lerobot.address.port


@contextmanager
def calling(live: Live) -> Iterator[Caller]:
    caller = Caller(lerobot_port(live))
    try:
        yield caller
    finally:
        caller.close()


@contextmanager
def asking(live: Live, policy: str, told: Mapping[str, Any] | None = None, **more: Any) -> Iterator[Caller]:
    """A client that has said what it is."""
    with calling(live) as caller:
        caller.ready()
        caller.instruct(setup(policy, told, **more))
        yield caller


def rows(*first: float, steps: int = 4) -> Array:
    """What double_rows() answers."""
    return np.array([[2 * one + step for one in first] for step in range(steps)], np.float32)
