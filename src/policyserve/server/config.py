"""A server's settings: one frozen dataclass, checked when it is made."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from typing import Literal

from policyserve import dialects
from policyserve.core.errors import ConfigError
from policyserve.core.limits import WireLimits

_MIB = 1024 * 1024


@dataclass(frozen=True)
class ServerConfig:
    """Where to listen and how much to take. Raises ConfigError that names the field, its value and the bound."""

    host: str = "0.0.0.0"
    port: int = 8000  # 0: any free one
    uds: str | None = None  # a Unix socket's path, to listen there instead of on host and port; mode 0600
    dialect: str = "auto"  # what `/` speaks; "auto" finds it out

    api_key_file: str | None = None  # `name: key` per line; the environment's POLICYSERVE_API_KEY adds to it
    tls_cert: str | None = None  # PEM: wss and https instead of ws and http; read again on SIGHUP, as the keys are
    tls_key: str | None = None  # PEM, without a passphrase
    allowed_origins: tuple[str, ...] = ()  # of browser pages that may connect, such as https://lab.example:8080

    hello_grace_ms: float | None = None  # auto's wait for a first frame; None: 200, 2000 for vibe_rl policies
    first_frame_timeout_s: float = 10.0  # where the client must speak first and does not
    drain_s: float = 10.0  # how long a stopping server waits for what is in flight
    request_timeout_s: float = 120.0  # from a request's arrival to its answer; a policy call that lasts longer hangs
    isolate: Literal["thread", "process"] = "thread"  # where the policy runs: a process of its own may crash or hang
    replicas: int = 1  # how many times the policy is loaded; each request goes to the one with the fewest
    devices: str | None = None  # with isolate=process: cpu or cuda:N for each replica, by commas; it sees no other
    max_wait_ms: float | None = None  # a free policy's wait for a fuller batch; None: half of its time, at most 5 ms
    busy_poll_us: float = 200.0  # after an answer, while clients ask again that soon: the loop polls and does not sleep

    max_frame_mib: float = 64.0  # one message
    max_buffered_mib: float = 1024.0  # all messages on their way in, unanswered, or answered and unread
    max_unread_mib: float = 64.0  # answers that one client does not read
    max_head_kib: float = 16.0  # URL and headers of an HTTP request
    max_sessions: int = 256
    max_sessions_per_address: int = 128  # loopback and Unix sockets are exempt
    max_handshakes: int = 512  # connections that are no session; of more than these the oldest is cut
    max_pending: int = 256  # requests of one session that have no answer yet
    max_queue: int = 4096  # requests of all sessions that wait for the policy
    max_queue_ms: float = 250.0  # a request's wait, where its session has others unanswered; beyond it, it is refused

    max_depth: int = WireLimits.max_depth  # how deep a message's maps and lists may nest
    max_items: int = WireLimits.max_items  # map entries and list items of one message
    max_arrays: int = WireLimits.max_arrays  # arrays of one message
    max_image_side: int = WireLimits.max_image_side  # pixels of an image's height and of its width
    max_image_mpixels: float = WireLimits.max_image_mpixels  # an image's height times its width, in millions of pixels
    max_text: int = WireLimits.max_text  # characters of a text

    handshake_timeout_s: float = 10.0
    message_timeout_s: float = 120.0  # from a message's beginning to its end
    unread_timeout_s: float = 60.0  # a client that takes nothing of its answers for so long is cut
    idle_timeout_s: float | None = None  # a session that asks nothing for so long is closed; None: never
    ping_interval_s: float = 30.0
    ping_timeout_s: float = 180.0  # unmodified clients block their own loop for minutes
    debug_wire: bool = False  # send tracebacks to clients, where their dialect has a place for text

    def __post_init__(self) -> None:
        self._check("port", 0 <= self.port <= 65535, "0 … 65535")
        self._check("uds", self.uds != "", "a path")
        if self.dialect != "auto":
            dialects.by_name(self.dialect)  # raises ConfigError
        self._check("drain_s", self.drain_s >= 0, "0 or more")
        self._check("max_queue_ms", self.max_queue_ms >= 0, "0 or more")
        for name in ("max_sessions", "max_sessions_per_address", "max_handshakes", "max_pending", "max_queue"):
            self._check(name, getattr(self, name) >= 1, "1 or more")
        for name in ("request_timeout_s", "handshake_timeout_s", "first_frame_timeout_s", "message_timeout_s"):
            self._check(name, getattr(self, name) > 0, "more than 0")
        for name in ("unread_timeout_s", "ping_interval_s", "ping_timeout_s", "max_frame_mib", "max_unread_mib"):
            self._check(name, getattr(self, name) > 0, "more than 0")
        self._check("idle_timeout_s", self.idle_timeout_s is None or self.idle_timeout_s > 0, "more than 0")
        self._check("max_head_kib", self.max_head_kib >= 1, "1 or more")
        fits = f"{self.max_frame_mib:g} or more, the size of one message"
        self._check("max_buffered_mib", self.max_buffered_mib >= self.max_frame_mib, fits)
        _ = self.wire_limits  # checks its own
        self._check("isolate", self.isolate in ("thread", "process"), "thread or process")
        self._check("replicas", self.replicas >= 1, "1 or more")
        if self.device_names:
            self._check("devices", self.isolate == "process", "none, or isolate=process too")
            fits = len(self.device_names) == self.replicas
            self._check("devices", fits, f"as many as replicas ({self.replicas}), by commas")
        longest_wait_ms = self.request_timeout_s * 1e3
        bound = f"0 … {longest_wait_ms:g}, the request's time-out"
        self._check("max_wait_ms", self.max_wait_ms is None or 0 <= self.max_wait_ms < longest_wait_ms, bound)
        self._check("busy_poll_us", 0 <= self.busy_poll_us <= 10_000, "0 … 10000")
        self._check("hello_grace_ms", self.hello_grace_ms is None or self.hello_grace_ms >= 0, "0 or more")
        self._check("tls_key", (self.tls_key is None) == (self.tls_cert is None), "tls_cert and tls_key, or neither")
        for origin in self.allowed_origins:
            is_fine = origin.startswith(("http://", "https://")) and origin.count("/") == 2
            self._check("allowed_origins", is_fine, "scheme://host or scheme://host:port for each")

    @cached_property
    def wire_limits(self) -> WireLimits:
        """What one request may hold."""
        return WireLimits(**{one.name: getattr(self, one.name) for one in fields(WireLimits)})

    @property
    def device_names(self) -> tuple[str, ...]:
        """devices, one by one."""
        return tuple(name.strip() for name in (self.devices or "").split(",") if name.strip())

    @property
    def max_wait_s(self) -> float | None:
        """max_wait_ms in seconds."""
        return None if self.max_wait_ms is None else self.max_wait_ms / 1e3

    @property
    def max_queue_s(self) -> float:
        """max_queue_ms in seconds."""
        return self.max_queue_ms / 1e3

    @property
    def max_frame_bytes(self) -> int:
        """max_frame_mib in bytes."""
        return int(self.max_frame_mib * _MIB)

    @property
    def max_buffered_bytes(self) -> int:
        """max_buffered_mib in bytes."""
        return int(self.max_buffered_mib * _MIB)

    @property
    def max_unread_bytes(self) -> int:
        """max_unread_mib in bytes."""
        return int(self.max_unread_mib * _MIB)

    @property
    def max_head_bytes(self) -> int:
        """max_head_kib in bytes."""
        return int(self.max_head_kib * 1024)

    @property
    def watch_interval_s(self) -> float:
        """How often a session is looked at: as often as the shortest of its time-outs needs."""
        idle_s = self.idle_timeout_s or self.ping_interval_s
        return min(self.ping_interval_s, self.message_timeout_s, self.unread_timeout_s, idle_s)

    def hello_grace_s(self, client_first: bool) -> float:
        """How long `auto` waits for a first frame; client_first: the policy's usual clients speak first."""
        if self.hello_grace_ms is not None:
            return self.hello_grace_ms / 1e3
        return 2.0 if client_first else 0.2

    def _check(self, name: str, is_fine: bool, bound: str) -> None:
        if not is_fine:
            raise ConfigError(f"{name}: expected {bound}, got {getattr(self, name)!r}")
