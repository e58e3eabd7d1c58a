"""API keys: which files are read, and which callers are let in."""

from __future__ import annotations

import hmac
import logging
from base64 import b64encode
from pathlib import Path

import pytest

from policyserve.core.errors import ConfigError
from policyserve.server import keys
from policyserve.server.keys import read_file, read_variable

GOOD, OTHER = "0f4be1d2a9c34c1e8f7a", "6f2c9e0b7d1a4c5e9b3d"


@pytest.mark.parametrize(
    ("authorization", "name"),
    [
        (f"Api-Key {GOOD}", "robot-7"),
        (f"api-key  {GOOD} ", "robot-7"),
        (f"Bearer {OTHER}", "key 4"),
        ("Basic " + b64encode(f"anybody:{GOOD}".encode()).decode(), "robot-7"),
        ("", None),
        (GOOD, None),
        (f"Bearer {GOOD}x", None),
        (f"Bearer {GOOD[:-1]}", None),
        (f"Digest {GOOD}", None),
        (f"Bearer {GOOD},Bearer {GOOD}", None),  # the header twice
        ("Basic " + b64encode(GOOD.encode()).decode(), None),
        ("Basic !!!", None),
        ("Bearer", None),
        ("Bearer é\udcff", None),
    ],
)
def test_a_key_is_known_in_each_spelling_of_the_header(authorization: str, name: str | None) -> None:
    assert read_file(f"# lab\nrobot-7: {GOOD}\n\n{OTHER}\n", "keys").name_of(authorization) == name


def test_the_variable_holds_one_key_or_several_with_names() -> None:
    assert read_variable(GOOD, "V").name_of(f"Bearer {GOOD}") == "key 1"
    assert read_variable(f"a:{GOOD}, b:{OTHER}", "V").name_of(f"Bearer {OTHER}") == "b"


def test_a_word_behind_the_name_says_that_a_key_may_change_what_is_served() -> None:
    known = read_file(f"robot-7: {GOOD}\nops  admin: {OTHER}\n", "keys")
    assert known.name_of(f"Bearer {OTHER}") == "ops"
    assert known.admins == {"ops"}
    more = read_variable(f"lab admin:{GOOD}x", "V").plus(known)
    assert more.admins == {"ops", "lab"}
    assert read_file(f"admin: {GOOD}", "keys").admins == set()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: short", "line 1: expected a key of 16 characters or more, got 5; `openssl rand"),
        (f"ok: {GOOD}\nwith space: {OTHER}", "line 2: expected a name of letters"),
        (f"ops root: {GOOD}", "before the colon, and behind it nothing or the word admin"),
        (f"a: {GOOD} {OTHER}", "line 1: expected a key of ASCII characters without space"),
        (f"a: {GOOD}ü", "without space"),
        (f"a: {GOOD}\na: {OTHER}", "line 2: the same name twice"),
        (f"a: {GOOD}\nb: {GOOD}", "line 2: the same key twice"),
        ("# nothing\n", "expected one `name: key` per line, got no key"),
    ],
)
def test_a_wrong_file_is_one_line_that_shows_no_key(text: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_file(text, "/etc/keys")
    said = str(caught.value)
    assert told in said
    assert said.startswith("/etc/keys")
    for secret in (GOOD, OTHER, "short"):
        assert secret not in said


def test_neither_repr_nor_the_object_holds_a_key() -> None:
    known = read_file(f"robot-7: {GOOD}", "keys")
    assert repr(known) == "ApiKeys(robot-7)"
    assert str(known) == "1 key: robot-7"
    assert GOOD not in repr(vars(known))


@pytest.mark.parametrize("sent", [GOOD, OTHER, "x" * 48, ""])
def test_what_was_sent_is_compared_with_every_key_whichever_it_is(sent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append(one)
        return hmac.compare_digest(one, other)

    monkeypatch.setattr(keys, "compare_digest", compare)
    read_file(f"robot-7: {GOOD}\n{OTHER}\nc: {'c' * 48}\n", "keys").name_of(f"Bearer {sent}")
    assert len(set(compared)) == 3


def test_no_file_and_no_variable_are_no_keys() -> None:
    assert not keys.load(None, None)


@pytest.mark.parametrize("empty", ["", " "])
def test_a_variable_that_is_set_to_nothing_is_refused_and_does_not_open_the_server(empty: str) -> None:
    with pytest.raises(ConfigError, match="POLICYSERVE_API_KEY: expected a key, got nothing; unset it to need none"):
        keys.load(None, empty)


def test_file_and_variable_add_up_and_others_who_may_read_the_file_are_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "keys"
    path.write_text(f"a: {GOOD}\n")
    path.chmod(0o644)
    with caplog.at_level(logging.WARNING):
        both = keys.load(str(path), f"b:{OTHER}")
    assert f"chmod 600 {path}" in caplog.text
    assert both.name_of(f"Bearer {GOOD}") == "a"
    assert both.name_of(f"Bearer {OTHER}") == "b"
    path.chmod(0o600)
    caplog.clear()
    assert keys.load(str(path), None)
    assert caplog.text == ""


def test_one_name_in_both_places_is_refused(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(f"a: {GOOD}\n")
    with pytest.raises(ConfigError, match="two API keys are named 'a'"):
        keys.load(str(tmp_path / "keys"), f"a:{OTHER}")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere cannot be read: No such file"):
        keys.load(str(tmp_path / "nowhere"), None)
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        keys.load(str(tmp_path), None)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="expected a text file"):
        keys.load(str(tmp_path / "binary"), None)
