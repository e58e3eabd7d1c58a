"""Finds dialects by name: those of this package, and those that installed packages add by entry points.

A package adds one with an entry point of the group `policyserve.dialects`, here `robot`, which clients then find at the
path `/robot`:

    [project.entry-points."policyserve.dialects"]
    robot = "robot_package.wire:RobotDialect"

It names a Dialect (core/dialect.py), or a class that gives one when it is called without arguments. A package that
cannot be loaded costs the others nothing. Looking for packages takes milliseconds, so it is done when a server starts,
and when a name is asked for that is none of ours; never when this package is imported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from policyserve.core.dialect import Dialect
from policyserve.core.errors import ConfigError
from policyserve.core.nearest import nearest
from policyserve.core.printable import error_text

if TYPE_CHECKING:
    from importlib.metadata import Distribution

ENTRY_POINTS = "policyserve.dialects"
_MEMBERS = (
    *("name", "greets", "greeting", "read_request", "write_reply", "write_error"),
    *("write_request", "read_greeting", "read_reply"),
)


class Registry:
    """Dialects by name. ours: those of this package, whose names no other package can take."""

    def __init__(self, ours: Iterable[Dialect]) -> None:
        self._known = {dialect.name: dialect for dialect in ours}
        self._ours = tuple(self._known)
        self._faults: tuple[str, ...] | None = None  # once other packages were looked for

    def names(self) -> tuple[str, ...]:
        """The dialects that can be used at once: ours, and those of other packages that were loaded. Looks for none."""
        return tuple(self._known)

    def by_name(self, name: str) -> Dialect:
        """Find a dialect, of another package if it is none of ours.

        Raises ConfigError that lists the known ones, or names the package whose dialect cannot be loaded.
        """
        if name not in self._known:
            self._known[name] = self._load_named(name)
        return self._known[name]

    def for_path(self, path: str) -> Dialect | None:
        """The dialect that a URL's path names (`/vibe_rl`), or None for any other path. Loads nothing.

        An attribute `paths` of a dialect may have further ones, of several steps (`v1/realtime`).
        """
        asked = path.strip("/")
        found = self._known.get(asked)
        if found is None and "/" in asked:  # no name has a slash
            return next((one for one in self._known.values() if asked in getattr(one, "paths", ())), None)
        return found

    def load_all(self) -> tuple[str, ...]:
        """Load the dialects of all installed packages; returns a line for each that cannot be used, naming its package.

        They are looked for once: a later call returns the same lines.
        """
        if self._faults is None:
            self._faults = tuple(self._load_others())
        return self._faults

    def _load_others(self) -> Iterator[str]:
        taken = dict.fromkeys(self._ours, "policyserve itself")
        for offer in _offers():
            if taken.setdefault(offer.name, offer.package) != offer.package:
                yield f"{offer} cannot be used: the name is that of {taken[offer.name]}"
            elif offer.name not in self._known:
                try:
                    self._known[offer.name] = offer.load()
                except ConfigError as error:
                    yield str(error)

    def _load_named(self, name: str) -> Dialect:
        offers = list(_offers())
        for offer in offers:
            if offer.name == name:
                return offer.load()
        known = list(dict.fromkeys([*self._known, *(offer.name for offer in offers if offer.name)]))
        near = nearest(name, known)
        hint = f" (did you mean {near!r}?)" if near else ""
        raise ConfigError(f"dialect: expected one of {', '.join(known)}, got {name!r}{hint}")


@dataclass(frozen=True)
class _Offer:
    """One package's dialect, not loaded yet. package: its name and version. find: gives what the entry point names."""

    name: str
    package: str
    find: Callable[[], Any]

    def __str__(self) -> str:
        return f"the dialect {self.name!r} of {self.package}"

    def load(self) -> Dialect:
        """Import it; raises ConfigError that names the package, whatever its code does."""
        try:
            found = self.find()
            dialect = found() if isinstance(found, type) else found
        except (Exception, SystemExit) as error:  # a stranger's module
            raise ConfigError(f"{self} cannot be loaded: {error_text(error)}") from error
        missing = [member for member in _MEMBERS if not hasattr(dialect, member)]
        if missing:
            raise ConfigError(f"{self} cannot be used: a {type(dialect).__name__} has no {', '.join(missing)}")
        if dialect.name != self.name:
            raise ConfigError(f"{self} cannot be used: it calls itself {dialect.name!r}")
        return dialect


def _offers() -> list[_Offer]:
    """What all installed packages offer; of a package that is installed twice, what Python would import."""
    from importlib.metadata import distributions

    found: dict[tuple[str, str], _Offer] = {}
    for package in distributions():
        for offer in _offers_of(package):
            found.setdefault((offer.name, offer.package.partition(" ")[0]), offer)
    return list(found.values())


def _offers_of(package: Distribution) -> Iterator[_Offer]:
    """A package's offers, read by itself: a file that cannot be parsed must not hide what others offer."""
    text = package.read_text("entry_points.txt") or ""
    if ENTRY_POINTS not in text:
        return
    told = f"{package.metadata['Name']} {package.version}"
    try:
        entries = package.entry_points.select(group=ENTRY_POINTS)
    except Exception as error:  # a stranger's file
        yield _Offer("", told, partial(_fail, f"its entry_points.txt cannot be read: {error}"))
        return
    for entry in entries:
        yield _Offer(entry.name, told, entry.load)


def _fail(reason: str) -> None:
    raise ValueError(reason)
