"""What a session decides: effects, which whoever runs it carries out, and outcomes, which it is told. Values alone."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

from policyserve.core.errors import PolicyserveError
from policyserve.core.messages import Message, Observation, Timing
from policyserve.core.policy import ActionChunk


class Send(NamedTuple):
    """Send this message. ticket, chunk, timing: set if it answers a request with actions."""

    message: Message
    ticket: int = 0
    chunk: ActionChunk | None = None
    timing: Timing | None = None


class Submit(NamedTuple):
    """Have the policy answer this observation, and hand the outcome to Session.answer with the ticket.

    is_encoded: pictures in it have to be decoded first. episode: what the policy remembers belongs to.
    """

    ticket: int
    observation: Observation | Any
    batch_size: int | None
    arrived_at: float
    is_encoded: bool = False
    episode: int = 0


class Reuse(NamedTuple):
    """Tell of this observation, no more: a row of an earlier chunk answers it, so the policy is not asked."""

    ticket: int
    observation: Observation | Any
    arrived_at: float


class EndEpisode(NamedTuple):
    """Have the policy forget this episode: it asks nothing more, and all that it asked is answered."""

    episode: int


class Close(NamedTuple):
    """Close the connection; the session wants nothing more."""

    code: int
    reason: str


class Failed(NamedTuple):
    """A request was refused or failed: to be logged and counted. The peer is told by other effects.

    ticket: the request's; None where the error concerns the session.
    """

    error: PolicyserveError
    ticket: int | None = None


class Dropped(NamedTuple):
    """These keys of an observation are not in the policy's spec and were dropped; told once per session."""

    keys: tuple[str, ...]


class Mapped(NamedTuple):
    """These keys of an observation became keys of the spec; told once per session."""

    moves: tuple[str, ...]


class BinaryPictures(NamedTuple):
    """These pictures hold 0 and 1 alone, so that they were probably scaled to 0 … 1 first; told once per session."""

    paths: tuple[str, ...]


Effect: TypeAlias = Send | Submit | Reuse | EndEpisode | Close | Failed | Dropped | Mapped | BinaryPictures


class Answered(NamedTuple):
    """A policy's answer to one request and when its batch ran, seconds on the clock of Session.receive."""

    chunk: ActionChunk
    started_at: float
    ended_at: float


Outcome: TypeAlias = Answered | PolicyserveError
