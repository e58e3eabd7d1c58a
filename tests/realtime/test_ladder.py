"""What a robot gets when no row is left."""

from __future__ import annotations

from typing import Any

import pytest

from policyserve.core.errors import ConfigError
from policyserve.realtime.ladder import KINDS, ladder_for, read_fallback, read_kind


def names(ladder: Any) -> list[str]:
    return [rung.name for rung in ladder.rungs]


def test_what_is_safe_depends_on_the_kind_of_action() -> None:
    assert ladder_for("position", None).rungs[0] == ("hold", 0.5)
    assert {kind: names(ladder_for(kind, None)) for kind in KINDS} == {
        "position": ["hold", "stop"],
        "velocity": ["zero", "stop"],
        "delta": ["zero", "stop"],
        "torque": ["zero", "stop"],
    }


def test_without_a_kind_the_user_names_what_to_do() -> None:
    with pytest.raises(ConfigError, match=r"hold a velocity is a runaway.*velocity, delta, torque.*fallback="):
        ladder_for(None, None)
    assert names(ladder_for(None, read_fallback([("hold", 0.2), "stop"]))) == ["hold", "stop"]


@pytest.mark.parametrize("kind", ["velocity", "delta", "torque"])
def test_what_moves_the_robot_is_never_held(kind: Any) -> None:
    with pytest.raises(ConfigError, match=f'"hold" would repeat a {kind}'):
        ladder_for(kind, read_fallback([("hold", 0.2), "stop"]))


@pytest.mark.parametrize("kind", [None, "position", "velocity", "torque"])
def test_increments_alone_are_repeated(kind: Any) -> None:
    chosen = read_fallback([("repeat", 0.2), "stop"])
    assert names(ladder_for("delta", chosen)) == ["repeat", "stop"]
    with pytest.raises(ConfigError, match='"repeat" is for action_kind="delta" alone'):
        ladder_for(kind, chosen)


def test_the_rungs_follow_each_other_and_the_last_is_to_stop() -> None:
    ladder = read_fallback([("hold", 0.5), ("decay", 1), ("zero", 2)])
    told = [(rung.name, pytest.approx(since)) for rung, since in map(ladder.at, (0, 0.4, 0.5, 1.4, 1.5, 3.4, 3.5, 99))]
    assert told == [
        *[("hold", 0), ("hold", 0.4)],
        *[("decay", 0), ("decay", 0.9)],
        *[("zero", 0), ("zero", 1.9)],
        *[("stop", 0), ("stop", 95.5)],
    ]


def test_a_rung_without_seconds_lasts() -> None:
    assert read_fallback(["zero"]).at(1e5)[0].name == "zero"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("hold", "expected rungs such as"),
        ([], "expected rungs such as"),
        (5, "expected rungs such as"),
        (["jump"], "expected one of hold, decay, zero, repeat, stop, got 'jump'"),
        ([("hold", 0)], "expected seconds, more than 0"),
        ([("hold", float("nan"))], "expected seconds, more than 0"),
        ([("hold", True)], "expected seconds, more than 0"),
        ([("hold", "1")], "expected seconds, more than 0"),
        ([("hold", 1, 2)], "got the rung"),
        ([5], "got the rung 5"),
        ([("stop", 1)], 'expected "stop" without seconds'),
        (["decay"], "decay without the seconds"),
        (["stop", ("hold", 1)], "expected stop as the last rung"),
        (["zero", "stop"], 'expected zero without seconds as the last rung.*; write ("zero", seconds)'),
    ],
)
def test_a_ladder_that_cannot_be_is_refused(given: Any, told: str) -> None:
    with pytest.raises(ConfigError, match=f"^fallback: .*{told}".replace("(", r"\(").replace(")", r"\)")):
        read_fallback(given)


def test_a_kind_that_nobody_knows_is_refused() -> None:
    assert read_kind(None) is None
    with pytest.raises(ConfigError, match="action_kind: expected one of position, velocity, delta, torque"):
        read_kind("speed")
