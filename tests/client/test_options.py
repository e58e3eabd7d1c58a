"""What both clients take, checked when it is given."""

from __future__ import annotations

import asyncio
import copy
import inspect
import pickle
import ssl
import traceback
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from policyserve import AsyncClient, Client
from policyserve.client.options import ClientOptions
from policyserve.core.errors import ConfigError, ConnectionLost

URL = "ws://robot:8000"
NO_NUMBERS = [None, "5", b"5", True, float("nan"), float("inf"), -float("inf"), -1, 1e9, 10**400, [5], 5j, np.zeros(2)]

both = pytest.mark.parametrize("make", [Client, AsyncClient])


@both
@pytest.mark.parametrize("name", ["timeout_s", "retry_for_s", "busy_poll_us"])
@pytest.mark.parametrize("value", NO_NUMBERS, ids=lambda value: f"{value!r:.20}")
def test_a_number_that_is_no_time_is_refused_by_name(make: Any, name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"{name}: expected (micro)?seconds, .*at most") as caught:
        make(URL, **{name: value})
    assert f"{value!r:.40}" in str(caught.value)


@both
def test_no_time_at_all_is_no_time_out_but_may_be_a_time_to_retry(make: Any) -> None:
    with pytest.raises(ConfigError, match="timeout_s: expected seconds, more than 0"):
        make(URL, timeout_s=0)
    make(URL, retry_for_s=0, busy_poll_us=0)


@both
@pytest.mark.parametrize("value", [1, 0.5, np.float32(2), np.int64(3), Fraction(1, 2)])
def test_any_number_is_a_time(make: Any, value: Any) -> None:
    make(URL, timeout_s=value, retry_for_s=value)
    assert ClientOptions(URL, timeout_s=value).timeout_s == float(value)


def test_an_async_client_does_not_poll_and_says_why() -> None:
    with pytest.raises(ConfigError, match=r"busy_poll_us: expected 0 for an AsyncClient, got 200: .*event loop"):
        AsyncClient(URL, busy_poll_us=200)
    Client(URL, busy_poll_us=200)


@both
@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("dialect", "klingon", "one of openpi, wall_x, vibe_rl, vla_eval"),
        ("dialect", "", "one of openpi"),
        ("dialect", ["openpi"], "one of openpi"),
        ("api_key", "", "a key, got an empty text"),
        ("api_key", " \n", "a key, got an empty text"),
        ("api_key", b"secret", "a text, got bytes"),
        ("ssl_context", True, "an ssl.SSLContext, got bool"),
        ("check_actions", None, "True or False, got None"),
        ("check_actions", 1, "True or False, got 1"),
    ],
)
def test_every_other_argument_is_checked_by_name_too(make: Any, name: str, value: Any, expected: str) -> None:
    with pytest.raises(ConfigError, match=f"{name}: expected {expected}"):
        make(URL, **{name: value})


@both
@pytest.mark.parametrize("url", [None, "", 8000, "robot:8000"])
def test_a_url_that_is_none_is_refused_by_name(make: Any, url: Any) -> None:
    with pytest.raises(ConfigError, match="url: expected ws://host:port"):
        make(url)


@both
@pytest.mark.parametrize("url", [URL, "ws+unix:///run/p.sock"])
def test_a_certificate_where_nothing_is_encrypted_is_refused(make: Any, url: str) -> None:
    with pytest.raises(ConfigError, match=r"ssl_context: expected a wss:// URL with it, got ws"):
        make(url, ssl_context=ssl.create_default_context())
    make("wss://robot:8000", ssl_context=ssl.create_default_context())


def test_white_space_around_a_key_is_taken_off() -> None:
    assert ClientOptions(URL, api_key=" not-a-real-key\r\n").api_key == "not-a-real-key"


@both
@pytest.mark.parametrize(
    "key", ["not-a-\nreal-key", "not-a-\x00real-key", "not-a-real-k\u00e9y", "not-a-real-key\u200b"]
)
def test_a_key_that_no_header_carries_is_refused_and_never_shown(make: Any, key: str) -> None:
    with pytest.raises(
        ConfigError, match=f"api_key: expected printable ASCII characters, got 1 of {len(key)}"
    ) as caught:
        make(URL, api_key=key)
    assert "not-a-" not in "".join(traceback.format_exception(caught.value))


