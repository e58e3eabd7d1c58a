"""Rows by plan step: the originals' traces, and what the originals do not have."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from policyserve.core.errors import BadAction
from policyserve.realtime.combining import Ensemble
from policyserve.realtime.timeline import Chunk, Joining, Timeline
from tests.shared import shared_path


def traces(name: str) -> list[dict[str, Any]]:
    return json.loads(shared_path("realtime", "golden", "traces.json").read_text())[name]


def rows(*values: float, width: int = 2) -> np.ndarray:
    return np.repeat(np.array(values, np.float64), width).reshape(-1, width)


def merge(timeline: Timeline, chunk: np.ndarray, first: int, at: float = 0.0, **joining: Any) -> bool:
    made = timeline.build(Chunk(chunk, first, at), Joining(**joining), timeline.plan_step)
    if made is not None:
        timeline.lay(made, first)
    return made is not None


def take(timeline: Timeline) -> np.ndarray | None:
    step = timeline.plan_step
    if not timeline.has(step):
        return None
    timeline.plan_step += 1
    return timeline.row(step).copy()


def values(timeline: Timeline) -> list[float]:
    return timeline.rows_from(timeline.plan_step)[:, 0].tolist()


@pytest.mark.parametrize("case", range(8))
def test_without_blending_it_is_lerobots_action_queue(case: int) -> None:
    """By consumption: a merge's delay is what was consumed. Without RTC chunks are appended, for steps further on."""
    trace = traces("action_queue")[case]
    timeline, compared = Timeline(), 0
    for operation, expected in zip(trace["ops"], trace["results"], strict=True):
        if operation[0] == "get":
            got = take(timeline)
            assert (None if got is None else got.tolist()) == expected
            compared += expected is not None
        elif operation[0] == "merge":
            _, _, processed, delay, _ = operation
            chunk = np.array(processed)
            if trace["rtc_enabled"]:
                gone = min(max(delay, 0), len(chunk))
                if not merge(timeline, chunk, timeline.plan_step - gone):
                    timeline.clear()  # theirs is empty then; ours would go on with the rows that are there
            else:
                merge(timeline, chunk, timeline.plan_step + timeline.left)
        elif operation[0] == "clear":
            timeline.clear()
        elif operation[0] == "left_over" and expected[1] is not None:
            assert timeline.rows_from(timeline.plan_step).tolist() == expected[1]
    assert compared


@pytest.mark.parametrize("case", range(8))
def test_the_four_aggregates_are_lerobots(case: int) -> None:
    """With its labels: row i of a chunk is labelled first + i, and rows up to the last executed label are dropped."""
    trace = traces("robot_client_aggregate")[case]
    timeline, compared = Timeline(), 0
    for operation, expected in zip(trace["ops"], trace["results"], strict=True):
        if operation[0] == "incoming":
            _, first, incoming, executed = operation
            timeline.plan_step = executed + 1
            if not merge(timeline, np.array(incoming, np.float32), first, how=trace["aggregate"]):
                timeline.clear()
            assert [label for label, _ in expected] == list(range(executed + 1, executed + 1 + timeline.left))
            if expected:
                ours = timeline.rows_from(timeline.plan_step)
                np.testing.assert_allclose(ours, [row for _, row in expected], atol=1e-6)
                compared += len(expected)
        elif operation[0] == "pop" and expected is not None:
            timeline.plan_step = expected[0]
            got = take(timeline)
            assert got is not None
            np.testing.assert_allclose(got, expected[1], atol=1e-6)
    assert compared


@pytest.mark.parametrize("case", ["00", "01", "03", "04"])
def test_ensembling_is_lerobots_and_acts(case: str) -> None:
    with np.load(shared_path("realtime", "golden", f"ensemble_{case}.npz")) as golden:
        chunks, lerobot = golden["chunks"], golden["lerobot"]
        act = golden["act"] if "act" in golden.files else None
        m = json.loads(str(golden["meta"]))["temporal_ensemble_coeff"]
    timeline = Timeline()
    ours = []
    for step, chunk in enumerate(chunks):
        assert merge(timeline, chunk, step, how=Ensemble(m))
        ours.append(take(timeline))
    np.testing.assert_allclose(ours, lerobot, atol=1e-6)
    if act is not None and not (chunks == 0).any():  # ACT takes a zero for an empty place
        np.testing.assert_allclose(ours, act, atol=1e-6)


def test_rows_that_are_past_are_dropped_by_what_was_consumed() -> None:
    timeline = Timeline()
    assert merge(timeline, rows(0, 1, 2, 3), 0)
    assert [take(timeline)[0] for _ in range(3)] == [0, 1, 2]  # type: ignore[index]
    assert merge(timeline, rows(10, 11, 12, 13), 1)
    assert (timeline.plan_step, values(timeline)) == (3, [12, 13])
    assert not merge(timeline, rows(20, 21), 1), "all of its rows are past"
    assert values(timeline) == [12, 13]


