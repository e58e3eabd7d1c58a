"""Shared memory: a slot is nobody else's while anyone looks at it."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator

import numpy as np
import pytest

from policyserve.engine.isolated import arena
from policyserve.engine.isolated.arena import Arena, ArenaReader, shared_memory


@pytest.fixture
def ends() -> Iterator[tuple[Arena, ArenaReader]]:
    descriptor = shared_memory()
    writer, reader = Arena(descriptor), ArenaReader(os.dup(descriptor))
    yield writer, reader
    writer.close()
    reader.close()


def test_the_reader_sees_what_the_writer_wrote_without_a_copy(ends: tuple[Arena, ArenaReader]) -> None:
    writer, reader = ends
    slot, memory = writer.take(10_000)
    memory[:3] = (1, 2, 3)
    seen = reader.view(slot)
    assert seen[:3].tolist() == [1, 2, 3]
    seen[0] = 9
    assert memory[0] == 9
    assert seen.ctypes.data % 4096 == 0


def test_a_slot_is_released_when_the_last_view_of_it_is_gone(ends: tuple[Arena, ArenaReader]) -> None:
    writer, reader = ends
    slot, _ = writer.take(10_000)
    root = reader.view(slot)
    image = root[64:1064].reshape(10, 100)
    row = image[3].view(np.int8)
    del root, image
    assert reader.take_released() == []
    del row
    assert reader.take_released() == [slot.number]
    assert reader.take_released() == []


def test_a_slot_is_given_again_only_when_it_was_given_back(ends: tuple[Arena, ArenaReader]) -> None:
    writer, _ = ends
    first, _ = writer.take(100_000)
    second, _ = writer.take(100_000)
    assert first != second
    writer.give_back([first.number])
    assert writer.take(99_000)[0] == first  # nearly the same size
    assert writer.take(10)[0] not in (first, second)
    assert writer.in_use == 3


def test_slots_do_not_overlap(ends: tuple[Arena, ArenaReader]) -> None:
    writer, reader = ends
    taken = [writer.take(size) for size in (1, 5_000, 70 << 20, 4096, 60 << 20, 100_000)]
    for number, (_, memory) in enumerate(taken):
        memory[:] = number
    for number, (slot, _) in enumerate(taken):
        view = reader.view(slot)
        assert len(view) == slot.size
        assert view[0] == view[-1] == number


def test_memory_beyond_what_is_kept_goes_back_to_the_system(
    ends: tuple[Arena, ArenaReader], monkeypatch: pytest.MonkeyPatch
) -> None:
    if not hasattr(os, "memfd_create"):
        pytest.skip("needs Linux")
    writer, _ = ends
    monkeypatch.setattr(arena, "_KEPT", 1 << 20)
    slots = [writer.take(1 << 20) for _ in range(4)]
    for _, memory in slots:
        memory[:] = 7
    writer.give_back(slot.number for slot, _ in slots)
    assert [int(memory[0]) for _, memory in slots] == [7, 0, 0, 0]


def test_views_outlive_both_ends() -> None:
    descriptor = shared_memory()
    writer, reader = Arena(descriptor), ArenaReader(os.dup(descriptor))
    slot, memory = writer.take(10_000)
    memory[:] = 5
    view = reader.view(slot)
    writer.close()
    reader.close()
    del writer, reader, memory
    gc.collect()
    assert view.min() == view.max() == 5


def test_it_works_without_memfd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create", raising=False)
    descriptor = shared_memory()
    writer, reader = Arena(descriptor), ArenaReader(os.dup(descriptor))
    slot, memory = writer.take(10_000)
    memory[:] = 5
    assert reader.view(slot).min() == 5
    writer.close()
    reader.close()


needs_seals = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has seals")


@needs_seals
def test_memory_grows_and_never_shrinks() -> None:
    descriptor = shared_memory()
    writer = Arena(descriptor)
    _, memory = writer.take(100_000)
    memory[:] = 7
    for size in (0, 4096, 1 << 20):
        with pytest.raises(PermissionError):
            os.ftruncate(descriptor, size)
    assert memory.min() == memory.max() == 7
    writer.take(70 << 20)
    writer.close()


@needs_seals
@pytest.mark.parametrize("seal", ["F_SEAL_GROW", "F_SEAL_WRITE", "F_SEAL_SEAL"])
def test_nobody_adds_a_seal(seal: str) -> None:
    import fcntl

    descriptor = shared_memory()
    with pytest.raises(PermissionError):
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, getattr(fcntl, seal))
    os.close(descriptor)


@needs_seals
def test_memory_without_seals_is_memory_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    def refuse(*_arguments: object) -> int:
        raise PermissionError

    monkeypatch.setattr(fcntl, "fcntl", refuse)
    writer = Arena(shared_memory())
    writer.take(10_000)[1][:] = 5
    writer.close()


def test_a_slot_beyond_the_memory_is_an_error(ends: tuple[Arena, ArenaReader]) -> None:
    writer, reader = ends
    slot, _ = writer.take(10_000)
    for wrong in (
        slot._replace(segment=1 << 40),
        slot._replace(segment_size=1 << 40),
        slot._replace(start=slot.segment_size),
        slot._replace(size=slot.segment_size + 1),
        slot._replace(start=-1),
    ):
        with pytest.raises(ValueError, match=r"mmap|buffer|offset"):
            ArenaReader(os.dup(reader._descriptor)).view(wrong)  # pyright: ignore[reportPrivateUsage]
