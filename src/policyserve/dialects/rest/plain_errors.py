"""Errors as HTTP tells them: a status, and a map that says what is wrong and what to do. Pure."""

from __future__ import annotations

import json
from typing import Any

from policyserve.core.dialect import error_text
from policyserve.core.errors import DeadlineExceeded, PolicyserveError, Refusal, WireError
from policyserve.dialects.rest.bodies import ReplyBody

_MOST_OF_HEADER = 1000  # characters: some proxies take no more than 4 KiB of all headers together


def status_of(error: PolicyserveError) -> int:
    """4xx for the client's fault, 503 and 504 for what may succeed later, 500 for ours."""
    if isinstance(error, WireError):
        return 400
    if error.blame == "client":
        return 422
    if isinstance(error, DeadlineExceeded):
        return 504
    return 503 if error.retryable else 500


def plain_error(error: PolicyserveError, detail: str = "") -> ReplyBody:
    """{"error": {"code", "message", "retryable", and of a refusal "path", "expected", "got", "cure"}}."""
    told: dict[str, Any] = {"code": error.code, "message": str(error), "retryable": error.retryable}
    if isinstance(error, Refusal):
        told.update(path=error.path, expected=error.expected, got=error.got, cure=error.hint)
    if detail:
        told["traceback"] = detail
    return with_header(json.dumps({"error": told}, separators=(",", ":")), status_of(error), error)


def with_header(text: str, status: int, error: PolicyserveError) -> ReplyBody:
    """A body that says little, and a header `X-Error` that says all of it."""
    escaped = error_text(error).encode("ascii", "backslashreplace").decode()
    return ReplyBody.of(text, status, (("X-Error", escaped[:_MOST_OF_HEADER].strip()),))
