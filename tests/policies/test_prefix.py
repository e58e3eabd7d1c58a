"""What clients send of the rows that they will execute: read, or refused by its path."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from policyserve.core.errors import BadObservation
from policyserve.core.spec import ArraySpec, PolicySpec
from policyserve.policies.prefix import Prefix, read_prefix, rtc_extras, rtc_facts, rtc_leaves

H, D = 6, 2
SPEC = PolicySpec("flow", {"state": ArraySpec((1,)), **rtc_leaves(H, D)}, ArraySpec((D,)), horizon=H)
WHOLE = ("rtc/prev_chunk", "rtc/prev_length", "rtc/inference_delay")


def sent(known: Any = 4, delay: Any = 2, rows: Any = None, **more: Any) -> Mapping[str, Any]:
    rows = np.arange(H * D, dtype=np.float32).reshape(H, D) if rows is None else rows
    values = (rows, np.array(known, np.int32), np.array(delay, np.int32))
    return {"state": np.zeros(1, np.float32), **dict(zip(WHOLE, values, strict=True)), **more}


def read(observation: Mapping[str, Any]) -> Prefix | None:
    return read_prefix(SPEC.validate(observation).observation)


def test_a_request_without_them_has_no_prefix() -> None:
    assert read({"state": np.zeros(1)}) is None
    assert read({"state": np.zeros(1), "rtc": {}}) is None


@pytest.mark.parametrize("is_nested", [False, True])
def test_a_prefix_is_read_however_it_is_nested(is_nested: bool) -> None:
    flat = sent()
    nested = {"state": flat["state"], "rtc": {key.partition("/")[2]: flat[key] for key in WHOLE}}
    found = read(nested if is_nested else flat)
    assert found is not None
    assert found[1:] == (4, 2, None)
    np.testing.assert_array_equal(found.rows[:4], flat["rtc/prev_chunk"][:4])
    assert not found.rows[4:].any()


def test_pythons_own_numbers_pass() -> None:
    found = read({"state": [0.0], "rtc/prev_chunk": [[0.0] * D] * H, "rtc/prev_length": 3, "rtc/inference_delay": 1})
    assert found is not None
    assert found[1:] == (3, 1, None)


def test_nothing_known_is_a_prefix_of_no_rows() -> None:
    found = read(sent(known=0, delay=5, rows=np.full((H, D), np.nan, np.float32)))
    assert found is not None
    assert found[1:] == (0, 0, None)
    assert not found.rows.any()


def test_a_longer_delay_than_there_are_rows_counts_as_that_of_the_rows() -> None:
    found = read(sent(known=3, delay=9))
    assert found is not None
    assert found.delay == 3


def test_where_guidance_ends_may_be_said() -> None:
    found = read(sent(**{"rtc/prefix_attention_horizon": np.array(3, np.int32)}))
    assert found is not None
    assert found.end == 3


def with_bad(row: int, value: float) -> np.ndarray[Any, Any]:
    rows = np.zeros((H, D), np.float32)
    rows[row, 1] = value
    return rows


@pytest.mark.parametrize(
    ("observation", "said"),
    [
        (sent(known=7), "rtc/prev_length: expected at most 6, a chunk's rows, got 7"),
        (sent(known=-1), "rtc/prev_length: expected 0 or more, got -1"),
        (sent(delay=-3), "rtc/inference_delay: expected 0 or more, got -3"),
        (
            sent(**{"rtc/prefix_attention_horizon": np.array(-2, np.int32)}),
            "rtc/prefix_attention_horizon: expected 0 or more, got -2",
        ),
        (
            sent(rows=with_bad(3, np.nan)),
            "rtc/prev_chunk: expected finite numbers in its first 4 rows, got NaN or Inf in row 3",
        ),
        (
            sent(rows=with_bad(0, np.inf)),
            "rtc/prev_chunk: expected finite numbers in its first 4 rows, got NaN or Inf in row 0",
        ),
        (sent(rows=np.zeros((H - 1, D), np.float32)), "rtc/prev_chunk: expected float32 (6, 2), got float32 (5, 2)"),
        (sent(rows=np.zeros((H, D + 1), np.float32)), "rtc/prev_chunk: expected float32 (6, 2), got float32 (6, 3)"),
        (
            {key: value for key, value in sent().items() if key != "rtc/inference_delay"},
            "rtc/inference_delay: expected all of rtc/prev_chunk, rtc/prev_length and rtc/inference_delay, or none, "
            "got only rtc/prev_chunk, rtc/prev_length",
        ),
        (
            {"state": np.zeros(1), "rtc/prev_length": np.array(1, np.int32)},
            "rtc/prev_chunk: expected all of rtc/prev_chunk, rtc/prev_length and rtc/inference_delay, or none, "
            "got only rtc/prev_length",
        ),
    ],
)
def test_what_cannot_be_is_refused_by_its_path(observation: Mapping[str, Any], said: str) -> None:
    with pytest.raises(BadObservation) as refused:
        read(observation)
    assert str(refused.value) == said


def test_a_length_that_is_no_whole_number_is_refused() -> None:
    with pytest.raises(BadObservation, match=r"^rtc/prev_length: expected int32 \(\), got float64 \(\)$"):
        read({**sent(), "rtc/prev_length": 2.5})


def test_rows_behind_the_known_ones_may_be_anything() -> None:
    found = read(sent(rows=with_bad(5, np.nan)))
    assert found is not None
    assert np.isfinite(found.rows).all()


def test_an_answer_tells_what_it_was_made_with_in_numbers_and_a_text() -> None:
    assert rtc_extras("guided", None) == {}
    told = rtc_extras("guided", read(sent()))
    assert told == {"rtc": {"method": "guided", "inference_delay": 2, "rows": 4}}
    assert [type(value) for value in told["rtc"].values()] == [str, int, int]


def test_the_leaves_may_be_left_out_and_the_facts_name_the_method() -> None:
    assert {path: leaf["optional"] for path, leaf in SPEC.describe()["observation"].items() if "rtc" in path} == {
        "rtc/prev_chunk": True,
        "rtc/prev_length": True,
        "rtc/inference_delay": True,
        "rtc/prefix_attention_horizon": True,
    }
    assert rtc_facts("guided") == {"rtc": {"methods": ["guided"], "max_delay": None, "action_kind": None}}
    assert rtc_facts("trained", "delta", 8)["rtc"]["max_delay"] == 8
