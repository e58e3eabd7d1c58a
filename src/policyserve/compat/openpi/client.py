"""The robot's half of openpi: a policy that asks a server, and one that hands a chunk out step by step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from policyserve.client.sync import Client
from policyserve.compat.asking import DAY_S, connect_when_there, runtime_errors
from policyserve.compat.policy import BasePolicy
from policyserve.core.errors import ConfigError


class WebsocketClientPolicy(BasePolicy):
    """A policy that lives on a server; making it waits until the server is there and its policy is loaded.

    host: a name or address, or a whole ws:// or wss:// URL. port: None where the host says it already.
    timeout_s: for each answer. Actions are handed on as the server sent them, NaN among them too. Raises ConfigError
    for a host, port or key that is none.
    """

    def __init__(
        self, host: str = "0.0.0.0", port: int | None = None, api_key: str | None = None, *, timeout_s: float = DAY_S
    ) -> None:
        self._client = Client(
            _url_of(host, port),
            dialect="openpi",
            api_key=api_key,
            timeout_s=timeout_s,
            retry_for_s=0,
            check_actions=False,
        )
        connect_when_there(self._client)
        self._metadata = dict(self._client.metadata)

    def infer(self, obs: dict[str, Any]) -> dict[str, Any]:
        """Send an observation and return all that the server answers, `actions` among it.

        Raises RuntimeError for the server's refusal, ConnectionLost if the connection ends; the next call then
        opens a new one.
        """
        with runtime_errors():
            return dict(self._client.infer(obs))

    def reset(self) -> None:
        """Do nothing, as the original: its server has no such message."""

    def get_server_metadata(self) -> dict[str, Any]:
        """What the server said when this client was made."""
        return self._metadata

    @property
    def metadata(self) -> dict[str, Any]:
        return self._metadata

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


def _url_of(host: Any, port: Any) -> str:
    if not isinstance(host, str) or not host.strip():
        got = repr(host) if isinstance(host, str) else type(host).__name__
        raise ConfigError(f"host: expected a name, an address or a ws:// URL, got {got}")
    url = host if "://" in host else f"ws://{host}"
    if port is None:
        return url
    if not str(port).isdecimal() or not 0 < int(port) < 1 << 16:
        raise ConfigError(f"port: expected 1 … 65535, or None, got {port!r:.80}")
    return f"{url}:{port}"


class ActionChunkBroker(BasePolicy):
    """Asks `policy` for a chunk and hands out one of its steps per call, `action_horizon` of them.

    Every array of the answer, nested ones too, is taken for a chunk along its first axis; all else is passed on.
    """

    def __init__(self, policy: Any, action_horizon: int) -> None:
        self._policy = policy
        self._action_horizon = action_horizon
        self._chunk: Mapping[str, Any] | None = None
        self._step = 0

    def infer(self, obs: dict[str, Any]) -> dict[str, Any]:
        """The next step. Raises IndexError if an array has fewer steps than the horizon, when that step is due."""
        if self._chunk is None:
            self._chunk = self._policy.infer(obs)
            self._step = 0
        step = at_step(self._chunk, self._step)
        self._step += 1
        if self._step >= self._action_horizon:
            self._chunk = None
        return step

    def reset(self) -> None:
        """Drop what is left of the chunk, and reset the policy."""
        self._policy.reset()
        self._chunk = None


def at_step(value: Any, step: int, rows: int | None = None) -> Any:
    """One row of every array in an answer. rows: only of those with so many; None: of all with an axis."""
    if isinstance(value, np.ndarray) and value.ndim:
        return value[step, ...] if rows is None or len(value) == rows else value
    if isinstance(value, Mapping):
        return {key: at_step(inner, step, rows) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        items = [at_step(inner, step, rows) for inner in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return value
