"""The flags of a command, out of the dataclasses that hold their values.

A field is a flag. The fields of a dataclass inside another one have its field's name before theirs, as in
`--config.algo.lr`, unless `arg(name="")` leaves it out. What tyro's annotations say (`arg`, `Positional`) holds here;
a field's docstring is its help. Help, completion and errors ask this list; `values` has tyro read what is typed.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass, replace
from functools import cache
from itertools import pairwise
from pathlib import Path, PurePath
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from tyro.conf import Positional, arg

from policyserve.cli.arguments import server_flags
from policyserve.core.errors import ConfigError
from policyserve.server.config import ServerConfig

COMMON = "common"  # the group of a command's own flags
_POLICY = "policy"  # the field of a policy's own flags
NEEDED: Any = MISSING  # the default of a flag that has none

_ARG = type(arg(name=""))  # its attributes are called as the parameters of arg()
_POSITIONAL = get_args(Positional[int])[1]
_WORDS = {int: "a whole number", float: "a number", str: "a text", bool: "True or False"}
_NAMES = {int: "NUMBER", float: "NUMBER", str: "TEXT", bool: "True|False"}

T = TypeVar("T")


@dataclass(frozen=True)
class Flag:
    """One flag, or one word that needs no flag before it.

    path: the fields that lead to its value. name: as it is typed, `--config.algo.lr`; of a word without a flag what
    help calls it, `TARGET`. kind: its type, with all that is annotated. default: NEEDED if there is none. owner: the
    dataclass that has the field. group: what `--help=GROUP` lists it under. is_usual: whether `--help` does.
    """

    path: tuple[str, ...]
    name: str
    kind: Any
    default: Any
    owner: type[Any]
    group: str
    is_usual: bool

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
    def choices(self) -> tuple[str, ...]:
        """The values that it can have, if they are few and known."""
        return tuple(str(value) for one in members(self.kind) if get_origin(one) is Literal for value in get_args(one))

    @property
    def value_name(self) -> str:
        """What help calls its value: TEXT, NUMBER, PATH, or its choices."""
        given = getattr(_own_arg(self.kind), "metavar", None)
        if given or self.is_switch:
            return given or ""
        first = members(self.kind)[0]
        if _is_path(first) or (first is str and self._is_called_a_path):
            return "PATH"
        name = "|".join(self.choices) or _NAMES.get(_item(first), "VALUE")
        return f"{name} …" if self.takes_many else name

    @property
    def expected(self) -> str:
        """What its value has to be, in words."""
        if self.choices:
            return " or ".join(filter(None, [", ".join(self.choices[:-1]), self.choices[-1]]))
        word = "a path" if self.is_path else _WORDS.get(_item(members(self.kind)[0]), "a value")
        return f"{word.partition(' ')[2]}s" if self.takes_many and word.startswith("a ") else word

    @property
    def is_path(self) -> bool:
        """Whether its value is a path, which may begin with `~`."""
        return self.value_name == "PATH"

    @property
    def _is_called_a_path(self) -> bool:
        field_name = self.path[-1]
        own = server_flags.PATHS if self.owner is ServerConfig else ()
        return field_name in own or field_name.endswith(("_path", "_dir", "_file"))

    @property
    def help(self) -> str:
        """What it does; empty if nobody says it, or only compiled files are installed."""
        given = getattr(_own_arg(self.kind), "help", None)
        told = server_flags.help_lines() if self.owner is ServerConfig else docstrings(self.owner)
        return given or told.get(self.path[-1], "")


def flags_of(kind: Any, default: Any = None) -> list[Flag]:
    """The flags of a dataclass, those that are usual and those that are not. default: what holds the values not given.

    A dataclass may say in `usual`, a ClassVar, which of its flags `--help` lists, by their fields' names with dots;
    else all of its own, and none of the dataclasses in it. `group` is the name of its group, else its field's name.
    Where a policy's flag is called as one of the command's own, as `--seed` may be, the policy's is `--policy-seed`.
    """
    flags = list(_walk(kind, default, (), (), COMMON, None))
    own = {flag.name for flag in flags if flag.path[0] != _POLICY}
    return [_apart(flag) if flag.path[0] == _POLICY and flag.name in own else flag for flag in flags]


def _apart(flag: Flag) -> Flag:
    """A policy's flag with that word before it; a file of settings has the policy's name itself under `policy`."""
    return replace(flag, name=f"--{_POLICY}-{flag.name[2:]}")


def build(kind: type[T], default: T | None, values: Mapping[tuple[str, ...], Any], flags: list[Flag]) -> T:
    """The dataclass with these values, by path; raises ConfigError that names the flag of a wrong one."""
    return _build(kind, default, values, flags, ())


def naming_flag(error: Exception, names: Mapping[str, str]) -> str:
    """The error's text, with the flag instead of the field that it begins with. names: the flag of each field."""
    name, colon, rest = str(error).partition(": ")
    return f"{names[name]}{colon}{rest}" if colon and name in names else str(error)


