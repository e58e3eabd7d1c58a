"""Episodes in virtual time."""

from __future__ import annotations

from itertools import repeat
from typing import Any

import numpy as np
import pytest

from policyserve.core.errors import ConfigError
from policyserve.realtime.settings import RealtimeSettings
from policyserve.realtime.values import Ask
from policyserve.realtime.virtual import VirtualRealtime, VirtualStep
from tests.realtime.virtual import GREETING, HZ

HORIZON = 50
WITH_RTC = {**GREETING, "spec": {"observation": {"rtc/prev_chunk": {"shape": [HORIZON, 1]}}}}


def episode(latency_s: float, metadata: Any = GREETING, **settings: Any) -> VirtualRealtime:
    return VirtualRealtime(RealtimeSettings(HZ, **settings), repeat(latency_s), metadata)


def lived(realtime: VirtualRealtime, steps: int) -> tuple[list[VirtualStep], list[Ask]]:
    """Steps with a policy whose row i for an observation of step n is n + i."""
    taken, asked = [], []
    for number in range(steps):
        ask = realtime.ask({"step": number})
        if ask is not None:
            asked.append(ask)
            rows = ask.observation["step"] + np.arange(HORIZON, dtype=float)[:, None]
            realtime.answer(ask, rows, {"rtc": {"method": "guided"}})
        taken.append(realtime.act())
    return taken, asked


def test_the_first_chunk_is_there_at_once_and_the_others_after_their_latency() -> None:
    taken, asked = lived(episode(0.1), 40)
    assert [ask.observation["step"] for ask in asked] == [0, 1, 6, 11, 16, 21, 26, 31, 36]
    assert [number for number, step in enumerate(taken) if step.has_joined] == [0, 6, 11, 16, 21, 26, 31, 36]
    assert [step.action.values[0] for step in taken if step.action.values is not None] == pytest.approx(list(range(40)))


def test_an_action_is_as_old_as_its_observation() -> None:
    taken, _ = lived(episode(0.1), 40)
    assert [round(step.action.age_s * HZ) for step in taken[6:16]] == [5, 6, 7, 8, 9, 5, 6, 7, 8, 9]


def test_without_latency_each_step_is_asked_for_and_answered_in_itself() -> None:
    taken, asked = lived(episode(0.0), 10)
    assert len(asked) == 10
    assert {step.action.age_s for step in taken} == {0.0}


def test_what_a_chunk_does_not_reach_is_starved() -> None:
    realtime = episode(0.7, fallback=("hold",))
    taken, _ = lived(realtime, 100)
    held = [number for number, step in enumerate(taken) if step.action.source == "hold"]
    assert held == list(range(51, 71))  # asked at step 36, while the chunk of step 1 reaches to step 50
    assert realtime.status.starved_steps == 20


def test_requests_carry_the_rows_that_run_meanwhile_where_the_server_has_rtc() -> None:
    realtime = episode(0.1, WITH_RTC)
    _, asked = lived(realtime, 40)
    last = asked[-1]
    assert last.observation["rtc/prev_chunk"][:3, 0].tolist() == [36, 37, 38]
    assert (last.observation["rtc/prev_length"], last.observation["rtc/inference_delay"]) == (45, 5)
    assert realtime.status.rtc == "guided"


def test_twice_the_same_is_the_same() -> None:
    first, second = (lived(episode(0.07), 100)[0] for _ in range(2))
    assert [step.action.values.tolist() for step in first] == [step.action.values.tolist() for step in second]  # type: ignore[union-attr]


def test_what_the_server_cannot_do_is_told_in_the_beginning() -> None:
    with pytest.raises(ConfigError, match="rtc: expected a server whose spec lists rtc/prev_chunk"):
        episode(0.1, rtc="require")
    with pytest.raises(ConfigError, match="hold a velocity is a runaway"):
        episode(0.1, metadata=None)
