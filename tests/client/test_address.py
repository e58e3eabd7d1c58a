"""URLs, taken apart."""

from __future__ import annotations

import traceback
from typing import Any

import pytest

from policyserve.client.address import Address, has_key, read_address, without_key
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


HIDDEN = {
    "ws://robot-7:SECRET@policy.lab:8000/x?a=b": "ws://…@policy.lab:8000/x?…",
    "robot-7:SECRET@policy.lab:8000": "…@policy.lab:8000",
    "ws://robot-7:1/SECRET@policy.lab:8000": "ws://…@policy.lab:8000",
    "ws://robot-7:SEC?RET@policy.lab:8000": "ws://…@policy.lab:8000",
    "ws://robot-7:SEC#RET@policy.lab:8000": "ws://…@policy.lab:8000",
    "ws://robot-7:SEC@RET@policy.lab:8000": "ws://…@policy.lab:8000",
    "ws://robot-7:SECRET\uff20policy.lab": "ws://…@policy.lab",  # an @ as wide as a letter of Chinese
    "ws://robot-7:SECRET\ufe6bpolicy.lab": "ws://…@policy.lab",
    "ws://policy.lab/robot-7:SECRET@here": "ws://…@here",
    "ws://robot-7:SECRET": "ws://robot-7:…",  # the @ was forgotten
    "robot-7:SECRET": "robot-7:…",
    "ws://robot-7:SECRET:policy.lab:8000": "ws://robot-7:…",
    "wss://robot-7:SECRET#policy.lab:8000": "wss://robot-7:…",
    "ws://[robot-7:SECRET": "ws://[robot-7:…",
    "ws:/robot-7:SECRET@policy.lab": "…@policy.lab",
    "ws:robot-7:SECRET": "ws:…",
    "ws://policy.lab/openpi?api_key=SECRET": "ws://policy.lab/openpi?…",
    "ws+unix://robot-7:SECRET@run/p.sock": "ws+unix://…@run/p.sock",
    "ws+unix:///robot-7:SECRET@run/p.sock": "ws+unix://…@run/p.sock",
    "ws+unix:///run/p.sock:/openpi?key=SECRET": "ws+unix:///run/p.sock:/openpi?…",
}


@pytest.mark.parametrize("url", HIDDEN)
def test_what_may_be_a_key_is_left_out_wherever_a_url_is_shown(url: str) -> None:
    assert without_key(url) == HIDDEN[url]
    try:
        shown = read_address(url, "openpi")
    except ConfigError as error:
        told = "".join(traceback.format_exception(error)) + repr(error.__context__)
    else:
        told = f"{shown} {shown.url}"
    assert "SEC" not in told
    assert "RET" not in told


SHOWN = ["ws://robot:8000", "127.0.0.1:8000", "http://[::1]:8000/x", "ws://[::1", "ws://host:99999/x:1", ""]
SHOWN += ["ws+unix:///run/policy@1.sock", "ws+unix:///run/p.sock:/openpi", "wss://[fe80::1%eth0]:1/a/b"]


@pytest.mark.parametrize("url", SHOWN)
def test_what_can_be_no_key_is_shown_as_it_is(url: str) -> None:
    assert without_key(url) == url


def test_any_text_with_an_at_sign_hides_what_stands_before_it() -> None:
    for scheme in ("", "ws://", "wss://", "http://", "ws:", "//", "ws+unix://", "ws+unix:///"):
        for key in ("SECRET", "1/SECRET", "SEC:RET", "SEC/RET", "SEC?RET", "SEC#RET", "SEC@RET", "SEC RET", "[SECRET"):
            told = without_key(f"{scheme}robot-7:{key}@policy.lab:8000")
            assert "SEC" not in told
            assert "RET" not in told
            assert told.endswith("…@policy.lab:8000")


def test_a_url_has_a_key_if_it_has_a_password() -> None:
    assert has_key(" ws://robot-7:SECRET@policy.lab:8000\n")
    for url in ("ws://policy.lab:8000", "ws://robot-7@policy.lab", "ws://robot-7:@policy.lab", "ws://[::1", "cartpole"):
        assert not has_key(url)


def test_an_address_shows_no_password() -> None:
    assert "SECRET" not in repr(read_address("ws://robot-7:SECRET@policy.lab:8000", "openpi"))
