"""The picture of a replay: whatever was compared, and what stands in it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as numbers

from policyserve.replay.gathered import Gathered
from policyserve.replay.plot import plot_verdict
from tests.policies.frameworks import import_or_skip

import_or_skip("matplotlib")

SOME = st.floats(-10, 10, width=32) | st.sampled_from([math.nan, math.inf, -math.inf])


def gathered(pairs: list[tuple[Any, Any]], sessions: int = 1) -> Gathered:
    made = Gathered("arm", "arm, checkpoint 2", sessions=sessions, requests=len(pairs))
    for step, (one, other) in enumerate(pairs):
        made.answered(1 + step % sessions, step + 1, np.asarray(one, np.float32), np.asarray(other, np.float32))
    return made


def drawn(made: Gathered, path: Path) -> str:
    plot_verdict(made.compared(None), "one.mcap", path)
    return path.read_text()


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_whatever_numbers_were_answered_there_is_a_picture(tmp_path: Path, data: st.DataObject) -> None:
    shapes = st.sampled_from([(2,), (3, 2), (1, 2)])
    arrays = shapes.flatmap(lambda shape: numbers.arrays("float32", shape, elements=SOME))
    pairs: list[tuple[Any, Any]] = [(data.draw(arrays), data.draw(arrays)) for _ in range(data.draw(st.integers(1, 4)))]
    made = gathered(pairs)
    if made.compared(None).comparison.dimensions:
        assert "</svg>" in drawn(made, tmp_path / "out.svg")


def test_the_worst_numbers_have_a_panel_each_and_the_differences_one(tmp_path: Path) -> None:
    pairs = [(np.zeros(5) + step, np.zeros(5) + step + np.arange(5) / 10) for step in range(6)]
    found = drawn(gathered(pairs, sessions=2), tmp_path / "out.svg")
    assert found.count('<g id="axes_') == 4
    for told in ("action[4]", "action[3]", "action[2]", "red: beyond the tolerance, 6 of 6", "worst"):
        assert f"<!-- {told}" in found or told in found
    assert "action[1]" not in found


def test_where_nothing_differs_there_is_no_panel_of_differences(tmp_path: Path) -> None:
    found = drawn(gathered([(np.ones(1), np.ones(1))] * 3), tmp_path / "out.svg")
    assert found.count('<g id="axes_') == 1
    assert "largest difference" not in found


def test_a_name_is_no_formula(tmp_path: Path) -> None:
    made = gathered([(np.zeros(1), np.ones(1))])
    made.names, made.recorded = (r"$\\frac{x$",), r"$\\notacommand{$ \x1b"
    assert "</svg>" in drawn(made, tmp_path / "out.svg")


@pytest.mark.parametrize("count", [1, 5000])
def test_one_answer_and_thousands_are_drawn(tmp_path: Path, count: int) -> None:
    made = gathered([([step], [step + 0.5]) for step in range(count)])
    plot_verdict(made.compared(None), "one.mcap", tmp_path / "out.png")
    assert (tmp_path / "out.png").stat().st_size > 1000
