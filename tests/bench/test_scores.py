"""What `eval` prints and writes."""

from __future__ import annotations

from policyserve.bench.machine import this_machine
from policyserve.bench.scores import Episode, Scores, as_json, table

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
