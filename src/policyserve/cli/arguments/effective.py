"""A command's whole configuration as TOML: what --print-config prints, and --config takes."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from enum import Enum
from pathlib import PurePath
from typing import Any

from policyserve.cli.arguments.configuration import Given, keys_of
from policyserve.cli.arguments.flags import Flag
from policyserve.cli.arguments.setting import NOT_A_PATH, TYPED, Setting
from policyserve.cli.arguments.tables import PolicyTable
from policyserve.cli.keys import complaint_about_a_key
from policyserve.client.address import without_key
from policyserve.core.printable import one_line
from policyserve.server.keys import VARIABLE as KEYS
from policyserve.server.splits import Split

_NOT_SHOWN = ("config", "print-config")
_LONGEST_LINE = 100_000
_SURROGATES = re.compile("[\ud800-\udfff]")  # what a command line's bytes become that are no UTF-8
_BARE = re.compile(r"[A-Za-z0-9_-]+")


def end_if_printed(command: Any, given: Given, policy: Setting | None = None) -> None:
    """Print the configuration where --print-config is given; raises SystemExit(0) then."""
    if getattr(command, "print_config", False):
        print(as_toml(command, given, policy), end="")
        raise SystemExit(0)


def as_toml(command: Any, given: Given, policy: Setting | None, environment: Mapping[str, str] = os.environ) -> str:
    """All flags of a command with their values, a line each, and where a value is from that is not the default.

    Paths are written whole, since a file's own are relative to its folder. Keys are left out.
    """
    lines = ["# The whole configuration, for --config; a comment says where a value is from that is not the default."]
    if KEYS in environment:
        is_set = bool(environment[KEYS].strip())
        told = "is set; its keys are not printed" if is_set else "is empty, which no server takes: unset it"
        lines.append(f"# {KEYS} {told}")
    if policy is not None:
        lines.append(_line("policy", _quoted(_whole_place(policy.value)), _source(policy.source, "the command line")))
    keys = [(key, flag) for key, flag in keys_of(command).items() if key not in _NOT_SHOWN]
    lines += [_line_of(key, flag, given.source(key)) for key, flag in keys]
    return "".join(f"{one_line(line, _LONGEST_LINE)}\n" for line in lines)


def tables_as_toml(server: str, tables: Sequence[PolicyTable], routes: Mapping[str, Split]) -> str:
    """The same of a server with several policies. server: its own part. Of a policy what was given stands there.

    Values of tables are written as they were given, and paths in them whole where they name the policy's file.
    """
    lines = [server]
    for table in tables:
        source = _source(table.source.source, "the command line")
        lines += [f"\n[policies.{table.name}]", _line("source", _quoted(_whole_place(table.source.value)), source)]
        for one in table.settings:
            lines.append(_line(one.name, _plainly(one.value), one.source))
    for path, split in routes.items():
        shares = ", ".join(f"{name} = {share!r}" for name, share in split.shares.items())
        lines += [f"\n[routes.{_quoted(path)}]", f"split = {{{shares}}}"]
        lines += [] if split.seed is None else [f"seed = {split.seed}"]
        lines += [] if split.is_blind else ["blind = false"]
    return "\n".join(lines) + "\n"


def _plainly(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_plainly, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    return _quoted("None" if value is None else value) if value is None or isinstance(value, str) else repr(value)


def _line_of(key: str, flag: Flag, source: str | None) -> str:
    told = "" if source is None else _source(source, flag.name)
    if _holds_a_key(flag):
        return f"# {key} is set; it holds a key and is not printed"
    if flag.default is None:
        return f"# {key} is not set" if source is None else _line(key, '"None"', told)
    written = _written(flag, flag.default)
    return f"# {key} cannot be written as TOML" if written is None else _line(key, written, told)


def _holds_a_key(flag: Flag) -> bool:
    """Whether its value is a URL with a key in it, or a key by its name."""
    if not isinstance(flag.default, str):
        return False
    is_private = any(one.name == flag.path[-1] and not one.repr for one in fields(flag.owner))
    is_url = (is_private or "://" in flag.default) and without_key(flag.default) != flag.default
    return is_url or complaint_about_a_key([f"--{flag.path[-1]}"]) is not None


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
        is_path = flag.is_path and str(value) not in ("", NOT_A_PATH)
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
