"""RoboArena's and vLLM-Omni's endpoints and session ids, in a session without a socket."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from policyserve.core.effects import Answered, EndEpisode, Failed
from policyserve.core.policy import ActionChunk
from policyserve.core.spec import ArraySpec, ImageSpec, PolicySpec
from policyserve.dialects import by_name
from tests.dialects.families import ACTIONS, STATE, answered, packed, sent, session, submitted


def request(session_id: Any, endpoint: str = "infer") -> bytes:
    return by_name("openpi").write_request({**STATE, "session_id": session_id, "endpoint": endpoint})


@pytest.mark.parametrize("name", ["roboarena", "vllm_omni"])
def test_a_session_id_keys_what_the_policy_remembers_until_its_reset(name: str) -> None:
    one, _ = session(name)
    episodes = []
    for who in ("a", "b", "a", np.array([7], np.int32), 7, "7"):
        effects = one.receive(request(who), 0.0)
        episodes.append(submitted(effects).episode)
        answered(one, effects)
    assert episodes == [0, 1, 0, 2, 2, 2]
    ended = one.receive(request("a", "reset"), 0.0)
    assert [effect.episode for effect in ended if isinstance(effect, EndEpisode)] == [0]
    assert len(sent(ended)) == 1
    assert submitted(one.receive(request("a"), 0.0)).episode == 3


@pytest.mark.parametrize("name", ["roboarena", "vllm_omni"])
def test_a_reset_of_no_episode_ends_all_of_the_connection(name: str) -> None:
    one, _ = session(name)
    for who in ("a", "b"):
        answered(one, one.receive(request(who), 0.0))
    submit = submitted(one.receive(request("c"), 0.0))
    ended = one.receive(packed({"endpoint": "reset"}), 0.0)
    assert [effect.episode for effect in ended if isinstance(effect, EndEpisode)] == [0, 1]
    told = one.answer(submit.ticket, Answered(ActionChunk(ACTIONS), 0.0, 0.0), 0.0)
    assert [effect.episode for effect in told if isinstance(effect, EndEpisode)] == [2]
    assert len(sent(told)) == 2
    assert one.episodes == []


def test_a_roboarena_session_may_begin_with_a_reset() -> None:
    one, _ = session(None)
    one.silence()
    assert sent(one.receive(packed({"endpoint": "reset", "session_id": "s1"}), 0.0)) == ["reset successful"]
    assert one.dialect is by_name("roboarena")


@pytest.mark.parametrize("bad", [[1, 2], {"a": 1}, 1.5, True, "x" * 257, np.zeros(2), np.zeros(1)])
@pytest.mark.parametrize("name", ["roboarena", "vllm_omni"])
def test_a_session_id_that_is_none_is_refused(name: str, bad: Any) -> None:
    one, _ = session(name)
    effects = one.receive(request(bad), 0.0)
    (failed,) = [effect for effect in effects if isinstance(effect, Failed)]
    assert str(failed.error).startswith("session_id: expected a text of at most 256 letters, or a whole number, got")
    assert not one.closed


def test_an_endpoint_is_needed_where_the_original_needs_it() -> None:
    one, _ = session("roboarena")
    (told,) = sent(one.receive(by_name("openpi").write_request(STATE), 0.0))
    assert told == "bad_frame: endpoint: expected a text, infer or reset, got none; openpi's clients connect to /openpi"
    one, _ = session("vllm_omni")
    assert submitted(one.receive(by_name("openpi").write_request(STATE), 0.0))
    assert submitted(one.receive(request("s", "anything"), 0.0))


def test_a_policy_that_counts_its_cameras_from_one_gets_them_so() -> None:
    cameras = {f"observation/exterior_image_{number}_left": ImageSpec() for number in (1, 2)}
    one, _ = session("roboarena", PolicySpec("droid", {**cameras, "state": ArraySpec((8,))}, ArraySpec((8,))))
    pictures = [np.full((2, 2, 3), number, np.uint8) for number in (0, 1)]
    names = [f"observation/exterior_image_{number}_left" for number in (0, 1)]
    message = by_name("roboarena").write_request({**dict(zip(names, pictures, strict=True)), **STATE})
    found = submitted(one.receive(message, 0.0)).observation
    assert [found[name][0, 0, 0] for name in cameras] == [0, 1]
    same = by_name("roboarena").write_request({**dict(zip(cameras, pictures, strict=True)), **STATE})
    found = submitted(one.receive(same, 0.0)).observation
    assert [found[name][0, 0, 0] for name in cameras] == [0, 1], "a client that counts from one as well"