def members(kind: Any) -> list[Any]:
    """The types of a union but for None, or the one type."""
    plain = _plain(kind)
    found = get_args(plain) if get_origin(plain) in (Union, UnionType) else (plain,)
    return [_plain(one) for one in found if one is not NoneType] or [NoneType]


@cache
def docstrings(kind: type[Any]) -> Mapping[str, str]:
    """The docstring behind each field of a dataclass, in one line."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__[:-1]):
        with suppress(OSError, TypeError, SyntaxError):
            body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
            for before, after in pairwise(getattr(body, "body", [])):
                told = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and after.value.value
                if isinstance(before, ast.AnnAssign) and isinstance(before.target, ast.Name) and isinstance(told, str):
                    found[before.target.id] = " ".join(told.split())
    return found


def _walk(
    kind: Any, default: Any, path: tuple[str, ...], prefix: tuple[str, ...], group: str, usual: frozenset[str] | None
) -> Iterator[Flag]:
    """The flags of one dataclass and of those in it. usual: which of them are, by names with dots; None: its own."""
    kind = get_origin(kind) or kind
    groups = server_flags.groups() if kind is ServerConfig else {}
    own = server_flags.USUAL if kind is ServerConfig else getattr(kind, "usual", None)
    usual = usual if own is None else frozenset(own)
    for one, hint, value, inner in _members_of(kind, default):
        name = getattr(_own_arg(hint), "name", None)
        called = (*prefix, *(part for part in [one.name if name is None else name] if part))
        if inner is None:
            is_usual = usual is None or one.name in usual
            its_group = groups.get(one.name, group)
            yield Flag((*path, one.name), _typed(hint, called), hint, value, kind, its_group, is_usual)
            continue
        its_group = getattr(inner, "group", one.name.replace("_", "-")) if len(path) < 2 else group
        yield from _walk(inner, value, (*path, one.name), called, its_group, _usual_in(one.name, usual, len(path)))


def _usual_in(name: str, usual: frozenset[str] | None, depth: int) -> frozenset[str] | None:
    """Which flags are usual of a dataclass in another one; of a command's own parts all are that say nothing else."""
    if depth == 0 and usual is None:
        return None
    return frozenset(one[len(name) + 1 :] for one in usual or () if one.startswith(f"{name}."))


def _members_of(kind: type[Any], default: Any) -> Iterator[tuple[Field[Any], Any, Any, type[Any] | None]]:
    """Each field with its type, the value it has if none is given, and the dataclass that it holds, if it does."""
    hints = get_type_hints(kind, include_extras=True)
    ordered = fields(kind)
    if kind is ServerConfig:
        order = list(server_flags.groups())
        ordered = tuple(sorted(ordered, key=lambda one: order.index(one.name)))
    for one in ordered:
        if not one.init:
            continue
        value = _default(one) if default is None else getattr(default, one.name)
        plain = _plain(hints[one.name])
        if is_dataclass(value) and not isinstance(value, type):
            yield one, hints[one.name], value, type(value)
        elif is_dataclass(plain) and isinstance(plain, type):
            yield one, hints[one.name], None, plain
        else:
            yield one, hints[one.name], value, None


def _build(
    kind: Any, default: Any, values: Mapping[tuple[str, ...], Any], flags: list[Flag], path: tuple[str, ...]
) -> Any:
    kind, made = get_origin(kind) or kind, {}
    for one, _, value, inner in _members_of(kind, default):
        here = (*path, one.name)
        if inner is not None:
            made[one.name] = _build(inner, value, values, flags, here)
        elif here in values:
            made[one.name] = values[here]
    try:
        return kind(**made) if default is None else replace(default, **made)
    except ValueError as error:  # a ConfigError is one; another package's dataclass may raise its own
        names = {flag.path[-1]: flag.name for flag in flags if flag.path[:-1] == path}
        raise ConfigError(naming_flag(error, names)) from error


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
    return (isinstance(kind, type) and issubclass(kind, PurePath)) or kind is Path


def _item(kind: Any) -> Any:
    """The type of each value, of a type that holds several; else the type itself."""
    inner = get_args(kind)
    return inner[0] if inner and get_origin(kind) is not Literal else kind
