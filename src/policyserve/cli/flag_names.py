"""The names of a command's flags, read from its dataclasses: what a configuration file and the environment may set.

Values are read by tyro, from words; here is only what has to be known before: which names there are, and which of them
take several words, none, or a path.
"""

from __future__ import annotations

import types
from collections.abc import Collection, Iterator, Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from pathlib import PurePath
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from policyserve.cli.server_flags import panels
from policyserve.server.config import ServerConfig

_PATHS = ("path", "dir", "file", "uds", "tls-cert", "tls-key")  # how the names of flags end that take a path


@dataclass(frozen=True)
class Flag:
    """One flag: its name without dashes, such as `model-config.device`, its type, and its value or MISSING.

    is_switch: it takes no word, and `no-` before its name turns it off. is_positional: its value stands alone.
    is_private: its value may hold a key, so that its dataclass has no repr of it.
    """

    name: str
    hint: Any
    value: Any
    is_switch: bool = False
    is_positional: bool = False
    is_private: bool = False

    @property
    def leaf(self) -> str:
        """The name's last part."""
        return self.name.rpartition(".")[2]

    @property
    def members(self) -> tuple[Any, ...]:
        """The types of a union, or the one type."""
        return get_args(self.hint) if get_origin(self.hint) in (Union, types.UnionType) else (self.hint,)

    @property
    def takes_several(self) -> bool:
        """Whether its value is a list."""
        origins = [get_origin(member) or member for member in self.members]
        return any(isinstance(one, type) and issubclass(one, Collection) and one is not str for one in origins)

    @property
    def takes_bool(self) -> bool:
        return bool in self.members

    @property
    def takes_path(self) -> bool:
        """Whether it takes a path: by its type, or by the end of its name."""
        is_path = any(isinstance(member, type) and issubclass(member, PurePath) for member in self.members)
        return is_path or self.leaf in _PATHS or self.leaf.endswith(tuple(f"-{end}" for end in _PATHS))

    @property
    def expected(self) -> str:
        """What it takes, in words."""
        if self.takes_several:
            return "a list"
        if self.takes_bool:
            return "true or false"
        words = {int: "a whole number", float: "a number"}
        return next((words[member] for member in self.members if member in words), "a text")


def flags_of(command: Any, prefix: str = "") -> Iterator[Flag]:
    """The flags of a dataclass, by the names that tyro gives them.

    command: an instance, whose values are the defaults, or a class, whose own defaults are.
    """
    kind = command if isinstance(command, type) else type(command)
    hints = get_type_hints(kind, include_extras=True)
    for one in _fields(kind):
        hint, marks = _without_marks(hints[one.name])
        if not one.init or "Suppress" in marks or "Fixed" in marks:
            continue
        value = _default(one) if command is kind else getattr(command, one.name)
        name = f"{prefix}{_name_of(one, marks)}".replace("_", "-")
        if is_dataclass(value) and not isinstance(value, type):
            is_bare = "OmitArgPrefixes" in marks or name == prefix
            yield from flags_of(value, prefix if is_bare else f"{name}.")
        else:
            is_switch = hint is bool and isinstance(value, bool) and "FlagConversionOff" not in marks
            yield Flag(name, hint, value, is_switch, "Positional" in marks, not one.repr)


def typed_names(argv: Sequence[str]) -> set[str]:
    """The names that a command line gives, among them with `no-` and without it."""
    typed = {word[2:].partition("=")[0].replace("_", "-") for word in argv if word.startswith("--")}
    heads_and_leaves = [name.rpartition(".") for name in typed]
    return typed | {f"{head}{dot}{leaf.removeprefix('no-')}" for head, dot, leaf in heads_and_leaves}


def _fields(kind: type[Any]) -> Sequence[Field[Any]]:
    """A dataclass's fields, the server's in the order of --help."""
    if kind is not ServerConfig:
        return fields(kind)
    places = [name for names in panels().values() for name in names]
    return sorted(fields(kind), key=lambda one: places.index(one.name))


def _without_marks(hint: Any) -> tuple[Any, dict[str, Any]]:
    """The type itself, and what Annotated says of it, by its name: tyro's markers by their own, `arg` as such."""
    if get_origin(hint) is not Annotated:
        return hint, {}
    inner, *marks = get_args(hint)
    from tyro.conf import arg

    is_arg = type(arg())
    return inner, {"arg" if isinstance(mark, is_arg) else str(mark): mark for mark in marks}


def _name_of(one: Field[Any], marks: dict[str, Any]) -> str:
    name = getattr(marks.get("arg"), "name", None)
    return one.name if name is None else name


def _default(one: Field[Any]) -> Any:
    return one.default_factory() if one.default_factory is not MISSING else one.default
