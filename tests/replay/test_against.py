"""Two recordings are compared, session by session."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from policyserve.core.errors import Overloaded
from policyserve.recordings.reading import RecordingError, open_recording
from policyserve.replay.against import compare_recordings
from policyserve.replay.gathered import Gathered
from tests.replay.recorded import record, toy, walk
from tests.replay.test_asking import Stumbling


def compared(one: Path, other: Path) -> Gathered:
    gathered = Gathered()
    steps: list[int] = []
    compare_recordings(
        open_recording(one), open_recording(other), gathered, lambda so_far: steps.append(so_far.requests)
    )
    assert steps == sorted(steps)
    return gathered


def test_a_recording_is_the_same_as_itself(tmp_path: Path) -> None:
    path = record(tmp_path / "one.mcap", toy(), [walk(5), walk(3, 1)])
    gathered = compared(path, path)
    verdict = gathered.compared(0.0)
    assert (verdict.word, verdict.comparison.requests, gathered.notes) == ("same", 8, [])
    assert gathered.names == ("reach", "grip")


def test_the_dialect_makes_no_difference(tmp_path: Path) -> None:
    one = record(tmp_path / "one.mcap", toy(), [walk(5)], "openpi")
    other = record(tmp_path / "other.mcap", toy(), [walk(5)], "vibe_rl")
    gathered = compared(one, other)
    assert gathered.compared(0.0).word == "same"
    assert gathered.notes == []


def test_another_checkpoint_is_found(tmp_path: Path) -> None:
    one = record(tmp_path / "one.mcap", toy(), [walk(5)])
    other = record(tmp_path / "other.mcap", toy(1.5), [walk(5)])
    assert compared(one, other).compared(None).word == "beyond"


def test_other_observations_are_noted(tmp_path: Path) -> None:
    changed = [*walk(2), *({"obs": np.zeros(3, np.float32)} for _ in range(2))]
    one = record(tmp_path / "one.mcap", toy(), [walk(4)])
    other = record(tmp_path / "other.mcap", toy(), [changed])
    gathered = compared(one, other)
    assert gathered.notes == [
        "2 of the requests have other observations, from session 1, request 3 on: their answers may differ for that "
        "reason"
    ]


def test_what_one_has_alone_never_passes(tmp_path: Path) -> None:
    one = record(tmp_path / "one.mcap", toy(), [walk(5), walk(3, 1)])
    other = record(tmp_path / "other.mcap", toy(), [walk(4)])
    for first, second in ((one, other), (other, one)):
        gathered = compared(first, second)
        assert gathered.unmatched == [
            "1 request is in one.mcap alone, at the end of session 1",
            "session 2 is in one.mcap alone",
        ]
        assert gathered.compared(None).word == "incomplete"


def test_an_answer_that_is_a_refusal_in_the_second_is_told(tmp_path: Path) -> None:
    observations = walk(3)
    last = float(observations[2]["obs"][0])
    refusing = Stumbling(lambda obs: Overloaded("full") if float(obs[0]) == last else None)
    one = record(tmp_path / "one.mcap", Stumbling(lambda _: None), [observations])
    other = record(tmp_path / "other.mcap", refusing, [observations])
    (refused,) = compared(one, other).refused
    assert (refused.step, refused.code, refused.text) == (3, "overloaded", "full")
    assert compared(other, one).without_actions == 1


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record(tmp_path_factory.mktemp("whole") / "whole.mcap", toy(), [walk(5), walk(3, 1)])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1))
def test_a_recording_that_was_cut_anywhere_differs_in_nothing_that_it_has(
    tmp_path: Path, whole: Path, share: float
) -> None:
    content = whole.read_bytes()
    cut = tmp_path / "cut.mcap"
    cut.write_bytes(content[: int(len(content) * share)])
    try:
        gathered = compared(cut, whole)
    except RecordingError:
        return
    found = gathered.compared(0.0).comparison
    assert (found.differing, found.other_shapes) == (0, ())
    assert found.requests == 8 or gathered.unmatched
