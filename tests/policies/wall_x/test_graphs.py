"""Which graphs are kept, by what they take, and what is told when one is recorded."""

from __future__ import annotations

import logging
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.policies.frameworks import import_or_skip

torch = import_or_skip("torch")

from policyserve.policies.wall_x.graphs import Graphs, Work  # noqa: E402
from policyserve.policies.wall_x.memory import MOST_GRAPH_BYTES, ONE_GRAPH_BYTES, graph_bytes  # noqa: E402

MIB = 1 << 20


@dataclass(frozen=True)
class Rows:
    """A state of one tensor."""

    x: Any
    key: Hashable = None

    @property
    def shape(self) -> str:
        return f"{len(self.x)} rows"

    def tensors(self) -> list[tuple[Any, int | None]]:
        return [(self.x, 0)]

    def replace(self, tensors: list[Any]) -> Rows:
        return Rows(tensors[0], self.key)


def of(mebibytes: int, key: Hashable = None) -> Rows:
    return Rows(torch.ones(1, mebibytes * MIB // 4), key)


class Recorder:
    """Counts what is recorded."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, work: Work) -> Work:
        self.count += 1
        return work


def graphs_of(mebibytes: int) -> tuple[Graphs[Rows], Recorder]:
    recorder = Recorder()
    return Graphs([lambda rows: rows.x.mul_(2)], recorder, max_bytes=mebibytes * MIB), recorder


def test_a_state_of_a_shape_that_was_there_is_not_recorded_again() -> None:
    graphs, recorder = graphs_of(1000)
    for _ in range(2):
        captured = graphs.enter(of(1))
        captured.replay()
        assert float(captured.state.x[0, 0]) == 2
    assert recorder.count == 1
    assert graphs.size == ONE_GRAPH_BYTES + MIB


def test_several_works_on_one_state_are_recorded_each_on_its_own_and_counted() -> None:
    recorder = Recorder()
    graphs: Graphs[Rows] = Graphs([lambda rows: rows.x.mul_(2), lambda rows: rows.x.add_(5)], recorder)
    captured = graphs.enter(of(1))
    captured.replay(1)
    captured.replay(0)
    assert float(captured.state.x[0, 0]) == 12
    assert recorder.count == 2
    assert graphs.size == 2 * ONE_GRAPH_BYTES + MIB


def test_the_graphs_that_were_not_used_for_longest_make_room() -> None:
    each = ONE_GRAPH_BYTES // MIB + 10
    graphs, recorder = graphs_of(2 * each)
    graphs.enter(of(10, "a"))
    graphs.enter(of(10, "b"))
    graphs.enter(of(10, "a"))
    graphs.enter(of(10, "c"))  # in the place of b
    assert graphs.size == 2 * each * MIB
    assert recorder.count == 3
    graphs.enter(of(10, "a"))
    assert recorder.count == 3
    graphs.enter(of(10, "b"))
    assert recorder.count == 4


def test_one_graph_is_kept_however_large() -> None:
    graphs, recorder = graphs_of(1)
    graphs.enter(of(5))
    graphs.enter(of(5))
    assert recorder.count == 1
    assert graphs.size > graphs.max_bytes


def test_all_are_dropped_where_memory_has_run_out() -> None:
    graphs, recorder = graphs_of(1000)
    graphs.enter(of(1))
    graphs.forget()
    assert graphs.size == 0
    graphs.enter(of(1))
    assert recorder.count == 2


def test_a_recording_that_keeps_a_client_waiting_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    graphs, _ = graphs_of(1000)
    with caplog.at_level(logging.WARNING):
        graphs.enter(of(1, "while loading"))
        assert caplog.text == ""
        graphs.is_serving = True
        graphs.enter(of(1, "in service"))
    assert "recorded a CUDA graph in " in caplog.text
    assert " ms: 1 rows" in caplog.text


def test_graphs_take_a_tenth_of_a_small_gpu_and_no_more_of_a_large_one() -> None:
    assert graph_bytes(24e9) == 2_400_000_000
    assert graph_bytes(80e9) == MOST_GRAPH_BYTES
