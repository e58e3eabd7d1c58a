"""What is decided about a model when it is loaded: its batches, its names, its chunk, and what zeros tell."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from policyserve import ActionChunk, ConfigError, Policy, PolicyInput, load_policy
from policyserve.core.arrays import Array
from policyserve.policies.onnx.flags import OnnxFlags
from policyserve.policies.onnx.loading import check_onnx
from tests.policies.frameworks import import_or_skip
from tests.policies.onnx.models import Node, Value, choosing, copying, linear, model, save

WEIGHTS = np.arange(6, dtype=np.float32).reshape(3, 2)


@pytest.fixture(autouse=True)
def _runtime() -> None:
    import_or_skip("onnxruntime")


def actions(policy: Policy, **observation: Array) -> Array:
    (chunk,) = policy.infer([PolicyInput(observation)])
    assert isinstance(chunk, ActionChunk)
    return chunk.actions


def rows(count: int, size: int = 3) -> Array:
    return np.random.default_rng(0).normal(size=(count, size)).astype(np.float32)


def refusal(path: str, **flags: str) -> str:
    with pytest.raises(ConfigError) as refused:
        load_policy(path, **flags)
    assert str(refused.value).startswith(f"{path}: ")
    return str(refused.value).removeprefix(f"{path}: ")


@pytest.mark.parametrize("batch", [1, "N"])
def test_a_single_array_is_called_obs_and_its_own_name_is_another(batch: int | str, tmp_path: Path) -> None:
    policy = load_policy(save(tmp_path / "a.onnx", linear(WEIGHTS, batch=batch)))
    assert list(policy.spec.leaves) == ["obs"]
    (observed,) = rows(1)
    for name in ("obs", "policy"):
        valid = policy.spec.validate({name: observed})
        np.testing.assert_allclose(actions(policy, **valid.observation), observed @ WEIGHTS, rtol=1e-6)


@pytest.mark.parametrize("batch", [1, "N"])
def test_a_batch_of_any_size_gives_what_singles_give(batch: int | str, tmp_path: Path) -> None:
    policy = load_policy(save(tmp_path / "a.onnx", linear(WEIGHTS, batch=batch)), max_batch=8)
    observed = rows(8)
    for count in (1, 3, 8):
        answers = policy.infer([PolicyInput({"obs": row}) for row in observed[:count]])
        found = np.stack([chunk.actions for chunk in answers if isinstance(chunk, ActionChunk)])
        np.testing.assert_allclose(found, observed[:count] @ WEIGHTS, rtol=1e-6)
    (own,) = policy.infer([PolicyInput({"obs": observed}, batch_size=8)])
    assert isinstance(own, ActionChunk)
    np.testing.assert_allclose(own.actions, observed @ WEIGHTS, rtol=1e-6)


def test_inputs_are_renamed_by_the_flag(tmp_path: Path) -> None:
    path = save(tmp_path / "a.onnx", linear(WEIGHTS))
    policy = load_policy(path, rename="observation/state=policy")
    assert (list(policy.spec.leaves), policy.spec.aliases) == (
        ["observation/state"],
        {"policy": "observation/state", "obs": "observation/state"},
    )
    assert "--rename: expected one of the policy's inputs, policy, got 'camera'" in refusal(path, rename="x=camera")


def test_a_model_without_a_batch_axis_is_answered_row_by_row(tmp_path: Path) -> None:
    policy = load_policy(save(tmp_path / "a.onnx", copying([Value("obs", [4])], [Value("actions", [4])])))
    found = policy.infer([PolicyInput({"obs": row}) for row in rows(3, 4)])
    np.testing.assert_array_equal([one.actions for one in found if isinstance(one, ActionChunk)], rows(3, 4))
    assert str(policy.spec.action) == "float32 (4,)"


def test_a_free_first_axis_that_is_no_batch_runs_row_by_row_and_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its rows are summed: an answer to one would depend on the others."""
    summed = model(
        [
            Node("ReduceSum", ["obs", "first"], ["sum"], whole={"keepdims": 1}),
            Node("Add", ["obs", "sum"], ["actions"]),
        ],
        [Value("obs", ["time", 3])],
        [Value("actions", ["time", 3])],
        {"first": np.asarray([0], np.int64)},
    )
    with caplog.at_level(logging.WARNING):
        policy = load_policy(save(tmp_path / "a.onnx", summed))
    assert "answers otherwise in a batch than alone" in caplog.text
    found = policy.infer([PolicyInput({"obs": row}) for row in rows(3)])
    np.testing.assert_allclose([one.actions for one in found if isinstance(one, ActionChunk)], rows(3) * 2, rtol=1e-6)


