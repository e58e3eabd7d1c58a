"""A policy that asks another server: a connection for each session, all of a batch at the same time.

What must stay true: a session's connection is its state and nothing else refers to it, so that it is closed when the
session goes; and one request's failure is that request's alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from weakref import WeakSet, finalize

from policyserve import dialects
from policyserve.client.aio import AsyncClient
from policyserve.core.dialect import request_writer
from policyserve.core.errors import Overloaded, PolicyserveError, WireError, failed
from policyserve.core.log import Log
from policyserve.core.messages import Observation, Reply
from policyserve.core.policy import NO_EXTRAS, ActionChunk, PolicyInput
from policyserve.core.spec import PolicySpec
from policyserve.policies.remote.loop_thread import LoopThread
from policyserve.policies.remote.opening import Remote
from policyserve.policies.remote.told_errors import told_error

log = Log(__name__)

_NO_EXTRAS = {"actions", "action", "predict_action", "server_timing", "latency_ms"}  # this server writes its own


class RemotePolicy:
    """Answers with what another server answers.

    remote: that server. spec: what it takes and gives. max_sessions: how many sessions may have a connection there at a
    time; one more is refused as overloaded. A session's first request opens its connection, so that a new session here
    is a new one there. Nothing is warmed up: zeros would open sessions there for nothing.
    """

    buckets: Sequence[int] = ()

    def __init__(self, remote: Remote, spec: PolicySpec, max_sessions: int) -> None:
        self.spec = replace(spec, max_batch=max_sessions)
        self._remote = remote
        self._max_sessions = max_sessions
        self._thread = LoopThread("policyserve-remote")
        self._open: WeakSet[_Connection] = WeakSet()

    def infer(self, batch: Sequence[PolicyInput]) -> list[ActionChunk | PolicyserveError]:
        """Ask for all at the same time; the slowest answer ends the call. Raises nothing."""
        connections = [self._connection_of(one) for one in batch]
        return self._thread.run(self._answers(batch, connections))

    def close(self) -> None:
        """Close every session's connection."""
        self._thread.run(_close_all([connection.client for connection in self._open]))
        self._thread.close()

    def _connection_of(self, one: PolicyInput) -> _Connection | Overloaded:
        if one.state is not None:
            return one.state
        if len(self._open) >= self._max_sessions:
            most = f"{self._max_sessions} sessions have a connection to {self._remote.shown} each"
            return Overloaded(f"{most}, the most there may be (--remote-sessions)")
        connection = _Connection(self._remote.client(), self._thread)
        self._open.add(connection)
        return connection

    async def _answers(
        self, batch: Sequence[PolicyInput], connections: Sequence[_Connection | Overloaded]
    ) -> list[ActionChunk | PolicyserveError]:
        asked = [self._answer(one, connection) for one, connection in zip(batch, connections, strict=True)]
        return await asyncio.gather(*asked)

    async def _answer(self, one: PolicyInput, connection: _Connection | Overloaded) -> ActionChunk | PolicyserveError:
        if isinstance(connection, Overloaded):
            return connection
        observation = one.observation if isinstance(one.observation, Mapping) else {"obs": one.observation}
        reply = await self._ask(connection.client, observation, connection.has_answered)
        if isinstance(reply, PolicyserveError):
            if not connection.has_answered:  # no chunk takes it to the session
                self._open.discard(connection)
                connection.forget()
            return reply
        connection.has_answered = True
        return ActionChunk(reply.actions, connection, _extras(reply))

    async def _ask(self, client: AsyncClient, observation: Observation, had_memory: bool) -> Reply | PolicyserveError:
        """Knows no _Connection, which an error's traceback would keep alive."""
        try:
            return await client.infer(observation)
        except PolicyserveError as error:
            is_sendable = not isinstance(error, WireError) or self._is_sendable(observation)
            return told_error(error, is_sendable, had_memory)
        except Exception as error:  # the other requests of the batch have been sent, and must not be sent again
            return failed(f"the connection to {self._remote.shown} raised", error)

    def _is_sendable(self, observation: Observation) -> bool:
        """Whether the remote's dialect can carry it; asked where something could not be written or read."""
        try:
            request_writer(dialects.by_name(self._remote.spoken))(observation)
        except WireError:
            return False
        return True


class _Connection:
    """One session's connection. It is closed by forget(), or when its session is, since nobody refers to it then."""

    def __init__(self, client: AsyncClient, thread: LoopThread) -> None:
        self.client = client
        self.has_answered = False
        self.forget = finalize(self, thread.begin, lambda: _close(client))
        self.forget.atexit = False


async def _close_all(clients: Sequence[AsyncClient]) -> None:
    await asyncio.gather(*map(_close, clients))


async def _close(client: AsyncClient) -> None:
    try:
        await client.close()
    except Exception as error:  # it is gone either way
        log.debug("closing a connection to %s: %s", client.url, error)


def _extras(reply: Reply) -> Mapping[str, Any]:
    more = {key: value for key, value in reply.fields.items() if key not in _NO_EXTRAS}
    return more or NO_EXTRAS
