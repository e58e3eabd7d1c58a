"""Learns what a policy without a spec takes and gives, from its first request that is answered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from policyserve.core.errors import PolicyserveError
from policyserve.core.log import Log
from policyserve.core.messages import Observation, Timing
from policyserve.core.observer import Observer
from policyserve.core.policy import ActionChunk
from policyserve.core.spec_from_values import SeenObservation, SeenPolicy, seen_observation, seen_policy

log = Log(__name__)

_MOST_WAITING = 16  # described observations that have no answer yet
_TRIES = 8  # observations that cannot be described before it gives up


class SpecLearner(Observer):
    """Tells `on_seen`, once, what the policy called `name` was seen to take and give; remove it then.

    Observations of strangers may hold anything: what goes wrong here is a line of the debug log and nothing else.
    """

    def __init__(self, name: str, on_seen: Callable[[SeenPolicy], None]) -> None:
        self._name = name
        self._on_seen = on_seen
        self._waiting: dict[tuple[int, int | None], SeenObservation] = {}  # by session and ticket
        self._tries = _TRIES
        self._is_done = False

    def on_request(self, session: int, ticket: int, observation: Observation | Any, arrived_at: float) -> None:
        # Now and not with the answer: the policy may change what it is given.
        if self._is_done or not self._tries or len(self._waiting) >= _MOST_WAITING:
            return
        try:
            self._waiting[session, ticket] = seen_observation(observation)
        except Exception as error:  # a stranger's values
            self._tries -= 1
            log.debug("no spec can be made of what session %d sent", session, cause=error)

    def on_answer(self, session: int, ticket: int, chunk: ActionChunk, timing: Timing) -> None:
        observation = self._waiting.pop((session, ticket), None)
        if observation is None or self._is_done or not chunk.actions.size:
            return
        try:
            self._is_done = True
            self._on_seen(seen_policy(self._name, observation, chunk.actions))
        except Exception as error:  # of a policy's answer, or of whoever is told
            log.debug("no spec was made of an answer to session %d", session, cause=error)

    def on_refusal(self, session: int, ticket: int | None, error: PolicyserveError) -> None:
        self._waiting.pop((session, ticket), None)

    def on_session_closed(self, session: int) -> None:
        for key in [key for key in self._waiting if key[0] == session]:
            del self._waiting[key]
