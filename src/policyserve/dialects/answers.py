"""What servers of the families that mark arrays say: maps that were checked, and errors as texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policyserve.core.dialect import ErrorReply, close_code_of, close_reason, error_text
from policyserve.core.errors import PolicyFailed, PolicyserveError, WireError, WrongDialect
from policyserve.dialects.marked_arrays import Spelling
from policyserve.dialects.readable import check_readable


def pack_readable(what: str, message: Mapping[str, Any], spelling: Spelling, name: str) -> bytes:
    """The map as MessagePack; raises PolicyFailed with the path of what clients of the dialect `name` could not read.

    what: it is, for the error: "answer".
    """
    try:
        check_readable(message, spelling)
    except WireError as error:
        raise PolicyFailed(f"the {what} cannot be read by {name}'s clients: {error}") from error
    return spelling.pack(message)


def text_refusal(error: PolicyserveError, detail: str = "") -> ErrorReply:
    """One text message, which these clients raise; detail (a traceback) follows it if there is one.

    The connection stays, so that a client may mend its observation and go on; only a fault of ours that is not worth a
    retry closes it, with 1011, and a client of another family, with 1008.
    """
    text = error_text(error) + (f"\n{detail}" if detail else "")
    if not isinstance(error, WrongDialect) and (error.blame == "client" or error.retryable):
        return ErrorReply(text)
    return ErrorReply(text, close_code_of(error), close_reason(error))
