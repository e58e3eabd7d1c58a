"""Counters of one server, for /healthz and the log."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Stats:
    """Counts since the server started. Written by the event loop's thread only."""

    requests: int = 0  # answered with actions
    total_latency_ms: float = 0.0  # their sum, arrival to reply
    sessions_opened: int = 0
    sessions_open: int = 0
    errors: Counter[str] = field(default_factory=Counter)  # by error code

    def answered(self, latency_ms: float) -> None:
        """Count one request that got its actions."""
        self.requests += 1
        self.total_latency_ms += latency_ms

    def failed(self, code: str) -> None:
        """Count one request that was refused or failed. code: the error's."""
        self.errors[code] += 1

    @property
    def mean_latency_ms(self) -> float:
        """Mean of all answered requests; 0 before the first."""
        return self.total_latency_ms / self.requests if self.requests else 0.0
