"""What a program reads of a reply, its one action and its repr, and what a request is among what is heard."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from policyserve.core.errors import ConfigError, WireError
from policyserve.core.messages import Control, Reply, Request, Unreadable, leaves, request_of


def reply(actions: Any, timing: Any = None) -> Reply:
    array = np.asarray(actions)
    return Reply(array, timing or {}, {"actions": array})


@pytest.mark.parametrize(
    ("actions", "action"), [(1, 1), ([0.5, 1.5], [0.5, 1.5]), ([[0.5, 1.5]], [0.5, 1.5]), ([[]], [])]
)
def test_the_action_is_the_one_that_a_reply_has(actions: Any, action: Any) -> None:
    got = reply(actions).action
    assert isinstance(got, np.ndarray)
    assert got.tolist() == action


@pytest.mark.parametrize("shape", [(50, 7), (2, 1), (0, 7), (1, 8, 7)])
def test_a_longer_chunk_has_no_action_and_says_what_to_take(shape: tuple[int, ...]) -> None:
    what = f"a chunk of one step, got float32 {shape}".replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(ConfigError, match=rf"reply\.action: expected {what}: take reply\.actions\[i\]"):
        _ = reply(np.zeros(shape, np.float32)).action


def test_a_repr_shows_small_actions_and_the_times_in_short() -> None:
    shown = repr(reply(np.array([[0.123456, -1]], np.float32), {"infer_ms": 1.23456}))
    assert shown == "<policyserve.Reply float32 (1, 2) [[ 0.1235, -1.    ]], infer_ms 1.23>"
    assert repr(reply(np.int32(1))) == "<policyserve.Reply int32 () 1>"


def test_a_repr_of_large_actions_and_of_what_a_server_should_not_send_is_one_line() -> None:
    shown = repr(reply(np.zeros((50, 32)), {"infer_ms": "much\n", "other": None}))
    assert shown == "<policyserve.Reply float64 (50, 32), infer_ms much\\n, other None>"


def test_a_reply_shows_long_times_as_people_write_them_and_the_absurd_in_short() -> None:
    shown = repr(reply(np.zeros((50, 32)), {"infer_ms": 2000.4, "total_ms": 1e300}))
    assert shown.endswith(", infer_ms 2,000, total_ms 1e+300>")


def test_what_was_heard_is_a_request_or_says_why_it_is_none() -> None:
    request = Request({"x": 1})
    assert request_of(request) is request
    with pytest.raises(WireError, match="type: expected an observation, got 'ping'"):
        request_of(Control("ping"), "type")
    bad = WireError("x", "a number", "a text")
    with pytest.raises(WireError) as caught:
        request_of(Unreadable(bad))
    assert caught.value is bad


def test_leaves_have_the_path_that_leads_to_them() -> None:
    observation = {"images": {"wrist": 1, "top": {"left": 2}}, "state": 3, "none": {}}
    assert dict(leaves(observation)) == {"images/wrist": 1, "images/top/left": 2, "state": 3}
