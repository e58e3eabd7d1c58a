"""Pictures of which scaling to 0 … 1 has left nothing but 0 and 1."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from policyserve.core.pictures import binary_pictures


def picture(value: int, *shape: int) -> np.ndarray[Any, Any]:
    return np.full(shape or (4, 6, 3), value, np.uint8)


@pytest.mark.parametrize("shape", [(4, 6, 3), (3, 4, 6), (2, 4, 6, 3), (2, 3, 4, 6)])
def test_it_is_found_at_its_path_in_each_order_of_axes(shape: tuple[int, ...]) -> None:
    dim = picture(0, *shape)
    dim.flat[5] = 1
    assert list(binary_pictures({"images": {"wrist": dim, "front": picture(9)}})) == ["images/wrist"]
    assert list(binary_pictures(dim)) == [""], "a session whose observation is one array"


@pytest.mark.parametrize(
    "fine",
    [
        *(picture(0), picture(255), picture(2), picture(1).astype(np.float32), picture(1).astype(bool)),
        *(picture(1, 4, 6), picture(1, 4, 6, 2), picture(1, 0, 6, 3), 1, "one", [picture(1)]),
    ],
    ids=str,
)
def test_anything_else_is_left_alone(fine: Any) -> None:
    assert list(binary_pictures({"view": fine})) == []
