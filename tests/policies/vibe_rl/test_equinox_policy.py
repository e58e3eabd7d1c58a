"""Policies around a user's own Equinox model, and its checkpoint."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserve.core.errors import ConfigError
from policyserve.core.policy import ActionChunk, FunctionPolicy, Policy, PolicyInput
from policyserve.core.spec import ArraySpec, ImageSpec, PolicySpec
from policyserve.policies.stacked import StackedPolicy
from policyserve.policies.vibe_rl.equinox_policy import equinox_policy, load_equinox
from policyserve.transforms import NormalizeInput, ResizeImageInput, UnnormalizeOutput
from tests.policies.frameworks import import_or_skip
from tests.policies.vibe_rl.states import write_eqx

jax = import_or_skip("jax")
eqx = import_or_skip("equinox")

from policyserve.policies.vibe_rl.encoders import MLPEncoder, ViTEncoder  # noqa: E402

KEY = jax.random.PRNGKey(0)
SPEC = PolicySpec("mine", {"obs": ArraySpec((3,))}, ArraySpec((2,)), max_batch=8, max_client_batch=100)


def mlp() -> Any:
    return MLPEncoder(3, (5, 2), key=KEY)


def rows(count: int) -> Any:
    return np.random.default_rng(0).normal(size=(count, 3)).astype(np.float32)


def test_with_a_spec_a_function_of_one_example_answers_batches() -> None:
    model = mlp()
    policy = equinox_policy(model, lambda model, obs: model(obs), spec=SPEC)
    assert isinstance(policy, StackedPolicy)
    assert policy.buckets == (1, 2, 4, 8)
    expected = [np.asarray(model(row)) for row in rows(11)]
    chunks = policy.infer([PolicyInput({"obs": row}) for row in rows(11)])
    np.testing.assert_allclose([chunk.actions for chunk in chunks], expected, atol=1e-6)
    (own,) = policy.infer([PolicyInput({"obs": rows(11)}, batch_size=11)])
    np.testing.assert_allclose(own.actions, expected, atol=1e-6)
    np.testing.assert_allclose(policy.infer([PolicyInput({"obs": rows(1)[0]})])[0].actions, expected[0], atol=1e-6)


def test_nothing_compiles_after_the_buckets_were_warmed() -> None:
    traced: list[tuple[int, ...]] = []

    def infer(model: Any, obs: Any) -> Any:
        traced.append(obs.shape)
        return model(obs)

    policy = equinox_policy(mlp(), infer, spec=SPEC)
    assert isinstance(policy, StackedPolicy)
    for size in policy.buckets or ():
        policy.infer([PolicyInput(SPEC.example())] * size)
    assert len(traced) == 4
    for size in range(1, 20):
        policy.infer([PolicyInput({"obs": rows(size)}, batch_size=size)])
    assert len(traced) == 4


def test_a_map_of_several_keys_reaches_the_function_as_a_map() -> None:
    spec = PolicySpec("maps", {"state": ArraySpec((3,)), "goal": ArraySpec((3,))}, ArraySpec((2,)), max_batch=4)
    policy = equinox_policy(mlp(), lambda model, obs: model(obs["state"] - obs["goal"]), spec=spec)
    one = {"state": np.ones(3, np.float32), "goal": np.ones(3, np.float32)}
    (chunk,) = policy.infer([PolicyInput(one)])
    assert isinstance(chunk, ActionChunk)
    np.testing.assert_allclose(chunk.actions, mlp()(np.zeros(3, np.float32)), atol=1e-6)


def test_without_a_spec_one_observation_is_answered_at_a_time() -> None:
    policy = equinox_policy(mlp(), lambda model, obs: model(obs))
    assert isinstance(policy, FunctionPolicy)
    assert isinstance(policy, Policy)
    assert (policy.spec.name, policy.spec.observation, policy.spec.max_batch) == ("MLPEncoder", None, 1)
    (chunk,) = policy.infer([PolicyInput(rows(1)[0])])
    assert isinstance(chunk, ActionChunk)
    np.testing.assert_allclose(chunk.actions, mlp()(rows(1)[0]), atol=1e-6)


def test_transforms_are_compiled_with_the_model() -> None:
    spec = PolicySpec("images", {"image": ImageSpec(), "state": ArraySpec((3,))}, ArraySpec((3,)), max_batch=4)
    policy = equinox_policy(
        None,
        lambda _model, obs: obs["state"] + obs["image"].mean(axis=(0, 1)),
        ResizeImageInput(8, 8, key="image"),
        UnnormalizeOutput([1.0, 2.0, 3.0], 2.0),
        spec=spec,
    )
    inputs = [
        PolicyInput({"image": np.full((size, size, 3), 10, np.uint8), "state": np.array([1, 2, 3], np.float32)})
        for size in (8, 16, 16, 5)
    ]
    for chunk in policy.infer(inputs):
        assert isinstance(chunk, ActionChunk)
        np.testing.assert_allclose(chunk.actions, [23, 26, 29], rtol=1e-5)


@pytest.mark.parametrize(
    "sizes", [((64, 64), (128, 96)), ((480, 640), (224, 224)), ((7, 5), (3, 11)), ((9, 9), (1, 1))]
)
def test_resizing_equals_jaxs_own_traced_or_not(sizes: Any) -> None:
    (height, width), new = sizes
    images = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), dtype=np.uint8)
    resize = ResizeImageInput(*new)
    expected = jax.image.resize(images.astype(np.float32), (2, *new, 3), "bilinear")
    np.testing.assert_allclose(resize(images), expected, rtol=1e-5, atol=2e-3)
    np.testing.assert_allclose(jax.jit(jax.vmap(resize))(images), expected, rtol=1e-5, atol=2e-3)


def test_normalizing_traced_equals_numpys() -> None:
    for transform in (NormalizeInput([1.0, 2, 3], 0.5), UnnormalizeOutput(0.1, [1.0, 2, 3])):
        np.testing.assert_allclose(jax.jit(jax.vmap(transform))(rows(4)), transform(rows(4)), rtol=1e-6)


def save(model: Any, folder: Path) -> Path:
    """Write a checkpoint the way vibe_rl does."""
    folder.mkdir(parents=True)
    eqx.tree_serialise_leaves(folder / "state.eqx", model)
    return folder


class Odd(eqx.Module):
    """Leaves of every kind that Equinox saves, and one that it does not."""

    numpy: Any
    half: Any
    count: int
    rate: float
    flag: bool
    name: str


def test_every_kind_of_leaf_comes_back(tmp_path: Path) -> None:
    saved = Odd(np.arange(3), jax.numpy.asarray([1.5, 2.5], "bfloat16"), 3, 0.5, True, "saved")
    template = Odd(np.zeros(3, int), jax.numpy.zeros(2, "bfloat16"), 0, 0.0, False, "template")
    loaded = load_equinox(template, save(saved, tmp_path / "step_5"))
    np.testing.assert_array_equal(loaded.numpy, [0, 1, 2])
    np.testing.assert_array_equal(loaded.half.astype("float32"), [1.5, 2.5])
    assert (loaded.count, loaded.rate, loaded.flag, loaded.name) == (3, 0.5, True, "template")
    assert isinstance(loaded.numpy, np.ndarray)
    assert isinstance(loaded.half, jax.Array)
    assert loaded.half.dtype == "bfloat16"


@pytest.mark.parametrize("is_shapes_only", [True, False])
def test_a_vit_with_its_python_leaves_comes_back(is_shapes_only: bool, tmp_path: Path) -> None:
    def build(seed: int) -> Any:
        return ViTEncoder(16, 16, 3, 8, 12, depth=1, num_heads=3, output_dim=4, key=jax.random.PRNGKey(seed))

    save(build(1), tmp_path / "step_5")
    template = eqx.filter_eval_shape(build, 0) if is_shapes_only else build(0)
    loaded = load_equinox(template, tmp_path)
    image = np.random.default_rng(0).random((16, 16, 3)).astype(np.float32)
    np.testing.assert_array_equal(loaded(image), build(1)(image))
    assert eqx.tree_equal(load_equinox(template, tmp_path / "step_5" / "state.eqx"), loaded)


@pytest.mark.parametrize("width", ["float64", "float16", "bfloat16"])
def test_leaves_of_another_width_become_the_models(
    width: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    leaves = [np.asarray(leaf) for leaf in jax.tree_util.tree_leaves(mlp())]
    write_eqx(tmp_path / "step_5" / "state.eqx", [leaf.astype(width) for leaf in leaves])
    with caplog.at_level(logging.INFO):
        loaded = load_equinox(mlp(), tmp_path)
    for ours, theirs in zip(jax.tree_util.tree_leaves(loaded), leaves, strict=True):
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, theirs, rtol=1e-2)
    assert caplog.text.count(f"weights of another precision: {width} read as float32") == 1


def test_a_model_of_half_precision_takes_weights_of_full_precision(tmp_path: Path) -> None:
    write_eqx(tmp_path / "step_5" / "state.eqx", [np.array([1.5, 2.0009765625], np.float32)])
    half = load_equinox([jax.numpy.zeros(2, "bfloat16")], tmp_path)[0]
    assert half.dtype == "bfloat16"
    np.testing.assert_array_equal(half.astype("float32"), [1.5, 2.0])


def test_integers_change_their_width_but_never_their_value(tmp_path: Path) -> None:
    write_eqx(tmp_path / "step_5" / "state.eqx", [np.array([1, -2], np.int64), np.int32(3)])
    counts, count = load_equinox((np.zeros(2, np.int32), 0), tmp_path)
    assert (counts.dtype, counts.tolist(), count) == (np.int32, [1, -2], 3)
    with pytest.raises(ConfigError, match="record 0: expected numbers that uint8 can hold, got -2"):
        load_equinox([np.zeros(2, np.uint8)], tmp_path)


def test_what_follows_the_model_in_the_file_does_not_matter(tmp_path: Path) -> None:
    path = save(mlp(), tmp_path / "step_5") / "state.eqx"
    path.write_bytes(path.read_bytes() + b"optimizer")
    assert eqx.tree_equal(load_equinox(mlp(), tmp_path, step=5), mlp())


def test_a_model_that_does_not_fit_is_refused_with_its_place_in_the_tree(tmp_path: Path) -> None:
    save(mlp(), tmp_path / "step_5")
    with pytest.raises(ConfigError) as caught:
        load_equinox(MLPEncoder(3, (5, 4), key=KEY), tmp_path)
    message = r"record 2 \(\.layers\[1\]\.weight\): expected float32 \(4, 5\), found float32 \(2, 5\)"
    assert re.search(message, str(caught.value))
    with pytest.raises(ConfigError, match=r"record 4 \(\.layers\[2\]\.weight\): .*, the file ends before it"):
        load_equinox(MLPEncoder(3, (5, 2, 2), key=KEY), tmp_path)
    write_eqx(tmp_path / "other" / "state.eqx", [np.float64(1)])
    with pytest.raises(ConfigError, match=r"expected int64 \(\), found float64 \(\)"):
        load_equinox([3], tmp_path / "other")
    with pytest.raises(ConfigError, match="no such checkpoint directory"):
        load_equinox(mlp(), tmp_path / "missing")
