"""openpi's ActionChunkBroker in real time: the robot goes on with the rows that it has while the policy is asked."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from time import monotonic as now
from typing import Any

import numpy as np

from policyserve.compat.openpi.client import at_step
from policyserve.compat.policy import BasePolicy
from policyserve.core.arrays import Array
from policyserve.core.errors import BadAction, ConfigError, PolicyserveError, Unavailable
from policyserve.realtime.ladder import Fallback
from policyserve.realtime.machine import Realtime
from policyserve.realtime.prefix import action_kind_of
from policyserve.realtime.settings import RealtimeSettings
from policyserve.realtime.values import Action, Ask, Connect, MergedChunk, RealtimeStatus, Renew, Rest

_KEYS = ("actions", "action")
_ROWS = ("chunk", "blend")


class RealtimeActionChunkBroker(BasePolicy):
    """Hands out one row per call, as ActionChunkBroker does, and asks for the next chunk meanwhile.

    policy: anything with infer(dict) -> dict, openpi's own WebsocketClientPolicy too; a thread of ours calls it, and no
    other does. control_hz: rows per second; the loop runs at this rate. fallback: what infer() returns when no row is
    left, `(("hold", 0.5), "stop")` for example; None: it waits for the next chunk, as ActionChunkBroker does, so that
    the robot gets nothing meanwhile. settings: what else RealtimeClient takes. Raises ConfigError for wrong ones.
    """

    def __init__(self, policy: Any, control_hz: float, *, fallback: Fallback | None = None, **settings: Any) -> None:
        if not callable(getattr(policy, "infer", None)):
            raise ConfigError(f"policy: expected an object with infer(observation), got {type(policy).__name__}")
        self._metadata = _metadata_of(policy)
        self._waits = fallback is None
        kind = settings.get("action_kind") or action_kind_of(self._metadata)
        # What is held while infer() waits goes nowhere, but the next chunk fades in from it: from a robot at rest.
        resting = "hold" if kind in (None, "position") else "zero"
        self._settings = RealtimeSettings(control_hz, fallback=(resting,) if fallback is None else fallback, **settings)
        self._asking = _Asking(policy, self._settings, self._metadata)
        self._merged: MergedChunk | None = None

    def infer(self, obs: dict[str, Any]) -> dict[str, Any]:
        """The row that is due: what the policy answered, and of each array with as many rows as the chunk has this one.

        It waits for the first chunk of an episode. What the policy raised for good is raised when no row is left, and
        so is Unavailable where the fallback has ended with a stop.
        """
        asking = self._asking
        asking.observe(obs)
        while True:
            asking.has_news.clear()
            action = asking.act()
            if action.source in _ROWS or (action.values is not None and not self._waits):
                return self._row(action)
            asking.raise_failure()
            if action.source == "stop":
                raise Unavailable(f"the robot is stopped: no actions came; {asking.status.error or 'nothing is known'}")
            asking.has_news.wait()
            if not asking.has_rows:  # what was asked has failed
                asking.observe(obs)

    def reset(self) -> None:
        """Drop the rows, and reset the policy before it is asked again. An answer under way will be dropped."""
        self._asking.reset()

    @property
    def status(self) -> RealtimeStatus:
        """A snapshot: rows left, latencies, starved steps."""
        return self._asking.status

    @property
    def metadata(self) -> Mapping[str, Any]:  # type: ignore[override]
        """What the policy's server said when this was made; empty where nobody said anything."""
        return self._metadata

    def close(self) -> None:
        """Ask no more. The policy is closed by whoever made it."""
        self._asking.close()

    def _row(self, action: Action) -> dict[str, Any]:
        for change in self._asking.changes():
            self._merged = change if isinstance(change, MergedChunk) else self._merged
        merged, values = self._merged, action.values
        assert merged is not None
        assert values is not None
        key = _key_of(merged.fields)
        rows: Array = merged.fields[key]
        number = min(max(action.plan_step - merged.first, 0), len(rows) - 1)
        others = {name: value for name, value in merged.fields.items() if name != key}
        row = values.reshape(rows.shape[1:]).astype(rows.dtype, copy=False)
        return {**at_step(others, number, len(rows)), key: row}


class _Asking:
    """The thread that asks the policy, and what both threads use."""

    def __init__(self, policy: Any, settings: RealtimeSettings, metadata: Mapping[str, Any]) -> None:
        self._policy = policy
        self._metadata = metadata
        self._is_wanted = threading.Event()
        self.has_news = threading.Event()
        self._machine = Realtime(settings, lock=threading.Lock(), wake=self._is_wanted.set, tell=lambda: None)
        self._resets = self._resets_passed_on = 0
        self._is_closed = False
        self._raised: Exception | None = None  # by the policy's infer(), last
        self._reset_raised: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="policyserve-realtime-broker", daemon=True)

    @property
    def status(self) -> RealtimeStatus:
        return self._machine.status(now())

    @property
    def has_rows(self) -> bool:
        return self._machine.has_rows

    def observe(self, observation: Any) -> None:
        self._start()
        try:
            self._machine.observe(observation, now())
        except PolicyserveError:
            return  # it is raised when no row is left: until then the robot goes on

    def act(self) -> Action:
        return self._machine.act(now())

    def changes(self) -> list[Any]:
        return self._machine.changes()

    def raise_failure(self) -> None:
        """Raise what ended the asking for good."""
        failed = self._reset_raised or (self._raised if self._machine.failed else None) or self._machine.failed
        if failed is not None:
            raise failed.with_traceback(None)

    def reset(self) -> None:
        self._machine.reset(now())
        self._resets += 1  # after it: a request of before is known to be one by then
        self._reset_raised = None
        self._start()
        self._is_wanted.set()

    def close(self) -> None:
        self._is_closed = True
        self._is_wanted.set()
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _start(self) -> None:
        if self._is_closed:
            raise ConfigError("expected a broker that is open, got a call after close()")
        if self._thread.ident is None:
            self._thread.start()

    def _run(self) -> None:
        while not self._is_closed:
            self._is_wanted.clear()
            self._pass_resets_on()
            step = self._machine.next_step(now())
            if isinstance(step, Rest):
                self._is_wanted.wait(step.seconds)
            elif isinstance(step, Ask):
                self._ask(step)
            else:
                assert isinstance(step, (Connect, Renew))
                self._machine.on_connected(self._metadata, now())
                self.has_news.set()

    def _ask(self, ask: Ask) -> None:
        if ask.epoch < self._resets:  # of before a reset, which must not reach the policy behind it
            self._machine.on_answer(ask, np.zeros((1, 1)), now())
            return
        self._pass_resets_on()
        try:
            fields = _checked(self._policy.infer(ask.observation))
            rows = fields[_key_of(fields)]
            self._machine.on_answer(ask, rows.reshape(len(rows), -1), now(), fields)
        except Exception as error:  # a policy of anybody's
            self._raised = error
            self._machine.on_failure(ask, error, now())
        self.has_news.set()

    def _pass_resets_on(self) -> None:
        if self._resets_passed_on == self._resets:
            return
        self._resets_passed_on = self._resets
        reset = getattr(self._policy, "reset", None)
        try:
            if callable(reset):
                reset()
        except Exception as error:  # a policy of anybody's
            self._reset_raised = error
            self.has_news.set()


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
    if not isinstance(rows, np.ndarray) or rows.ndim < 2 or not len(rows):
        got = f"{rows.dtype} {rows.shape}" if isinstance(rows, np.ndarray) else type(rows).__name__
        raise BadAction(f"infer: expected actions as rows, (steps, numbers), got {got}")
    return fields
