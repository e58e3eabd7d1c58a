"""The velocity of demo_flow is exact: its data, its derivative, and what continues a prefix."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pytest

from policyserve.core.arrays import Array
from policyserve.policies.demo_flow.field import Mixture
from policyserve.policies.demo_flow.scene import HORIZON, Scene, ways
from policyserve.policies.prefix import Prefix
from policyserve.policies.rtc import LEROBOT, Rtc, sample, target_of
from tests.shared import shared_path

STEP = 70  # 1.4 s: both ways are there
POSITION = np.array([0.75, 0.4])


def mixture(*positions: Array) -> Mixture:
    seen = [Scene(3000).observation(STEP, position) for position in positions]
    values = [np.stack([one[key] for one in seen]).astype(np.float64) for key in ("position", "stage", "time_s")]
    return Mixture(*values)


def test_the_derivative_is_that_of_the_expected_data() -> None:
    random, at = np.random.default_rng(0), mixture(POSITION)
    x, error, aside = random.standard_normal((3, 1, HORIZON, 2))
    for t in (0.0, 0.4, 0.9):
        _, pull = at.denoised(x, t)
        slope = (at.denoised(x + 1e-6 * aside, t)[0] - at.denoised(x - 1e-6 * aside, t)[0]) / 2e-6
        np.testing.assert_allclose((pull(error) * aside).sum(), (slope * error).sum(), rtol=1e-4, atol=1e-7)
        velocity, pull_velocity = at.field(x, t)
        np.testing.assert_allclose(x + (1 - t) * velocity, at.denoised(x, t)[0], atol=1e-12)
        np.testing.assert_allclose(error + (1 - t) * pull_velocity(error), pull(error), atol=1e-12)


def test_a_row_is_the_same_to_the_last_bit_whoever_else_is_in_its_batch() -> None:
    random = np.random.default_rng(1)
    positions = random.standard_normal((5, 2)) * 0.3
    noise = random.standard_normal((5, HORIZON, 2))
    together = sample(mixture(*positions).field, noise, 10)
    for place, position in enumerate(positions):
        alone = sample(mixture(position).field, noise[place : place + 1], 10)
        np.testing.assert_array_equal(together[place], alone[0])


def before_the_obstacle(count: int) -> tuple[Mixture, Array]:
    """What is likely half a second before the first obstacle, in the middle between the ways, and where that is."""
    stage = Scene(3000).observation(50, np.zeros(2))["stage"].astype(np.float64)
    middle = ways(np.array(1.0)).mean(0) + stage
    return Mixture(*(np.repeat(one[None], count, 0) for one in (middle, stage, np.array(1.0)))), middle


def sides(at: Mixture, chunks: Array) -> list[int]:
    """Which way each chunk takes, where the obstacle is."""
    return np.abs(chunks[:, None, 25] - at.means[:, :, 25]).sum(-1).argmin(1).tolist()


def test_chunks_pass_on_either_side_and_begin_where_the_robot_is() -> None:
    at, middle = before_the_obstacle(64)
    chunks = sample(at.field, np.random.default_rng(2).standard_normal((64, HORIZON, 2)), 10)
    assert 16 < sum(sides(at, chunks)) < 48
    assert np.abs(chunks[:, 0] - middle).max() < 0.1


@pytest.mark.parametrize("method", ["guided", "identity"])
def test_guided_chunks_pass_where_their_prefix_does(method: Any) -> None:
    at, _ = before_the_obstacle(64)
    noise, how = np.random.default_rng(2).standard_normal((64, HORIZON, 2)), Rtc(method)
    for way in (0, 1):
        rows = np.zeros((HORIZON, 2), np.float32)
        rows[:45] = at.means[0, way, :45]
        chunks = sample(at.field, noise, 10, how, target_of([Prefix(rows, 45, 6)] * 64, how, HORIZON, 2))
        assert set(sides(at, chunks)) == {way}
        plain = sample(at.field, noise, 10)
        assert np.abs(chunks - rows)[:, :45].mean() < 0.15 * np.abs(plain - rows)[:, :45].mean()


def test_a_continued_chunk_keeps_its_prefix_and_its_way() -> None:
    random, at = np.random.default_rng(3), mixture(POSITION)
    for way in (0, 1):
        prefix = at.means[0, way, :30]
        for choice in random.random(8):
            chunk = at.continued(0, prefix, random.standard_normal((HORIZON, 2)), choice)
            np.testing.assert_array_equal(chunk[:30], prefix)
            assert np.abs(np.diff(chunk, axis=0)).max() < 0.15
            np.testing.assert_allclose(chunk[30:], at.means[0, way, 30:], atol=0.3)


def simulation() -> Any:
    """The program with which the rules of real-time execution were compared."""
    path = shared_path("realtime", "simulation.py")
    spec = importlib.util.spec_from_file_location("simulation", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Given:
    """A generator that draws the given noise."""

    def __init__(self, noise: Array) -> None:
        self._noise = noise

    def standard_normal(self, _shape: Any) -> Array:
        return self._noise


@pytest.mark.parametrize("how", [None, Rtc(), Rtc("guided", "zeros", 5.0), Rtc("identity"), LEROBOT, Rtc("inpaint")])
def test_the_policy_is_the_simulations(how: Rtc | None) -> None:
    sim = simulation()
    noise = np.random.default_rng(5).standard_normal((HORIZON, 2))
    scene = sim.Scene(np.random.default_rng((0, 1)), 3000)
    policy = sim.Policy(scene, Given(noise))
    at = Mixture(POSITION[None], scene.drift[STEP][None], np.array([STEP / 50]))
    left = policy.sample(STEP - 10, POSITION)[10:].astype(np.float32)
    prefix = Prefix(np.pad(left, ((0, 10), (0, 0))), 40, 6)
    if how is None:
        theirs, ours = policy.sample(STEP, POSITION), sample(at.field, noise[None], 10)
    else:
        weight = how.max_guidance_weight or 10.0
        way = sim.How("", "switch", kind=how.method, schedule=how.schedule, beta=weight, end=how.end)
        theirs = policy.sample(STEP, POSITION, left, 6, way)
        ours = sample(at.field, noise[None], 10, how, target_of([prefix], how, HORIZON, 2))
    np.testing.assert_allclose(ours[0], theirs, atol=1e-5)
    np.testing.assert_allclose(Scene(3000).observation(STEP, POSITION)["stage"], scene.drift[STEP], atol=1e-6)
