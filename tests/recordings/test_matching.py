"""Requests and replies get the same numbers, whatever else clients say: by what the original programs wrote."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from policyserve.core.messages import Timing
from policyserve.core.policy import ActionChunk
from policyserve.dialects import by_name
from policyserve.recordings.matching import Matching
from tests.dialects.gr00t.golden import golden
from tests.dialects.recorded import message

# Of each family what a client (>) and its server (<) said, and the number of each: of a reply its request's, else 0.
TALKS: dict[str, Sequence[tuple[str, str, int]]] = {
    "vla_eval": [
        (">", "hello", 1),
        ("<", "hello_reply", 0),
        (">", "episode_start", 2),
        (">", "observation_png", 3),
        ("<", "action_1", 3),
        (">", "observation_raw", 4),
        ("<", "action_3", 4),
        (">", "observation_that_fails", 5),
        ("<", "error", 5),
        (">", "episode_end", 6),
    ],
    "behavior1k": [
        (">", "reset_first_frame", 1),
        (">", "act", 2),
        ("<", "reply_first", 2),
        (">", "act", 3),
        ("<", "reply_second_with_prev_total", 3),
        (">", "reset", 4),
        (">", "act", 5),
        ("<", "reply_third", 5),
    ],
    "roboarena": [
        (">", "infer", 1),
        ("<", "infer_reply_map", 1),
        (">", "reset", 2),
        ("<", "reset_reply_text", 0),
        (">", "infer", 3),
        ("<", "infer_reply_map_2", 3),
        (">", "infer_that_fails", 4),
        ("<", "traceback_text", 4),
    ],
    "starvla": [
        (">", "ping", 1),
        ("<", "ping_reply", 0),
        (">", "infer_flat", 2),
        (">", "infer_enveloped", 3),
        ("<", "infer_reply", 2),
        ("<", "infer_enveloped_reply", 3),
    ],
    "xpolicylab": [
        (">", "hello", 1),
        ("<", "hello_ack", 0),
        (">", "infer", 2),
        (">", "infer_that_fails", 3),
        ("<", "error", 3),  # sooner than the answer before it
        (">", "reset", 4),
        ("<", "infer_result", 2),
        ("<", "reset_result", 0),
        (">", "trial_end", 5),
        ("<", "trial_end_ack", 0),
    ],
    "gr00t": [
        (">", "ping", 1),
        ("<", "ping_reply", 0),
        (">", "get_action", 2),
        ("<", "get_action_reply", 2),
        (">", "reset", 3),
        ("<", "reset_reply", 0),
        (">", "kill", 4),
        ("<", "unknown_endpoint_reply", 4),
    ],
}


@pytest.mark.parametrize("family", TALKS)
def test_a_reply_has_the_number_of_its_request_whatever_else_is_said(family: str) -> None:
    dialect, matching = by_name(family), Matching()
    for who, name, number in TALKS[family]:
        said = golden("n16", name) if family == "gr00t" else message(family, name)
        if who == ">":
            matching.ask(dialect, said)
            assert matching.asked == number, name
        else:
            assert matching.answer(dialect, said) == number, name


def test_an_observation_of_a_live_episode_that_gets_no_answer_shifts_no_number() -> None:
    dialect, matching = by_name("vla_eval"), Matching()
    for name in ("observation_png", "observation_raw"):  # numbered 3 and 5
        matching.ask(dialect, message("vla_eval", name))
    assert matching.answer(dialect, message("vla_eval", "action_3")) == 2


def test_what_cannot_be_read_is_a_request_and_what_nobody_asked_for_no_reply() -> None:
    for family in ("openpi", "vla_eval", "xpolicylab", "behavior1k"):
        dialect, matching = by_name(family), Matching()
        matching.ask(dialect, b"\xc1")
        assert matching.answer(dialect, "a traceback") == 1
        assert matching.answer(dialect, "a traceback") == 0


def test_requests_that_no_server_answers_are_not_kept_for_ever() -> None:
    dialect, matching = by_name("openpi"), Matching()
    for _ in range(1025):
        matching.ask(dialect, b"\x80")
    reply = dialect.write_reply(ActionChunk(np.zeros(2)), Timing(0, 0, 0))
    assert matching.answer(dialect, reply) == 2
