"""What servers offer of RTC, and what a request carries."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from policyserve.core.errors import ConfigError
from policyserve.core.spec import ArraySpec, PolicySpec
from policyserve.realtime.prefix import Offer, action_kind_of, leaves_of, method_of, read_offer, with_leaves

LEAVES = {
    "state": ArraySpec((2,), "float32", ""),
    "rtc/prev_chunk": ArraySpec((4, 2), "float32", ""),
    "rtc/prev_length": ArraySpec((), "int32", ""),
    "rtc/inference_delay": ArraySpec((), "int32", ""),
}


def greeting(**more: Any) -> dict[str, Any]:
    spec = PolicySpec("flow", LEAVES, ArraySpec((2,), "float32", ""), horizon=4)
    return {"spec": spec.describe(), **more}


def test_a_greeting_of_ours_says_what_the_policy_takes() -> None:
    told = {"methods": ["identity", "guided"], "max_delay": 3, "action_kind": "velocity"}
    assert read_offer(greeting(rtc=told), "auto") == Offer(4, 2, False, 3, True, "identity")
    assert action_kind_of(greeting(rtc=told)) == "velocity"
    assert action_kind_of(greeting(action_kind="delta", rtc=told)) == "delta"
    assert action_kind_of({}) is None


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"spec": None},
        {"spec": 5},
        {"spec": {"observation": None}},
        {"spec": {"observation": {"rtc/prev_chunk": 5}}},
        {"spec": {"observation": {"state": {}}}},
    ],
)
def test_a_server_without_it_is_asked_without_it(metadata: Any) -> None:
    assert read_offer(metadata, "auto") is None


@pytest.mark.parametrize("rtc", [None, 5, {"methods": "guided"}, {"methods": [5], "max_delay": "x"}, {"methods": []}])
def test_a_strange_word_on_rtc_is_left_out(rtc: Any) -> None:
    assert read_offer(greeting(rtc=rtc), "auto") == Offer(4, 2)


def test_what_is_required_is_refused_where_it_is_not() -> None:
    with pytest.raises(ConfigError, match=r'rtc: expected a server whose spec lists rtc/prev_chunk.*rtc="auto"'):
        read_offer({"spec": {"observation": {}}}, "require")
    assert read_offer(greeting(), "off") is None


def test_a_server_that_greets_nobody_is_believed_and_sized_by_its_first_chunk() -> None:
    offer = read_offer({}, "require")
    assert offer is not None
    assert offer == Offer(echoes=False)
    assert leaves_of(offer, np.zeros((0, 0)), 0, None) == {}
    assert leaves_of(offer.sized(4, 2), np.zeros((0, 2)), 0, None)["rtc/prev_chunk"].shape == (4, 2)
    assert Offer(4, 2).sized(9, 9) == Offer(4, 2)


def test_the_last_known_row_stands_behind_the_others() -> None:
    leaves = leaves_of(Offer(4, 2), np.array([[1.0, 2.0], [3.0, 4.0]]), 1, 3)
    assert {key: value.tolist() for key, value in leaves.items()} == {
        "rtc/prev_chunk": [[1, 2], [3, 4], [3, 4], [3, 4]],
        "rtc/prev_length": 2,
        "rtc/inference_delay": 1,
    }
    assert leaves_of(Offer(4, 2, has_end=True), np.ones((2, 2)), 1, 99)["rtc/prefix_attention_horizon"] == 4


def test_no_more_rows_than_the_policy_takes_and_no_longer_delay_than_it_was_trained_for() -> None:
    leaves = leaves_of(Offer(4, 2, max_delay=3), np.ones((9, 2)), 8, None)
    assert (leaves["rtc/prev_length"], leaves["rtc/inference_delay"]) == (4, 3)
    assert leaves_of(Offer(4, 2), np.ones((9, 2)), 8, None)["rtc/inference_delay"] == 4


def test_rows_of_another_width_are_not_sent() -> None:
    leaves = leaves_of(Offer(4, 2), np.ones((9, 3)), 8, None)
    assert (leaves["rtc/prev_length"], leaves["rtc/prev_chunk"].any()) == (0, False)


def test_what_the_user_sends_stays() -> None:
    leaves = leaves_of(Offer(4, 2), np.ones((2, 2)), 1, None)
    assert with_leaves({"state": 1}, leaves).keys() == {"state", *leaves}
    for own in ({"rtc/prev_chunk": 5}, {"rtc": {"prev_chunk": 5}}):
        assert with_leaves(own, leaves) is own
    no_map: Any = 5
    assert with_leaves(no_map, leaves) == 5, "whoever sends it says what is wrong with it"


def test_a_reply_says_what_was_done() -> None:
    assert method_of({"rtc": {"method": "guided", "rows": 4}}) == "guided"
    for told in (None, {}, {"rtc": 5}, {"rtc": {"method": 5}}):
        assert method_of(told) is None
