"""A command's whole configuration as TOML: what --print-config prints, and --config takes."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from enum import Enum
from pathlib import PurePath
from typing import Any

from policyserve.cli.configuration import NOT_A_PATH, TYPED, Given, Setting
from policyserve.cli.flag_names import Flag, flags_of
from policyserve.cli.keys import complaint_about_a_key
from policyserve.client.address import without_key
from policyserve.core.printable import one_line
from policyserve.server.keys import VARIABLE as KEYS

_NOT_SHOWN = ("config", "print-config")
_LONGEST_LINE = 100_000
_SURROGATES = re.compile("[\ud800-\udfff]")  # what a command line's bytes become that are no UTF-8
_BARE = re.compile(r"[A-Za-z0-9_-]+")


def end_if_printed(command: Any, given: Given, policy: Setting | None = None) -> None:
    """Print the configuration and exit with 0 where --print-config is given."""
    if getattr(command, "print_config", False):
        print(as_toml(command, given, policy), end="")
        raise SystemExit(0)


def as_toml(command: Any, given: Given, policy: Setting | None, environment: Mapping[str, str] = os.environ) -> str:
    """All flags of a command with their values, a line each, and where a value is from that is not the default.

    Paths are written whole, since a file's own are relative to its folder. Keys are left out.
    """
    lines = ["# The whole configuration, for --config; a comment says where a value is from that is not the default."]
    if KEYS in environment:
        lines.append(f"# {KEYS} is set; its keys are not printed")
    if policy is not None:
        lines.append(_line("policy", _quoted(_whole_place(policy.value)), _source(policy.source, "the command line")))
    lines += [_line_of(flag, given.source(flag.name)) for flag in flags_of(command) if flag.name not in _NOT_SHOWN]
    return "".join(f"{one_line(line, _LONGEST_LINE)}\n" for line in lines)


def _line_of(flag: Flag, source: str | None) -> str:
    told = "" if source is None else _source(source, f"--{flag.name}")
    if _holds_a_key(flag):
        return f"# {flag.name} is set; it holds a key and is not printed"
    if flag.value is None:
        return f"# {flag.name} is not set" if source is None else _line(flag.name, '"None"', told)
    written = _written(flag, flag.value)
    return f"# {flag.name} cannot be written as TOML" if written is None else _line(flag.name, written, told)


def _holds_a_key(flag: Flag) -> bool:
    if not isinstance(flag.value, str):
        return False
    is_url = (flag.is_private or "://" in flag.value) and without_key(flag.value) != flag.value
    return is_url or complaint_about_a_key([f"--{flag.leaf}"]) is not None


def _line(name: str, written: str, told: str) -> str:
    key = ".".join(part if _BARE.fullmatch(part) else _quoted(part) for part in name.split("."))
    return f"{key} = {written}{f'  # {told}' if told else ''}"


def _source(source: str, typed: str) -> str:
    return typed if source == TYPED else source


def _written(flag: Flag, value: Any) -> str | None:
    """A value as TOML; None where it has no such form."""
    if isinstance(value, (list, tuple, set, frozenset)):
        items = [_written(flag, item) for item in value]
        return None if None in items else f"[{', '.join(filter(None, items))}]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Enum):
        return _quoted(value.name)
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (str, PurePath)) and not _SURROGATES.search(str(value)):
        is_path = flag.takes_path and str(value) not in ("", NOT_A_PATH)
        return _quoted(_whole_path(str(value)) if is_path else str(value))
    return None


def _whole_path(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path))


def _whole_place(policy: str) -> str:
    place, colon, name = policy.rpartition(":")
    return f"{_whole_path(place)}{colon}{name}" if place.endswith(".py") else policy


def _quoted(text: str) -> str:
    letters = (_escaped(letter) if letter in '"\\' or not letter.isprintable() else letter for letter in text)
    return f'"{"".join(letters)}"'


def _escaped(letter: str) -> str:
    return f"\\{letter}" if letter in '"\\' else f"\\U{ord(letter):08x}"
