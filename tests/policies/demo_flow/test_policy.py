"""demo_flow as a policy: sessions with noise of their own, prefixes, and its latency."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from policyserve import Client, start
from policyserve.core.arrays import Array
from policyserve.core.errors import BadObservation, RemoteError
from policyserve.core.policy import ActionChunk, Policy, PolicyInput
from policyserve.policies.demo_flow import HORIZON, FlowDemo, Scene
from policyserve.policies.rtc import METHODS, Rtc

SCENE = Scene(500)
DIALECTS = ("openpi", "wall_x", "vibe_rl")


def prefix_of(rows: Array, delay: int, known: int | None = None) -> Mapping[str, Array]:
    known = len(rows) if known is None else known
    padded = np.concatenate([rows, np.repeat(rows[-1:], HORIZON - len(rows), axis=0)]).astype(np.float32)
    whole = {"rtc/prev_length": known, "rtc/inference_delay": delay}
    return {"rtc/prev_chunk": padded, **{key: np.array(value, np.int32) for key, value in whole.items()}}


def asked(policy: FlowDemo, observation: Mapping[str, Any], state: Any = None) -> ActionChunk:
    valid = policy.spec.validate(observation)
    (answer,) = policy.infer([PolicyInput(valid.observation, None, state)])
    assert isinstance(answer, ActionChunk)
    policy.spec.check_actions(answer.actions)
    return answer


def test_it_is_a_policy_whose_example_it_answers() -> None:
    policy = FlowDemo(Rtc())
    assert isinstance(policy, Policy)
    for size in (1, 3):
        for answer in policy.infer([PolicyInput(policy.spec.example())] * size):
            assert isinstance(answer, ActionChunk)
            assert answer.actions.shape == (HORIZON, 2)
    policy.close()


def test_each_session_has_noise_of_its_own_and_the_same_each_time() -> None:
    seen = SCENE.observation(60, SCENE.start)
    runs = []
    for _ in range(2):
        policy = FlowDemo(seed=3)
        first = asked(policy, seen)
        runs.append([first.actions, asked(policy, seen, first.state).actions, asked(policy, seen).actions])
    np.testing.assert_array_equal(runs[0], runs[1])
    assert not np.allclose(runs[0][0], runs[0][1])
    assert not np.allclose(runs[0][0], runs[0][2])
    assert not np.allclose(asked(FlowDemo(seed=4), seen).actions, runs[0][0])


@pytest.mark.parametrize("method", METHODS)
def test_a_chunk_takes_notice_of_the_rows_that_the_robot_executes_meanwhile(method: Any) -> None:
    policy = FlowDemo(Rtc(method))
    before = asked(policy, SCENE.observation(60, SCENE.start))
    left = before.actions[5:]
    seen = SCENE.observation(65, before.actions[4])
    answer = asked(policy, {**seen, **prefix_of(left, 6)}, before.state)
    assert answer.extras == {"rtc": {"method": method, "inference_delay": 6, "rows": 45}}
    assert not np.allclose(answer.actions, asked(policy, seen, before.state).actions, atol=1e-3)
    if method in ("inpaint", "trained"):
        np.testing.assert_allclose(answer.actions[:6], left[:6], atol=1e-6)


def test_no_known_rows_are_plain_sampling() -> None:
    seen = SCENE.observation(60, SCENE.start)
    rows = np.full((HORIZON, 2), np.nan, np.float32)
    with_none = asked(FlowDemo(Rtc()), {**seen, **prefix_of(rows, 4, known=0)})
    np.testing.assert_array_equal(with_none.actions, asked(FlowDemo(), seen).actions)
    assert with_none.extras["rtc"]["rows"] == 0


def test_a_batch_of_all_kinds_answers_as_each_alone_and_a_bad_one_fails_alone() -> None:
    seen = SCENE.observation(60, SCENE.start)
    rows = asked(FlowDemo(), seen).actions
    bad = np.where(np.arange(HORIZON)[:, None] == 2, np.nan, rows)
    requests = [
        seen,
        {**seen, **prefix_of(rows, 6)},
        {**seen, **prefix_of(bad, 6)},
        {**seen, **prefix_of(rows[30:], 0)},
    ]
    policy = FlowDemo(Rtc())
    batch = [PolicyInput(policy.spec.validate(one).observation) for one in requests]
    states = [answer.state for answer in policy.infer([batch[0]] * 4) if isinstance(answer, ActionChunk)]
    batch = [one._replace(state=state) for one, state in zip(batch, states, strict=True)]
    together = policy.infer(batch)
    for place, (one, answer) in enumerate(zip(batch, together, strict=True)):
        (alone,) = policy.infer([one])
        if place == 2:
            assert isinstance(answer, BadObservation)
            assert answer.path == "rtc/prev_chunk"
        else:
            assert isinstance(answer, ActionChunk)
            assert isinstance(alone, ActionChunk)
            np.testing.assert_allclose(answer.actions, alone.actions, atol=1e-6)


def test_a_call_takes_as_long_as_it_is_told_to() -> None:
    policy = FlowDemo(latency_s=0.05)
    before = time.monotonic()
    asked(policy, SCENE.observation(0, SCENE.start))
    assert time.monotonic() - before >= 0.05


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_dialect_carries_a_prefix(dialect: str) -> None:
    seen = dict(SCENE.observation(60, SCENE.start))
    with start(FlowDemo(Rtc("inpaint"))) as server, Client(server.url, dialect=dialect) as client:
        rows = client.infer(seen).actions
        reply = client.infer({**seen, **prefix_of(rows[5:], 6)})
        np.testing.assert_allclose(reply.actions[:6], rows[5:11], atol=1e-6)
        if dialect != "vibe_rl":  # whose replies have no place for more than actions
            assert reply["rtc"] == {"method": "inpaint", "inference_delay": 6, "rows": 45}
        with pytest.raises(RemoteError, match=r"rtc/prev_length: expected at most 50, a chunk's rows, got 51"):
            client.infer({**seen, **prefix_of(rows, 6, known=51)})


def test_the_greeting_says_what_it_takes_and_what_an_action_is() -> None:
    with start(FlowDemo(Rtc())) as server, Client(server.url, dialect="openpi") as client:
        client.infer(dict(SCENE.observation(0, SCENE.start)))
        assert client.metadata["rtc"] == {"methods": ["guided"], "max_delay": None, "action_kind": "position"}
        assert client.metadata["action_kind"] == "position"
        assert client.metadata["control_hz"] == 50
        assert client.metadata["spec"]["observation"]["rtc/prev_chunk"]["shape"] == [HORIZON, 2]


def test_without_it_neither_spec_nor_greeting_speak_of_it() -> None:
    spec = FlowDemo().spec
    assert "rtc" not in spec.metadata
    assert not [path for path in spec.leaves if "rtc" in path]
