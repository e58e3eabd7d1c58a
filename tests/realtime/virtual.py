"""A robot and a policy in virtual time: one period after the other, with latencies that a test says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from policyserve.core.arrays import Array
from policyserve.core.errors import ConnectionLost
from policyserve.realtime.machine import Realtime
from policyserve.realtime.settings import RealtimeSettings
from policyserve.realtime.values import Action, Ask, Connect, Renew

HZ = 50.0
GREETING = {"action_kind": "position"}
Policy = Callable[[Ask], Any]


class Tick(NamedTuple):
    """One period: what the robot got, and whether a chunk was merged just before."""

    now: float
    action: Action
    has_merged: bool


def numbered(horizon: int, width: int = 2) -> Policy:
    """A policy whose row i for an observation that holds its plan step n is n + i, in each number."""

    def answer(ask: Ask) -> Array:
        first = ask.observation["step"]
        return np.repeat(first + np.arange(horizon, dtype=np.float64), width).reshape(horizon, width)

    return answer


def machine(**settings: Any) -> Realtime:
    """One that asks at once, at 50 Hz, unless the settings say otherwise."""
    return Realtime(RealtimeSettings(**{"control_hz": HZ, **settings}), random=lambda: 1.0)


class Virtual:
    """Drives a machine. latencies: of the answers, in seconds, one after the other; None: that answer never comes."""

    def __init__(
        self,
        realtime: Realtime,
        policy: Policy,
        latencies: Iterable[float | None],
        *,
        greeting: Any = None,
        fields: Any = None,
        gives_up_after_s: float = 3.0,
    ) -> None:
        self.realtime, self.policy = realtime, policy
        self.latencies: Iterator[float | None] = iter(latencies)
        self.greeting = GREETING if greeting is None else greeting
        self.fields = fields
        self.gives_up_after_s = gives_up_after_s
        self.asked: list[Ask] = []
        self.took: list[float | None] = []
        self._under_way: tuple[float | None, Ask, Any] | None = None
        self._number = 0
        self._sessions = 0

    def tick(self, observation: Any = None, out: Array | None = None) -> Tick:
        """Live through one period: answers come, the robot looks, asks, acts."""
        now = self._number / self.realtime.settings.control_hz
        self._number += 1
        merged = self.realtime.status(now).chunks
        self.deliver(now)
        step = self.realtime.status(now).plan_step
        self.realtime.observe({"step": step} if observation is None else observation, now)
        self.work(now)
        action = self.realtime.act(now, out)
        return Tick(now, action, self.realtime.status(now).chunks > merged)

    def run(self, seconds: float) -> list[Tick]:
        return [self.tick() for _ in range(round(seconds * self.realtime.settings.control_hz))]

    def work(self, now: float) -> None:
        """Do the worker's steps until it rests or an answer is under way."""
        while self._under_way is None:
            step = self.realtime.next_step(now)
            if isinstance(step, (Connect, Renew)):
                self._sessions += isinstance(step, Renew) or not self._sessions
                self.realtime.on_connected(self.greeting, now, self._sessions)
            elif isinstance(step, Ask):
                took = next(self.latencies)
                self.asked.append(step)
                self.took.append(took)
                self._under_way = (None if took is None else now + took, step, self.policy(step))
            else:
                return

    def deliver(self, now: float) -> None:
        """Hand an answer over, at the time at which it came."""
        while self._under_way is not None:
            due, ask, answer = self._under_way
            if due is None and now >= ask.sent_at + self.gives_up_after_s:
                self._under_way = None
                self.realtime.on_failure(ask, ConnectionLost("no answer"), now)
            elif due is not None and due <= now + 1e-9:
                self._under_way = None
                self.realtime.on_answer(ask, answer, due, self.fields)
                self.work(due)
            else:
                return
