"""What people read of a replay, in 80 columns."""

from __future__ import annotations

import math

import numpy as np
import pytest

from policyserve.replay.gathered import Gathered
from policyserve.replay.report import COLUMNS, MOST_ROWS, last_line, number_text, text


def gathered(recorded: list[np.ndarray], replayed: list[np.ndarray]) -> Gathered:
    made = Gathered("arm, checkpoint 7", "arm, checkpoint 8", sessions=1, requests=len(recorded))
    for step, (one, other) in enumerate(zip(recorded, replayed, strict=True), 1):
        made.answered(1, step, one, other)
    return made


def test_a_difference_is_told_by_its_figures_and_places() -> None:
    recorded = [np.array([0.0, 1.0]), np.array([2.0, 1.0])]
    made = gathered(recorded, [np.array([0.0, 1.0]), np.array([2.5, 1.0])])
    made.names = ("reach", "grip")
    verdict = made.compared(0.1)
    assert text(verdict, "one.mcap", lambda line: f">{line}<") == (
        "recording    one.mcap\n"
        "recorded     arm, checkpoint 7\n"
        "replayed     arm, checkpoint 8\n"
        "compared     2 of 2 requests in 1 session, actions of 2 numbers\n"
        "tolerance    0.1, in the actions' own units\n"
        "\n"
        "difference        max       mean        rms   of range     beyond\n"
        ">reach             0.5       0.25      0.354       25 %          1<\n"
        "grip                0          0          0        0 %          0\n"
        "\n"
        "first beyond session 1, request 2: reach 2 recorded, 2.5 replayed\n"
        "worst        session 1, request 2: reach 2 recorded, 2.5 replayed"
    )
    assert last_line(verdict) == "different: 1 of 2 answers is beyond the tolerance"


def test_where_nothing_differs_there_is_no_table() -> None:
    verdict = gathered([np.zeros(3)], [np.zeros(3)]).compared(None)
    assert "difference" not in text(verdict, "one.mcap")
    assert last_line(verdict) == "the same: no number of 1 answer differs"


def test_of_many_numbers_the_worst_are_shown() -> None:
    apart = np.arange(40) / 100
    verdict = gathered([np.zeros(40), np.ones(40)], [np.zeros(40) + apart, np.ones(40)]).compared(None)
    lines = text(verdict, "one.mcap").splitlines()
    shown = [line for line in lines if line.startswith("action[")]
    assert len(shown) == MOST_ROWS
    assert shown[-1].startswith("action[39]")
    assert "and 28 more, of which none differs by more than 27 % of its range" in lines


def test_chunks_steps_and_infinities_are_told() -> None:
    chunk = np.zeros((5, 1))
    other = chunk.copy()
    other[3, 0] = math.nan
    verdict = gathered([chunk], [other]).compared(0.5)
    told = text(verdict, "one.mcap")
    assert "chunks of 5 actions, 1 number each" in told
    assert "session 1, request 1, step 4 of its chunk: action[0] 0 recorded, nan replayed" in " ".join(told.split())
    assert "inf        inf        inf          –          1" in told


def test_all_that_could_not_be_compared_is_told() -> None:
    made = gathered([np.zeros(2), np.zeros(2)], [np.zeros(3), np.zeros(2)])
    made.refuse(1, 7, "bad_observation", "obs: expected float32 (4,), got float32 (3,); " + "long " * 40)
    made.refuse(1, 8, "bad_observation", "obs")
    made.unreadable, made.without_actions = 1, 2
    made.unmatched, made.stopped = ["session 2 is in b.mcap alone"], "by Ctrl-C"
    made.notes.append("the policy has no prompt: it does not see what was sent so")
    verdict = made.compared(None)
    told = " ".join(text(verdict, "one.mcap").split())
    for part in (
        "1 answer has another shape: (2,) recorded, (3,) replayed in session 1, request 1",
        "refused 2 requests (bad_observation), session 1, request 7: obs: expected float32 (4,)",
        "unmatched session 2 is in b.mcap alone",
        "stopped by Ctrl-C",
        "1 request could not be read, then or now",
        "2 requests had no actions when they were recorded",
        "the policy has no prompt",
    ):
        assert part in told
    assert max(map(len, text(verdict, "one.mcap").splitlines())) <= COLUMNS
    assert last_line(verdict) == "different: 1 of 2 answers has another shape"


def test_what_a_file_says_cannot_disturb_a_terminal() -> None:
    made = gathered([np.zeros(2)], [np.ones(2)])
    made.recorded, made.notes = "arm\x1b[31m\nrecorded  nobody", ["a\x07bell"]
    found = text(made.compared(None), "one\x1b.mcap")
    assert "\x1b" not in found
    assert "\x07" not in found
    assert len([line for line in found.splitlines() if line.startswith("recorded")]) == 1


@pytest.mark.parametrize(
    ("draws", "told"),
    [(True, "Whether it is the same policy cannot be known"), (False, "the differences are no chance"), (None, "")],
)
def test_whether_the_policy_draws_noise_is_told(draws: bool | None, told: str) -> None:
    made = gathered([np.zeros(2)], [np.ones(2)])
    made.draws_noise = draws
    found = " ".join(text(made.compared(None), "one.mcap").split())
    assert told in found
    assert ("noise" in found) == (draws is not None)


def test_the_last_line_says_what_is_missing() -> None:
    made = gathered([np.zeros(2)], [np.zeros(2)])
    made.refuse(1, 2, "overloaded", "full")
    assert last_line(made.compared(None)) == "not all could be compared: 1 request refused"
    assert last_line(Gathered().compared(None)).startswith("nothing could be compared: no request of the recording")
    within = gathered([np.zeros(2)], [np.full(2, 0.5)]).compared(1.0)
    assert last_line(within) == "within the tolerance: 1 of 1 answer differs"


@pytest.mark.parametrize(("number", "told"), [(0.0, "0"), (0.12345, "0.123"), (1e-7, "1e-07"), (math.inf, "inf")])
def test_numbers_have_three_figures(number: float, told: str) -> None:
    assert number_text(number) == told
