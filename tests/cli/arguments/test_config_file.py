"""Configuration files of every format: their keys with their lines, and what is wrong with a file in one line."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from policyserve.cli.arguments.config_file import read_entries
from policyserve.core.errors import ConfigError

TOML = """\
# a server
policy = "cartpole_ppo"
allowed-origins = [
    "http://a", # one
    "http://b",
]
model-config.device = "cpu"
"model-config.dtype" = "float32"
prompt = '''
port = 80
'''

[config.algo]
gamma = 0.9
[config.runner]
[other]
inline = { a = 1, b = { c = 2 } }
"""

YAML = """\
policy: cartpole_ppo
on: true
model-config:
  device: cpu
  # between
  camera_key: [front, left]
uds: null
"""


def written(folder: Path, name: str, content: str | bytes) -> str:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def entries(path: str) -> list[tuple[str, Any, str]]:
    return [(entry.name, entry.value, entry.place.removeprefix(path)) for entry in read_entries(path)]


def test_a_toml_file_is_its_keys_with_the_lines_that_they_begin_in(tmp_path: Path) -> None:
    assert entries(written(tmp_path, "serve.toml", TOML)) == [
        ("policy", "cartpole_ppo", ": line 2"),
        ("allowed-origins", ["http://a", "http://b"], ": line 3"),
        ("model-config.device", "cpu", ": line 7"),
        ("model-config.dtype", "float32", ": line 8"),
        ("prompt", "port = 80\n", ": line 9"),
        ("config.algo.gamma", 0.9, ": line 14"),
        ("config.runner", {}, ": line 15"),
        ("other.inline.a", 1, ": line 17"),
        ("other.inline.b.c", 2, ": line 17"),
    ]


def test_a_yaml_file_is_its_keys_as_they_are_written_with_their_lines(tmp_path: Path) -> None:
    pytest.importorskip("yaml")
    for name in ("serve.yaml", "serve.yml", "SERVE.YML"):
        assert entries(written(tmp_path, name, YAML)) == [
            ("policy", "cartpole_ppo", ": line 1"),
            ("on", True, ": line 2"),
            ("model-config.device", "cpu", ": line 4"),
            ("model-config.camera_key", ["front", "left"], ": line 6"),
            ("uds", None, ": line 7"),
        ]


def test_a_json_file_is_its_keys(tmp_path: Path) -> None:
    path = written(tmp_path, "serve.json", '{"port": 1, "model-config": {"device": "cpu"}}')
    assert entries(path) == [("port", 1, ""), ("model-config.device", "cpu", "")]


def test_line_ends_and_the_byte_order_mark_of_windows_are_read(tmp_path: Path) -> None:
    path = written(tmp_path, "serve.toml", b"\xef\xbb\xbfport = 1\r\nhost = 'a'\r\n")
    assert entries(path) == [("port", 1, ": line 1"), ("host", "a", ": line 2")]


@pytest.mark.parametrize("name", ["serve.toml", "serve.yaml"])
def test_a_file_of_comments_sets_nothing(name: str, tmp_path: Path) -> None:
    pytest.importorskip("yaml")
    assert entries(written(tmp_path, name, "# port = 80\n")) == []


def test_the_line_of_a_very_long_value_is_not_looked_for(tmp_path: Path) -> None:
    path = written(tmp_path, "serve.toml", "a = 1\nb = [\n" + "1,\n" * 20_000 + "]\nc = 2\n")
    assert [(name, place) for name, _, place in entries(path)] == [("a", ": line 1"), ("b", ""), ("c", "")]


@pytest.mark.skipif(not os.path.exists("/dev/fd"), reason="no /dev/fd here")
def test_what_a_shell_hands_over_is_read_as_toml() -> None:
    read_end, write_end = os.pipe()
    os.write(write_end, b"port = 1\n")
    os.close(write_end)
    try:
        assert [entry.name for entry in read_entries(f"/dev/fd/{read_end}")] == ["port"]
    finally:
        os.close(read_end)


WRONG: dict[str, tuple[str, str | bytes, str]] = {
    "an empty file": ("a.toml", "", "expected settings, got an empty file"),
    "a file of blanks": ("a.yaml", " \n", "expected settings, got an empty file"),
    "another format": ("a.ini", "port = 1", "expected a name that ends in .toml, .yaml, .yml or .json, got .ini"),
    "no end": ("serve", "port = 1", "expected a name that ends in .toml, .yaml, .yml or .json, got no such end"),
    "binary data": ("a.toml", b"port = 1\0", "expected a text file, got binary data"),
    "Latin-1": ("a.toml", b"a = 1\nb = '\xe9'\n", "line 2: expected UTF-8, got byte 0xe9"),
    "Latin-1 behind a mark": ("a.toml", b"\xef\xbb\xbf\xe9", "line 1: expected UTF-8, got byte 0xe9"),
    "UTF-16": ("a.toml", "a = 1".encode("utf-16"), "expected UTF-8, got UTF-16"),
    "a huge file": ("a.toml", "#" * 300_000, "expected a file of at most 256 KiB, got a larger one"),
    "many keys": ("a.json", str({str(n): n for n in range(1001)}).replace("'", '"'), "at most 1000 keys, got more"),
    "TOML without =": ("a.toml", "a = 1\nb 2\n", "line 2: cannot be read as TOML: expected '=' after a key"),
    "TOML without a value": ("a.toml", "a =\nb = 1\n", "line 1: cannot be read as TOML: invalid value"),
    "TOML with an open quote": ("a.toml", 'a = "x', "cannot be read as TOML: at its end: unterminated string"),
    "an inline table that is open": ("a.toml", "a = { b = 1\nc = 2\n", "cannot be read as TOML: "),
    "TOML with a bare text": ("a.toml", "a = 1\nhost = lab\n", "line 2: cannot be read as TOML: invalid value"),
    "a key twice": ("a.toml", "a = 1\n# x\na = 2\n", "line 3: a stands there again, after line 1: keep one"),
    "a key of a table twice": (
        "a.toml",
        "[t]\na = 1\na = 2\n",
        "line 3: t.a stands there again, after line 2: keep one",
    ),
    "a table twice": ("a.toml", "[t]\na = 1\n[t]\nb = 2\n", "line 3: t stands there again, after line 1: keep one"),
    "nested too deep": ("a.toml", "a = " + "[" * 50_000, "expected TOML, got values that are nested too deep"),
    "tables too deep": ("a.toml", ".".join("a" * 50) + " = 1", "expected TOML, got values that are nested too deep"),
    "JSON with a comma too many": ("a.json", '{\n"a": 1,\n}', "line 3: cannot be read as JSON: "),
    "a list of JSON": ("a.json", "[1]", 'expected keys and values, as in {"port": 8000}, got [1]'),
    "a key of JSON twice": ("a.json", '{"a": 1, "a": 2}', "a stands there twice: keep one"),
    "a list of YAML": ("a.yaml", "- a\n", "expected keys and values, as in `port: 8000`, got a sequence"),
    "a text of YAML": ("a.yaml", "port 80\n", "expected keys and values, as in `port: 8000`, got a scalar"),
    "YAML with an open bracket": ("a.yaml", "a: 1\nb: [\n", "line 3: cannot be read as YAML: while parsing a flow"),
    "YAML with a tab": ("a.yaml", "a:\n\tb: 1\n", "line 2: cannot be read as YAML: while scanning"),
    "two documents of YAML": (
        "a.yaml",
        "a: 1\n---\nb: 1\n",
        "line 2: cannot be read as YAML: expected a single document",
    ),
    "a key of YAML twice": ("a.yaml", "a: 1\nb:\n  c: 1\n  c: 2\n", "line 4: b.c stands there again, after line 3"),
    "YAML in itself": ("a.yaml", "a: &a {b: *a}\n", "expected YAML, got values that are nested too deep"),
    "a YAML of Python": (
        "a.yaml",
        "a: !!python/name:os.system\n",
        "line 1: cannot be read as YAML: could not determine",
    ),
    "a date that is none": ("a.yaml", "a: 2001-99-99\n", "expected YAML, got month must be in 1..12"),
    "a control character in YAML": ("a.yaml", "a: \a\n", "expected YAML, got unacceptable character"),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_what_is_wrong_with_a_file_is_one_line_that_names_it(mistake: str, tmp_path: Path) -> None:
    name, content, said = WRONG[mistake]
    if name.endswith(".yaml"):
        pytest.importorskip("yaml")
    path = written(tmp_path, name, content)
    with pytest.raises(ConfigError) as caught:
        read_entries(path)
    told = str(caught.value)
    assert told.startswith(f"{path}: ")
    assert said in told
    assert told.isprintable()


def test_what_only_toml_1_1_has_is_read_or_refused_with_its_line(tmp_path: Path) -> None:
    path = written(tmp_path, "serve.toml", "port = 1\na = { b = 1,\n}\n")
    try:
        told = [entry.name for entry in read_entries(path)]  # by a newer parser
    except ConfigError as error:
        told = [str(error)]
    assert told == ["port", "a.b"] or told[0].startswith(f"{path}: line 2: cannot be read as TOML: ")


def test_yaml_that_refers_to_itself_again_and_again_is_refused_at_once(tmp_path: Path) -> None:
    pytest.importorskip("yaml")
    lines = ["a0: &a0 {x: 1}"]
    lines += [f"a{n}: &a{n} {{{', '.join(f'k{k}: *a{n - 1}' for k in range(9))}}}" for n in range(1, 9)]
    with pytest.raises(ConfigError, match="at most 1000 keys, got more"):
        read_entries(written(tmp_path, "bomb.yaml", "\n".join(lines)))


def test_a_file_that_is_not_there_is_refused_with_the_nearest(tmp_path: Path) -> None:
    written(tmp_path, "serve.toml", "port = 1")
    with pytest.raises(ConfigError, match=r"serv\.toml: there is no such file; did you mean .*/serve\.toml\?$"):
        read_entries(str(tmp_path / "serv.toml"))
    for nowhere in ("x.json", "folder/serve.toml"):
        with pytest.raises(ConfigError, match=r"there is no such file$"):
            read_entries(str(tmp_path / nowhere))


@pytest.mark.parametrize("name", ["conf.d", "serve.toml"])
def test_a_directory_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(ConfigError, match=rf"{name}: expected a file, got a directory$"):
        read_entries(str(tmp_path / name))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads every file")
def test_a_file_that_may_not_be_read_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, "serve.toml", "port = 1")
    Path(path).chmod(0)
    with pytest.raises(ConfigError, match=r"serve\.toml: cannot be read: Permission denied"):
        read_entries(path)


def test_an_error_of_the_system_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(ConfigError, match=r"serve\.toml: cannot be read: Permission denied$"):
        read_entries("serve.toml")


def test_yaml_without_its_package_names_the_extra_and_another_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    path = written(tmp_path, "serve.yaml", YAML)
    with pytest.raises(ConfigError) as caught:
        read_entries(path)
    told = "PyYAML is not installed; run: pip install 'policyserve[yaml]'; or write it as TOML"
    assert str(caught.value) == f"{path}: {told}"
