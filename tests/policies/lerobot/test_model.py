"""A loaded model: pictures as clients send them, what it computes in, and where."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserve.core.arrays import Array
from policyserve.core.errors import ConfigError
from policyserve.policies.lerobot.layout import WEIGHTS
from policyserve.policies.lerobot.options import LeRobotFlags
from policyserve.policies.lerobot.plan import make_plan, read_folder
from tests.policies.frameworks import import_or_skip
from tests.policies.lerobot.cases import TOLERANCE, copied, folder, frames, read_tensors, write_tensors
from tests.policies.lerobot.test_statistics import BEFORE_NUMBERS

import_or_skip("torch")
import_or_skip("safetensors")

from policyserve.policies.lerobot.model import LeRobotModel, find_device, load_model  # noqa: E402

CASE, KEY = "act_one_camera", "observation.image"


def loaded(target: Path, **settings: Any) -> LeRobotModel:
    plan = make_plan(read_folder(str(target)), LeRobotFlags())
    usual: dict[str, Any] = {"device": "cpu", "dtype": "float32", "threads": 1, "on_stage": lambda _stage: None}
    return load_model(plan.config, plan.statistics, plan.weights, **{**usual, **settings})


@pytest.fixture(scope="module")
def model() -> LeRobotModel:
    return loaded(folder(CASE))


def sent(picture: Array) -> list[dict[str, Array]]:
    return [{**frames(CASE, "chunk", 0, 0), KEY: picture}]


def test_a_picture_is_the_same_however_it_is_sent(model: LeRobotModel) -> None:
    picture = frames(CASE, "chunk", 0, 0)[KEY]
    expected = model([sent(picture)], None)
    scaled = (picture / 255).astype(np.float32)
    for other in (picture.transpose(2, 0, 1), scaled, scaled.transpose(2, 0, 1), scaled.astype(np.float64)):
        np.testing.assert_allclose(model([sent(other)], None), expected, atol=TOLERANCE, rtol=0)
    together = model([sent(picture), sent(scaled.transpose(2, 0, 1)), sent(picture.transpose(2, 0, 1))], None)
    np.testing.assert_allclose(together, np.repeat(expected, 3, 0), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_narrower_dtype_gives_about_the_same(dtype: str) -> None:
    rows = [[frames("act_state", "chunk", 0, 0)]]
    expected = loaded(folder("act_state"))(rows, None)
    given = loaded(folder("act_state"), dtype=dtype)(rows, None)
    assert given.dtype == np.float32
    np.testing.assert_allclose(given, expected, atol=0.1)


def test_weights_that_are_no_numbers_or_too_large_for_the_dtype_are_refused(tmp_path: Path) -> None:
    target = copied("act_state", tmp_path)
    tensors = read_tensors(target / WEIGHTS)
    tensors["model.action_head.bias"][0] = 1e30
    write_tensors(target / WEIGHTS, tensors)
    loaded(target)
    with pytest.raises(ConfigError, match=r"model\.action_head\.bias: expected finite numbers that float16 can hold"):
        loaded(target, dtype="float16")
    tensors["model.action_head.bias"][0] = np.nan
    write_tensors(target / WEIGHTS, tensors)
    with pytest.raises(ConfigError, match="expected finite numbers that float32 can hold"):
        loaded(target)


def test_a_device_that_is_not_there_is_refused() -> None:
    assert find_device("cpu").type == "cpu"
    with pytest.raises(ConfigError, match="--device cuda:99: torch "):
        find_device("cuda:99")


def test_a_feature_that_never_changed_is_zero_where_it_is_as_ever(tmp_path: Path) -> None:
    usual, constant = copied("act_state", tmp_path / "a"), copied("act_state", tmp_path / "b")
    tensors = read_tensors(usual / BEFORE_NUMBERS)
    mean = tensors["observation.state.mean"] = np.full(6, 2048.3, np.float32)
    for target, deviation in ((usual, 1.0), (constant, 0.0)):
        tensors["observation.state.std"] = np.full(6, deviation, np.float32)
        write_tensors(target / BEFORE_NUMBERS, tensors)
    rows = [[{**frames("act_state", "chunk", 0, 0), "observation.state": mean}]]
    np.testing.assert_array_equal(loaded(constant)(rows, None), loaded(usual)(rows, None))