@both
@pytest.mark.parametrize(
    "url",
    [
        "wss://robot-7:SECRET@policy.lab:99999",
        "http://robot-7:SECRET@policy.lab",
        "robot-7:SECRET@policy.lab:8000",
        "ws://robot-7:SECRET:policy.lab",
        "ws://robot-7:SECRET\uff20policy.lab",
        b"ws://robot-7:SECRET@policy.lab",
    ],
)
def test_a_url_with_a_slip_in_it_is_refused_and_its_key_is_never_shown(make: Any, url: Any) -> None:
    with pytest.raises(ConfigError, match="url: expected ") as caught:
        make(url)
    assert "SECRET" not in "".join(traceback.format_exception(caught.value)) + repr(caught.value.__context__)


@both
def test_a_url_that_cannot_be_reached_is_told_without_its_key(make: Any, caplog: pytest.LogCaptureFixture) -> None:
    client = make("ws://robot-7:SECRET@127.0.0.1:1/x?token=SECRET", timeout_s=5, retry_for_s=0.3)
    assert client.url == "ws://127.0.0.1:1/x?…"
    with pytest.raises(ConnectionLost, match=r"cannot connect to ws://127\.0\.0\.1:1/x\?…") as caught:
        asyncio.run(client.connect()) if make is AsyncClient else client.connect()
    assert "does not answer" in caplog.text
    for told in (caplog.text, "".join(traceback.format_exception(caught.value)), repr(client), repr(client._options)):
        assert "SECRET" not in told


def test_a_key_stands_in_no_repr() -> None:
    options = ClientOptions("ws://robot:URLKEY@robot:8000", api_key="HEADERKEY")
    assert "KEY" not in repr(options)
    assert "KEY" not in repr(options.address)


@pytest.mark.parametrize(
    ("url", "dialect", "spoken", "asked"),
    [
        ("ws://robot:8000", None, "openpi", "/openpi"),
        ("ws://robot:8000/", None, "openpi", "/openpi"),
        ("ws://robot:8000/vibe_rl", None, "vibe_rl", "/vibe_rl"),
        ("ws://robot:8000/wall_x?arm=left", None, "wall_x", "/wall_x?arm=left"),
        ("ws+unix:///run/p.sock:/vibe_rl", None, "vibe_rl", "/vibe_rl"),
        ("ws://robot:8000/policies/arm", None, "openpi", "/policies/arm"),
        ("ws://robot:8000", "vibe_rl", "vibe_rl", "/vibe_rl"),
        ("ws://robot:8000/openpi", "wall_x", "wall_x", "/openpi"),
    ],
)
def test_a_client_speaks_what_it_was_told_or_what_the_path_names(
    url: str, dialect: str | None, spoken: str, asked: str
) -> None:
    options = ClientOptions(url, dialect)
    assert options.spoken == spoken
    assert options.address.http_url.endswith(asked)


def test_both_clients_take_the_same_arguments() -> None:
    of_both = [inspect.signature(kind).parameters for kind in (Client, AsyncClient, ClientOptions)]
    assert list(of_both[0]) == list(of_both[1]) == list(of_both[2])
    for name in of_both[0]:
        defaults = {parameters[name].default for parameters in of_both}
        assert defaults == ({0.0, 200.0} if name == "busy_poll_us" else {of_both[0][name].default})


@both
def test_a_client_that_was_not_used_is_pickled_and_copied(make: Any) -> None:
    client = make(URL, api_key="not-a-real-key", timeout_s=5)
    client.robot = "left arm"  # a program's own attribute
    for again in (pickle.loads(pickle.dumps(client)), copy.copy(client), copy.deepcopy(client)):
        assert type(again) is make
        assert vars(again)["_options"] == vars(client)["_options"]
        assert vars(again)["_session"] is not vars(client)["_session"]
        assert (again.url, again.sessions_opened, again.robot) == (client.url, 0, "left arm")


@both
def test_a_client_with_a_certificate_is_copied_but_not_pickled(make: Any) -> None:
    client = make("wss://robot:8000", ssl_context=ssl.create_default_context())
    assert copy.deepcopy(client).url == client.url
    with pytest.raises(TypeError, match="a client with an ssl_context cannot be pickled: make one in each process"):
        pickle.dumps(client)


@pytest.mark.parametrize(("timeout_s", "expected"), [(30, 1), (2, 1), (0.5, 0.25)])
def test_a_close_waits_a_second_and_for_half_of_the_time_out_at_most(timeout_s: float, expected: float) -> None:
    assert ClientOptions("ws://robot:8000", timeout_s=timeout_s).close_s == expected
