"""Real-time execution in virtual time: a control step is a call, and answers come after a latency that is modelled.

It needs no clock, no thread and no network, so it is deterministic and as quick as the policy and the simulator are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from policyserve.realtime.machine import Realtime
from policyserve.realtime.settings import RealtimeSettings
from policyserve.realtime.values import Action, Ask, Connect, MergedChunk, RealtimeStatus, Renew

_TOLERANCE_S = 1e-9  # times are sums of periods


class VirtualStep(NamedTuple):
    """One control step. has_joined: whether a chunk has come since the step before."""

    action: Action
    has_joined: bool


class VirtualRealtime:
    """One episode. In each control step: ask(), if that gives a request answer(), then act().

    latencies: seconds from each observation to its chunk. metadata: the server's greeting, for what it says of RTC and
    of its actions. The first chunk is there at once: until then the robot stands still, and so does its world. Raises
    ConfigError for settings that do not go with the server.
    """

    def __init__(
        self, settings: RealtimeSettings, latencies: Iterator[float], metadata: Mapping[str, Any] | None = None
    ) -> None:
        self._machine = Realtime(settings, tell=lambda: None, random=lambda: 1.0)
        self._latencies = latencies
        self._metadata = metadata or {}
        self._step = 0
        self._under_way: tuple[float, Ask, Any, Any] | None = None  # when it comes, to which request, rows, fields
        self._next_step()
        if self._machine.failed is not None:
            raise self._machine.failed

    @property
    def now(self) -> float:
        """Seconds since the episode began."""
        return self._step / self._machine.settings.control_hz

    @property
    def status(self) -> RealtimeStatus:
        """A snapshot."""
        return self._machine.status(self.now)

    def ask(self, observation: Any) -> Ask | None:
        """Give what the robot sees; returns the request to have answered, None: none is due."""
        self._deliver()
        self._machine.observe(observation, self.now)
        return self._next_step()

    def answer(self, ask: Ask, actions: Any, fields: Any = None) -> None:
        """Tell what the policy answers, which the robot gets after its latency. actions: (H, D). fields: all of it."""
        took = next(self._latencies) if self._step else 0.0
        self._under_way = (self.now + took, ask, actions, fields)

    def act(self) -> VirtualStep:
        """The action of this control step; the next one begins."""
        self._deliver()
        action = self._machine.act(self.now)
        has_joined = any(isinstance(one, MergedChunk) for one in self._machine.changes())
        self._step += 1
        return VirtualStep(action, has_joined)

    def _deliver(self) -> None:
        if self._under_way is None:
            return
        due, ask, actions, fields = self._under_way
        if due <= self.now + _TOLERANCE_S:
            self._under_way = None
            self._machine.on_answer(ask, actions, due, fields)

    def _next_step(self) -> Ask | None:
        while True:
            step = self._machine.next_step(self.now)
            if isinstance(step, Ask):
                return step
            if not isinstance(step, (Connect, Renew)):
                return None
            self._machine.on_connected(self._metadata, self.now)
