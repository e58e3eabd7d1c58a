"""A server's settings: one frozen dataclass, checked when it is made."""

from __future__ import annotations

from dataclasses import dataclass

from policyserve import dialects
from policyserve.core.errors import ConfigError


@dataclass(frozen=True)
class ServerConfig:
    """Where to listen and how much to take. Raises ConfigError that names the field, its value and the bound."""

    host: str = "0.0.0.0"
    port: int = 8000  # 0: any free one
    dialect: str = "auto"  # what `/` speaks; "auto" finds it out
    hello_grace_ms: float | None = None  # auto's wait for a first frame; None: 200, 2000 for vibe_rl policies
    first_frame_timeout_s: float = 10.0  # where the client must speak first and does not
    drain_s: float = 10.0  # how long a stopping server waits for what is in flight
    request_timeout_s: float = 120.0  # from a request's arrival to the start of its batch
    max_wait_ms: float | None = None  # a free policy's wait for a fuller batch; None: a tenth of its time, at most 5 ms
    max_frame_mib: float = 64.0  # one message
    max_sessions: int = 256
    max_pending: int = 256  # requests of one session that have no answer yet
    max_queue: int = 4096  # requests of all sessions that wait for the policy
    handshake_timeout_s: float = 10.0
    ping_interval_s: float = 30.0
    ping_timeout_s: float = 180.0  # unmodified clients block their own loop for minutes
    debug_wire: bool = False  # send tracebacks to clients, where their dialect has a place for text

    def __post_init__(self) -> None:
        self._check("port", 0 <= self.port <= 65535, "0 … 65535")
        self._check("dialect", self.dialect in ("auto", *dialects.names()), f"auto, {', '.join(dialects.names())}")
        self._check("drain_s", self.drain_s >= 0, "0 or more")
        for name in ("max_sessions", "max_pending", "max_queue"):
            self._check(name, getattr(self, name) >= 1, "1 or more")
        for name in ("request_timeout_s", "max_frame_mib", "handshake_timeout_s", "first_frame_timeout_s"):
            self._check(name, getattr(self, name) > 0, "more than 0")
        for name in ("ping_interval_s", "ping_timeout_s"):
            self._check(name, getattr(self, name) > 0, "more than 0")
        longest_wait_ms = self.request_timeout_s * 1e3
        bound = f"0 … {longest_wait_ms:g}, the request's time-out"
        self._check("max_wait_ms", self.max_wait_ms is None or 0 <= self.max_wait_ms < longest_wait_ms, bound)
        self._check("hello_grace_ms", self.hello_grace_ms is None or self.hello_grace_ms >= 0, "0 or more")

    @property
    def max_wait_s(self) -> float | None:
        """max_wait_ms in seconds."""
        return None if self.max_wait_ms is None else self.max_wait_ms / 1e3

    @property
    def max_frame_bytes(self) -> int:
        """max_frame_mib in bytes."""
        return int(self.max_frame_mib * 1024 * 1024)

    def hello_grace_s(self, client_first: bool) -> float:
        """How long `auto` waits for a first frame; client_first: the policy's usual clients speak first."""
        if self.hello_grace_ms is not None:
            return self.hello_grace_ms / 1e3
        return 2.0 if client_first else 0.2

    def _check(self, name: str, is_fine: bool, bound: str) -> None:
        if not is_fine:
            raise ConfigError(f"{name}: expected {bound}, got {getattr(self, name)!r}")
