"""A server's settings, in groups: each part of the server asks for the groups that it needs, a user sees them as one.

Every field is a flag of `policyserve serve`, and the comment behind it is the flag's line in --help.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Literal

from policyserve import dialects
from policyserve.core.errors import ConfigError
from policyserve.core.limits import WireLimits
from policyserve.core.mapping import KeyMap
from policyserve.core.settings import Settings
from policyserve.recordings.plan import Plan
from policyserve.server.named_ports import read_named_ports
from policyserve.server.proxy_header import Trusted

_MIB = 1024 * 1024
_MOST_MIB = 1024 * 1024  # a tebibyte: what is larger is a mistake
_LONGEST_S = 1e9  # thirty years: of longer times some clocks of the system overflow
_LONGEST_UNIX_PATH = 103 if sys.platform == "darwin" else 107  # bytes: what sockaddr_un holds
_HOST_NAME = re.compile(r"[\w.-]+")  # letters of all scripts: names are not all of ASCII


class _Group(Settings):
    """Checks that several groups need."""

    def _require_all(self, names: Iterable[str], least: float, expected: str) -> None:
        for name in names:
            self.require(name, getattr(self, name) >= least, expected)

    def _require_times(self, *names: str) -> None:
        for name in names:
            self.require(name, 0 < getattr(self, name) <= _LONGEST_S, f"more than 0, at most {_LONGEST_S:g} seconds")

    def _require_path(self, name: str) -> None:
        path = getattr(self, name)
        self.require(name, path is None or (path.strip() != "" and "\0" not in path), "a path")


@dataclass(frozen=True, kw_only=True)
class Listen(_Group):
    """Where the server listens."""

    host: str = "0.0.0.0"  # the IP address or name to listen on; 0.0.0.0: all of IPv4, :: all of IPv4 and IPv6
    port: int = 8000  # the TCP port to listen on; 0: any free one
    uds: str | None = None  # the path of a Unix socket (mode 0600) to listen on instead of host and port
    tls_cert: str | None = None  # the certificate, a PEM file: wss and https instead of ws and http; SIGHUP reloads it
    tls_key: str | None = None  # the certificate's key, a PEM file without a passphrase
    lerobot: int | None = None  # the port for LeRobot's RobotClient (gRPC; extra lerobot-client); 0: any; None: no port
    lerobot_host: str = "127.0.0.1"  # the address that --lerobot listens on; its clients know neither keys nor TLS
    gr00t: int | None = None  # the port for GR00T's clients (ZeroMQ; extra gr00t), mostly 5555; 0: any; None: no port
    gr00t_for: tuple[str, ...] = ()  # a port more for GR00T's clients of one of several policies each: place=5556 …
    gr00t_n15: bool = False  # answer get_modality_config as N1.5 does, until a client has shown that it is a later one

    def check(self) -> None:
        super().check()
        self.require("host", is_host(self.host), "an IP address or a host name, without scheme, brackets and port")
        self.require("port", 0 <= self.port <= 65535, "0 … 65535")
        self.require("lerobot", self.lerobot is None or 0 <= self.lerobot <= 65535, "0 … 65535")
        expected = "an IP address or a host name, without brackets and port"
        self.require("lerobot_host", is_host(self.lerobot_host), expected)
        for name in ("uds", "tls_cert", "tls_key"):
            self._require_path(name)
        fits = self.uds is None or len(os.fsencode(self.uds)) <= _LONGEST_UNIX_PATH
        self.require("uds", fits, f"a path of at most {_LONGEST_UNIX_PATH} bytes")
        self.require("tls_key", self.tls_key is not None or self.tls_cert is None, "the key of the certificate")
        self.require("tls_cert", self.tls_cert is not None or self.tls_key is None, "the certificate of the key")
        self.require("gr00t", self.gr00t is None or 0 <= self.gr00t <= 65535, "0 … 65535")
        has_port = self.gr00t is not None or bool(self.gr00t_for)
        self.require("gr00t_n15", not self.gr00t_n15 or has_port, "off, or gr00t=PORT too")
        is_apart = not self.gr00t or self.gr00t != self.port
        self.require("gr00t", is_apart, f"another port than {self.port}, which the server itself listens on")
        taken = [self.port, self.gr00t, *self.gr00t_ports.values()]
        self.require("gr00t_for", all(not port or taken.count(port) == 1 for port in taken), "each port once")

    @property
    def gr00t_ports(self) -> Mapping[str, int]:
        """gr00t_for, read: ports by the names of policies, or of routes."""
        return read_named_ports("gr00t_for", self.gr00t_for)


@dataclass(frozen=True, kw_only=True)
class Access(_Group):
    """Who may connect, and how many at a time."""

    api_key_file: str | None = None  # a file of `name: key` lines; the environment's POLICYSERVE_API_KEY adds to it
    allowed_origins: tuple[str, ...] = ()  # web pages that may connect from browsers, as https://lab.example:8080
    proxy_protocol: bool = False  # a load balancer says whose connection it passes on, by the PROXY protocol, 1 or 2
    trusted_proxies: tuple[str, ...] = ()  # who is believed: balancers' addresses, networks such as 10.1.0.0/16
    max_sessions: int = 256  # the most sessions at a time
    max_sessions_per_address: int = 128  # the most sessions of one IP address; this machine's own are exempt
    max_handshakes: int = 512  # the most connections without a session; of more than these the oldest is cut

    def check(self) -> None:
        """Raise ConfigError for a field that is out of its bounds, and for half of what a balancer needs."""
        super().check()
        self._require_path("api_key_file")
        for origin in self.allowed_origins:
            is_fine = origin.startswith(("http://", "https://")) and origin.count("/") == 2
            self.require("allowed_origins", is_fine, "scheme://host or scheme://host:port for each")
        Trusted(self.trusted_proxies)
        if self.proxy_protocol != bool(self.trusted_proxies):
            got = "--proxy-protocol" if self.proxy_protocol else "--trusted-proxies"
            raise ConfigError(f"proxy_protocol: expected it and --trusted-proxies, both or none, got {got} alone")
        self._require_all(("max_sessions", "max_sessions_per_address", "max_handshakes"), 1, "1 or more")


@dataclass(frozen=True, kw_only=True)
class Dialects(_Group):
    """What clients speak, and how a session begins."""

    dialect: str = "auto"  # what clients speak at `/`; auto: each client's first message tells
    hello_grace_ms: float | None = None  # auto's wait for a first message; None: 200, for vibe_rl policies 2000
    first_frame_timeout_s: float = 10.0  # how long a client that has to speak first may be silent
    map: tuple[str, ...] = ()  # what clients call a key, by what the policy calls it: image=observation/image …
    serve_steps: bool = False  # answer with one step of a chunk, and the next request with the next, in any dialect
    chunk_size: int | None = None  # steps of a chunk that are used where one is sent at a time; None: all
    http_errors: Literal["original", "plain"] = "original"  # at /act: as each client's own server told them, or as HTTP
    debug_wire: bool = False  # send tracebacks to clients whose dialect has a place for text

    def check(self) -> None:
        super().check()
        self.require("dialect", self.dialect != "", f"auto, {', '.join(dialects.names())}")
        if self.dialect != "auto":
            dialects.by_name(self.dialect)  # raises ConfigError; it may be another package's
        grace_ms = self.hello_grace_ms
        self.require("hello_grace_ms", grace_ms is None or 0 <= grace_ms <= _LONGEST_S, "0 or more")
        self._require_times("first_frame_timeout_s")
        KeyMap.read(self.map)
        self.require("chunk_size", self.chunk_size is None or self.chunk_size >= 1, "1 or more")

    @property
    def key_map(self) -> KeyMap:
        """map, read."""
        return KeyMap.read(self.map)

    def hello_grace_s(self, client_first: bool) -> float:
        """How long `auto` waits for a first frame; client_first: the policy's usual clients speak first."""
        if self.hello_grace_ms is not None:
            return self.hello_grace_ms / 1e3
        return 2.0 if client_first else 0.2


