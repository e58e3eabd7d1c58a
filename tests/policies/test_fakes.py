"""The fakes do what they say."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from policyserve.core.policy import Policy, PolicyInput
from policyserve.policies.fakes import CountingPolicy, EchoPolicy, FailingPolicy, NanPolicy, SlowPolicy, demo_image


def obs(value: float = 1.0) -> PolicyInput:
    return PolicyInput({"obs": np.full(4, value, np.float32)})


@pytest.mark.parametrize("kind", [EchoPolicy, CountingPolicy, SlowPolicy, FailingPolicy, NanPolicy])
def test_every_fake_is_a_policy_without_a_warm_up(kind: type[EchoPolicy]) -> None:
    policy = kind()
    assert isinstance(policy, Policy)
    assert not policy.buckets
    policy.close()
    assert policy.closed


def test_echo_answers_the_observation() -> None:
    chunks = EchoPolicy().infer([obs(1), obs(2)])
    np.testing.assert_array_equal([chunk.actions for chunk in chunks], [[1] * 4, [2] * 4])


def test_counting_keeps_the_batch_sizes() -> None:
    policy = CountingPolicy()
    policy.infer([obs()] * 3)
    policy.infer([obs()])
    assert policy.sizes == [3, 1]


def test_slow_waits_until_it_is_released() -> None:
    policy = SlowPolicy()
    thread = threading.Thread(target=policy.infer, args=([obs()],))
    thread.start()
    assert policy.entered.wait(timeout=10)
    assert policy.sizes == []
    policy.release.set()
    thread.join(timeout=10)
    assert policy.sizes == [1]


def test_failing_fails_for_the_poisoned_only() -> None:
    with pytest.raises(RuntimeError):
        FailingPolicy().infer([obs()])
    picky = FailingPolicy(lambda values: values[0] < 0)
    assert len(picky.infer([obs(1)])) == 1
    with pytest.raises(RuntimeError):
        picky.infer([obs(1), obs(-1)])


def test_nan_answers_nan() -> None:
    (chunk,) = NanPolicy().infer([obs()])
    assert np.isnan(chunk.actions).all()


def test_demo_image_depends_on_both_inputs_and_always_answers_the_same() -> None:
    policy = demo_image()
    rng = np.random.default_rng(0)
    image, state = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8), rng.normal(size=4).astype(np.float32)
    first, other_image, other_state, again = (
        policy.infer([PolicyInput({"image": picture, "state": numbers})])[0].actions
        for picture, numbers in ((image, state), (255 - image, state), (image, -state), (image, state))
    )
    assert first.shape == (14,)
    assert np.abs(first).max() <= 1
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other_image)
    assert not np.allclose(first, other_state)


@pytest.mark.parametrize("length", [0, 1, 4, 14])
def test_demo_image_takes_a_state_of_any_length(length: int) -> None:
    policy = demo_image()
    observation = {"image": np.zeros((64, 64, 3), np.uint8), "state": np.full(length, np.nan, np.float32)}
    valid = policy.spec.validate(observation)
    (chunk,) = policy.infer([PolicyInput(valid.observation)])
    policy.spec.check_actions(chunk.actions)


def test_demo_image_answers_to_the_last_bit_whoever_else_is_in_the_batch() -> None:
    random, policy = np.random.default_rng(0), demo_image()
    batch = [
        PolicyInput(
            {
                "image": random.integers(0, 256, (64, 64, 3)).astype(np.uint8),
                "state": random.normal(size=7).astype(np.float32),
            }
        )
        for _ in range(16)
    ]
    for one, chunk in zip(batch, policy.infer(batch), strict=True):
        np.testing.assert_array_equal(policy.infer([one])[0].actions, chunk.actions)


def test_demo_image_says_that_it_controls_nothing() -> None:
    policy = demo_image()
    assert "controls nothing" in policy.spec.metadata["demo"]
    policy.infer([PolicyInput(policy.spec.example())] * 3)
