"""The tree of errors: whose fault, worth another try, and texts that wires and logs can carry."""

from __future__ import annotations

import copy
import inspect
import pickle
import re

import pytest

from policyserve.core import errors
from policyserve.core.dialect import close_code_of, close_reason
from policyserve.core.errors import (
    BadAction,
    BadObservation,
    ConfigError,
    ConnectionLost,
    DeadlineExceeded,
    MissingDependency,
    NotReady,
    Overloaded,
    PolicyFailed,
    PolicyserveError,
    RemoteError,
    WireError,
    of_policy,
)
from policyserve.core.printable import MOST, MOST_LINES
from tests.strange import STRANGE, strange

ALL = [
    error
    for _, error in inspect.getmembers(errors, inspect.isclass)
    if issubclass(error, PolicyserveError) and error is not PolicyserveError
]


def test_every_error_has_a_code_of_its_own_but_for_the_abstract_ones() -> None:
    codes = [error.code for error in ALL if error is not errors.Refusal]
    assert len(codes) == len(set(codes))
    assert "internal" not in codes


@pytest.mark.parametrize(
    ("error", "blame", "retryable", "close_code"),
    [
        (WireError("", "a map", "a list"), "client", False, 1008),
        (BadObservation("obs", "float32 (4,)", "float32 (3,)"), "client", False, 1008),
        (Overloaded("full"), "server", True, 1013),
        (DeadlineExceeded("late"), "server", True, 1013),
        (NotReady("loading"), "server", True, 1013),
        (PolicyFailed("it raised"), "server", False, 1011),
        (BadAction("NaN"), "server", False, 1011),
        (ConfigError("port"), "server", False, 1011),
    ],
)
def test_blame_and_retryable_decide_the_close_code(
    error: PolicyserveError, blame: str, retryable: bool, close_code: int
) -> None:
    assert (error.blame, error.retryable, close_code_of(error)) == (blame, retryable, close_code)


def test_errors_are_also_what_python_programs_expect() -> None:
    assert issubclass(DeadlineExceeded, TimeoutError)
    assert issubclass(ConfigError, ValueError)
    assert issubclass(MissingDependency, ImportError)
    assert issubclass(ConnectionLost, RemoteError)
    assert issubclass(BadAction, PolicyFailed)


def test_a_refusal_reads_path_expected_got_hint() -> None:
    error = WireError("obs/state", "float32 (4,)", "float32 (3,)", "cut it")
    assert str(error) == "obs/state: expected float32 (4,), got float32 (3,); cut it"
    assert (error.path, error.expected, error.got, error.hint) == (
        "obs/state",
        "float32 (4,)",
        "float32 (3,)",
        "cut it",
    )


def test_a_refusal_of_the_whole_frame_has_no_path() -> None:
    assert str(WireError("", "a map", "a list")) == "expected a map, got a list"


def test_a_missing_dependency_says_what_to_run() -> None:
    assert "pip install 'policyserve[jax]'" in str(MissingDependency("jax", "jax"))


def test_a_path_as_long_as_a_frame_leaves_room_for_expected_and_got() -> None:
    """A client chooses its keys: one of a megabyte must not fill the log, nor push the reason out of a close frame."""
    error = WireError("k" * 1_000_000, "a map", "a list")
    assert len(str(error)) < 1_000
    assert "expected a map, got a list" in close_reason(error)
    assert error.path.startswith("kkkk")


def test_a_clients_key_cannot_forge_log_lines() -> None:
    text = str(WireError("obs\nERROR session 1: hacked\x1b[31m", "a map", "a list"))
    assert text.isprintable()


@pytest.mark.parametrize(
    "text", ["x" * 123, "é" * 61, "x" * 10_000, "é" * 10_000, "🤖" * 1_000, "x" * 120 + "é" * 5, ""]
)
def test_a_close_reason_fits_its_frame(text: str) -> None:
    reason = close_reason(PolicyFailed(text))
    assert 0 < len(reason.encode("utf-8")) <= 123


