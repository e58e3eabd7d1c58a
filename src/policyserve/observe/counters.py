"""Counters of one server, for /healthz and the log."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from policyserve.core.errors import PolicyserveError
from policyserve.core.messages import Timing
from policyserve.core.observer import Observer, SessionFacts
from policyserve.core.policy import ActionChunk


@dataclass(eq=False)
class Counters(Observer):
    """Counts since the server started. Written by the event loop's thread only."""

    requests: int = 0  # answered with actions
    total_latency_ms: float = 0.0  # their sum, arrival to reply
    sessions_opened: int = 0
    sessions_open: int = 0
    errors: Counter[str] = field(default_factory=Counter)  # by error code

    @property
    def mean_latency_ms(self) -> float:
        """Mean of all answered requests; 0 before the first."""
        return self.total_latency_ms / self.requests if self.requests else 0.0

    def on_session_opened(self, session: SessionFacts) -> None:
        self.sessions_opened += 1
        self.sessions_open += 1

    def on_session_closed(self, session: int) -> None:
        self.sessions_open -= 1

    def on_answer(self, session: int, ticket: int, chunk: ActionChunk, timing: Timing) -> None:
        self.requests += 1
        self.total_latency_ms += timing.total_ms

    def on_refusal(self, session: int, ticket: int | None, error: PolicyserveError) -> None:
        self.errors[error.code] += 1
