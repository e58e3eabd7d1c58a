"""A session's policy state as bytes that travel."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
import pytest

from policyserve.core.errors import PolicyFailed
from policyserve.ray.carrying import read_state, write_state


@dataclass
class Frames:
    """A policy's own kind of state."""

    count: int
    last: np.ndarray  # type: ignore[type-arg]


def test_a_state_comes_back_as_it_was_and_can_be_written() -> None:
    state = {"frames": Frames(3, np.arange(5000.0)), "name": ("a", 1), "none": None}
    read = read_state(write_state(state))
    assert (read["frames"].count, read["name"], read["none"]) == (3, ("a", 1), None)
    np.testing.assert_array_equal(read["frames"].last, np.arange(5000.0))
    read["frames"].last[0] = 7.0


def test_no_state_is_no_bytes() -> None:
    assert write_state(None) is None
    assert read_state(None) is None


def test_a_state_that_cannot_travel_fails_and_says_what_can() -> None:
    with pytest.raises(PolicyFailed, match=r"cannot travel between machines: .*return arrays, numbers, texts"):
        write_state({"lock": threading.Lock()})


def test_a_state_that_is_too_large_names_the_flag() -> None:
    with pytest.raises(PolicyFailed, match=r"has 78 KiB .*expected at most 64; raise --max-state-kib"):
        write_state(np.zeros(10_000))
    assert write_state(np.zeros(10_000), max_state_kib=100)
