"""What `eval` prints and writes."""

from __future__ import annotations

import numpy as np

from policyserve.bench.machine import this_machine
from policyserve.bench.scores import Episode, RealTime, Scores, as_json, table
from policyserve.realtime.smoothness import Smoothness

SCORES = Scores([Episode(1, 20.0, 30), Episode(0, 10.0, 1)], [1.0, 2.0, 3.0], seconds=2.0)
POLICY = (("policy", "m:act"),)


def test_the_table_says_what_was_played_and_how_it_went() -> None:
    assert table("Dot-v0", POLICY, SCORES) == (
        "environment  Dot-v0\n"
        "policy       m:act\n"
        "episodes     2, of 1 … 30 steps\n"
        "return       15.0 ± 5.0   (worst 10.0, best 20.0)\n"
        "answers      3 in 2.0 s, 2 per second\n"
        "round trip   p50 2.00 ms, p99 3.00 ms"
    )
    told = Scores([Episode(0, 1.0, 1)], [1.0], notes=["the film ends early"])
    assert table("Dot-v0", POLICY, told).endswith("\n             the film ends early")
    assert "episodes     1, of 1 step\n" in table("Dot-v0", POLICY, Scores([Episode(0, 1.0, 1)], [1.0]))


def test_the_figures_have_the_episodes_by_their_seeds() -> None:
    document = as_json("Dot-v0", POLICY, SCORES, this_machine())
    assert document["return"] == {"mean": 15.0, "std": 5.0, "min": 10.0, "max": 20.0}
    assert document["episodes"] == [
        {"seed": 0, "return": 10.0, "steps": 1},
        {"seed": 1, "return": 20.0, "steps": 30},
    ]
    assert document["policy"] == "m:act"
    assert document["round_trip_ms"] == {"p50": 2.0, "p90": 3.0, "p99": 3.0, "max": 3.0}


def in_real_time() -> Scores:
    smoothness = Smoothness()
    smoothness.chunk(np.array([[0.0], [0.5]]))
    for values, source in ((0.0, "chunk"), (0.5, "blend"), (0.5, "hold"), (0.5, "hold")):
        smoothness.sent(np.array([values]), source, 0.1, source == "blend")  # type: ignore[arg-type]
    return Scores(
        [Episode(0, 1.0, 4)], [1.0], smoothness=smoothness, real_time=RealTime(50.0, 120.0, 40.0, "guided", 5)
    )


def test_of_real_time_the_table_says_how_smooth_it_was() -> None:
    told = table("Dot-v0", POLICY, in_real_time()).splitlines()[-5:]
    assert told == [
        "real time    50 Hz, answers after 120 ± 40 ms, rtc guided, blend 5 actions",
        "starved      2 of 4 steps (50.0 %), the longest pause 40 ms",
        "action age   mean 100 ms, p99 100 ms",
        "seams        p50 1.00, p95 1.00, worst 1.00   (× the policy's own step, p99)",
        "chunks       1, 12.5 per second of the episodes",
    ]
    quiet = Scores([Episode(0, 1.0, 4)], [1.0], real_time=RealTime(50.0, 0.0, 0.0, None, 0))
    assert "50 Hz, answers after 0 ms, rtc none, no blend" in table("Dot-v0", POLICY, quiet)
    assert "seams        none" in table("Dot-v0", POLICY, quiet)


def test_of_real_time_the_figures_are_there_and_else_they_are_not() -> None:
    figures = as_json("Dot-v0", POLICY, in_real_time(), this_machine())["realtime"]
    assert figures["longest_pause_ms"] == 40
    assert figures["seam"] == {"p50": 1.0, "p95": 1.0, "max": 1.0}
    assert "realtime" not in as_json("Dot-v0", POLICY, SCORES, this_machine())
