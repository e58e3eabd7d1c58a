"""The memory that messages cost, counted; tests/fuzz/cost.py measures their time, too, on messages of up to 8 MiB."""

from __future__ import annotations

import random

import pytest

from tests.fuzz.cost import HELD, MEMORY, SHAPES, SPECS, Asked, any_asked, asked, counted, held_ratio, memory_ratio

_SIZES = (1_000, 16_000, 200_000, 1_500_000)


def check(one: Asked) -> None:
    """The least of three counts: what a thread or the garbage of another test allocates meanwhile only ever adds."""
    cost = min((counted(one) for _ in range(3)), key=lambda cost: cost.peak)
    assert memory_ratio(one, cost) <= MEMORY, f"{cost} for {len(one.frame)} bytes: {one.dialect}, {one.spec}"
    assert held_ratio(cost) <= HELD, f"{cost} for {len(one.frame)} bytes: {one.dialect}, {one.spec}"


@pytest.mark.parametrize("shape", SHAPES)
def test_a_message_costs_four_times_its_bytes_and_a_mebibyte_at_most(shape: str) -> None:
    chance = random.Random(shape)
    for size in _SIZES:
        for _ in range(4):
            check(asked(shape, size, chance))


@pytest.mark.parametrize("seed", range(60))
def test_whatever_a_message_holds_it_costs_no_more(seed: int) -> None:
    check(any_asked(300_000, random.Random(seed)))


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("dialect", ["openpi", "wall_x", "vibe_rl", None])
@pytest.mark.parametrize("shape", ["a long key over many entries", "texts of 90,000 letters", "deep nesting"])
def test_no_dialect_and_no_spec_makes_the_worst_of_them_dearer(shape: str, dialect: str | None, spec: str) -> None:
    one = asked(shape, 400_000, random.Random(1))
    check(Asked(shape, one.frame, dialect, spec))
