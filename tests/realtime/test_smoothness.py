"""How smooth a motion was."""

from __future__ import annotations

import numpy as np
import pytest

from policyserve.realtime.smoothness import Smoothness, SmoothnessFigures


def test_a_seam_is_measured_by_the_policys_own_step() -> None:
    noted = Smoothness()
    noted.chunk(np.array([[0.0, 0], [0.5, 0], [1.0, 0]]))  # steps of 0.5
    for values, has_joined in (([0.0, 0], True), ([0.5, 0], False), ([0.5, 2.0], True), ([0.75, 2], True)):
        noted.sent(np.array(values), "chunk", 0.1, has_joined)
    figures = noted.figures()
    assert (figures.seam_max, figures.seam_p50) == (pytest.approx(4.0), pytest.approx(2.25))
    assert (figures.steps, figures.chunks, figures.starved_steps) == (4, 1, 0)
    assert figures.age_mean_s == figures.age_p99_s == pytest.approx(0.1)


def test_steps_without_a_row_are_counted_and_their_longest_series() -> None:
    noted = Smoothness()
    for source in ("chunk", "hold", "zero", "blend", "stop", "hold", "hold"):
        noted.sent(None if source == "stop" else np.zeros(1), source, 0.2, False)  # type: ignore[arg-type]
    figures = noted.figures()
    assert (figures.starved_steps, figures.longest_pause_steps) == (5, 3)
    assert figures.age_mean_s == pytest.approx(0.2), "what is held has no age"


def test_episodes_are_joined_and_no_jump_leads_from_one_to_the_next() -> None:
    both = Smoothness()
    for place in (0.0, 100.0):
        one = Smoothness()
        one.chunk(np.array([[place], [place + 1]]))
        one.sent(np.array([place]), "chunk", 0.0, True)
        one.sent(np.array([place + 1]), "chunk", 0.0, True)
        one.sent(np.array([place + 1]), "hold", 0.0, False)
        both.join(one)
    assert both.figures() == SmoothnessFigures(6, 2, 1, 2, 0.0, 0.0, 1.0, 1.0, 1.0)


def test_without_seams_or_motion_there_is_no_ratio() -> None:
    noted = Smoothness()
    noted.sent(np.zeros(1), "chunk", 0.0, True)
    assert noted.figures().seam_max is None
    noted.chunk(np.zeros((3, 1)))
    noted.sent(np.zeros(1), "chunk", 0.0, True)
    assert noted.figures().seam_p95 is None