@dataclass(frozen=True, kw_only=True)
class Placement(_Group):
    """Where the policy runs."""

    isolate: Literal["thread", "process"] = "thread"  # where the policy runs; a process of its own may crash or hang
    replicas: int = 1  # how many times the policy is loaded; a request goes to the one with the fewest
    devices: str | None = None  # with isolate=process: cpu or cuda:N for each replica, by commas; it sees no other
    busy_poll_us: float = 200.0  # how long the event loop polls after an answer before it sleeps; 0: not at all

    def check(self) -> None:
        super().check()
        self.require("replicas", self.replicas >= 1, "1 or more")
        if self.devices is not None:
            self.require("devices", all(self.device_names), "cpu or cuda:N, by commas")
            self.require("devices", self.isolate == "process", "none, or isolate=process too")
            fits = len(self.device_names) == self.replicas
            self.require("devices", fits, f"as many as replicas ({self.replicas}), by commas")
        self.require("busy_poll_us", 0 <= self.busy_poll_us <= 10_000, "0 … 10000")

    @property
    def device_names(self) -> tuple[str, ...]:
        """devices, one by one."""
        return () if self.devices is None else tuple(name.strip() for name in self.devices.split(","))


@dataclass(frozen=True, kw_only=True)
class Batching(_Group):
    """How requests wait for the policy."""

    max_wait_ms: float | None = None  # a wait for a fuller batch; None: as long as a call takes, at most 5 ms
    max_queue: int = 4096  # the most requests that wait for the policy
    max_queue_ms: float = 250.0  # a request behind another one of its session is refused after waiting so long

    def check(self) -> None:
        super().check()
        self.require("max_wait_ms", self.max_wait_ms is None or self.max_wait_ms >= 0, "0 or more")
        self.require("max_queue", self.max_queue >= 1, "1 or more")
        self.require("max_queue_ms", self.max_queue_ms >= 0, "0 or more")

    @property
    def max_wait_s(self) -> float | None:
        """max_wait_ms in seconds."""
        return None if self.max_wait_ms is None else self.max_wait_ms / 1e3

    @property
    def max_queue_s(self) -> float:
        """max_queue_ms in seconds."""
        return self.max_queue_ms / 1e3


