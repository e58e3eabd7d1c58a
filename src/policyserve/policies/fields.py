"""A JSON object of a configuration file, its values checked as they are read: what is wrong names file and field."""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from policyserve.core.errors import ConfigError
from policyserve.policies.files import read_json

FieldsT = TypeVar("FieldsT", bound="Fields")

LARGEST = 1 << 31  # beyond, a number is a mistake, and a network of it is never built


class Fields:
    """A JSON object and where it stands. Every reader raises ConfigError: file, field, expected, got."""

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        self._values, self._where = values, where

    def fail(self, name: str, expected: str) -> ConfigError:
        return ConfigError(f"{self._where}: {name}: expected {expected}, got {as_json(self._values.get(name))}")

    @property
    def where(self) -> str:
        """The file, and the section in it."""
        return self._where

    def __contains__(self, name: str) -> bool:
        return self._values.get(name) is not None

    def get(self, name: str) -> Any:
        if name not in self._values:
            raise ConfigError(f"{self._where}: {name} is missing")
        return self._values[name]

    def count(self, name: str, default: int | None = None, most: int = LARGEST) -> int:
        value = self._values.get(name, default) if default is not None else self.get(name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise self.fail(name, "a positive integer")
        if value > most:
            raise self.fail(name, f"at most {most}")
        return value

    def number(self, name: str, default: float) -> float:
        value = self._values.get(name, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
            raise self.fail(name, "a positive number")
        if value > LARGEST:
            raise self.fail(name, f"at most {LARGEST}")
        return float(value)

    def finite(self, name: str) -> float:
        """A number of either sign."""
        value = self.get(name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not -LARGEST <= value <= LARGEST:
            raise self.fail(name, "a finite number")
        return float(value) if math.isfinite(value) else 0.0

    def flag(self, name: str, default: bool | None = None) -> bool:
        value = self.get(name) if default is None else self._values.get(name, default)
        if not isinstance(value, bool):
            raise self.fail(name, "true or false")
        return value

    def text(self, name: str) -> str:
        value = self.get(name)
        if not isinstance(value, str):
            raise self.fail(name, "a text")
        return value

    def choice(self, name: str, choices: Sequence[str]) -> str:
        value = self.get(name)
        if not isinstance(value, str) or value not in choices:
            raise self.fail(name, " or ".join(choices))
        return value

    def counts(self, name: str, *, length: int | None = None) -> tuple[int, ...]:
        value = self.get(name)
        is_list = isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)
        if not is_list or (length is not None and len(value) != length):
            raise self.fail(name, f"a list of {length if length is not None else 'non-negative'} integers")
        return tuple(value)

    def section(self: FieldsT, name: str) -> FieldsT:
        value = self.get(name)
        if not isinstance(value, Mapping):
            raise self.fail(name, "an object")
        return type(self)(value, f"{self._where}: {name}")

    def names(self) -> tuple[str, ...]:
        """The names of all fields, in the file's order."""
        return tuple(self._values)

    def check_divides(self, name: str, value: int, other: str, whole: int) -> None:
        if whole % value:
            raise self.fail(name, f"a divisor of {other} = {whole}")


def read_object(path: str | Path) -> dict[str, Any]:
    """Parse a file that holds one JSON object; raises ConfigError."""
    values = read_json(path, "a JSON file")
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected a JSON object, got {type(values).__name__}")
    return values


def as_json(value: Any) -> str:
    """The value as it stands in the file, cut short; not all of it is written out first, as YAML can repeat a part."""
    if isinstance(value, (Mapping, list)):
        return reprlib.repr(value)[:80]
    return json.dumps(value, default=str)[:80]
