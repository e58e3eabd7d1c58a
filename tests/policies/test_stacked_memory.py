"""Stacks are used again, and never while anybody holds what is in them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policyserve.core.policy import PolicyInput
from policyserve.core.spec import ArraySpec, ImageSpec, PolicySpec
from policyserve.engine.runner import Task, ThreadRunner
from policyserve.policies import stacked_memory
from policyserve.policies.stacked import StackedPolicy, powers_of_two
from policyserve.policies.stacked_memory import StackedMemory
from tests.engine.running import with_runner
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


def test_what_nobody_holds_is_used_again() -> None:
    memory = StackedMemory()
    first = address(memory.take("image", SHAPE, UINT8))
    assert address(memory.take("image", SHAPE, UINT8)) == first


def test_rows_begin_at_a_cache_line() -> None:
    memory = StackedMemory()
    for rows in range(3, 20):
        assert address(memory.take(rows, (rows, 100_000), UINT8)) % 64 == 0


@pytest.mark.parametrize(
    "hold",
    [
        lambda rows: rows,
        lambda rows: rows[1:2],
        lambda rows: rows[0].T[::2].view(np.int8),
        lambda rows: memoryview(rows),
        lambda rows: np.ma.masked_array(rows),
        lambda rows: rows.flat,
        lambda rows: np.frombuffer(rows, np.uint16),
        lambda rows: np.from_dlpack(rows),
        lambda rows: rows.ctypes,
    ],
    ids=["itself", "a slice", "a view of a view", "memoryview", "masked", "flat", "frombuffer", "dlpack", "ctypes"],
)
@pytest.mark.parametrize("allocate", [None, Allocator()], ids=["ordinary memory", "an allocator's"])
def test_what_somebody_holds_is_not_overwritten(hold: Callable[[Any], Any], allocate: Allocator | None) -> None:
    memory = StackedMemory(allocate)
    first = memory.take("image", SHAPE, UINT8)
    where = address(first)
    held = hold(first)
    del first
    for _ in range(3):
        assert address(memory.take("image", SHAPE, UINT8)) != where
    del held
    assert address(memory.take("image", SHAPE, UINT8)) == where


def test_three_blocks_of_a_key_are_kept_and_no_more() -> None:
    memory = StackedMemory()
    held = [memory.take("image", SHAPE, UINT8) for _ in range(5)]
    assert memory.kept_bytes == 3 * held[0].nbytes
    assert len({address(rows) for rows in held}) == 5


def test_two_threads_never_get_the_same_block(monkeypatch: pytest.MonkeyPatch) -> None:
    block = stacked_memory._Block  # pyright: ignore[reportPrivateUsage]
    found_free, other_has_taken = threading.Event(), threading.Event()
    is_free: Any = block.is_free

    def stop_short(one: Any) -> bool:
        """Between finding a block free and taking it, the first thread loses its core."""
        is_so = is_free.fget(one)
        if not found_free.is_set():
            found_free.set()
            other_has_taken.wait(0.1)  # in vain, but for a broken one
        return is_so

    memory = StackedMemory()
    memory.take("image", SHAPE, UINT8)
    monkeypatch.setattr(block, "is_free", property(stop_short))
    taken: list[Any] = []
    first = threading.Thread(target=lambda: taken.append(memory.take("image", SHAPE, UINT8)))
    first.start()
    assert found_free.wait(30)
    taken.append(memory.take("image", SHAPE, UINT8))
    other_has_taken.set()
    first.join(30)
    assert len({address(rows) for rows in taken}) == 2


def test_a_block_grows_to_the_largest_stack_and_serves_the_smaller_ones() -> None:
    allocator = Allocator()
    memory = StackedMemory(allocator)
    for rows in (1, 2, 4, 8):
        memory.take("image", (rows, 10), np.dtype(np.float32))
    assert allocator.sizes == [40, 80, 160, 320]
    assert memory.kept_bytes == 320
    for rows in (1, 8, 3):
        memory.take("image", (rows, 10), np.dtype(np.float32))
    memory.take("image", (320,), UINT8)
    assert len(allocator.sizes) == 4


def test_small_stacks_are_left_to_the_c_library() -> None:
    memory = StackedMemory()
    assert memory.take("state", (32, 8), np.dtype(np.float32)).shape == (32, 8)
    assert memory.kept_bytes == 0


def test_beyond_the_bound_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stacked_memory, "_MOST_BYTES", 250_000)
    memory = StackedMemory()
    for key in range(10):
        assert memory.take(key, SHAPE, UINT8).shape == SHAPE
    assert memory.kept_bytes <= 250_000


def test_an_array_without_numbers_has_a_place_too() -> None:
    assert StackedMemory(Allocator()).take("nothing", (4, 0), np.dtype(np.float32)).shape == (4, 0)


# In a policy


def stacked(forward: Callable[[Mapping[str, Any]], Any], max_batch: int = 4, **options: Any) -> StackedPolicy:
    spec = PolicySpec("stacked", {"state": ArraySpec((ROW,))}, ArraySpec((2,)), max_batch=max_batch, max_client_batch=9)
    return StackedPolicy(forward, spec, **options)


def inputs(*values: float) -> list[PolicyInput]:
    return [PolicyInput({"state": np.full(ROW, value, np.float32)}) for value in values]


def test_a_policy_gets_the_same_memory_batch_after_batch() -> None:
    seen: list[int] = []

    def forward(rows: Mapping[str, Any]) -> Any:
        seen.append(address(rows["state"]))
        return rows["state"][:, :2].copy()

    policy = stacked(forward)
    for value in range(5):
        chunks = policy.infer(inputs(value, value + 0.5))
        assert [chunk.actions[0] for chunk in chunks] == [value, value + 0.5]
    assert len(set(seen)) == 1


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
    assert sorted(allocator.sizes) == [3 * 3 * 4, 3 * 8 * 8 * 3]
    assert [shape for shape, _ in images] == [(3, 8, 8, 3)] * 5
    assert all((state == np.arange(3)).all() for _, state in images)


def test_two_blocks_serve_a_runner_that_stacks_ahead() -> None:
    """One that the policy reads, and one that is filled."""
    allocator, last = Allocator(), 6
    is_stacked = [threading.Event() for _ in range(last + 1)]  # batch 0 is the warm-up
    seen: list[int] = []

    class Noting(StackedPolicy):
        def prepare(self, batch: Sequence[PolicyInput]) -> Mapping[str, Any] | None:
            prepared = super().prepare(batch)
            is_stacked[int(batch[0].observation["state"][0])].set()
            return prepared

    def forward(rows: Mapping[str, Any]) -> Any:
        number = int(rows["state"][0, 0])
        if 0 < number < last:
            assert is_stacked[number + 1].wait(30)
        seen.append(address(rows["state"]))
        return rows["state"][:, :2].copy()

    async def talk(runner: ThreadRunner) -> list[float]:
        done: list[asyncio.Future[Any]] = [asyncio.get_running_loop().create_future() for _ in range(last)]

        def ask(number: int) -> None:
            if number <= last:
                row = np.full(ROW, number, np.float32)
                runner.infer(
                    [Task(session, {"state": row}) for session in (1, 2)], lambda outcomes: end(number, outcomes)
                )

        def end(number: int, outcomes: Any) -> None:
            ask(number + 2)
            done[number - 1].set_result(outcomes)

        ask(1)
        ask(2)
        return [float(outcomes[1].chunk.actions[0]) for outcomes in await asyncio.gather(*done)]

    policy = Noting(forward, stacked(forward, max_batch=2).spec, allocate=allocator)
    assert with_runner(ThreadRunner(lambda _: policy), talk) == [1, 2, 3, 4, 5, 6]
    assert len(allocator.sizes) == 2
    assert len(set(seen[-last:])) == 2


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
