"""How a call is refused: gRPC's status for an error, a close code or a status of HTTP. Pure."""

from __future__ import annotations

from policyserve.core.dialect import code_in_text
from policyserve.core.errors import PolicyserveError
from policyserve.core.printable import some_lines
from policyserve.server.routes import Response

_LONGEST = 2000  # characters: a status travels in a header, of which peers take 8 KiB, three bytes for many a letter
_OF_CODES = {
    "overloaded": "RESOURCE_EXHAUSTED",
    "deadline_exceeded": "DEADLINE_EXCEEDED",
    **dict.fromkeys(("bad_frame", "wrong_dialect", "bad_observation"), "INVALID_ARGUMENT"),
    **dict.fromkeys(("not_ready", "policy_lost", "unavailable"), "UNAVAILABLE"),
}
_OF_HTTP = {401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND", 503: "UNAVAILABLE"}
_OF_CLOSE_CODES = {1001: "UNAVAILABLE", 1008: "INVALID_ARGUMENT", 1013: "UNAVAILABLE"}
_OURS = "INTERNAL"


class Refused(Exception):
    """A call is refused. status: the name of a gRPC status."""

    def __init__(self, status: str, text: str) -> None:
        self.status = status
        self.text = some_lines(text)[:_LONGEST]
        super().__init__(self.text)


def of_error(error: PolicyserveError) -> Refused:
    """For an error of ours."""
    return of_text(f"{error.code}: {error}")


def of_text(text: str) -> Refused:
    """For an error as the dialect writes it, which begins with its code."""
    return Refused(_OF_CODES.get(code_in_text(text) or "", _OURS), text)


def of_response(response: Response) -> Refused:
    """For a refusal of the reception's."""
    text = response.body.decode("utf-8", "replace").strip()
    return Refused(_OF_HTTP.get(response.status, _OURS), text)


def of_close(code: int, reason: str) -> Refused:
    """For a session that ends with this close code."""
    return Refused(_OF_CLOSE_CODES.get(code, _OURS), reason)