def test_a_chunk_fades_in_over_the_rows_that_are_there() -> None:
    timeline = Timeline()
    merge(timeline, rows(0, 0, 0, 0, 0, 0), 0)
    merge(timeline, rows(4, 4, 4, 4, 4, 4), 0, blend_steps=3)
    assert values(timeline) == [1, 2, 3, 4, 4, 4]
    assert [timeline.is_blended(step) for step in range(6)] == [True] * 3 + [False] * 3


def test_behind_the_old_rows_it_fades_from_the_action_that_was_sent_last() -> None:
    timeline = Timeline()
    merge(timeline, rows(8), 0)
    merge(timeline, rows(0, 0, 0, 0), 0, blend_steps=3, sent=np.array([4.0, 4.0]))
    assert values(timeline) == [6, 2, 1, 0]
    timeline.clear()
    merge(timeline, rows(0, 0), 0, blend_steps=3, sent=np.array([4.0, 4.0]))
    assert values(timeline) == [3, 2]


def test_a_first_chunk_fades_from_nothing() -> None:
    timeline = Timeline()
    merge(timeline, rows(1, 2), 0, blend_steps=3)
    assert values(timeline) == [1, 2]


def test_a_pinned_row_stays() -> None:
    timeline = Timeline()
    merge(timeline, rows(0, 1, 2, 3), 0)
    take(timeline)
    merge(timeline, rows(10, 11, 12, 13), 0, pinned=1)
    assert values(timeline) == [1, 12, 13]


def test_a_chunk_for_later_leaves_the_rows_before_it() -> None:
    timeline = Timeline()
    merge(timeline, rows(0, 1, 2, 3), 0)
    merge(timeline, rows(10, 11), 2)
    assert values(timeline) == [0, 1, 10, 11]
    merge(timeline, rows(20), 9)
    assert values(timeline) == [0, 1, 10, 11, 20], "a gap would be a pause"


def test_each_row_knows_its_observation() -> None:
    timeline = Timeline()
    merge(timeline, rows(0, 1, 2), 0, at=1.0)
    merge(timeline, rows(5, 6, 7), 1, at=2.0)
    assert [timeline.observed_at(step) for step in range(4)] == [1, 2, 2, 2]


def test_the_users_last_word_is_what_the_rows_are() -> None:
    timeline = Timeline()
    merge(timeline, rows(-3, 5), 0, on_rows=lambda made: made.clip(-1, 1))
    assert values(timeline) == [-1, 1]


@pytest.mark.parametrize("wrong", [lambda made: made[:1], lambda made: made * np.nan, lambda made: "no"])
def test_a_last_word_that_cannot_be_is_refused(wrong: Any) -> None:
    timeline = Timeline()
    merge(timeline, rows(1, 2), 0)
    with pytest.raises(BadAction, match="on_action: expected as many rows"):
        merge(timeline, rows(3, 4), 0, on_rows=wrong)
    assert values(timeline) == [1, 2]


def test_a_last_word_that_forgot_to_return_the_rows_is_told_so() -> None:
    with pytest.raises(BadAction, match=r"on_action: expected the rows .*\(1, 2\), got None: return them"):
        merge(Timeline(), rows(1), 0, on_rows=lambda made: None)


def test_actions_of_another_width_are_refused_until_all_is_forgotten() -> None:
    timeline = Timeline()
    merge(timeline, rows(1), 0)
    with pytest.raises(BadAction, match="expected 2 numbers each, as before, got 3"):
        merge(timeline, rows(1, width=3), 0)
    timeline.forget()
    assert merge(timeline, rows(1, width=3), 0)


def test_another_horizon_is_taken() -> None:
    timeline = Timeline()
    merge(timeline, rows(*range(4)), 0)
    merge(timeline, rows(*range(100, 140)), 0)
    assert values(timeline) == list(range(100, 140))
    merge(timeline, rows(7), 0)
    assert values(timeline) == [7]


def test_rows_go_on_while_the_next_are_built() -> None:
    timeline = Timeline()
    merge(timeline, rows(*range(8)), 0)
    for number in range(50):
        made = timeline.build(
            Chunk(rows(*range(8)) + timeline.plan_step, timeline.plan_step, 0.0), Joining(2), timeline.plan_step
        )
        row = take(timeline)
        assert row is not None
        assert row[0] == number, "what is read is not what is written"
        assert made is not None
        timeline.lay(made, timeline.plan_step)
