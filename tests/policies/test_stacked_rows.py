"""Stacks have memory of their own: what a policy holds, or a framework still reads, never changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from policyserve.core.policy import PolicyInput
from policyserve.core.spec import ArraySpec, ImageSpec, PolicySpec
from policyserve.policies.stacked import StackedPolicy, powers_of_two
from tests.policies.frameworks import import_or_skip

SHAPE = (4, 300, 100)  # large enough to be kept
UINT8 = np.dtype(np.uint8)
ROW = 20_000  # float32 of one observation: two are large enough


class Allocator:
    """Ordinary memory, counted; stands for pinned memory."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def __call__(self, size: int) -> Any:
        self.sizes.append(size)
        return np.empty(size, np.uint8)


def address(array: Any) -> int:
    return array.__array_interface__["data"][0]


def stacked(forward: Callable[[Mapping[str, Any]], Any], max_batch: int = 4, **options: Any) -> StackedPolicy:
    spec = PolicySpec("stacked", {"state": ArraySpec((ROW,))}, ArraySpec((2,)), max_batch=max_batch, max_client_batch=9)
    return StackedPolicy(forward, spec, **options)


def inputs(*values: float) -> list[PolicyInput]:
    return [PolicyInput({"state": np.full(ROW, value, np.float32)}) for value in values]


def test_rows_begin_at_a_cache_line() -> None:
    seen: list[int] = []

    def forward(rows: Mapping[str, Any]) -> Any:
        seen.append(address(rows["state"]))
        return np.zeros((len(rows["state"]), 2), np.float32)

    policy = stacked(forward, max_batch=8)
    for count in range(2, 9):
        policy.infer(inputs(*range(count)))
    assert [where % 64 for where in seen] == [0] * 7


def test_a_policy_that_keeps_its_inputs_never_sees_them_change() -> None:
    kept: list[Any] = []

    def forward(rows: Mapping[str, Any]) -> Any:
        kept.append(rows["state"])
        return np.zeros((len(rows["state"]), 2), np.float32)

    policy = stacked(forward)
    for value in range(6):
        policy.infer(inputs(value, value + 0.5))
    for value, rows in enumerate(kept):
        assert (rows[0] == value).all()
        assert (rows[1] == value + 0.5).all()


def test_actions_that_are_views_of_the_input_never_change() -> None:
    policy = stacked(lambda rows: rows["state"][:, :2])
    answers = [policy.infer(inputs(value, value + 0.5)) for value in range(6)]
    for value, chunks in enumerate(answers):
        np.testing.assert_array_equal([chunk.actions[0] for chunk in chunks], [value, value + 0.5])


@given(sizes=st.lists(st.integers(1, 8), min_size=2, max_size=8), keeps=st.booleans())
@settings(max_examples=30, deadline=None)
def test_rows_beyond_the_batch_are_zeros_whatever_was_there_before(sizes: list[int], keeps: bool) -> None:
    kept: list[Any] = []

    def forward(rows: Mapping[str, Any]) -> Any:
        assert (rows["state"][count:] == 0).all()
        assert (rows["state"][:count] == 7).all()
        rows["state"][:] = -1  # a policy may write into what it was given
        kept.extend([rows["state"]] if keeps else [])
        return np.zeros((len(rows["state"]), 2), np.float32)

    policy = stacked(forward, max_batch=8, buckets=powers_of_two(8))
    for count in sizes:
        policy.infer(inputs(*[7] * count))


def test_a_clients_own_batch_that_fits_is_not_copied() -> None:
    seen: list[Any] = []

    def forward(rows: Mapping[str, Any]) -> Any:
        seen.append(rows["state"])
        return np.zeros((len(rows["state"]), 2), np.float32)

    rows = np.ones((9, ROW), np.float32)
    stacked(forward).infer([PolicyInput({"state": rows}, batch_size=9)])
    assert [len(part) for part in seen] == [4, 4, 1]
    assert all(np.shares_memory(part, rows) for part in seen)


def test_stacks_come_from_the_allocator_that_an_adapter_gives() -> None:
    allocator = Allocator()
    images: list[Any] = []

    def forward(rows: Mapping[str, Any]) -> Any:
        images.append((rows["camera"]["front"].shape, rows["state"].copy()))
        return np.zeros((len(rows["state"]), 2), np.float32)

    spec = PolicySpec(
        "pinned", {"camera": {"front": ImageSpec(8, 8)}, "state": ArraySpec((3,))}, ArraySpec((2,)), max_batch=4
    )
    policy = StackedPolicy(forward, spec, allocate=allocator)
    one = {"camera": {"front": np.zeros((8, 8, 3), np.uint8)}, "state": np.arange(3, dtype=np.float32)}
    for _ in range(5):
        policy.infer([PolicyInput(one)] * 3)
    assert sorted(allocator.sizes) == [3 * 3 * 4] * 5 + [3 * 8 * 8 * 3] * 5
    assert [shape for shape, _ in images] == [(3, 8, 8, 3)] * 5
    assert all((state == np.arange(3)).all() for _, state in images)


def test_what_jax_may_still_read_is_not_overwritten() -> None:
    """It takes aligned memory without a copy, and its results may come after the call."""
    jax = import_or_skip("jax")
    side = 150

    def forward(rows: Any) -> Any:
        start = rows.reshape(-1, side, side)
        product = start
        for _ in range(4):
            product = product @ start / side
        return product.mean(axis=(1, 2))

    compiled = jax.jit(forward)
    spec = PolicySpec("lazy", {"state": ArraySpec((side * side,))}, ArraySpec(()), max_batch=4)
    policy = StackedPolicy(lambda rows: compiled(rows["state"]), spec)
    pending: list[Any] = []
    for value in range(1, 9):
        one = PolicyInput({"state": np.full(side * side, value, np.float32)})
        pending.append(policy.infer([one] * 4))
    for value, chunks in enumerate(pending, start=1):
        np.testing.assert_allclose([float(chunk.actions) for chunk in chunks], [value**5.0] * 4, rtol=1e-4)
