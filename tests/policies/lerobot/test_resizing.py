"""Pictures of another size than the policy's: refused, or made to fit where a flag says how."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from policyserve import Client
from policyserve.core.arrays import Array
from policyserve.core.errors import ConfigError
from policyserve.policies.lerobot.options import LeRobotFlags, Resizing
from policyserve.policies.lerobot.plan import make_plan, read_folder
from policyserve.policies.loading import load_policy
from tests.policies.frameworks import import_or_skip
from tests.policies.lerobot.cases import TOLERANCE, folder, frames, golden
from tests.server.live import serving

import_or_skip("torch")
import_or_skip("safetensors")

from policyserve.policies.lerobot.resizing import fitted  # noqa: E402

CASE, KEY = "act_one_camera", "observation.image"
SHAPE = (3, 40, 56)


def picture(height: int, width: int) -> Array:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def test_a_picture_of_the_right_size_stays_as_it_is() -> None:
    right = picture(40, 56)
    assert fitted(right, SHAPE, "pad") is right
    np.testing.assert_array_equal(fitted(right.transpose(2, 0, 1), SHAPE, "stretch"), right)


@pytest.mark.parametrize(
    ("size", "rows", "columns"),
    [
        ((80, 112), (0, 40), (0, 56)),  # twice as large, in the same proportion
        ((80, 56), (0, 40), (14, 42)),  # upright
        ((20, 56), (10, 30), (0, 56)),  # a strip
        ((1, 900), (19, 20), (0, 56)),  # less than a pixel high
    ],
)
def test_pad_keeps_proportions_in_the_middle_of_black(
    size: tuple[int, int], rows: tuple[int, int], columns: tuple[int, int]
) -> None:
    found = fitted(np.full((*size, 3), 200, np.uint8), SHAPE, "pad")
    expected = np.zeros((40, 56, 3), np.uint8)
    expected[slice(*rows), slice(*columns)] = 200
    np.testing.assert_array_equal(found, expected)


def test_stretch_fills_the_picture_and_means_what_it_shrinks() -> None:
    tall = np.repeat(np.repeat(picture(40, 56), 4, 0), 2, 1)
    found = fitted(tall, SHAPE, "stretch")
    assert found.shape == (40, 56, 3)
    assert abs(float(found.mean()) - float(tall.mean())) < 1
    halves = np.zeros((10, 10, 3), np.uint8)
    halves[:, 5:] = 100
    (row,) = np.unique(fitted(halves, SHAPE, "stretch")[..., 0], axis=0)
    assert (row[0], row[-1]) == (0, 100)
    assert (np.diff(row.astype(int)) >= 0).all()


@pytest.mark.parametrize("how", ["pad", "stretch"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_floats_keep_their_scale_and_either_order_of_axes_is_one_picture(how: Resizing, dtype: str) -> None:
    large = picture(96, 128)
    scaled = (large / 255).astype(dtype)
    found = fitted(scaled, SHAPE, how)
    assert (found.shape, found.dtype) == ((40, 56, 3), np.float32)
    np.testing.assert_allclose(found, fitted(large, SHAPE, how) / 255, atol=0.01)
    np.testing.assert_array_equal(fitted(scaled.transpose(2, 0, 1), SHAPE, how), found)


@pytest.mark.parametrize("mode", ["chunk", "step"])
def test_clients_with_other_cameras_are_served_beside_each_other(mode: str) -> None:
    right = frames(CASE, "chunk", 0, 0)
    expected = golden(CASE)["chunk/actions"][0, : None if mode == "chunk" else 1]
    policy = load_policy(f"lerobot:{folder(CASE)}", device="cpu", mode=mode, resize="stretch")
    leaf = policy.spec.leaves[KEY]
    assert str(leaf) == "uint8 or float image HWC|CHW"
    assert leaf.doc.endswith("resized to 40 x 56")
    with serving(policy) as live, Client(live.url()) as first, Client(live.url()) as second:
        found = first.infer(right).actions
        np.testing.assert_allclose(np.atleast_2d(found), expected[: len(np.atleast_2d(found))], atol=TOLERANCE, rtol=0)
        small = {**right, KEY: fitted(right[KEY], (3, 20, 28), "stretch")}
        again = second.infer(small).actions
        assert np.isfinite(again).all()
        wanted = load_one(mode, {**right, KEY: fitted(small[KEY], SHAPE, "stretch")})
        np.testing.assert_allclose(again, wanted, atol=TOLERANCE, rtol=0)


def load_one(mode: str, observation: dict[str, Any]) -> Array:
    with serving(load_policy(f"lerobot:{folder(CASE)}", device="cpu", mode=mode)) as live, Client(live.url()) as client:
        return client.infer(observation).actions


def test_a_policy_without_pictures_and_frames_that_a_client_keeps_are_not_resized() -> None:
    flags = LeRobotFlags(resize="pad")
    with pytest.raises(ConfigError, match="--resize: expected none for this act, which takes no pictures"):
        make_plan(read_folder(str(folder("act_state"))), flags)
    with pytest.raises(ConfigError, match=re.escape("resize: expected none with --history")):
        LeRobotFlags(resize="pad", history=True, mode="chunk")
