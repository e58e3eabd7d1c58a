"""What openpi-client's own function gives is held in tests/compat/test_image_tools.py; here what else must be true."""

from __future__ import annotations

import numpy as np

from policyserve.compat.openpi import image_tools
from policyserve.transforms.fitting import resize_with_pad
from tests.policies.frameworks import import_or_skip

import_or_skip("PIL.Image")


def test_the_compat_room_has_the_same_function() -> None:
    assert image_tools.resize_with_pad is resize_with_pad


def test_a_picture_keeps_its_proportions_and_gets_black_margins() -> None:
    fitted = resize_with_pad(np.full((480, 640, 3), 200, np.uint8), 224, 224)
    assert fitted.shape == (224, 224, 3)
    assert (fitted[28:196] == 200).all()
    assert not fitted[:28].any()
    assert not fitted[196:].any()


def test_a_picture_in_its_size_is_the_same_object() -> None:
    picture = np.zeros((224, 224, 3), np.uint8)
    assert resize_with_pad(picture, 224, 224) is picture
