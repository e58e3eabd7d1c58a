"""LeRobot's async inference as a dialect: a message is what stands in a gRPC message, a pickle. Pure.

Request   TimedObservation: timestamp, timestep, must_go, and a map of joints, cameras and the task
Reply     a list of TimedAction, each with a tensor

Errors are texts, which the gRPC server tells as a status. They have a port of their own (server/lerobot_grpc); on a
WebSocket at `/lerobot` the same pickles pass, which no client of LeRobot's sends. docs/wire/lerobot.md has the bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np

from policyserve.core.arrays import Array
from policyserve.core.dialect import ErrorReply, code_in_text, error_text
from policyserve.core.errors import PolicyFailed, PolicyserveError, RemoteError, WireError
from policyserve.core.limits import DEFAULT_LIMITS, WireLimits
from policyserve.core.messages import Control, Heard, Message, Observation, Reply, Request, Timing, request_of
from policyserve.core.pickle_things import told_of
from policyserve.core.policy import ActionChunk
from policyserve.dialects.lerobot.answers import read_actions, write_actions
from policyserve.dialects.lerobot.client_half import raw_of, write_observation
from policyserve.dialects.lerobot.observations import Context, read_observation
from policyserve.dialects.lerobot.pickled import OBSERVATION, SETUP, name_of, read_thing
from policyserve.dialects.lerobot.setup import PolicySetup

_UNASKED = Context(0.0, 0, "lerobot.async_inference.helpers")


class LeRobot:
    """Both halves. setup: what the client said of itself; None: its joints make the state as they come.

    It keeps nothing else, so that it is as pure as the dialects that serve everybody.
    """

    name = "lerobot"
    greets = False
    one_action = False

    def __init__(self, setup: PolicySetup | None = None) -> None:
        self.setup = setup

    def greeting(self, metadata: Mapping[str, Any]) -> None:
        """None: the client asks first."""

    def read_message(self, message: Message, limits: WireLimits = DEFAULT_LIMITS) -> Heard:
        """Read an observation, or what a client says of itself before; raises WireError."""
        if isinstance(message, str):
            raise WireError("", "a pickle of LeRobot's client", "a text")
        thing = read_thing(message, limits)
        if name_of(thing) == SETUP:
            return Control("policy instructions")
        if name_of(thing) != OBSERVATION:
            raise WireError("", f"a {OBSERVATION} or a {SETUP} of LeRobot's", told_of(thing))
        observation, context = read_observation(thing, len(message), limits, self.setup)
        return Request(observation, context=context)

    def read_request(self, message: Message, limits: WireLimits = DEFAULT_LIMITS) -> Request:
        """Read an observation; raises WireError."""
        return request_of(self.read_message(message, limits), "", f"a {OBSERVATION} of LeRobot's")

    def write_reply(self, chunk: ActionChunk, timing: Timing) -> Message:
        """Write actions for an observation of no time and no module, as today's client knows them."""
        return self.write_answer(chunk, timing, None)

    def write_answer(self, chunk: ActionChunk, timing: Timing, context: Any) -> Message:
        """Write the actions, as many as the client wants; extras and timing have no place on this wire."""
        context = context if isinstance(context, Context) else _UNASKED
        return write_actions(_steps(chunk)[: context.most], context)

    def write_error(self, error: PolicyserveError, detail: str = "") -> ErrorReply:
        return ErrorReply(error_text(error) + (f"\n{detail}" if detail else ""))

    def write_refusal(self, error: PolicyserveError, detail: str, context: Any) -> ErrorReply:
        return self.write_error(error, detail)

    def answer_control(self, control: Control, metadata: Mapping[str, Any]) -> None:
        """None: the gRPC server has answered."""

    def write_request(self, observation: Observation) -> bytes:
        """Write an observation as a robot of LeRobot's has it; raises WireError with the path of what has no place."""
        if not isinstance(observation, Mapping):
            raise WireError("", "a map of arrays, texts and numbers", type(observation).__name__)
        return write_observation(raw_of(observation))

    def read_greeting(self, message: Message) -> NoReturn:
        raise WireError("", "no message before the first request", "one")

    def read_reply(self, message: Message) -> Reply:
        """Read actions as write_answer() wrote them."""
        if isinstance(message, str):
            raise RemoteError(message, code=code_in_text(message))
        actions, timesteps = read_actions(message)
        return Reply(actions, {}, {"actions": actions, "timesteps": timesteps})


def _steps(chunk: ActionChunk) -> Array:
    """(steps, action) float64; raises PolicyFailed for actions of another form."""
    actions = np.atleast_2d(np.asarray(chunk.actions, np.float64)) if chunk.actions.ndim else None
    if actions is None or actions.ndim != 2:
        told = f"an action of {chunk.actions.ndim} dimensions with its steps"
        raise PolicyFailed(f"expected actions of one dimension, as LeRobot's robots take them, got {told}")
    return actions
