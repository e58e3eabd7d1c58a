"""Asks a server what a recording's clients asked, one session after the other, and gathers both answers.

Each recorded session has a connection of its own, so that the policy begins it with an empty memory, in the dialect
that was recorded. A refusal costs its request; a connection that is lost ends all.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from policyserve.client.aio import AsyncClient
from policyserve.core.arrays import Array
from policyserve.core.dialect import answers_one_action, code_in_text
from policyserve.core.errors import ConfigError, ConnectionLost, PolicyserveError, RemoteError
from policyserve.core.examples import spec_of
from policyserve.core.messages import Observation
from policyserve.core.spec import PolicySpec
from policyserve.dialects import by_name
from policyserve.recordings.reading import Exchange, RecordedSession, Recording
from policyserve.replay.comparing import compare
from policyserve.replay.fitting import dropped, misfits
from policyserve.replay.gathered import Gathered
from policyserve.replay.noise import repeating

GIVES_UP_AFTER = 20  # refusals in a row

OnStep = Callable[[Gathered], None]  # told of what there is so far, after every request


@dataclass(frozen=True)
class Target:
    """A server to ask. spec: its policy's; None: what its greeting says, where the dialect has one.

    api_key: None where its URL has one, or none is needed. timeout_s: for each answer.
    """

    url: str = field(repr=False)
    api_key: str | None = field(default=None, repr=False)
    spec: PolicySpec | None = None
    timeout_s: float = 60.0

    def client(self, dialect: str) -> AsyncClient:
        """A client that tries once, and takes any actions."""
        return AsyncClient(
            self.url,
            dialect=dialect,
            api_key=self.api_key,
            timeout_s=self.timeout_s,
            retry_for_s=0,
            check_actions=False,
        )


@dataclass(frozen=True)
class _First:
    """What a session began with: asked again, it tells whether the policy draws noise."""

    dialect: str
    observation: Observation
    actions: Array


class _GivenUp(Exception):
    """Too many refusals."""


async def ask_again(
    recording: Recording, target: Target, gathered: Gathered, on_step: OnStep, *, keeps_pauses: bool = False
) -> None:
    """Ask all that was recorded into `gathered`, which has what there is at any time.

    keeps_pauses: within each session. Raises ConfigError where the policy takes something else than was recorded, with
    the keys, and what a client raises that finds no server, or loses it.
    """
    started_at = time.monotonic()
    asker = _Asker(recording, target, gathered, on_step, keeps_pauses)
    try:
        for session in recording.sessions:
            await asker.ask(session)
        await asker.look_for_noise()
    except _GivenUp as why:
        gathered.stopped = str(why)
    finally:
        gathered.seconds = time.monotonic() - started_at


class _Asker:
    def __init__(
        self, recording: Recording, target: Target, gathered: Gathered, on_step: OnStep, keeps_pauses: bool
    ) -> None:
        self._recording = recording
        self._target = target
        self._gathered = gathered
        self._on_step = on_step
        self._keeps_pauses = keeps_pauses
        self._spec = target.spec
        self._first: _First | None = None
        self._is_checked = False  # whether the policy takes what was recorded
        self._refused_in_a_row = 0

    async def ask(self, session: RecordedSession) -> None:
        """Ask a session's requests, over a connection of its own that is opened by the first."""
        self._gathered.sessions += 1
        if session.is_continued:
            told = f"session {session.number} began in an earlier file: the policy lacks what it remembered from there"
            self._gathered.notes.append(told)
        client: AsyncClient | None = None
        began = _Clock()
        try:
            for exchange in self._recording.exchanges(session.number):
                self._gathered.requests += 1
                observation = self._readable(exchange)
                if observation is None:
                    continue
                client = client or await self._connected(session.dialect)
                self._check(observation, exchange, session.dialect)
                if self._keeps_pauses:
                    await began.wait_for(exchange.arrived_at)
                await self._ask(client, session, observation, exchange)
                self._on_step(self._gathered)
        finally:
            if client is not None:
                await self._close(client, session)

    async def look_for_noise(self) -> None:
        """Where answers differ, find out whether the policy answers a session's first request the same twice."""
        first = self._first
        if first is None or compare(self._gathered.pairs).is_within:
            return
        async with self._target.client(first.dialect) as client:
            try:
                again = (await client.infer(first.observation)).actions
            except PolicyserveError:
                return
        same = again.shape == first.actions.shape and np.allclose(again, first.actions, equal_nan=True)
        self._gathered.draws_noise = not same

    async def _close(self, client: AsyncClient, session: RecordedSession) -> None:
        was_answered = bool(self._gathered.pairs) and self._gathered.pairs[-1].session == session.number
        if client.sessions_opened > 1 and was_answered:
            told = f"the server closed session {session.number} at a refusal: the policy forgot what came before"
            self._gathered.notes.append(told)
        await client.close()

    def _readable(self, exchange: Exchange) -> Observation | None:
        try:
            observation = exchange.sent
        except PolicyserveError:  # its server will have refused it, too
            self._gathered.unreadable += 1
            return None
        if exchange.actions is None:
            self._gathered.without_actions += 1
        return observation

    async def _connected(self, dialect: str) -> AsyncClient:
        client = self._target.client(dialect)
        await client.connect()
        if self._spec is None:
            self._spec = _spec_told(client.metadata)
        return client

    def _check(self, observation: Observation, exchange: Exchange, dialect: str) -> None:
        """Raise ConfigError, before the first request, where the policy is another robot's."""
        if self._is_checked or self._spec is None:
            return
        self._is_checked = True
        self._gathered.describe_actions(self._spec)
        is_one = answers_one_action(by_name(dialect))
        found = misfits(replace(self._spec, horizon=None) if is_one else self._spec, observation, exchange.actions)
        if found:
            told = f"{self._spec.name} is not what {self._recording.path} was recorded of"
            raise ConfigError(f"{told}: {'; '.join(found)}")
        unknown = dropped(self._spec, observation)
        if unknown:
            self._gathered.notes.append(f"the policy has no {', '.join(unknown)}: it does not see what was sent so")

    async def _ask(
        self, client: AsyncClient, session: RecordedSession, observation: Observation, exchange: Exchange
    ) -> None:
        sent, repeated = repeating(observation, exchange.answer, self._spec)
        self._gathered.repeated.update(repeated)
        try:
            reply = await client.infer(sent)
        except ConnectionLost:
            raise
        except PolicyserveError as error:
            self._refused(client, session.number, exchange, error)
            return
        self._refused_in_a_row = 0
        if exchange.actions is not None:
            self._gathered.answered(session.number, exchange.number, exchange.actions, reply.actions)
        if self._first is None and exchange.reset:
            self._first = _First(session.dialect, sent, np.array(reply.actions))

    def _refused(self, client: AsyncClient, session: int, exchange: Exchange, error: PolicyserveError) -> None:
        text = str(error)
        is_ours = "policyserve" in client.metadata
        code = (code_in_text(text) or error.code) if is_ours and isinstance(error, RemoteError) else error.code
        if exchange.actions is not None:
            self._gathered.refuse(session, exchange.number, code, text.removeprefix(f"{code}: "))
        self._refused_in_a_row += 1
        if self._refused_in_a_row >= GIVES_UP_AFTER:
            raise _GivenUp(f"{GIVES_UP_AFTER} requests in a row were refused")


class _Clock:
    """The time of a recorded session, on this one's clock."""

    def __init__(self) -> None:
        self._ahead_s: float | None = None  # of the recorded clock

    async def wait_for(self, recorded_at: float) -> None:
        """Wait until as much time has passed since the first call as had in the recording."""
        now = time.monotonic()
        if self._ahead_s is None:
            self._ahead_s = now - recorded_at
        await asyncio.sleep(max(recorded_at + self._ahead_s - now, 0))


def _spec_told(metadata: Mapping[str, Any]) -> PolicySpec | None:
    described = metadata.get("spec")
    try:
        return spec_of(described) if isinstance(described, Mapping) else None
    except PolicyserveError:  # a server of another version
        return None
