"""What connections and their server know of each other: strangers, who have no session yet, guests, and the host."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from policyserve.core.session import Effect, Session
from policyserve.engine.routing import Router
from policyserve.engine.scheduler import Scheduler
from policyserve.observe.counters import Stats
from policyserve.server import routes
from policyserve.server.busy_poll import Awake
from policyserve.server.config import ServerConfig
from policyserve.server.guards import Holder
from policyserve.server.handshake import Credentials, UpgradeRequest


class Stranger(Protocol):
    """A connection before it has a session, as the server keeps it."""

    number: int
    address: str  # IP, empty on a Unix socket
    peer: str  # the same with the port, for the log

    def abort(self) -> None: ...


class Guest(Stranger, Holder, Protocol):
    """A connection that has a session, or is about to have one."""

    session: Session | None

    def perform(self, effects: Iterable[Effect]) -> None: ...
    def expect_first_frame(self, patience_s: float | None) -> None: ...


class Host(Protocol):
    """The server, as its connections see it."""

    config: ServerConfig
    scheduler: Scheduler | Router | None  # None until the policy is ready
    stats: Stats
    awake: Awake

    def health(self, credentials: Credentials) -> routes.Health: ...
    def meet(self, connection: Stranger) -> None: ...
    def part(self, connection: Stranger) -> None: ...
    def open_session(self, connection: Guest, asked: UpgradeRequest) -> Session | routes.Response: ...
    def start_session(self, connection: Guest) -> None: ...
    def close_session(self, connection: Guest) -> None: ...
    def grow(self, count: int) -> None: ...
    def note(
        self, level: int, kind: str, address: str, text: str, *args: object, cause: BaseException | None = None
    ) -> None: ...
