"""Observations to the network's input: every golden case's state, masks, ids and noise."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from policyserve.core.errors import BadObservation
from policyserve.policies.wall_x import Options, conventions_named
from policyserve.policies.wall_x.assembly import build_processor, make_plan
from policyserve.policies.wall_x.processor import Processor
from tests.policies.frameworks import import_or_skip
from tests.policies.wall_x.golden import FAST_CASES, FLOW_CASES, facts, model_config, observation, options, tensors

for package in ("torch", "tokenizers", "PIL.Image", "yaml", "safetensors.numpy"):
    import_or_skip(package)


def processor(name: str, chosen: Options | None = None, **changes: Any) -> Processor:
    return replace(build_processor(make_plan(model_config(name), chosen or options(name))), **changes)


@pytest.mark.parametrize("name", [*FLOW_CASES, *FAST_CASES])
def test_a_golden_case_becomes_the_originals_input(name: str) -> None:
    arrays, case = tensors(name), facts(name)
    prepared = processor(name).prepare(observation(name))
    ids = arrays["fast/prompt_ids" if case["kind"] == "fast" else "pre/input_ids"][0]
    np.testing.assert_array_equal(prepared.input_ids, ids)
    np.testing.assert_array_equal([[1, *grid] for grid in prepared.grids], arrays["pre/image_grid_thw"])
    np.testing.assert_array_equal(prepared.dof_mask, arrays["pre/dof_mask"][0])
    assert prepared.dataset == case["dataset"]
    if case["state_dim"] is None:
        assert prepared.state is None
        assert prepared.state_mask is None
    else:
        assert prepared.state is not None
        np.testing.assert_array_equal(prepared.state, arrays["pre/proprioception"][0, 0])
        np.testing.assert_array_equal(prepared.state_mask, arrays["pre/agent_pos_mask"][0, 0])
    if case["kind"] == "fast":
        assert prepared.noise is None
    else:
        np.testing.assert_array_equal(prepared.noise, arrays["flow/noise"][0])
    assert prepared.dof_mask.dtype == np.float32
    assert prepared.patches.dtype == np.uint8
    assert prepared.input_ids.dtype == np.int64


def test_conventions_change_the_input() -> None:
    name = "flow_pad20_libero"
    usual = processor(name).prepare(observation(name))
    trained = processor(name, Options(conventions=conventions_named("trained"))).prepare(observation(name))
    assert usual.input_ids.size - trained.input_ids.size == 2
    assert usual.state is not None
    assert trained.state is not None
    assert not np.array_equal(usual.state, trained.state)
    pad20 = processor(name, Options(conventions=conventions_named("pad20")))
    large = {**observation(name), "front_view": np.zeros((480, 640, 3), np.uint8)}
    assert pad20.prepare(large).grids[0] == (34, 46)


def test_noise_is_the_sessions_own_and_the_same_again() -> None:
    name = "flow_libero_basic"
    without = {key: value for key, value in observation(name).items() if key != "noise"}
    one = processor(name)
    first, again, second = (one.prepare(without, chunk).noise for chunk in (0, 0, 1))
    other = replace(one, seed=1).prepare(without).noise
    assert first is not None
    assert second is not None
    assert other is not None
    assert first.shape == (32, 7)
    assert first.dtype == np.float32
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, other)
    assert abs(first.mean()) < 0.3
    assert 0.8 < first.std() < 1.2


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("state", np.array([0, 1, 2, 3, np.nan, 0, 0, 0]), "state: expected finite numbers"),
        ("state", np.array([0, 1, 2, 3, np.inf, 0, 0, 0]), "state: expected finite numbers"),
        ("state", np.zeros(7), r"state: expected float32 \(8,\), got float32 \(7,\)"),
        ("state", None, "state: expected .* got none"),
        ("noise", np.zeros((32, 8)), r"noise: expected float32 \(32, 7\), got float32 \(32, 8\)"),
        ("noise", np.full((32, 7), np.nan), "noise: expected finite"),
        (
            "dataset_names",
            ["mars"],
            "one of physical-intelligence/libero, libero_all, got 'mars'",
        ),
        ("dataset_names", None, "dataset_names: expected one of .* got none"),
        ("prompt", "see <|image_pad|>", r"prompt: .*<\|image_pad\|>"),
        ("prompt", "x" * 10_000, "prompt: expected at most 2048 tokens"),
        ("front_view", np.zeros((2, 5000, 3), np.uint8), "front_view: "),
        ("left_wrist_view", np.full((8, 8, 3), 255.0), "left_wrist_view: expected floats in 0 … 1"),
    ],
)
def test_a_bad_part_is_refused_with_its_path(key: str, value: Any, reason: str) -> None:
    with pytest.raises(BadObservation, match=reason):
        processor("flow_libero_basic").prepare({**observation("flow_libero_basic"), key: value})


def test_cameras_may_differ_in_size_and_a_prompt_may_be_empty() -> None:
    small = np.zeros((30, 40, 3), np.uint8)
    prepared = processor("flow_libero_basic").prepare(
        {**observation("flow_libero_basic"), "left_wrist_view": small, "prompt": ""}
    )
    assert prepared.grids == ((18, 18), (14, 18))
    assert prepared.patches.shape == (18 * 18 + 14 * 18, 588)
