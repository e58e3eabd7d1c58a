"""Flow sampling: every step of every golden case, and against recomputing everything."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserve.core.arrays import Array
from tests.policies.frameworks import import_or_skip
from tests.policies.wall_x.cases import golden_case, golden_input
from tests.policies.wall_x.golden import FLOW_CASES

torch = import_or_skip("torch")
safetensors_numpy = import_or_skip("safetensors.numpy")

from benchmarks.wall_x_models.recompute import FullSampler  # noqa: E402
from policyserve.policies.wall_x.attention import AttentionMode  # noqa: E402
from policyserve.policies.wall_x.flow import FlowSampler  # noqa: E402
from policyserve.policies.wall_x.model import load_model  # noqa: E402
from tests.policies.wall_x.loaded import largest, loaded, tiny_input, write_tiny  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_torch_thread")

MODES: list[AttentionMode] = ["upstream_sdpa", "bidir_island", "causal"]
WITHOUT_BFLOAT16 = ("flow_no_proprio", "flow_libero_normstate_steps5_h10", "flow_pad20_libero", "flow_pad20_aloha")
CASES_AND_MODES = [
    (name, mode) for name in FLOW_CASES for mode in MODES if name != "flow_mot_libero" or mode == "upstream_sdpa"
]


@pytest.mark.parametrize(("name", "mode"), CASES_AND_MODES)
def test_every_step_is_the_originals(name: str, mode: AttentionMode) -> None:
    case = golden_case(name)
    sampler = FlowSampler(loaded(case.directory).network)
    with torch.inference_mode():
        state = sampler.prepare([golden_input(case)], mode, case.steps)
        assert largest(state.x.numpy() - case[f"{mode}/x"][0]) == 0
        for k in range(case.steps):
            hidden, velocities = sampler.step(state, k)
            wanted = case[f"{mode}/action_hidden"][k]
            assert largest(hidden.numpy()[..., : wanted.shape[-1]] - wanted) < 1e-4, k
            assert largest(velocities.numpy() - case[f"{mode}/v"][k]) < 1e-4, k
            assert largest(state.x.numpy() - case[f"{mode}/x"][k + 1]) < 1e-4, k


@pytest.mark.parametrize(("name", "mode"), CASES_AND_MODES)
def test_the_cache_equals_recomputing_everything(name: str, mode: AttentionMode) -> None:
    case = golden_case(name)
    model, item = loaded(case.directory), golden_input(case)
    sampler = FullSampler(model.network)
    with torch.inference_mode():
        state = sampler.prepare([item], mode, case.steps)
        sampler.run(state)
    assert largest(model.flow([item], attention=mode, num_steps=case.steps)[0] - state.flow.x[0].numpy()) < 1e-5


@pytest.mark.parametrize("name", [name for name in FLOW_CASES if name not in WITHOUT_BFLOAT16])
def test_bfloat16_is_as_close_as_the_originals(name: str) -> None:
    case = golden_case(name)
    actions = loaded(case.directory, "bfloat16").flow([golden_input(case)], attention="upstream_sdpa")[0]
    wanted = case["bf16/predict_action"][0]
    difference = np.abs(unnormalize(case, actions)[:, : wanted.shape[-1]] - wanted)
    assert difference.max() < 0.06
    assert difference.mean() < 0.012


def unnormalize(case: Any, actions: Array) -> Array:
    stored = safetensors_numpy.load_file(case.directory / "normalizer_action.golden_copy.st")
    dataset = case.about["dataset"]
    return (actions + 1) / 2 * stored[f"delta.{dataset}"] + stored[f"min.{dataset}"]


def test_the_semantics_give_different_actions() -> None:
    case = golden_case("flow_libero_normstate_steps5_h10")
    model, item = loaded(case.directory), golden_input(case)
    causal, island, upstream = (model.flow([item], attention=mode)[0] for mode in MODES)
    assert min(largest(causal - island), largest(causal - upstream), largest(island - upstream)) > 0.01


def test_answers_are_finished_float32_arrays_of_their_own(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    model = load_model(tmp_path, dtype="bfloat16")
    first, second = model.flow([tiny_input(model, 5), tiny_input(model, 5, seed=1)], attention="causal", num_steps=2)
    assert first.dtype == np.float32
    assert first.shape == (4, 20)
    again = model.flow([tiny_input(model, 5)], attention="causal", num_steps=2)[0]
    assert largest(first - again) < 0.05
    assert largest(first - second) > 0.1
    assert model.flow([], attention="causal") == []


def test_the_inputs_are_left_as_they_were(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    model = load_model(tmp_path)
    item = tiny_input(model, 5)
    assert item.noise is not None
    before = item.noise.copy()
    model.flow([item], attention="causal", num_steps=2)
    assert np.array_equal(item.noise, before)
    item.noise.flags.writeable = False
    model.flow([item], attention="causal", num_steps=2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"noise": None}, r"noise: expected \(4, 20\), got None"),
        ({"noise": np.zeros((4, 7), np.float32)}, r"noise: expected \(4, 20\), got \(4, 7\)"),
        ({"input_ids": np.array([10, 4, 11, 4, 4, 4])}, "the action tokens of a prompt must lie together"),
        ({"input_ids": np.array([10, 4, 4, 4, 4])}, r"no <\|propri\|> token for the state"),
        ({"input_ids": np.array([2, 3, 4, 4, 4, 4])}, "holds 1 image tokens, its images make 0"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    write_tiny(tmp_path)
    model = load_model(tmp_path)
    with pytest.raises(ValueError, match=message):
        model.flow([replace(tiny_input(model, 5), **change)], attention="causal")


def test_an_unknown_semantics_and_no_steps_are_refused(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    model = load_model(tmp_path)
    with pytest.raises(ValueError, match="attention: expected one of upstream_sdpa, bidir_island, causal"):
        model.flow([tiny_input(model, 5)], attention="eager")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="num_steps: expected 1 or more, got 0"):
        model.flow([tiny_input(model, 5)], attention="causal", num_steps=0)
