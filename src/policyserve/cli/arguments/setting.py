"""One setting: a value that a file, a variable or the command line gives to a flag, and the words that say the same."""

from __future__ import annotations

import json
import os
import re
import shlex
from dataclasses import dataclass
from typing import Any

from policyserve.cli.arguments.flags import Flag, members
from policyserve.core.errors import ConfigError

TYPED = "typed"  # where a value is from that stands on the command line
NOT_A_PATH = "stand-in"  # what Wall-X takes in a path's place
_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


@dataclass(frozen=True)
class Setting:
    """A value that somebody has set. source: where, such as `serve.toml: line 3`, POLICYSERVE_PORT, or TYPED.

    place: what messages call it, such as `serve.toml: line 3: port`.
    """

    name: str
    value: Any
    source: str
    place: str


def beside(folder: str, flag: Flag, value: Any) -> Any:
    """A file's value, a path in it from the file's folder on."""
    if isinstance(value, list):
        return [beside(folder, flag, item) for item in value]
    if not flag.is_path or not isinstance(value, str) or value in ("", "None", NOT_A_PATH):
        return value
    return os.path.join(folder, os.path.expanduser(value))


def as_listed(flag: Flag, text: str, variable: str) -> Any:
    """A variable's text as a file would hold it: several words for what takes a list. Raises ConfigError."""
    if not flag.takes_many:
        return text
    try:
        return shlex.split(text)
    except ValueError as error:
        raise ConfigError(f"{variable}: expected words with spaces between, quoted as in a shell: {error}") from error


def words_of(flag: Flag, setting: Setting) -> list[str]:
    """The words of the command line that say the same; raises ConfigError for a value that no word can stand for."""
    value = setting.value
    if flag.takes_many and isinstance(value, (list, tuple)):
        return [flag.name, *(_word(flag, item, setting) for item in value)]
    if flag.takes_many and value is not None:
        raise ConfigError(
            f"{setting.place}: expected a list, as in {json.dumps([value], default=str)}, got {shown(value)}"
        )
    word = _word(flag, value, setting)
    if flag.is_switch:
        if word not in ("True", "False"):
            raise ConfigError(f"{setting.place}: expected true or false, got {shown(value)}")
        before, dot, last = flag.name[2:].rpartition(".")
        return [flag.name if word == "True" else f"--{before}{dot}no-{last}"]
    return [word] if flag.is_word else [f"{flag.name}={word}"]


def _word(flag: Flag, value: Any, setting: Setting) -> str:
    """One word for one value; True or False for all that may mean it where the flag can be either."""
    if bool in members(flag.kind) and isinstance(value, (str, int)) and str(value).lower() in (*_TRUE, *_FALSE):
        return str(str(value).lower() in _TRUE)
    if value is None:
        return "None"
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ConfigError(f"{setting.place}: expected {flag.expected}, got {shown(value)}")
    word = str(value)
    if (flag.takes_many or flag.is_word) and re.match(r"--?[a-zA-Z]", word):
        raise ConfigError(f"{setting.place}: expected words that do not begin with a dash, got {shown(value)}")
    return word


def shown(value: Any) -> str:
    """A value as its file has it, roughly."""
    if value is None or value == "":
        return "nothing"
    if isinstance(value, (dict, list)):
        return "a table" if isinstance(value, dict) else "a list"
    return f"{value!r:.60}" if isinstance(value, str) else f"{value!s:.60}".lower()
