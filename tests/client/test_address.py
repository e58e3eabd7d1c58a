"""URLs, taken apart."""

from __future__ import annotations

import traceback
from typing import Any

import pytest

from policyserve.client.address import Address, read_address
from policyserve.core.errors import ConfigError


def test_a_url_without_a_path_names_the_dialect() -> None:
    for url in ("ws://robot:8000", "ws://robot:8000/"):
        assert read_address(url, "openpi").http_url == "ws://robot:8000/openpi"
    assert read_address("ws://robot:8000/vibe_rl?x=1", "openpi").http_url == "ws://robot:8000/vibe_rl?x=1"


def test_a_port_that_is_not_said_is_the_schemes() -> None:
    assert read_address("ws://robot", "openpi").port == 80
    secure = read_address("wss://[::1]", "openpi")
    assert (secure.host, secure.port, secure.is_secure) == ("::1", 443, True)


def test_a_password_is_sent_and_never_told() -> None:
    address = read_address("ws://me:secret@robot:8000", "openpi")
    assert "secret" in address.http_url
    assert address.url == "ws://robot:8000/openpi"


@pytest.mark.parametrize(
    ("url", "path", "http_url"),
    [
        ("ws+unix:///run/p.sock", "/run/p.sock", "ws://localhost/openpi"),
        ("ws+unix:///run/p.sock:/vibe_rl", "/run/p.sock", "ws://localhost/vibe_rl"),
        ("ws+unix:///run/p.sock:/", "/run/p.sock", "ws://localhost/openpi"),
        ("ws+unix:/run/p.sock:/wall_x?a=b", "/run/p.sock", "ws://localhost/wall_x?a=b"),
        ("ws+unix:///run/a%20b%3A1.sock", "/run/a b:1.sock", "ws://localhost/openpi"),
        ("ws+unix:///run/a b:1.sock", "/run/a b:1.sock", "ws://localhost/openpi"),
    ],
)
def test_a_unix_sockets_url_has_the_dialects_path_behind_a_colon(url: str, path: str, http_url: str) -> None:
    address = read_address(url, "openpi")
    assert (address.unix_path, address.http_url) == (path, http_url)


def test_white_space_around_a_url_is_taken_off() -> None:
    assert read_address(" ws://robot:8000\r\n", "openpi").http_url == "ws://robot:8000/openpi"


def test_a_host_in_other_letters_is_a_host() -> None:
    assert read_address("ws://b\u00fccher:80", "openpi").host == "b\u00fccher"


WRONG = [
    "http://127.0.0.1:8000",
    "127.0.0.1:8000",
    "ws://",
    "ws://:8000",
    "ws://host:port",
    "ws://host:99999",
    "ws://[::1",
    "ws+unix://",
    "ws+unix:///",
    "ws+unix://run/p.sock",
    "ws+unix:///run/p%00.sock",
    "unix:///run/p.sock",
    "",
    "   ",
    "ws://ro bot:8000",
    "ws://robot:8000/a b",
    "ws://robot:8000/\r\nX-Forged: 1",
    "ws://rob\x01ot:8000",
    "ws://robot:8000/\x7f",
    "ws://" + "\u00fc" * 80,
    "ws+unix:///run/p.sock:/a b",
]


@pytest.mark.parametrize("url", WRONG)
def test_any_other_url_is_refused_and_the_right_forms_are_shown(url: str) -> None:
    with pytest.raises(ConfigError, match=r"url: expected ws://host:port, wss://host:port or ws\+unix:///path"):
        read_address(url, "openpi")


def test_a_path_too_long_for_a_socket_is_refused_with_the_bound() -> None:
    with pytest.raises(ConfigError, match="at most 107 bytes"):
        read_address("ws+unix:///" + "x" * 107, "openpi")
    assert isinstance(read_address("ws+unix:///" + "x" * 106, "openpi"), Address)


@pytest.mark.parametrize("url", [None, 8000, b"ws://robot:8000", ["ws://robot:8000"]])
def test_what_is_no_text_is_refused_by_its_type(url: Any) -> None:
    with pytest.raises(ConfigError, match=rf"url: expected ws://host:port.* got {type(url).__name__}"):
        read_address(url, "openpi")


@pytest.mark.parametrize(
    "url",
    [
        "wss://robot-7:SECRET@policy.lab:99999",
        "http://robot-7:SECRET@policy.lab",
        "robot-7:SECRET@policy.lab:8000",
        "ws://robot-7:SEC/RET@policy.lab:8000",
        "ws://robot-7:SEC@RET@policy.lab:port",
        "ws://SECRET@policy.lab:8000",
        "ws+unix://robot:SECRET@run/p.sock",
        "ws://robot-7:SECRET@",
    ],
)
def test_what_stands_before_the_at_sign_is_never_told(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_address(url, "openpi")
    told = "".join(traceback.format_exception(caught.value))
    assert "SEC" not in told
    assert "RET" not in told
    assert "\u2026@" in str(caught.value)


def test_an_address_shows_no_password() -> None:
    assert "SECRET" not in repr(read_address("ws://robot-7:SECRET@policy.lab:8000", "openpi"))
