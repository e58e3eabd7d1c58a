"""Carries errors from a policy's process to its server: type, text and fields, and the traceback as a text."""

from __future__ import annotations

import builtins
from contextlib import suppress
from typing import Any

from policyserve.core import errors
from policyserve.core.errors import PolicyFailed, PolicyserveError
from policyserve.core.printable import text_of, traceback_lines, type_name

_MOST_CAUSES = 100  # of one error: it may be its own cause


class ChildTraceback(Exception):
    """The cause of an error that another process raised: its traceback, for the log."""

    def __str__(self) -> str:
        return f"in the policy's process:\n{self.args[0]}"


def write_error(error: BaseException) -> list[Any]:
    """An error as a MessagePack value; it lets go of its traceback, whose frames hold the observation."""
    has_story = error.__cause__ is not None or error.__traceback__ is not None
    trace = "\n".join(traceback_lines(error)) if has_story else ""
    _drop_tracebacks(error)
    return [_known_name(error), text_of(error), _plain_fields(error), trace]


def read_error(value: list[Any]) -> BaseException:
    """The error that write_error() wrote; one of a stranger's type is a PolicyFailed."""
    name, text, more, trace = value
    kind = getattr(errors, name, None) or getattr(builtins, name, None)
    error = _made(kind) if isinstance(kind, type) and issubclass(kind, Exception) else None
    if error is None:
        error, text = PolicyFailed(), f"{name}: {text}"
    error.args = (text,)  # not through __init__, which composes the text
    vars(error).update(more)
    error.__cause__ = ChildTraceback(trace) if trace else None
    return error


def _made(kind: type[Exception]) -> Exception | None:
    """An error without arguments; None where a future cannot hold it (StopIteration) or it needs them (a group)."""
    try:
        return None if issubclass(kind, StopIteration) else kind.__new__(kind)
    except TypeError:
        return None


def _known_name(error: BaseException) -> str:
    """The nearest type that the other process has too, or the stranger's own name."""
    for kind in type(error).__mro__:
        if kind.__module__ in (errors.__name__, "builtins") and kind not in (Exception, BaseException, object):
            return kind.__name__
    return type_name(error)


def _plain_fields(error: BaseException) -> dict[str, Any]:
    if not isinstance(error, PolicyserveError):
        return {}
    found: dict[str, Any] = {}
    with suppress(BaseException):  # a stranger's fields
        for name, value in vars(error).items():
            if type(value) in (str, int, float, bool, type(None)):
                found[name] = value
    return found


def _drop_tracebacks(error: BaseException | None) -> None:
    with suppress(BaseException):  # a stranger's attributes
        for _ in range(_MOST_CAUSES):
            if error is None:
                return
            error.__traceback__ = None
            error = error.__context__ if error.__cause__ is None else error.__cause__