@dataclass(frozen=True, kw_only=True)
class Limits(WireLimits, _Group):
    """How much clients may send, and have the server hold."""

    max_frame_mib: float = 64.0  # the most of one message
    max_buffered_mib: float = 1024.0  # the most of all messages that are unfinished, unanswered, or answered and unread
    max_unread_mib: float = 64.0  # the most of answers that one client leaves unread
    max_body_mib: float = 32.0  # the most of an HTTP request's body, as POST /act has one
    max_head_kib: float = 16.0  # the most of an HTTP request's URL and headers
    max_pending: int = 256  # the most requests of one session without an answer

    def check(self) -> None:
        super().check()
        for name in ("max_frame_mib", "max_body_mib", "max_unread_mib"):
            self.require(name, 0 < getattr(self, name) <= _MOST_MIB, f"more than 0, at most {_MOST_MIB}")
        fits = self.max_frame_mib <= self.max_buffered_mib <= _MOST_MIB
        self.require("max_buffered_mib", fits, f"{self.max_frame_mib:g} or more, the size of one message")
        self.require("max_head_kib", 1 <= self.max_head_kib <= _MOST_MIB, f"1 or more, at most {_MOST_MIB}")
        self.require("max_pending", self.max_pending >= 1, "1 or more")

    @property
    def max_frame_bytes(self) -> int:
        """max_frame_mib in bytes."""
        return int(self.max_frame_mib * _MIB)

    @property
    def max_body_bytes(self) -> int:
        """max_body_mib in bytes, or max_buffered_mib where that is less."""
        return int(min(self.max_body_mib, self.max_buffered_mib) * _MIB)

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


