"""Transforms one after another."""

from __future__ import annotations

import numpy as np

from policyserve.transforms import ComposeTransforms, NormalizeInput, identity


def test_composed_transforms_run_in_order() -> None:
    assert ComposeTransforms([lambda value: value + 1, lambda value: value * 10])(2) == 30


def test_no_transforms_are_the_identity() -> None:
    value = np.ones(3)
    assert ComposeTransforms(())(value) is value
    assert identity(value) is value


def test_a_transform_with_a_key_changes_that_entry_and_leaves_the_map_given_alone() -> None:
    observation = {"state": np.full(2, 3.0), "image": np.zeros((4, 4, 3), np.uint8)}
    changed = NormalizeInput(1.0, 2.0, key="state")(observation)
    np.testing.assert_array_equal(changed["state"], np.ones(2))
    assert changed["image"] is observation["image"]
    np.testing.assert_array_equal(observation["state"], np.full(2, 3.0))


def test_a_transform_with_a_key_changes_the_whole_of_what_is_no_map() -> None:
    np.testing.assert_array_equal(NormalizeInput(1.0, 2.0, key="state")(np.full(2, 3.0)), np.ones(2))