def test_a_short_close_reason_is_whole() -> None:
    assert close_reason(PolicyFailed("x" * 107)) == "x" * 107 + " [policy_failed]"
    assert close_reason(PolicyFailed("x" * 108)) == "x" * 104 + "… [policy_failed]"


def test_a_close_reason_can_always_be_encoded() -> None:
    """File names with undecodable bytes bring lone surrogates into a policy's exceptions."""
    assert close_reason(PolicyFailed("cannot open a file named \udcff")).encode("utf-8")


@pytest.mark.parametrize("code", ["overloaded", "deadline_exceeded", "not_ready", "policy_lost", "unavailable"])
def test_a_servers_error_that_may_pass_is_retryable_for_its_client(code: str) -> None:
    error = RemoteError(f"{code}: later", code=code)
    assert (error.code, error.retryable) == (code, True)


@pytest.mark.parametrize("code", ["bad_observation", "bad_frame", "policy_failed", "bad_action", "overloaded: no", ""])
def test_a_servers_other_errors_are_not(code: str) -> None:
    error = RemoteError("no", code=code)
    assert (error.code, error.retryable) == (code or "remote", False)


def test_a_close_code_alone_may_say_try_again() -> None:
    assert RemoteError("full", 1013).retryable
    assert not RemoteError("no", 1008).retryable
    assert RemoteError.retryable is False, "one error's answer is none for all"


@pytest.mark.parametrize(
    "error",
    [
        WireError("obs/state", "float32 (4,)", "float32 (3,)", "cut it"),
        Overloaded("full", retry_after_ms=20),
        DeadlineExceeded("late"),
        MissingDependency("jax", "jax"),
        RemoteError("no", 1013, "overloaded"),
        ConnectionLost("gone", 1006),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_of_a_worker_process_arrives_as_it_was(error: PolicyserveError) -> None:
    for again in (pickle.loads(pickle.dumps(error)), copy.deepcopy(error)):
        assert type(again) is type(error)
        assert str(again) == str(error)
        assert vars(again) == vars(error)


@pytest.mark.parametrize("name", STRANGE)
def test_whatever_a_policy_raises_becomes_an_error_that_can_be_read(name: str) -> None:
    try:
        strange(name)
    except BaseException as raised:
        error = of_policy(raised, "mine raised")
    assert type(error) in ALL or type(error) is PolicyserveError
    assert str(error).isprintable()
    assert len(str(error)) <= MOST
    assert re.fullmatch(r"[a-z_]+", error.code)
    assert error.blame in ("client", "server")
    assert close_reason(error).isprintable()


def test_an_error_of_ours_stays_the_one_that_a_policy_raised() -> None:
    error = BadObservation("task", "a known one", "'fly'", "try lift")
    assert of_policy(error, "mine raised") is error


def test_a_policys_own_class_keeps_its_code_and_blame() -> None:
    class UnknownTask(BadObservation):
        code = "unknown_task"
        retryable = True

        def __str__(self) -> str:
            return f"{self.path}, which is none\n"

    error = of_policy(UnknownTask("task", "a known one", "'fly'"), "mine raised")
    assert type(error) is BadObservation
    assert (error.code, error.blame, error.retryable) == ("unknown_task", "client", True)
    assert str(error) == "task, which is none\\n"
    assert error.path == "task"


def test_any_error_of_ours_is_one_line_and_a_remote_one_may_have_several() -> None:
    assert str(ConfigError("port\n\x1b[2J")) == "port\\n\\x1b[2J"
    assert str(RemoteError("Traceback:\n  line\x1b[2J")) == "Traceback:\n  line\\x1b[2J"
    assert len(str(ConfigError("x" * 100_000))) == MOST
    assert len(str(RemoteError("x" * 100_000))) == MOST_LINES
