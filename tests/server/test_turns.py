"""What one peer may have of a turn of the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from policyserve.server.turns import LoopTurns, Share
from tests.policies.frameworks import needs_uvloop


def run(main: Callable[[], Coroutine[Any, Any, None]], loop: str) -> None:
    if loop == "uvloop":
        import uvloop

        uvloop.run(main())
    else:
        asyncio.run(main())


LOOPS = pytest.mark.parametrize("loop", ["asyncio", pytest.param("uvloop", marks=needs_uvloop)])


@LOOPS
@pytest.mark.parametrize(("size", "reads"), [(1 << 14, 16), (1 << 16, 16), (1 << 18, 4), (1 << 19, 2), (1 << 20, 1)])
def test_a_peer_has_sixteen_reads_or_a_mebibyte_in_a_turn(size: int, reads: int, loop: str) -> None:
    async def main() -> None:
        share = Share(LoopTurns())
        for _ in range(3):
            assert [share.is_spent(size) for _ in range(reads)] == [False] * (reads - 1) + [True]
            await asyncio.sleep(0)

    run(main, loop)


@LOOPS
def test_small_reads_leave_nothing_in_the_socket_and_cost_nothing(loop: str) -> None:
    async def main() -> None:
        share = Share(LoopTurns())
        assert not any(share.is_spent(1000) for _ in range(100))

    run(main, loop)


@LOOPS
def test_what_one_peer_reads_is_not_taken_from_another(loop: str) -> None:
    async def main() -> None:
        turns = LoopTurns()
        first, second = Share(turns), Share(turns)
        assert not any(first.is_spent(1 << 16) or second.is_spent(1 << 16) for _ in range(3))

    run(main, loop)


@LOOPS
def test_many_peers_have_one_read_each_once_much_was_read_in_a_turn(loop: str) -> None:
    async def main() -> None:
        turns = LoopTurns()
        for _ in range(3):
            greedy, late = [Share(turns) for _ in range(8)], Share(turns)
            assert all(share.is_spent(1 << 20) for share in greedy)
            assert late.is_spent(1 << 16)
            await asyncio.sleep(0)
            assert not late.is_spent(1 << 16)
            await asyncio.sleep(0)

    run(main, loop)