def test_a_model_that_answers_nan_to_zeros_is_served_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Zeros divided by a deviation of zero, say: what robots send is not zeros."""
    divided = model([Node("Div", ["obs", "obs"], ["actions"])], [Value("obs", [1, 3])], [Value("actions", [1, 3])])
    with caplog.at_level(logging.WARNING):
        policy = load_policy(save(tmp_path / "a.onnx", divided))
    assert "answers NaN or Inf to zeros" in caplog.text
    assert actions(policy, obs=rows(1)[0]).tolist() == [1, 1, 1]
    assert getattr(policy, "buckets", None) == ()


def test_a_model_that_answers_nothing_but_nan_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.onnx", linear(np.full((3, 2), np.nan)))
    assert refusal(path).startswith("it answers NaN or Inf whatever it is given")
    with pytest.raises(ConfigError):
        check_onnx(path, OnnxFlags())


def test_three_axes_are_a_chunk_and_the_flag_cuts_it(tmp_path: Path) -> None:
    path = save(tmp_path / "a.onnx", copying([Value("obs", ["N", 5, 2])], [Value("action_chunk", ["N", 5, 2])]))
    chunk = np.arange(10, dtype=np.float32).reshape(5, 2)
    assert load_policy(path).spec.horizon == load_policy(path, horizon="all").spec.horizon == 5
    policy = load_policy(path, horizon="2")
    assert (policy.spec.horizon, str(policy.spec.action)) == (2, "float32 (2,)")
    np.testing.assert_array_equal(actions(policy, obs=chunk), chunk[:2])
    assert "--horizon: expected at most 5" in refusal(path, horizon="6")
    single = save(tmp_path / "b.onnx", linear(WEIGHTS))
    assert "is one action and no chunk of several" in refusal(single, horizon="2")


@pytest.mark.parametrize("dtype", ["float16", "float64", "bool", "uint8", "int64"])
def test_numbers_of_other_types_come_out_as_float32_and_whole_ones_as_they_are(dtype: str, tmp_path: Path) -> None:
    path = save(tmp_path / "a.onnx", copying([Value("obs", [1, 2], dtype)], [Value("actions", [1, 2], dtype)]))
    policy = load_policy(path)
    wanted = dtype if dtype in ("uint8", "int64") else "float32"
    found = actions(policy, obs=np.array([0, 1], dtype))
    assert (str(found.dtype), found.tolist()) == (wanted, [0, 1])
    assert policy.spec.action is not None
    assert policy.spec.action.dtype == wanted


def test_a_choice_is_a_whole_number(tmp_path: Path) -> None:
    policy = load_policy(save(tmp_path / "a.onnx", choosing(np.eye(3))))
    assert actions(policy, obs=np.array([0, 2, 1], np.float32)) == 1
    assert str(policy.spec.action) == "int64 ()"


def test_bytes_of_three_channels_are_an_image_and_floats_never(tmp_path: Path) -> None:
    for dtype, told in (("uint8", "uint8 image CHW, 4 x 5"), ("float32", "float32 (3, 4, 5)")):
        values = Value("camera", ["N", 3, 4, 5], dtype), Value("actions", ["N", 3, 4, 5], dtype)
        spec = load_policy(save(tmp_path / "a.onnx", copying([values[0]], [values[1]]))).spec
        assert str(spec.leaves["obs"]) == told


def test_a_size_that_is_free_and_does_not_run_is_told(tmp_path: Path) -> None:
    free = model(
        [Node("MatMul", ["obs", "w"], ["actions"])],
        [Value("obs", [1, "n"])],
        [Value("actions", [1, 2])],
        {"w": WEIGHTS},
    )
    said = refusal(save(tmp_path / "a.onnx", free))
    assert said.startswith("it cannot answer an observation of zeros: ")
    assert said.endswith("it leaves sizes free, obs float32 (1, *), and was tried with 8: export it with its sizes")


def test_a_free_size_that_runs_takes_any(tmp_path: Path) -> None:
    path = save(tmp_path / "a.onnx", copying([Value("obs", ["N", "n"])], [Value("features", ["N", "n"])]))
    policy = load_policy(path)
    assert (str(policy.spec.leaves["obs"]), str(policy.spec.action)) == ("float32 (*,)", "float32 (*,)")
    found = policy.infer([PolicyInput({"obs": np.ones(size, np.float32)}) for size in (2, 5, 2)])
    assert [len(chunk.actions) for chunk in found if isinstance(chunk, ActionChunk)] == [2, 5, 2]
    longer = copying([Value("obs", ["N", "n", 2])], [Value("actions", ["N", "n", 2])])
    assert "a chunk whose length depends on the observation" in refusal(save(tmp_path / "b.onnx", longer))


def test_a_state_that_changes_its_size_is_refused(tmp_path: Path) -> None:
    grown = model(
        [Node("Identity", ["obs"], ["actions"]), Node("Concat", ["h_in", "h_in"], ["h_out"], whole={"axis": 1})],
        [Value("obs", [1, 2]), Value("h_in", [1, 2])],
        [Value("actions", [1, 2]), Value("h_out", [1, "n"])],
    )
    said = refusal(save(tmp_path / "a.onnx", grown))
    assert "expected what comes out to have the shape of what goes in, got (1, 4)" in said
