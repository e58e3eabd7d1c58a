"""What a policy is exchanged for, how, and what came of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from policyserve.core.errors import ConfigError
from policyserve.core.spec import PolicySpec
from policyserve.engine.engine import Engine

When: TypeAlias = Literal["now", "next-session"]
MakeEngine: TypeAlias = Callable[[], Engine]


@dataclass(frozen=True)
class NextPolicy:
    """A policy that can take over. title: for people. make: its engine, not started, each time anew.

    may_come_back: whether `make` can be called again once that engine is closed; a policy object is closed with it.
    """

    title: str
    make: MakeEngine
    may_come_back: bool = True


@dataclass(frozen=True)
class Swap:
    """How a policy is exchanged.

    when: what becomes of the sessions that have asked already. `now`: the next policy answers their next request, and
    knows nothing of what the one before remembered. `next-session`: they end on the one before. unload_first: close the
    policy before the next one is loaded. force: even if the next one has another spec; sessions are then closed, with
    1012. timeout_s: how long the next policy may take to load; None: as long as it likes.
    Raises ConfigError for what does not go together.
    """

    when: When = "now"
    unload_first: bool = False
    force: bool = False
    timeout_s: float | None = None

    def __post_init__(self) -> None:
        if self.when not in get_args(When):
            raise ConfigError(f"when: expected one of {', '.join(get_args(When))}, got {self.when!r:.60}")
        if self.when == "next-session" and self.unload_first:
            raise ConfigError("unload_first: expected when=now, got next-session, where the one before goes on")
        if self.timeout_s is not None and not self.timeout_s > 0:
            raise ConfigError(f"timeout_s: expected more than 0 seconds, got {self.timeout_s:g}")


@dataclass(frozen=True)
class Swapped:
    """A policy that took over. version: how many there have been, with it. changes: of the spec, if it was forced."""

    version: int
    title: str
    spec: PolicySpec
    seconds: float
    changes: tuple[str, ...] = ()
