"""What becomes of an observation in its episode: a row of the last chunk answers it, or the policy does. Pure.

Where a client wants the newest answer alone (Control.newest_only), the policy has one request of an episode at a time.
Of those that come meanwhile the last is asked next; the others get no answer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from policyserve.core.effects import Answered, Effect, EndEpisode, Outcome, Reuse, Submit
from policyserve.core.episodes import ChunkRows, Episode, Episodes
from policyserve.core.messages import Control
from policyserve.core.policy import ActionChunk
from policyserve.core.spec import PolicySpec, ValidObservation


@dataclass(slots=True, eq=False)
class Pending:
    """A request of a session that has no answer yet, or whose answer waits for an earlier one.

    size: bytes that are held for it. context: a ConversingDialect's. episode: where the policy is asked for it.
    """

    ticket: int
    arrived_at: float
    size: int
    outcome: Outcome | Control | None = None
    context: Any = None
    episode: Episode | None = None


class _Held(NamedTuple):
    """A request that waits until the one before it is answered."""

    submit: Submit
    pending: Pending


class EpisodeRequests:
    """The episodes of a session, and their requests. pending: the session's; one that is overtaken is taken out.

    serve_steps: answer with one row of a chunk after the other, whatever the dialect; chunk_size: how many rows of one.
    newest_only: see above.
    """

    def __init__(self, pending: deque[Pending], serve_steps: bool, chunk_size: int | None) -> None:
        self.newest_only = False
        self._pending = pending
        self._serve_steps, self._chunk_size = serve_steps, chunk_size
        self._episodes = Episodes()

    @property
    def numbers(self) -> list[int]:
        """Episodes that the policy may remember something of."""
        return self._episodes.numbers

    @property
    def names(self) -> Sequence[str]:
        """Of those that have begun and are not over."""
        return self._episodes.names

    def enter(self, name: str, batch_size: int | None, one_action: bool, now: float, effects: list[Effect]) -> Episode:
        """The episode of a request that comes now; another one may end to make room for it, which `effects` tells.

        one_action: whether the dialect answers with one row, without an axis of steps. Raises Overloaded.
        """
        rows = None
        if (one_action or self._serve_steps) and batch_size is None:
            rows = ChunkRows(self._chunk_size, keeps_axis=not one_action)
        left_behind = self._episodes.left_behind(name, now)
        if left_behind is not None:
            effects.append(EndEpisode(left_behind))
        episode = self._episodes.of(name, rows)
        episode.asked_at = now
        return episode

    def ask(self, episode: Episode, pending: Pending, valid: ValidObservation, now: float) -> Effect | None:
        """Take the next row as the request's outcome, or have the policy asked; None: once its turn has come."""
        row = episode.take_row()
        if row is not None:
            pending.outcome = Answered(row, now, now)
            return Reuse(pending.ticket, valid.observation, now)
        pending.episode = episode
        submit = Submit(pending.ticket, valid.observation, valid.batch_size, now, valid.is_encoded, episode.number)
        if self.newest_only and episode.unanswered:
            self._drop_held(episode)
            episode.held = _Held(submit, pending)
            return None
        episode.unanswered += 1
        return submit

    def settle(
        self, episode: Episode, pending: Pending, outcome: Outcome, spec: PolicySpec, now: float, may_ask: bool
    ) -> list[Effect]:
        """A request of the episode has its outcome, of which a row may be the answer. It frees the one that is held.

        may_ask: whether the policy is to be asked for that one; else it gets no answer.
        """
        effects: list[Effect] = []
        if episode.settle():
            self._drop_held(episode)
            self._episodes.forgotten(episode)
            effects.append(EndEpisode(episode.number))
        pending.outcome = outcome
        if episode.rows is not None and not isinstance(outcome, Answered):
            episode.rows.drop()
        elif episode.rows is not None and isinstance(outcome, Answered) and _has_steps(outcome.chunk, spec):
            pending.outcome = outcome._replace(chunk=episode.rows.fill(outcome.chunk))
        if episode.unanswered or not may_ask:
            self._drop_held(episode)
        return effects + self._ask_held(episode, now)

    def end(self, name: str) -> list[Effect]:
        """The episode is over; the policy forgets it now, or with the answer that is under way."""
        episode = self._episodes.end(name)
        if episode is None:
            return []
        self._episodes.forgotten(episode)
        return [EndEpisode(episode.number)]

    def drop_rows(self, name: str | None = None) -> None:
        """Hand out no more rows of one episode's chunk, or of any: another policy answers, or a request failed."""
        self._episodes.drop_rows(name)

    def _ask_held(self, episode: Episode, now: float) -> list[Effect]:
        """The policy is free for the episode: have it answer the request that waited."""
        held: _Held | None = episode.held
        if held is None:
            return []
        episode.held = None
        row = episode.take_row()
        if row is None:
            episode.unanswered += 1
            return [held.submit]
        held.pending.outcome, held.pending.episode = Answered(row, now, now), None
        return [Reuse(held.submit.ticket, held.submit.observation, held.submit.arrived_at)]

    def _drop_held(self, episode: Episode) -> None:
        """The request that waits for the episode's turn is overtaken, or its episode is over: it needs no answer."""
        if episode.held is not None:
            self._pending.remove(episode.held.pending)
            episode.held = None


def _has_steps(chunk: ActionChunk, spec: PolicySpec) -> bool:
    """Whether its first axis is one of steps, and it has any."""
    is_long = chunk.actions.ndim > 1 if spec.action is None else spec.horizon is not None
    return is_long and len(chunk.actions) > 0
