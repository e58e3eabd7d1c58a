"""openpi's ActionChunkBroker in real time: the robot goes on with the rows that it has while the policy is asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from policyserve.compat.openpi.client import at_step
from policyserve.compat.policy import BasePolicy
from policyserve.core.arrays import Array
from policyserve.core.errors import BadAction, ConfigError, DeadlineExceeded, PolicyserveError, Unavailable
from policyserve.core.log import Log
from policyserve.core.messages import Reply
from policyserve.realtime.ladder import Fallback
from policyserve.realtime.prefix import action_kind_of
from policyserve.realtime.settings import read_settings
from policyserve.realtime.sync import RealtimeExecution
from policyserve.realtime.values import Action, RealtimeStatus

log = Log(__name__)

_KEYS = ("actions", "action")
_ROWS = ("chunk", "blend")
_LOOKED_AGAIN_S = 0.05  # while nothing is there: a request that failed is made anew


class RealtimeActionChunkBroker(BasePolicy):
    """Hands out one row per call, as ActionChunkBroker does, and asks for the next chunk meanwhile.

    policy: anything with infer(dict) -> dict, openpi's own WebsocketClientPolicy too; a thread of ours calls it, and no
    other does. control_hz: rows per second; the loop runs at this rate. fallback: what infer() returns when no row is
    left, `(("hold", 0.5), "stop")` for example; None: it waits for the next chunk, as ActionChunkBroker does, so that
    the robot gets nothing meanwhile. settings: what else RealtimeSettings takes. Raises ConfigError for wrong ones.
    """

    def __init__(self, policy: Any, control_hz: float, *, fallback: Fallback | None = None, **settings: Any) -> None:
        self._policy = _AskedPolicy(policy)
        self._waits = fallback is None
        kind = settings.get("action_kind") or action_kind_of(self._policy.metadata)
        # What is held while infer() waits goes nowhere, but the next chunk fades in from it: from a robot at rest.
        resting = "hold" if kind in (None, "position") else "zero"
        chosen = (resting,) if fallback is None else fallback
        read = read_settings(type(self).__name__, control_hz, {**settings, "fallback": chosen})
        self._execution = RealtimeExecution(self._policy, read)
        self._is_closed = self._has_warned = False

    def infer(self, obs: dict[str, Any]) -> dict[str, Any]:
        """The row that is due: what the policy answered, and of each array with as many rows as the chunk has this one.

        It waits for the first chunk of an episode, for ever if no answer has one: the log says so once. What the policy
        raised for good is raised when no row is left, and so is Unavailable where the fallback has ended with a stop.
        """
        self._observe(obs)
        while not self._is_closed:
            action = self._execution.act()
            if action.source in _ROWS or (action.values is not None and not self._waits):
                return self._row(action)
            if action.source == "stop":
                raise Unavailable(f"the robot is stopped: no actions came; {self.status.error or 'nothing is known'}")
            self._wait(obs)
        raise ConfigError("infer: expected a broker that is open, got a call after close()")

    def reset(self) -> None:
        """Drop the rows, and reset the policy before it is asked again. An answer under way will be dropped."""
        self._execution.reset()
        self._policy.reset_unless_used()

    @property
    def status(self) -> RealtimeStatus:
        """A snapshot: rows left, latencies, starved steps."""
        return self._execution.status

    @property
    def metadata(self) -> dict[str, Any]:
        """What the policy's server said when this was made; empty where nobody said anything."""
        return dict(self._policy.metadata)

    def close(self) -> None:
        """Ask no more. The policy is closed by whoever made it."""
        self._is_closed = True
        self._execution.close()

    def _observe(self, obs: dict[str, Any]) -> None:
        try:
            self._execution.observe(obs)
        except PolicyserveError:
            return  # it is raised when no row is left: until then the robot goes on

    def _wait(self, obs: dict[str, Any]) -> None:
        try:
            self._execution.wait_until_ready(_LOOKED_AGAIN_S)
        except DeadlineExceeded:
            self._warn_of_bad_answers()
            self._observe(obs)
        except PolicyserveError as error:
            raise (self._policy.raised or error).with_traceback(None) from None

    def _warn_of_bad_answers(self) -> None:
        status = self.status
        if status.bad_answers and status.error and not self._has_warned:
            self._has_warned = True
            log.warning(
                "infer() waits for a chunk, and the last answer was none that can be executed: %s", status.error
            )

    def _row(self, action: Action) -> dict[str, Any]:
        newest, values = self._execution.newest_chunk, action.values
        assert newest is not None
        assert values is not None
        key = _key_of(newest.fields)
        rows: Array = newest.fields[key]
        number = min(max(action.plan_step - newest.first, 0), len(rows) - 1)
        others = {name: value for name, value in newest.fields.items() if name != key}
        return {**at_step(others, number, len(rows)), key: values.astype(rows.dtype, copy=False)}


class _AskedPolicy:
    """A policy as what RealtimeExecution asks. raised: by the policy, last."""

    sessions_opened = 1

    def __init__(self, policy: Any) -> None:
        if not callable(getattr(policy, "infer", None)):
            raise ConfigError(f"policy: expected an object with infer(observation), got {type(policy).__name__}")
        self._policy = policy
        self.metadata = _metadata_of(policy)
        self.raised: Exception | None = None
        self._is_used = False

    def connect(self) -> None:
        """There is nothing to connect."""

    def infer(self, observation: Any) -> Reply:
        self._is_used = True
        try:
            fields = _checked(self._policy.infer(observation))
        except Exception as error:  # a policy of anybody's
            self.raised = error
            raise
        return Reply(fields[_key_of(fields)], {}, fields)

    def reset(self) -> None:
        self._is_used = False
        reset = getattr(self._policy, "reset", None)
        try:
            if callable(reset):
                reset()
        except Exception as error:  # a policy of anybody's
            self.raised = error
            raise

    def reset_unless_used(self) -> None:
        """Reset it here and now where it was not asked since the last time: nobody else does it then."""
        if not self._is_used:
            self.reset()

    def close(self) -> None:
        """It is closed by whoever made it."""


def _metadata_of(policy: Any) -> Mapping[str, Any]:
    """What the policy's server said, in the original's words or ours."""
    told = getattr(policy, "get_server_metadata", None)
    metadata = told() if callable(told) else getattr(policy, "metadata", None)
    return metadata if isinstance(metadata, Mapping) else {}


def _key_of(fields: Mapping[str, Any]) -> str:
    return next(key for key in _KEYS if key in fields)


def _checked(fields: Any) -> Mapping[str, Any]:
    """An answer with a chunk in it; raises BadAction."""
    if not isinstance(fields, Mapping) or not any(key in fields for key in _KEYS):
        got = f"keys {', '.join(map(str, fields))}" if isinstance(fields, Mapping) else type(fields).__name__
        raise BadAction(f"infer: expected a map with actions, got {got}")
    rows = fields[_key_of(fields)]
    if not isinstance(rows, np.ndarray) or rows.ndim != 2 or not len(rows):
        got = f"{rows.dtype} {rows.shape}" if isinstance(rows, np.ndarray) else type(rows).__name__
        raise BadAction(f"infer: expected actions as rows, (steps, numbers), got {got}")
    return fields
