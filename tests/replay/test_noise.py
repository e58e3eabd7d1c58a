"""A recorded answer's own noise goes into the request that repeats it, where the policy has a key for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from policyserve import ArraySpec, PolicySpec
from policyserve.core.messages import Reply
from policyserve.replay.noise import repeating

NOISE = np.ones(3, np.float32)
TAKES = PolicySpec("flow", {"state": ArraySpec((2,)), "noise": ArraySpec((3,), optional=True)}, None)
TAKES_NONE = PolicySpec("plain", {"state": ArraySpec((2,))}, None)
OPEN = PolicySpec("open", None, None)


def answer(**extras: Any) -> Reply:
    return Reply(np.zeros(2), {}, {"actions": np.zeros(2), **extras})


@pytest.mark.parametrize("spec", [TAKES, OPEN, None])
def test_the_noise_that_was_drawn_is_sent_again(spec: PolicySpec | None) -> None:
    sent, repeated = repeating({"state": NOISE[:2]}, answer(noise=NOISE), spec)
    assert repeated == ["noise"]
    assert sent["noise"] is NOISE
    assert list(sent) == ["state", "noise"]


def test_a_seed_is_sent_as_well_as_noise() -> None:
    assert repeating({}, answer(seed=7), OPEN) == ({"seed": 7}, ["seed"])


@pytest.mark.parametrize(
    ("observation", "recorded", "spec"),
    [
        ({"state": 1}, answer(noise=NOISE), TAKES_NONE),  # it would be dropped
        ({"state": 1, "noise": 2}, answer(noise=NOISE), TAKES),  # the client brought its own
        ({"state": 1}, answer(noise=None), TAKES),
        ({"state": 1}, answer(), TAKES),
        ({"state": 1}, None, TAKES),
    ],
)
def test_else_the_observation_stays_as_it_is(observation: Any, recorded: Reply | None, spec: PolicySpec) -> None:
    sent, repeated = repeating(observation, recorded, spec)
    assert sent is observation
    assert repeated == []
