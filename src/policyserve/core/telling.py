"""Writes what a session's peer is told, in the dialect that it speaks. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from policyserve.core.dialect import ConversingDialect, Dialect, ErrorReply, close_code_of, close_reason, for_policy
from policyserve.core.effects import Answered
from policyserve.core.errors import PolicyFailed, PolicyserveError, failed
from policyserve.core.messages import Control, Message, Timing
from policyserve.core.printable import traceback_lines


class Telling:
    """The server's words to one peer. dialect: its own, or the greeter's while that is not known.

    converses: the dialect, if its clients say more than observations. debug_wire: refusals bring tracebacks.
    """

    def __init__(self, dialect: Dialect, debug_wire: bool) -> None:
        self.dialect = dialect
        self.converses: ConversingDialect | None = None
        self._debug_wire = debug_wire
        self._metadata: Mapping[str, Any] = {}
        self._prev_total_ms: float | None = None

    def speak(self, dialect: Dialect, metadata: Mapping[str, Any]) -> None:
        """Speak this dialect from now on, for a policy that says this of itself."""
        self.dialect, self._metadata = dialect, metadata
        adapted = dialect
        with suppress(Exception):  # metadata is a stranger's; a server refuses such before anybody connects
            adapted = for_policy(dialect, metadata)
        self.converses = adapted if isinstance(adapted, ConversingDialect) else None

    def answer(self, outcome: Answered, arrived_at: float, now: float, context: Any) -> tuple[Message, Timing]:
        """Write an answer to a request that arrived at `arrived_at`; raises PolicyserveError."""
        queue_ms = (outcome.started_at - arrived_at) * 1e3
        infer_ms = (outcome.ended_at - outcome.started_at) * 1e3
        timing = Timing(queue_ms, infer_ms, (now - arrived_at) * 1e3, self._prev_total_ms)
        try:
            if self.converses is None:
                message = self.dialect.write_reply(outcome.chunk, timing)
            else:
                message = self.converses.write_answer(outcome.chunk, timing, context)
        except PolicyFailed:
            raise
        except BaseException as error:  # extras are a stranger's: what cannot be written is the policy's fault
            raise failed("the answer cannot be written:", error) from error
        self._prev_total_ms = timing.total_ms
        return message, timing

    def control(self, control: Control) -> Message | None:
        """Write the answer to a message that asked for no actions; raises PolicyserveError."""
        assert self.converses is not None, "no other dialect has such messages"
        try:
            return self.converses.answer_control(control, self._metadata)
        except PolicyserveError:
            raise
        except BaseException as error:  # metadata is a stranger's, and a dialect may be another package's
            raise failed("the answer cannot be written:", error) from error

    def refusal(self, error: PolicyserveError, context: Any = None) -> ErrorReply:
        """Write an error; it raises nothing. context: the request's; None: it has none, or is not known."""
        detail = "\n".join(traceback_lines(error)) if self._debug_wire else ""
        try:
            if self.converses is not None and context is not None:
                return self.converses.write_refusal(error, detail, context)
            return self.dialect.write_error(error, detail)
        except Exception:  # another package's dialect
            return ErrorReply(None, close_code_of(error), close_reason(error))

    def closes(self, error: PolicyserveError, context: Any = None) -> bool:
        """Whether an error ends the connection."""
        return self.refusal(error, context).close_code is not None
