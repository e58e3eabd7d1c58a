"""A server's error as its client sees it: the code that the server told, and never one that it did not tell."""

from __future__ import annotations

from typing import Any

import pytest

from policyserve.client.session import ClientSession, ended
from policyserve.core.arrays import Placed
from policyserve.core.dialect import close_reason
from policyserve.core.errors import (
    BadAction,
    BadObservation,
    DeadlineExceeded,
    NotReady,
    Overloaded,
    PolicyFailed,
    PolicyLost,
    PolicyserveError,
    RemoteError,
    WireError,
    WrongDialect,
)
from policyserve.core.messages import Message
from policyserve.dialects import by_name
from policyserve.dialects.vibe_rl import VibeRL

TOLD = [
    WireError("", "a map", "a list"),
    WrongDialect("", "openpi's frames", "vibe_rl's"),
    BadObservation("x" * 200, "float32 (4,)", "float32 (3,)"),
    Overloaded("full"),
    DeadlineExceeded("late"),
    NotReady(""),
    PolicyLost("é" * 200),
    PolicyFailed("overloaded: no, broken"),
    BadAction("NaN [overloaded]"),
]


def greeted(name: str, metadata: dict[str, Any]) -> ClientSession:
    session = ClientSession(by_name(name), "ws://robot:8000")
    greeting = by_name("openpi").greeting(metadata)
    assert greeting is not None
    session.on_greeting(greeting)
    return session


def told_of(session: ClientSession, text: str) -> RemoteError:
    with pytest.raises(RemoteError) as caught:
        session.reply(text)
    return caught.value


def told(session: ClientSession, text: str) -> RemoteError:
    seen = told_of(session, text)
    assert str(seen) == text
    return seen


@pytest.mark.parametrize("error", TOLD, ids=lambda error: error.code)
@pytest.mark.parametrize("name", ["openpi", "wall_x"])
def test_a_text_frame_of_our_server_carries_code_and_retryable(name: str, error: PolicyserveError) -> None:
    frame = by_name(name).write_error(error).message
    assert isinstance(frame, str)
    seen = told(greeted(name, {"policyserve": "1.0"}), frame)
    assert (seen.code, seen.retryable) == (error.code, error.retryable)


@pytest.mark.parametrize("error", TOLD, ids=lambda error: error.code)
def test_vibe_rls_close_carries_code_and_retryable(error: PolicyserveError) -> None:
    told_by = by_name("vibe_rl").write_error(error)
    assert told_by.close_code is not None
    seen = ended(told_by.close_code, told_by.close_reason)
    assert (seen.code, seen.retryable) == (error.code, error.retryable)
    assert not str(seen).startswith("["), "an original client shows the reason: it begins with the text"


@pytest.mark.parametrize("name", ["openpi", "wall_x"])
@pytest.mark.parametrize("text", ["overloaded: full", "deadline_exceeded: late"])
def test_another_servers_text_is_no_code(name: str, text: str) -> None:
    seen = told(greeted(name, {"robot": "arm"}), text)
    assert (seen.code, seen.retryable) == ("remote", False)


class TellsCodes(VibeRL):
    """A dialect of another package that does not greet, and has a place of its own for the code of an error."""

    def reply_fields(self, message: Message, placed: list[Placed] | None = None) -> dict[str, Any]:
        raise RemoteError(str(message), code="overloaded")


def test_a_code_that_the_dialect_has_read_is_kept() -> None:
    seen = told(ClientSession(TellsCodes(), "ws://robot:8000"), "full")
    assert (seen.code, seen.retryable) == ("overloaded", True)


@pytest.mark.parametrize("text", ["my_error: overloaded: no", "Traceback: overloaded", "overloaded", "remote: x", ""])
def test_a_text_without_a_code_of_ours_in_front_has_none(text: str) -> None:
    seen = told(greeted("openpi", {"policyserve": "1.0"}), text)
    assert (seen.code, seen.retryable) == ("remote", False)


@pytest.mark.parametrize(
    ("code", "reason", "retryable"),
    [
        (1013, "overloaded: full", True),
        (1011, "full [overloaded]", False),  # this server closes with 1013 for it
        (1008, "no [policy_failed]", False),
        (1011, "see [docs]", False),
        (1011, "[", False),
        (1008, "", False),
    ],
)
def test_another_servers_close_reason_is_no_code(code: int, reason: str, retryable: bool) -> None:
    seen = ended(code, reason)
    assert (seen.code, seen.retryable) == ("remote", retryable)
    assert str(seen) == f"{reason or 'no reason given'} (close code {code})"


def test_a_close_reason_that_is_cut_still_ends_with_its_code() -> None:
    reason = close_reason(PolicyFailed("é" * 200))
    assert len(reason.encode()) <= 123
    assert reason.endswith("… [policy_failed]")


@pytest.mark.parametrize("name", ["openpi", "wall_x"])
def test_a_text_of_any_length_is_cut_in_its_middle(name: str) -> None:
    """A traceback ends with what went wrong, and our server's text begins with its code."""
    text = "overloaded: " + "é" * 10_000_000 + " the arm fell off"
    seen = told_of(greeted(name, {"policyserve": "1.0"}), text)
    assert len(str(seen)) <= 4_000
    assert str(seen).startswith("overloaded: éé")
    assert str(seen).endswith("éé the arm fell off")
    assert " … " in str(seen)
    assert seen.code == "overloaded"
    assert seen.__context__ is None or len(str(seen.__context__)) <= 4096


@pytest.mark.parametrize("name", ["openpi", "wall_x"])
def test_a_text_drives_no_terminal_and_forges_no_line_of_a_log(name: str) -> None:
    text = "\x1b[2Jgone\nERROR forged\r\x9b31m\u202etxt\u2028\ud800\x00"
    seen = str(told_of(greeted(name, {}), text))
    assert seen == "\\x1b[2Jgone\n    ERROR forged" r"\r\x9b31m\u202etxt\u2028\ud800\x00"


def test_a_text_in_place_of_a_greeting_and_a_close_reason_are_cleaned_too() -> None:
    with pytest.raises(RemoteError, match=r"^no\\x1b room$"):
        ClientSession(by_name("openpi"), "ws://robot:8000").on_greeting("no\x1b room")
    assert str(ended(1011, "no\x1b room")).startswith("no\\x1b room")
    assert str(ended(1001, "no\nroom")).endswith("(1001 no\n    room)")


@pytest.mark.parametrize("name", ["openpi", "wall_x", "vibe_rl", "vla_eval"])
def test_a_reply_of_long_keys_is_an_error_of_one_line(name: str) -> None:
    key, inner = b"k" * 1_000_000, b"\xda\x00\x01x"
    meta = b"\xc4\x08__meta__\x80" if name == "vibe_rl" else b"\xa1m\x80"
    message = b"\x82\xdb" + len(key).to_bytes(4, "big") + key + inner + meta
    with pytest.raises(WireError) as caught:
        ClientSession(by_name(name), "ws://robot:8000").reply(memoryview(bytearray(message)))
    assert len(str(caught.value)) < 500
