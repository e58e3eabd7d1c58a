"""A configuration file as a list of keys with their values: TOML, YAML or JSON, by the end of its name.

What is wrong with a file is a ConfigError of one line: the file, the line, what was expected and what it has.
"""

from __future__ import annotations

import codecs
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from policyserve.core.errors import ConfigError, MissingDependency
from policyserve.core.nearest import nearest
from policyserve.policies.files import reading

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    import yaml

_MOST_BYTES = 256 * 1024
_MOST_KEYS = 1000
_ENDS = ".toml, .yaml, .yml or .json"
_DEEPEST = 10
_LONGEST_STATEMENT = 200  # lines of one TOML value; of a longer one the line is not told
_LINE_OF_TOML = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")


@dataclass(frozen=True)
class Entry:
    """One key of a file: its name as it is written, with dots for tables, its value, and `serve.toml: line 3`.

    A table without keys is an entry of its own, with an empty map for its value.
    """

    name: str
    value: Any
    place: str


def read_entries(path: str) -> list[Entry]:
    """All keys of a file, in its order; raises ConfigError."""
    suffix = ".toml" if is_stream(path) else Path(path).suffix.lower()
    if suffix not in _READERS and not os.path.isdir(path):
        raise ConfigError(f"{path}: expected a name that ends in {_ENDS}, got {suffix or 'no such end'}")
    text = _read_text(path)
    if not text.strip():
        raise ConfigError(f"{path}: expected settings, got an empty file; without --config the defaults are used")
    with reading(path, suffix[1:].upper()):
        entries = []
        for entry in _READERS[suffix](text, path):
            entries.append(entry)
            if len(entries) > _MOST_KEYS:
                raise ConfigError(f"{path}: expected at most {_MOST_KEYS} keys, got more")
    return entries


def is_stream(path: str) -> bool:
    """Whether this is no file in a folder, but what a shell hands over: /dev/stdin, /dev/fd/63."""
    return path.startswith(("/dev/", "/proc/"))


def _read_text(path: str) -> str:
    try:
        with open(path, "rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: there is no such file{_neighbour(path)}") from error
    except IsADirectoryError as error:
        raise ConfigError(f"{path}: expected a file, got a directory") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from error
    if len(content) > _MOST_BYTES:
        raise ConfigError(f"{path}: expected a file of at most {_MOST_BYTES // 1024} KiB, got a larger one")
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise ConfigError(f"{path}: expected UTF-8, got UTF-16, which PowerShell's > writes: save it as UTF-8")
    if b"\0" in content:
        raise ConfigError(f"{path}: expected a text file, got binary data")
    content = content.removeprefix(codecs.BOM_UTF8)
    try:
        return content.decode().replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path}: line {line}: expected UTF-8, got byte 0x{content[error.start]:02x}") from error


def _neighbour(path: str) -> str:
    """A file beside it whose name is nearly the same."""
    with suppress(OSError):
        near = nearest(os.path.basename(path), os.listdir(os.path.dirname(path) or "."), 0.75)
        return f"; did you mean {os.path.join(os.path.dirname(path), near)}?" if near else ""
    return ""


def _flattened(values: Mapping[Any, Any], above: Sequence[str] = ()) -> Iterator[tuple[str, Any]]:
    """The keys of nested maps, joined by dots, and their values."""
    if len(above) > _DEEPEST:
        raise RecursionError
    for key, value in values.items():
        names = (*above, str(key))
        if isinstance(value, Mapping) and value:
            yield from _flattened(value, names)
        else:
            yield ".".join(names), value


def _read_toml(text: str, path: str) -> Iterator[Entry]:
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _toml_error(str(error), text, path) from error
    lines: dict[str, int] = {}
    for name, line in _toml_lines(text):
        lines.setdefault(name, line)
    for name, value in _flattened(values):
        yield Entry(name, value, f"{path}: line {lines[name]}" if name in lines else path)