@dataclass(frozen=True, kw_only=True)
class Timeouts(_Group):
    """How long the server waits for the policy and for clients."""

    request_timeout_s: float = 120.0  # from a request's arrival to its answer; a policy that takes longer is replaced
    drain_s: float = 10.0  # how long a stopping server waits for the answers under way
    handshake_timeout_s: float = 10.0  # from a connection's beginning to its whole HTTP request
    message_timeout_s: float = 120.0  # from a message's beginning to its end
    keep_alive_s: float = 75.0  # an HTTP connection that asks nothing more for so long is closed
    unread_timeout_s: float = 60.0  # a client that takes nothing of its answers for so long is cut
    idle_timeout_s: float | None = None  # a session that asks nothing for so long is closed; None: never
    ping_interval_s: float = 30.0  # the time between pings to a client
    ping_timeout_s: float = 180.0  # a client of which nothing comes for so long is cut; some block for minutes

    def check(self) -> None:
        super().check()
        self.require("drain_s", 0 <= self.drain_s <= _LONGEST_S, "0 or more")
        self._require_times("request_timeout_s", "handshake_timeout_s", "message_timeout_s", "unread_timeout_s")
        self._require_times("ping_interval_s", "ping_timeout_s", "keep_alive_s")
        if self.idle_timeout_s is not None:
            self._require_times("idle_timeout_s")

    @property
    def watch_interval_s(self) -> float:
        """How often a session is looked at: as often as the shortest of its time-outs needs."""
        idle_s = self.idle_timeout_s or self.ping_interval_s
        return min(self.ping_interval_s, self.message_timeout_s, self.unread_timeout_s, idle_s)


@dataclass(frozen=True, kw_only=True)
class Reporting(_Group):
    """What the server tells of itself."""

    stats_every_s: float = 10.0  # the time between two lines of statistics in the log while there is work; 0: none
    metrics: bool = True  # tell Prometheus at /metrics what is counted, whoever has a key, or anybody where none is set
    live: bool = True  # a page at / and /live that shows what the server does, to the same people
    live_images: bool = True  # camera pictures on that page, while somebody looks at it

    def check(self) -> None:
        super().check()
        self.require("stats_every_s", 0 <= self.stats_every_s <= _LONGEST_S, "0 or more")


@dataclass(frozen=True, kw_only=True)
class Recording(_Group):
    """What of the conversations is kept: docs/recordings.md."""

    record: str | None = None  # a directory: write all messages to .mcap files in it, pictures and prompts included
    record_max_mib: float = 1024.0  # the most of one file; then another one is begun
    record_queue_mib: float = 256.0  # the most that waits for the disk; requests beyond it are not recorded
    record_views: bool = True  # beside the messages, camera pictures and named numbers, for Rerun and Foxglove

    def check(self) -> None:
        super().check()
        self._require_path("record")
        for name, least in (("record_max_mib", 1), ("record_queue_mib", 1)):
            self.require(name, least <= getattr(self, name) <= _MOST_MIB, f"{least} or more, at most {_MOST_MIB}")

    @property
    def recording_plan(self) -> Plan | None:
        """What the recorder needs to know; None without a directory."""
        if self.record is None:
            return None
        sizes = int(self.record_max_mib * _MIB), int(self.record_queue_mib * _MIB)
        return Plan(self.record, *sizes, self.record_views)


@dataclass(frozen=True, kw_only=True)
class ServerConfig(Listen, Access, Dialects, Placement, Batching, Limits, Timeouts, Reporting, Recording):
    """All settings of a server. Raises ConfigError that names the field, what is expected and what it got."""

    def check(self) -> None:
        super().check()
        longest_ms = self.request_timeout_s * 1e3
        fits = self.max_wait_ms is None or self.max_wait_ms < longest_ms
        self.require("max_wait_ms", fits, f"0 … {longest_ms:g}, the request's time-out")


def is_host(text: str) -> bool:
    """Whether this can be an IP address or a host name; what a resolver knows of it is another question."""
    try:
        return bool(ip_address(text))
    except ValueError:
        return _HOST_NAME.fullmatch(text) is not None
