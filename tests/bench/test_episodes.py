"""Episodes that a served policy plays: what is sent, what comes back, and what does not fit."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from policyserve.bench.environments import Environment
from policyserve.bench.episodes import Plan, Target, actions_of, key_of, observed, play
from policyserve.bench.scores import Scores
from policyserve.core.arrays import Array
from policyserve.core.errors import ConfigError, RemoteError
from policyserve.core.messages import Reply
from policyserve.core.policy import FunctionPolicy
from policyserve.core.spec import ArraySpec, PolicySpec
from tests.server.live import serving

pytest.importorskip("gymnasium")

from tests.bench.toy_environments import HERE, STEPS, lean

DOT = f"{HERE}Dot-v0"


def played(policy: Any, plan: Plan, dialect: str = "vibe_rl") -> Scores:
    """Play against a server of ours."""
    scores = Scores()
    with serving(policy) as live:
        target = Target(f"ws://127.0.0.1:{live.port}", dialect)
        asyncio.run(play(target, plan, scores, lambda _: None))
    return scores


def test_every_seed_is_played_once_whatever_order_they_end_in() -> None:
    scores = played(lean, Plan(DOT, episodes=7, seed=3, sessions=3))
    assert [episode.seed for episode in scores.in_order] == [*range(3, 10)]
    assert [episode.steps for episode in scores.episodes] == [STEPS] * 7
    assert len(scores.round_trips_ms) == 7 * STEPS
    assert scores.seconds > 0
    again = played(lean, Plan(DOT, episodes=7, seed=3, sessions=1))
    assert again.in_order == scores.in_order


def test_a_chunk_is_played_step_by_step_and_dropped_where_the_episode_ends() -> None:
    spec = PolicySpec("chunks", {"obs": ArraySpec((2,))}, ArraySpec((), "int32"), horizon=8)
    scores = played(FunctionPolicy(lambda _: np.tile([0, 1], 4), spec), Plan(DOT, episodes=1), "openpi")
    assert scores.episodes[0].steps == STEPS
    assert len(scores.round_trips_ms) == 3  # 8 + 8 + 4


def test_the_only_key_of_a_greeting_is_the_one_that_is_sent() -> None:
    spec = PolicySpec("stateful", {"state": ArraySpec((2,))}, ArraySpec((), "int32"))
    policy = FunctionPolicy(lambda observation: lean(observation["state"]), spec)
    assert played(policy, Plan(DOT, episodes=1), "openpi").episodes
    assert key_of({"state": 1}) == "state"
    assert key_of({}) == key_of({"a": 1, "b": 2}) == "obs"


def test_what_a_policy_refuses_is_refused_once_and_told_with_what_it_was_shown() -> None:
    spec = PolicySpec("wide", {"obs": ArraySpec((4,))}, ArraySpec((), "int32"))
    with serving(FunctionPolicy(lambda _: 0, spec)) as live:
        target = Target(f"ws://127.0.0.1:{live.port}", "openpi")
        with pytest.raises(RemoteError) as refusal:
            asyncio.run(play(target, Plan(DOT, episodes=8), Scores(), lambda _: None))
        assert live.server is not None
        assert sum(live.server.counters.errors.values()) == 1
    told = str(refusal.value)
    assert "shows (obs float32 (2,)): " in told
    assert "obs: expected float32 (4,), got float32 (2,)" in told


@pytest.mark.parametrize(("dialect", "hint"), [("vibe_rl", "--dialect openpi a map"), ("openpi", "--obs-key names")])
def test_a_policy_that_finds_no_key_is_told_how_to_send_it(dialect: str, hint: str) -> None:
    with pytest.raises(RemoteError, match=hint):
        played(lambda observation: observation["state"], Plan(DOT, episodes=1), dialect)


def test_what_an_environment_shows_is_sent_as_policies_expect_it() -> None:
    numbers = observed(np.zeros(2), "state", DOT)
    assert (list(numbers), numbers["state"].dtype) == (["state"], np.float32)
    assert observed(3, "obs", DOT)["obs"].shape == ()
    picture = np.zeros((4, 4, 3), np.uint8)
    assert observed(picture, "obs", DOT)["obs"].dtype == np.uint8
    nested = observed({"robot": {"place": np.zeros(1)}, "task": "stay"}, "obs", DOT)
    assert (list(nested), nested["task"]) == (["robot/place", "task"], "stay")
    with pytest.raises(ConfigError, match=r"Dot-v0 shows tuple, expected arrays, or a map of them"):
        observed((np.zeros(2), "text", [1, [2]]), "obs", DOT)


def reply(actions: Any) -> Reply:
    array: Array = np.asarray(actions)
    return Reply(array, {}, {})


@pytest.mark.parametrize(
    ("name", "actions", "taken"),
    [
        ("Dot", 1, [1]),
        ("Dot", [0, 1, 1], [0, 1, 1]),
        ("Dot", 1.0, [1]),
        ("Slider", [0.01, 0.5], [[0.01, 0.5]]),
        ("Slider", [[0.01, 0.5], [0.02, 0.5]], [[0.01, 0.5], [0.02, 0.5]]),
    ],
)
def test_an_action_and_a_chunk_of_actions_are_taken(name: str, actions: Any, taken: Any) -> None:
    np.testing.assert_allclose(actions_of(reply(actions), Environment(f"{HERE}{name}-v0")), taken)


@pytest.mark.parametrize(
    ("name", "actions", "said"),
    [
        ("Dot", 2, "action is Discrete(2), the policy answers 2"),
        ("Dot", 0.5, "action is Discrete(2), the policy answers 0.5"),
        ("Dot", [[0.0]], "the policy answers float64 (1, 1)"),
        ("Slider", [0.01, 0.5, 0.5], "the policy answers float64 (3,)"),
        ("Paired", [0, 1], "Paired-v0 acts by Tuple(Discrete(2), Discrete(2)); expected an array of numbers"),
    ],
)
def test_an_action_that_the_environment_has_not_is_told(name: str, actions: Any, said: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        actions_of(reply(actions), Environment(f"{HERE}{name}-v0"))
    assert said in str(refusal.value)
