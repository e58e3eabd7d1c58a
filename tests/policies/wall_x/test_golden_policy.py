"""Whole golden cases, from raw observations to un-normalised actions, in one batch and alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from policyserve.core.errors import BadAction
from policyserve.core.policy import ActionChunk, Policy, PolicyInput
from policyserve.engine.answering import run_batch
from policyserve.policies.wall_x import load_policy
from policyserve.policies.wall_x.assembly import build_processor, make_plan
from tests.policies.frameworks import import_or_skip
from tests.policies.wall_x.golden import (
    FAST_CASES,
    FLOW_CASES,
    UNDECODABLE,
    facts,
    golden,
    model_config,
    modes,
    observation,
    options,
    tensors,
)

pytestmark = pytest.mark.usefixtures("one_torch_thread")
for package in ("torch", "tokenizers", "PIL.Image", "yaml", "safetensors.numpy"):
    import_or_skip(package)

FP32 = 1e-4


def ask(policy: Policy, *observations: Any) -> list[Any]:
    return run_batch(policy, [PolicyInput(policy.spec.validate(one).observation) for one in observations])


@pytest.mark.parametrize(("name", "mode"), [(name, mode) for name in FLOW_CASES for mode in modes(name)])
def test_a_flow_case_has_the_originals_actions(name: str, mode: str) -> None:
    policy = load_policy(model_config(name), options=options(name, mode))
    (chunk,) = ask(policy, observation(name))
    assert isinstance(chunk, ActionChunk), chunk
    wanted = tensors(name)[f"{mode}/action"][0, :, : facts(name)["action_dim"]]
    np.testing.assert_allclose(chunk.actions, wanted, atol=FP32, rtol=0)


def test_the_original_servers_own_answer_is_the_default() -> None:
    name = "flow_libero_basic"
    (chunk,) = ask(load_policy(model_config(name)), observation(name))
    np.testing.assert_allclose(chunk.actions, tensors(name)["e2e/predict_action"][0], atol=FP32, rtol=0)


@pytest.mark.parametrize("name", ["flow_pad20_libero", "fast_libero_1"])
def test_a_wider_checkpoint_is_padded_without_being_told(name: str) -> None:
    (chunk,) = ask(load_policy(model_config(name)), observation(name))
    key = "fast/predict_action" if name.startswith("fast") else "upstream_sdpa/action"
    np.testing.assert_allclose(chunk.actions, tensors(name)[key][0, :, :7], atol=FP32, rtol=0)


def test_shards_are_one_checkpoint() -> None:
    name, sharded = "flow_libero_basic", golden("checkpoint_flow_libero_sharded")
    config = model_config(name, model_path=str(sharded), train_config_path=str(sharded))
    (chunk,) = ask(load_policy(config, options=options(name)), observation(name))
    np.testing.assert_allclose(chunk.actions, tensors(name)["upstream_sdpa/action"][0], atol=FP32, rtol=0)


@pytest.mark.parametrize("mode", ["upstream_sdpa", "bidir_island", "causal"])
def test_two_observations_of_different_length_in_one_batch_have_each_the_originals_actions(mode: str) -> None:
    name, case, arrays = "flow_batch2_padding", facts("flow_batch2_padding"), tensors("flow_batch2_padding")
    config = model_config("flow_libero_basic", camera_key=case["cams"])
    policy = load_policy(config, options=options("flow_libero_basic", mode))
    both = [
        {
            **{camera: arrays[f"obs/{camera}#{row}"] for camera in case["cams"]},
            "state": arrays[f"obs/state#{row}"],
            "noise": arrays["flow/noise"][row],
            "prompt": case["prompts"][row],
            "dataset_names": [case["dataset"]],
        }
        for row in range(2)
    ]
    together = ask(policy, *both)
    for row, chunk in enumerate(together):
        np.testing.assert_allclose(chunk.actions, arrays[f"{mode}/action"][row], atol=FP32, rtol=0)
        (alone,) = ask(policy, both[row])
        np.testing.assert_allclose(chunk.actions, alone.actions, atol=1e-5, rtol=0)
    assert name in FLOW_CASES or len(together) == 2


@pytest.mark.parametrize("name", FAST_CASES)
def test_a_fast_case_writes_the_originals_tokens_and_has_its_actions(name: str) -> None:
    arrays, case = tensors(name), facts(name)
    policy = load_policy(model_config(name), options=options(name))
    (answer,) = ask(policy, observation(name))
    if name in UNDECODABLE:
        assert isinstance(answer, BadAction)
        assert case["generated_text"] in str(answer)
    else:
        assert isinstance(answer, ActionChunk), answer
        np.testing.assert_allclose(answer.actions, arrays["fast/predict_action"][0], atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", FAST_CASES)
def test_a_fast_cases_ids_are_the_originals(name: str) -> None:
    from policyserve.policies.wall_x.model import load_model

    config = model_config(name)
    prepared = build_processor(make_plan(config, options(name))).prepare(observation(name))
    model = load_model(config.model_path, device="cpu", dtype="float32")
    assert model.generate([prepared], max_new_tokens=100) == [tensors(name)["fast/new_ids"].tolist()]


def test_fast_observations_of_different_length_are_one_batch() -> None:
    names = ["fast_libero_1", "fast_bad_length"]
    policy = load_policy(model_config(names[0]), options=options(names[0]))
    decoded, undecodable, again = ask(policy, *(observation(name) for name in (*names, names[0])))
    assert isinstance(undecodable, BadAction)
    for chunk in (decoded, again):
        np.testing.assert_allclose(chunk.actions, tensors(names[0])["fast/predict_action"][0], atol=1e-6, rtol=0)


BF16 = ("flow_libero_basic", "flow_libero_odd_sizes", "flow_libero_float_chw", "flow_mot_libero")


@pytest.mark.parametrize("name", BF16)
def test_bfloat16_is_as_near_as_the_originals(name: str) -> None:
    arrays = tensors(name)
    (chunk,) = ask(load_policy(model_config(name, dtype="bfloat16"), options=options(name)), observation(name))
    difference = np.abs(chunk.actions - arrays["bf16/predict_action"][0])
    assert difference.max() < 0.06
    assert difference.mean() < 0.012
