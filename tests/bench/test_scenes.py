"""Made-up pictures that a JPEG makes as small as a camera's."""

from __future__ import annotations

import numpy as np

from policyserve.bench.payloads import payload_for
from policyserve.bench.scenes import scene, with_scenes
from tests.policies.frameworks import import_or_skip


def test_a_scene_is_a_picture_and_the_same_for_the_same_seed() -> None:
    one = scene(48, 64)
    assert (one.shape, one.dtype) == ((48, 64, 3), np.dtype(np.uint8))
    np.testing.assert_array_equal(one, scene(48, 64))
    assert (one != scene(48, 64, seed=1)).any()
    assert one.std() > 10


def test_a_jpeg_of_it_takes_as_much_as_one_of_a_photograph_and_random_numbers_far_more() -> None:
    import_or_skip("simplejpeg")
    from policyserve.transforms.jpeg import encode

    numbers = np.random.default_rng(0).integers(0, 256, (480, 640, 3)).astype(np.uint8)
    bits = [len(encode(one, 90).data) * 8 / (480 * 640) for one in (scene(480, 640), numbers)]
    assert 0.7 < bits[0] < 2
    assert bits[1] > 6


def test_a_payloads_pictures_become_scenes_in_their_layout_and_all_else_stays() -> None:
    libero, aloha = payload_for("libero", {}, "openpi"), payload_for("aloha", {}, "openpi")
    made = with_scenes(libero).observation
    np.testing.assert_array_equal(made["observation/image"], scene(224, 224))
    assert made["observation/state"] is libero.observation["observation/state"]
    first = with_scenes(aloha).observation["images"]["cam_high"]
    np.testing.assert_array_equal(first, scene(480, 640).transpose(2, 0, 1))
    assert first.flags.c_contiguous