def _toml_error(told: str, text: str, path: str) -> ConfigError:
    """What the parser says, with its line before it; of a key that stands there twice, both lines."""
    found = _LINE_OF_TOML.search(told)
    told = _LINE_OF_TOML.sub("", told[:1].lower() + told[1:])
    if found is None or found[1] is None:
        return ConfigError(f"{path}: cannot be read as TOML: at its end: {told}")
    first: dict[str, int] = {}
    for name, line in _toml_lines(text):
        if line == int(found[1]) and name in first:
            return ConfigError(f"{path}: line {line}: {name} stands there again, after line {first[name]}: keep one")
        first.setdefault(name, line)
    return ConfigError(f"{path}: line {found[1]}: cannot be read as TOML: {told}")


def _toml_lines(text: str) -> Iterator[tuple[str, int]]:
    """Each key and table with the line that it begins in, as far as the text can be read.

    The parser does not tell lines. A statement of TOML is whole lines: the fewest that can be parsed by themselves.
    """
    table, rows = "", list[str]()
    for number, row in enumerate(text.split("\n"), 1):
        rows.append(row)
        try:
            statement = tomllib.loads("\n".join(rows))
        except tomllib.TOMLDecodeError:
            if len(rows) > _LONGEST_STATEMENT:
                return
            continue
        names = [name for name, _ in _flattened(statement)]
        if rows[0].lstrip().startswith("["):
            table = f"{names[0]}."
            yield names[0], number
        else:
            yield from ((f"{table}{name}", number - len(rows) + 1) for name in names)
        rows.clear()


def _read_yaml(text: str, path: str) -> Iterator[Entry]:
    try:
        import yaml
    except ImportError as error:
        told = MissingDependency("PyYAML", "yaml")
        raise ConfigError(f"{path}: {told}; or write it as TOML") from error
    loader = yaml.SafeLoader(text)
    try:
        root = loader.get_single_node()
        if root is not None:
            yield from _yaml_entries(loader, root, path)
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        told = ", ".join(filter(None, (error.context, error.problem)))
        raise ConfigError(f"{path}: {line}cannot be read as YAML: {told}") from error
    finally:
        loader.dispose()


def _yaml_entries(loader: yaml.SafeLoader, node: yaml.Node, path: str, above: Sequence[str] = ()) -> Iterator[Entry]:
    """The keys of a mapping and of those in it. Keys are taken as they are written: YAML's own `on` is no text."""
    from yaml import MappingNode

    if not isinstance(node, MappingNode):
        kind = type(node).__name__.removesuffix("Node").lower()
        raise ConfigError(f"{path}: expected keys and values, as in `port: 8000`, got a {kind}")
    if len(above) > _DEEPEST:
        raise RecursionError
    seen: dict[str, int] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        name = ".".join((*above, str(key.value)))
        if name in seen:
            raise ConfigError(f"{path}: line {line}: {name} stands there again, after line {seen[name]}: keep one")
        seen[name] = line
        if isinstance(value, MappingNode) and value.value:
            yield from _yaml_entries(loader, value, path, (*above, str(key.value)))
        else:
            yield Entry(name, loader.construct_object(value, deep=True), f"{path}: line {line}")


def _read_json(text: str, path: str) -> Iterator[Entry]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise ConfigError(f"{path}: {twice} stands there twice: keep one")
        return made

    try:
        values = json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path}: line {error.lineno}: cannot be read as JSON: {error.msg}") from error
    if not isinstance(values, dict):
        raise ConfigError(f'{path}: expected keys and values, as in {{"port": 8000}}, got {values!r:.60}')
    for name, value in _flattened(values):
        yield Entry(name, value, path)


_READERS: Mapping[str, Callable[[str, str], Iterator[Entry]]] = {
    ".toml": _read_toml,
    ".yaml": _read_yaml,
    ".yml": _read_yaml,
    ".json": _read_json,
}
