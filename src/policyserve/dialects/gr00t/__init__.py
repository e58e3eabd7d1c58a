"""GR00T's dialect: NVIDIA's N1.5, N1.6 and N1.7 clients, each answered as it asks.

Its clients speak ZeroMQ and not WebSocket: `server/gr00t` has their port. docs/wire/gr00t.md has the bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from policyserve.core.dialect import ErrorReply, error_text
from policyserve.core.errors import PolicyserveError, WireError
from policyserve.core.examples import spec_of
from policyserve.core.limits import DEFAULT_LIMITS, WireLimits
from policyserve.core.messages import Message, Observation, Reply, Request, Timing, request_of
from policyserve.core.policy import ActionChunk, open_spec
from policyserve.core.spec import PolicySpec
from policyserve.dialects.gr00t import client_half
from policyserve.dialects.gr00t.envelope import GET_ACTION, Context
from policyserve.dialects.gr00t.session_half import SessionHalf, told_error

_ANY = open_spec("any policy")
_N16 = Context(GET_ACTION, is_nested=True, has_batch=True)


class Gr00t(SessionHalf):
    """The dialect's two halves. spec: of the policy that is served; each session gets an instance of its own.

    is_n15: whether a client that has shown no version is taken for one of N1.5, whose modality configs are other ones.
    """

    name = "gr00t"
    greets = False

    def __init__(self, spec: PolicySpec = _ANY, *, is_n15: bool = False) -> None:
        super().__init__(spec, is_n15)
        self._begins_as_n15 = is_n15

    def for_policy(self, metadata: Mapping[str, Any]) -> Gr00t:
        """The dialect for one session: the parts of an observation and of an action are the policy's."""
        spec = replace(spec_of(metadata.get("spec") or {}, "the policy"), metadata=metadata)
        return Gr00t(spec, is_n15=self._begins_as_n15)

    def greeting(self, metadata: Mapping[str, Any]) -> None:
        """None: these clients speak first."""

    def read_request(self, message: Message, limits: WireLimits = DEFAULT_LIMITS) -> Request:
        """Read an observation as a policy without a spec gets it; raises WireError for any other endpoint."""
        return request_of(SessionHalf(_ANY).read_message(message, limits), "endpoint", GET_ACTION)

    def write_reply(self, chunk: ActionChunk, timing: Timing) -> Message:
        """The answer of N1.6."""
        return self.write_answer(chunk, timing, _N16)

    def write_error(self, error: PolicyserveError, detail: str = "") -> ErrorReply:
        return ErrorReply(told_error(error_text(error) + (f"\n{detail}" if detail else "")))

    def write_request(self, observation: Observation) -> bytes:
        return client_half.write_request(observation)

    def read_greeting(self, message: Message) -> Mapping[str, Any]:
        raise WireError("", "no message before the first request", "one")

    def read_reply(self, message: Message) -> Reply:
        return client_half.read_reply(message)
