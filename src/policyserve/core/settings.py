"""Settings: frozen dataclasses that check themselves when they are made."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import cache
from numbers import Integral, Real
from pathlib import PurePath
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from policyserve.core.errors import ConfigError


class Settings:
    """The base of a frozen dataclass of settings, and of one that inherits several such groups.

    Types are checked first, so that check() compares numbers with numbers. A path object becomes its text.
    Raises ConfigError that names the field, what is expected and what it got.
    """

    def __post_init__(self) -> None:
        for name, hint in _hints(type(self)).items():
            value = getattr(self, name)
            if isinstance(value, PurePath):
                value = str(value)
                object.__setattr__(self, name, value)  # frozen for others
            expected = _expected(hint)
            self.require(name, any(_is_of(value, one) for one in _members(hint)), expected)
        self.check()

    def check(self) -> None:
        """Raise ConfigError for a field that is out of its bounds; a subclass checks its own and calls super()."""

    def require(self, name: str, is_fine: bool, expected: str) -> None:
        """Raise ConfigError about the field `name` unless it is fine."""
        if not is_fine:
            value = getattr(self, name)
            raise ConfigError(f"{name}: expected {expected}, got {'nothing' if value == '' else repr(value)}")


@cache
def _hints(settings: type[Any]) -> Mapping[str, Any]:
    """Each field's type."""
    hints = get_type_hints(settings)
    return {one.name: hints[one.name] for one in fields(settings)}


def _members(hint: Any) -> Sequence[Any]:
    """The types of a union, or the one type."""
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _is_of(value: Any, hint: Any) -> bool:
    if hint is float:
        return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    if hint is int:
        return isinstance(value, Integral) and not isinstance(value, bool)
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if get_origin(hint) is tuple:
        return isinstance(value, (tuple, list)) and all(isinstance(item, str) for item in value)
    return isinstance(value, hint)


def _expected(hint: Any) -> str:
    """The type in words."""
    words = {float: "a finite number", int: "a whole number", str: "a text", bool: "True or False", type(None): "None"}
    told = [
        " or ".join(map(str, get_args(one))) if get_origin(one) is Literal else words.get(one, "texts")
        for one in _members(hint)
    ]
    return " or ".join(told)
