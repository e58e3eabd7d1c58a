"""What a decoded value takes in memory, against what the allocator counts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from policyserve.core.footprint import footprint
from tests.counted_memory import counted_memory

VALUES: dict[str, Callable[[], Any]] = {
    "texts": lambda: {"texts": [f"text {number}" for number in range(5_000)]},
    "a text of wide letters": lambda: {"text": "x" * 50_000 + "\U0001f600"},
    "numbers": lambda: {"numbers": [number + 0.5 for number in range(5_000)]},
    "maps": lambda: [{f"key {number}": [number * 1.5]} for number in range(2_000)],
    "arrays": lambda: {f"array {number}": np.zeros(30) for number in range(500)},
    "a large array": lambda: np.zeros((100, 1_000)).reshape(1_000, 100),
    "bytes": lambda: [bytes([number % 256]) * 500 for number in range(500)],
}


@pytest.mark.parametrize("what", VALUES)
def test_what_is_told_is_what_is_allocated(what: str) -> None:
    with counted_memory() as memory:
        value = VALUES[what]()
    assert memory.left / 1.5 < footprint(value) < memory.left * 2


def test_an_array_that_views_its_message_is_its_message() -> None:
    message = memoryview(bytearray(1_000_000))
    assert footprint({"view": np.frombuffer(message, np.float32).reshape(500, 500)}) < 1_000
