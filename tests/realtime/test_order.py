"""Whatever comes in whatever order: no plan step twice, rows in order, nothing of before a reset, none when stopped."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from policyserve.core.errors import ConnectionLost, RemoteError
from policyserve.realtime.values import Action, Ask, Connect, Renew, Rest
from tests.realtime.virtual import GREETING, HZ, machine

HORIZON = 8


class AnyOrder(RuleBasedStateMachine):
    """Each row says of which observation it is, and for which plan step."""

    def __init__(self) -> None:
        super().__init__()
        self.realtime = machine(blend_steps=0, fallback=[("hold", 0.1), "stop"])
        self.now = 0.0
        self.observed: list[int] = []  # the epoch of each observation
        self.epoch = 0
        self.is_stopped = False
        self.under_way: Ask | None = None
        self.old: list[Ask] = []  # that were answered, failed or given up
        self.last: Action | None = None
        self.sessions = 0

    @rule(steps=st.integers(1, 12))
    def time_passes(self, steps: int) -> None:
        self.now += steps / HZ

    @rule()
    def observe(self) -> None:
        status = self.realtime.status(self.now)
        if status.failed is None:
            self.realtime.observe({"number": len(self.observed)}, self.now)
            self.observed.append(self.epoch)

    @rule(periods=st.integers(1, 12))
    def act(self, periods: int) -> None:
        for _ in range(periods):
            self.now += 1 / HZ
            self.check(self.realtime.act(self.now))

    @rule()
    def act_again_at_once(self) -> None:
        self.check(self.realtime.act(self.now))

    @rule()
    def work(self) -> None:
        if self.under_way is not None:
            return
        for _ in range(4):
            step = self.realtime.next_step(self.now)
            if isinstance(step, Rest):
                return
            if isinstance(step, Ask):
                self.under_way = step
                return
            assert isinstance(step, (Connect, Renew))
            self.sessions += isinstance(step, Renew) or not self.realtime.status(self.now).is_connected
            self.realtime.on_connected(GREETING, self.now, self.sessions)
        raise AssertionError("it never comes to an end")

    @precondition(lambda self: self.under_way is not None)
    @rule(horizon=st.integers(1, HORIZON))
    def answer(self, horizon: int) -> None:
        ask = self.given_up()
        self.realtime.on_answer(ask, self.rows(ask, horizon), self.now)

    @precondition(lambda self: self.under_way is not None)
    @rule(error=st.sampled_from([ConnectionLost("gone"), RemoteError("full", code="overloaded"), RemoteError("no")]))
    def fail(self, error: RemoteError) -> None:
        self.realtime.on_failure(self.given_up(), error, self.now)

    @precondition(lambda self: self.under_way is not None)
    @rule()
    def answer_with_nan(self) -> None:
        self.realtime.on_answer(self.given_up(), np.full((2, 2), np.nan), self.now)

    @precondition(lambda self: self.old)
    @rule(data=st.data())
    def answer_once_more(self, data: st.DataObject) -> None:
        ask = data.draw(st.sampled_from(self.old))
        self.realtime.on_answer(ask, self.rows(ask, HORIZON), self.now)

    @rule()
    def reset(self) -> None:
        self.realtime.reset(self.now)
        self.epoch += 1
        self.is_stopped = False

    @rule()
    def stop(self) -> None:
        self.realtime.stop(self.now)
        self.epoch += 1
        self.is_stopped = True

    @rule()
    def resume(self) -> None:
        if self.realtime.status(self.now).state == "STOPPED":
            self.epoch += 1
        self.realtime.resume(self.now)
        self.is_stopped = False

    @invariant()
    def its_state_is_told(self) -> None:
        status = self.realtime.status(self.now)
        assert (status.state == "STOPPED") >= self.is_stopped
        assert status.chunks + status.stale + status.expired + status.superseded <= status.requests + len(self.old) * 99

    def given_up(self) -> Ask:
        ask, self.under_way = self.under_way, None
        assert ask is not None
        self.old.append(ask)
        return ask

    def rows(self, ask: Ask, horizon: int) -> Any:
        return np.stack([np.full(horizon, ask.observation["number"]), ask.first + np.arange(horizon)], 1).astype(float)

    def check(self, action: Action) -> None:
        before, self.last = self.last, action
        if self.is_stopped:
            assert (action.values is None, action.source) == (True, "stop")
        if action.source != "chunk":
            return
        assert action.values is not None
        number, step = action.values.astype(int)
        assert step == action.plan_step, "a row for its own step"
        assert self.observed[number] == self.epoch, "nothing of before a reset or a stop"
        if before is not None:
            assert action.plan_step - before.plan_step in ((0, 1) if before.source == "chunk" else (0,))


AnyOrder.TestCase.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
TestAnyOrder = AnyOrder.TestCase
