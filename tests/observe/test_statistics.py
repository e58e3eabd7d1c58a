"""What a server has done, in words."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from policyserve.core.errors import Overloaded
from policyserve.core.messages import Timing
from policyserve.core.observer import SessionFacts
from policyserve.core.policy import ActionChunk
from policyserve.observe.counters import Counters
from policyserve.observe.statistics import Statistics, counted, duration, summary
from tests.server.live import ask, serving

CHUNK = ActionChunk(np.zeros(1))


def work(counters: Counters, answers: int, *, round_trip_ms: float, batch: int = 8, policy_ms: float = 17.0) -> None:
    for number in range(answers):
        counters.on_answer(1, number, CHUNK, Timing(2.0, policy_ms, round_trip_ms))
    for _ in range(answers // batch):
        counters.on_batch_ended(batch, policy_ms / 1e3)


def test_a_line_tells_what_a_person_looks_for() -> None:
    counters = Counters()
    statistics = Statistics(counters)
    for number in range(8):
        counters.on_session_opened(SessionFacts(number, "local", "auto"))
    work(counters, 2480, round_trip_ms=31.0)
    counters.on_refusal(1, 1, Overloaded("too much"))
    line = statistics.line(10.0, load=3)
    assert line == (
        "8 sessions · 248 answers/s · batch 8.0 · round trip p50 31 p99 33 ms · policy 17 ms · queue 2.0 ms · refused 1"
    )


def short_line(sessions: int, answers: int, refused: int = 0, *, batch: int, round_trip_ms: float) -> str:
    """What ten seconds of this look like on a terminal."""
    counters = Counters()
    statistics = Statistics(counters)
    for number in range(sessions):
        counters.on_session_opened(SessionFacts(number, "local", "auto"))
    work(counters, answers, round_trip_ms=round_trip_ms, batch=batch)
    for _ in range(refused):
        counters.on_refusal(1, 1, Overloaded("too much"))
    return statistics.line(10.0, load=0, is_short=True)


def test_on_a_terminal_of_80_columns_what_is_usual_takes_one_row() -> None:
    at_once = short_line(8, 2480, batch=8, round_trip_ms=31.0)
    assert at_once == "8 sessions · 248/s · batch 8.0 · p50 31 p99 33 ms · policy 17 ms"
    assert len(f"15:49:41 INFO {at_once}") < 80
    alone = short_line(1, 200, 12, batch=1, round_trip_ms=152.0)
    assert alone == "1 session · 20/s · p50 152 p99 164 ms · policy 17 ms · refused 12"
    assert len(f"15:49:41 INFO {alone}") < 80


def test_the_next_line_is_about_what_came_since() -> None:
    counters = Counters()
    statistics = Statistics(counters)
    work(counters, 1000, round_trip_ms=500.0)
    counters.on_refusal(1, 1, Overloaded("too much"))
    statistics.line(10.0, load=0)
    work(counters, 16, round_trip_ms=1.0, policy_ms=0.5)
    line = statistics.line(10.0, load=0)
    assert "1.6 answers/s" in line
    assert "p50 1 p99 1.1 ms" in line
    assert "refused 0" in line


def test_nothing_is_told_of_a_server_that_is_idle() -> None:
    counters = Counters()
    statistics = Statistics(counters)
    counters.on_session_opened(SessionFacts(1, "local", "auto"))
    assert statistics.line(10.0, load=0) == ""
    work(counters, 8, round_trip_ms=1.0)
    assert statistics.line(10.0, load=0)
    assert statistics.line(10.0, load=0) == ""


def test_a_policy_that_answers_nothing_is_told_with_what_waits_for_it() -> None:
    counters = Counters()
    counters.on_session_opened(SessionFacts(1, "local", "auto"))
    assert Statistics(counters).line(10.0, load=1) == "1 session · 0 answers/s · 1 request unanswered · refused 0"


def test_a_life_is_told_in_one_line() -> None:
    counters = Counters()
    assert summary(counters, 3.2) == "stopped after 3 s: 0 answers"
    work(counters, 120_345, round_trip_ms=14.0)
    for _ in range(12):
        counters.on_refusal(1, 1, Overloaded("too much"))
    assert summary(counters, 7385) == "stopped after 2 h 3 min: 120,345 answers, 12 refused, p99 14 ms"


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0.4, "0 s"), (59.6, "1 min 0 s"), (61, "1 min 1 s"), (3600, "1 h 0 min"), (86400 * 3 + 7200, "3 d 2 h")],
)
def test_a_time_has_its_two_largest_units(seconds: float, told: str) -> None:
    assert duration(seconds) == told


def test_one_of_a_thing_has_no_s() -> None:
    assert [counted(count, "request") for count in (0, 1, 1200)] == ["0 requests", "1 request", "1,200 requests"]


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "policyserve.observe.statistics"]


def test_a_server_logs_a_line_while_there_is_work(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "policyserve"), serving(stats_every_s=0.02) as live, live.websocket() as peer:
        assert ask(peer, 1.0) == 1.0
        beginning = "1 session · 50 answers/s · batch 1.0 · round trip p50 "
        live.until(lambda server: any(line.startswith(beginning) for line in lines(caplog)))


def test_a_server_that_is_told_to_logs_none(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "policyserve"), serving(stats_every_s=0) as live, live.websocket() as peer:
        assert ask(peer, 1.0) == 1.0
        assert live.call(lambda: live.server.statistics._timer) is None  # pyright: ignore[reportPrivateUsage]
    assert lines(caplog) == []
