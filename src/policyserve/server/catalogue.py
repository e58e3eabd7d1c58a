"""The policies of a server, by the path that a client connects to: a policy's name, a dialect's, or both. Pure.

`/` and `/DIALECT` are the default policy's, the first one unless a route says otherwise; `/NAME` and `/NAME/DIALECT`
are those of a name. A name behind which several policies stand is a route with a split.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from policyserve import dialects
from policyserve.core.dialect import Dialect
from policyserve.core.errors import ConfigError
from policyserve.core.nearest import nearest
from policyserve.server.splits import Draws, Split

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")  # no dot: pages have one, and tables of a file are parted by it


class Named(Protocol):
    """A policy, as this module sees it."""

    @property
    def name(self) -> str: ...
    @property
    def is_named(self) -> bool: ...


P = TypeVar("P", bound=Named)


@dataclass(frozen=True)  # Python 3.10 has no generic NamedTuple
class Target(Generic[P]):
    """Where a path leads. policies: one, or those that a session is drawn from. dialect: None where none is named.

    route: the path of the route with the split; empty without one.
    """

    policies: Sequence[P]
    dialect: Dialect | None
    route: str = ""


class Catalogue(Generic[P]):
    """Several policies, or one. routes: paths behind which others stand, each with a split of policies' names.

    A server of one policy without a name has no other names, so that every path is that policy's.
    Raises ConfigError that says where a name or a route is wrong, and what to do.
    """

    def __init__(self, policies: Iterable[P], routes: Mapping[str, Split] | None = None) -> None:
        self._by_name: dict[str, P] = {}
        for policy in policies:
            if policy.name in self._by_name:
                raise ConfigError(f"policies.{policy.name}: two policies have this name: give one another")
            self._by_name[policy.name] = policy
        if not self._by_name:
            raise ConfigError("policies: expected one or more, got none")
        self.is_plain = len(self._by_name) == 1 and not self.default.is_named and not routes
        self._draws = {_name_in(path): Draws(path, split) for path, split in (routes or {}).items()}
        for name, draws in self._draws.items():
            self._check_route(name, draws)
        if not self.is_plain:
            for name in self._by_name:
                check_name(name)
            self.check_taken((), dialects.names())

    def __iter__(self) -> Iterator[P]:
        return iter(self._by_name.values())

    def __len__(self) -> int:
        return len(self._by_name)

    @property
    def default(self) -> P:
        """The first one."""
        return next(iter(self._by_name.values()))

    @property
    def names(self) -> tuple[str, ...]:
        """Of the policies, in the order in which they were given."""
        return tuple(self._by_name)

    @property
    def routes(self) -> Mapping[str, Draws]:
        """The splits and their draws, by their path."""
        return {draws.path: draws for draws in self._draws.values()}

    def named(self, name: str) -> P:
        """The policy of this name; raises ConfigError that lists those that there are."""
        if name not in self._by_name:
            raise ConfigError(f"no policy is named {name!r}{self._hint(name)}")
        return self._by_name[name]

    def resolve(self, path: str) -> Target[P] | None:
        """Where a connection's path leads; None if nowhere. It draws nothing."""
        words = path.strip("/")
        dialect = dialects.for_path(words)
        if dialect is not None or not words or self.is_plain:
            return self._target("", dialect)
        name, _, rest = words.partition("/")
        dialect = dialects.for_path(rest) if rest else None
        return None if rest and dialect is None else self._target(name, dialect)

    def choose(self, target: Target[P]) -> P:
        """The policy of a session that begins there: a split draws it."""
        if not target.route:
            return target.policies[0]
        return self._by_name[self._draws[_name_in(target.route)].draw()]

    def unknown(self, path: str) -> str:
        """What to tell who asks for a path that leads nowhere."""
        words = path.strip("/")
        name, _, rest = words.partition("/")
        if rest and self._target(name, None) is not None:
            known = ", ".join(dialects.names())
            return f"no dialect is named {rest[:60]!r}: /{name} takes all, /{name}/DIALECT one of {known}"
        return f"no policy is at {path[:60]!r}{self._hint(name)}"

    def check_taken(self, pages: Collection[str], spoken: Collection[str]) -> None:
        """Raise ConfigError if a name is a page's or a dialect's, so that one path would mean two things."""
        if self.is_plain:
            return
        taken = {_name_in(page).partition("/")[0]: f"the page {page}" for page in pages}
        taken |= {name: f"the dialect {name}" for name in spoken}
        for name in (*self._by_name, *self._draws):
            if name in taken and name:
                where = f"policies.{name}" if name in self._by_name else f'routes."/{name}"'
                raise ConfigError(f"{where}: /{name} is {taken[name]}: choose another name")

    def _target(self, name: str, dialect: Dialect | None) -> Target[P] | None:
        draws = self._draws.get(name)
        if draws is not None:
            return Target([self._by_name[one] for one in draws.split.shares], dialect, draws.path)
        if not name:
            return Target([self.default], dialect)
        return Target([self._by_name[name]], dialect) if name in self._by_name else None

    def _check_route(self, name: str, draws: Draws) -> None:
        where = f'routes."{draws.path}"'
        if name:
            check_name(name, where)
        if name in self._by_name:
            raise ConfigError(f"{where}: a policy has this name: choose another path")
        for one in draws.split.shares:
            if one not in self._by_name:
                near = nearest(one, self._by_name)
                meant = f" (did you mean {near}?)" if near else ""
                raise ConfigError(f"{where}: no policy is named {one!r}{meant}: there are {', '.join(self._by_name)}")

    def _hint(self, name: str) -> str:
        names = [name for name in (*self._by_name, *self._draws) if name]
        near = nearest(name, names)
        meant = f" (did you mean /{near}?)" if near else ""
        return f"{meant}: there are {', '.join(f'/{name}' for name in names)}"


def check_name(name: str, where: str = "") -> None:
    """Raise ConfigError for a name that no path can have. where: what to blame; the policy's table, if empty."""
    if not _NAME.fullmatch(name):
        expected = "a name of letters, digits, _ and -, at most 64, that begins with a letter or a digit"
        raise ConfigError(f"{where or f'policies.{name[:60]!r}'}: expected {expected}")


def _name_in(path: str) -> str:
    return path.strip("/")
