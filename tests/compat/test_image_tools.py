"""openpi's image tools, against what the original makes of the same images."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from policyserve.compat.openpi import image_tools
from policyserve.core.errors import MissingDependency
from tests.compat.image_cases import digests, picture
from tests.policies.frameworks import import_or_skip


def test_images_are_equal_to_openpi_clients_to_the_byte() -> None:
    import_or_skip("PIL.Image")
    recorded = json.loads((Path(__file__).parent / "image_digests.json").read_text())
    assert digests(image_tools) == recorded


def test_an_image_that_fits_is_handed_back_as_it_is() -> None:
    image = picture((4, 6, 3))
    assert image_tools.resize_with_pad(image, 4, 6) is image


def test_a_wide_image_gets_black_above_and_below() -> None:
    import_or_skip("PIL.Image")
    resized = image_tools.resize_with_pad(np.full((10, 20, 3), 200, np.uint8), 8, 8)
    assert resized.shape == (8, 8, 3)
    assert not resized[:2].any()
    assert not resized[6:].any()
    assert (resized[2:6] == 200).all()


def test_no_images_give_no_images() -> None:
    assert image_tools.resize_with_pad(np.zeros((0, 10, 20, 3), np.uint8), 8, 8).shape == (0, 8, 8, 3)


def test_integers_are_not_scaled() -> None:
    image = picture((2, 2, 3))
    assert image_tools.convert_to_uint8(image) is image


def test_a_float_image_is_refused_for_resizing() -> None:
    with pytest.raises(TypeError):
        image_tools.resize_with_pad(np.zeros((4, 4, 3), np.float32), 8, 8)


def test_without_pillow_the_error_names_the_extra() -> None:
    program = (
        "import sys; sys.modules['PIL'] = None\n"
        "import numpy as np\n"
        "from policyserve.compat.openpi.image_tools import resize_with_pad\n"
        "resize_with_pad(np.zeros((4, 4, 3), np.uint8), 8, 8)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], text=True, capture_output=True, check=False)
    assert ended.stderr.splitlines()[-1].endswith(str(MissingDependency("Pillow", "images")))
