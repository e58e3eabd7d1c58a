"""Gymnasium's environments: found by their ids, and what is wrong with one is one line that names it."""

from __future__ import annotations

import numpy as np
import pytest

from policyserve.bench.environments import Environment, find_environment
from policyserve.core.errors import ConfigError

pytest.importorskip("gymnasium")

from tests.bench.toy_environments import HERE, STEPS


@pytest.mark.parametrize(
    ("env_id", "said"),
    [
        ("CartPole", "Gymnasium has no environment 'CartPole' (did you mean CartPole-v1?)"),
        ("CartPole-v7", "(did you mean CartPole-v1?)"),
        ("cartpole-v1", "(did you mean CartPole-v1?)"),
        ("Pendulm-v1", "(did you mean Pendulum-v1?)"),
        ("Nowhere-v0", "no environment 'Nowhere-v0'; one of a package's own is package:ID"),
        (f"{HERE}Dto-v0", f"(did you mean {HERE}Dot-v0?)"),
        ("no_such_package:Dot-v0", "there is no module 'no_such_package'"),
        ("", "Gymnasium has no environment ''"),
    ],
)
def test_an_id_that_nobody_has_is_answered_with_the_nearest(env_id: str, said: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        find_environment(env_id)
    assert said in str(refusal.value)


def test_an_environment_is_driven_and_drawn() -> None:
    environment = Environment(f"{HERE}Dot-v0", draws=True)
    assert (environment.fps, environment.solved_return) == (50, 10.0)
    first = environment.reset(seed=3)
    assert environment.frame().shape == (31, 101, 3)
    np.testing.assert_array_equal(environment.reset(seed=3), first)
    overs = [environment.step(1)[2] for _ in range(STEPS)]
    assert overs == [False] * (STEPS - 1) + [True]
    environment.close()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Undrawn", "Undrawn-v0 draws no pictures: it renders ansi, not rgb_array"),
        ("Blind", "Blind-v0 draws float32 (4, 4), expected uint8 (height, width, 3)"),
        ("Broken", "Broken-v0 step() failed: RuntimeError: the simulator is gone"),
        ("Unmade", "Unmade-v0 cannot be made: physics is not installed, run `pip install physics`"),
    ],
)
def test_what_an_environment_cannot_do_is_told_with_its_name(name: str, said: str) -> None:
    def drive() -> None:
        environment = Environment(f"{HERE}{name}-v0", draws=name != "Broken")
        environment.reset(seed=0)
        for _ in range(3):
            environment.step(0)
        environment.frame()

    with pytest.raises(ConfigError) as refusal:
        drive()
    assert said in str(refusal.value)
