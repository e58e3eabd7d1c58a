"""The flags of a command, out of the dataclasses that hold their values.

A field is a flag. The fields of a dataclass inside another one have its field's name before theirs, as in
`--config.algo.lr`, unless `arg(name="")` leaves it out. Values are read by tyro; here is only what has to be known
before: which flags there are, and which of them take several values, none, or a path.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from pathlib import PurePath
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from tyro.conf import Positional, arg

from policyserve.cli.server_flags import panels
from policyserve.server.config import ServerConfig

_ARG = type(arg(name=""))
_POSITIONAL = get_args(Positional[int])[1]
_WORDS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
_PATHS = ("uds", "tls_cert", "tls_key")  # besides those whose names say it


@dataclass(frozen=True)
class Flag:
    """One flag, or one word that needs no flag before it.

    path: the fields that lead to its value. name: as it is typed, `--config.algo.lr`; of a word without a flag what
    help calls it, `TARGET`. kind: its type, with all that is annotated. default: MISSING if there is none. owner: the
    dataclass that has the field.
    """

    path: tuple[str, ...]
    name: str
    kind: Any
    default: Any
    owner: type[Any]

    @property
    def is_word(self) -> bool:
        """Whether it is given by its place, without a flag."""
        return _POSITIONAL in _annotations(self.kind)

    @property
    def is_switch(self) -> bool:
        """Whether it takes no value: `--debug`, `--no-debug`."""
        return _plain(self.kind) is bool

    @property
    def takes_many(self) -> bool:
        """Whether several values may follow it."""
        return not self.is_switch and not any(_is_single(one) for one in members(self.kind))

    @property
    def names(self) -> tuple[str, ...]:
        """Every spelling with `-` between words; none for a word without a flag."""
        if self.is_word:
            return ()
        aliases = tuple(getattr(_own_arg(self.kind), "aliases", None) or ())
        before, dot, last = self.name[2:].rpartition(".")
        return (self.name, *aliases, *([f"--{before}{dot}no-{last}"] if self.is_switch else []))

    @property
    def expected(self) -> str:
        """What its value has to be, in words."""
        return "a list" if self.takes_many else _WORDS.get(members(self.kind)[0], "a text")

    @property
    def is_path(self) -> bool:
        """Whether its value is a path: by its type, by what help calls it, or by its name."""
        called = getattr(_own_arg(self.kind), "metavar", None)
        if called:
            return called == "PATH"
        first, name = members(self.kind)[0], self.path[-1]
        is_called_so = name in _PATHS or name.endswith(("_path", "_dir", "_file"))
        return _is_path(first) or (first is str and is_called_so)


def flags_of(kind: Any, default: Any = None) -> list[Flag]:
    """The flags of a dataclass. default: what holds the values that are not given."""
    return list(_walk(kind, default, (), ()))


def members(kind: Any) -> list[Any]:
    """The types of a union but for None, or the one type."""
    plain = _plain(kind)
    found = get_args(plain) if get_origin(plain) in (Union, UnionType) else (plain,)
    return [_plain(one) for one in found if one is not NoneType] or [NoneType]


def _walk(kind: Any, default: Any, path: tuple[str, ...], prefix: tuple[str, ...]) -> Iterator[Flag]:
    kind = get_origin(kind) or kind
    hints = get_type_hints(kind, include_extras=True)
    for one in _ordered(kind):
        value = _default(one) if default is None else getattr(default, one.name)
        name = getattr(_own_arg(hints[one.name]), "name", None)
        called = (*prefix, *(part for part in [one.name if name is None else name] if part))
        if is_dataclass(value) and not isinstance(value, type):
            yield from _walk(type(value), value, (*path, one.name), called)
        else:
            yield Flag((*path, one.name), _typed(hints[one.name], called), hints[one.name], value, kind)


def _ordered(kind: type[Any]) -> list[Field[Any]]:
    """A dataclass's fields, the server's in the order of --help."""
    order = [name for names in panels().values() for name in names] if kind is ServerConfig else []
    given = [one for one in fields(kind) if one.init]
    return sorted(given, key=lambda one: order.index(one.name)) if order else given


def _default(one: Field[Any]) -> Any:
    return one.default if one.default_factory is MISSING else one.default_factory()


def _typed(hint: Any, called: tuple[str, ...]) -> str:
    """How a flag is typed, or what a word without one is called."""
    if _POSITIONAL in _annotations(hint):
        return getattr(_own_arg(hint), "metavar", None) or called[-1].upper()
    return "--" + ".".join(called).replace("_", "-")


def _annotations(hint: Any) -> tuple[Any, ...]:
    return get_args(hint)[1:] if get_origin(hint) is Annotated else ()


def _own_arg(hint: Any) -> Any:
    """What tyro's arg() says of a field; None if it is not annotated so."""
    return next((one for one in reversed(_annotations(hint)) if isinstance(one, _ARG)), None)


def _plain(hint: Any) -> Any:
    """A type without what is annotated to it."""
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint


def _is_single(kind: Any) -> bool:
    return kind in _WORDS or get_origin(kind) is Literal or _is_path(kind)


def _is_path(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, PurePath)
