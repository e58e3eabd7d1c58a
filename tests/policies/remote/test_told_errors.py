"""Errors of another server, as errors of this one."""

from __future__ import annotations

import pytest

from policyserve.core.errors import (
    BadObservation,
    ConnectionLost,
    DeadlineExceeded,
    NotReady,
    PolicyFailed,
    PolicyLost,
    PolicyserveError,
    RemoteError,
    Unavailable,
    WireError,
)
from policyserve.policies.remote.told_errors import told_error


@pytest.mark.parametrize("had_memory", [False, True])
def test_an_ended_connection_says_whether_a_memory_is_gone(had_memory: bool) -> None:
    for error, kind in (
        (ConnectionLost("ended"), PolicyLost if had_memory else NotReady),
        (DeadlineExceeded("late"), DeadlineExceeded),
    ):
        told = told_error(error, had_memory=had_memory)
        assert type(told) is kind
        assert told.retryable
        assert ("without what it remembered" in str(told)) == had_memory


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (RemoteError("bad_observation: strange", code="bad_observation"), BadObservation, "strange"),
        (RemoteError("wrong_dialect: strange", code="wrong_dialect"), PolicyFailed, "strange"),
        (RemoteError("no reason given (close code 1013)", 1013), Unavailable, "no reason given"),
        (RemoteError("Traceback\n  KeyError"), RemoteError, "Traceback\n  KeyError"),
        (RemoteError("ws://x wants an API key (api_key=…)"), RemoteError, "wants an API key (--remote-key-env NAME)"),
        (WireError("actions", "numbers", "a map"), PolicyFailed, "the remote server's answer cannot be read"),
        (PolicyFailed("as it is"), PolicyFailed, "as it is"),
    ],
)
def test_what_is_told_has_a_kind_and_the_text(error: PolicyserveError, kind: type[PolicyserveError], text: str) -> None:
    told = told_error(error)
    assert type(told) is kind
    assert text in str(told)


def test_a_refusal_is_taken_apart_again() -> None:
    sent = BadObservation("a/b", "float32 (2,)", "a text", "send numbers")
    told = told_error(RemoteError(f"bad_observation: {sent}", code="bad_observation"))
    assert isinstance(told, BadObservation)
    assert (told.path, told.expected, str(told)) == ("a/b", "float32 (2,)", str(sent))
