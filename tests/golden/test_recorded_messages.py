"""Requests that the original's client sent, and the original server's answers: ours are the same bytes.

A whole conversation without a socket: the session reads the recorded frame, the policy answers, the session writes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserve.cli.arguments.parsing import parse
from policyserve.core.effects import Answered, Close, Send, Submit
from policyserve.core.policy import ActionChunk, Policy, PolicyInput
from policyserve.core.session import Session
from policyserve.dialects import by_name
from policyserve.engine.answering import run_batch
from policyserve.policies.vibe_rl import PRESETS, create_trained_policy
from policyserve.policies.vibe_rl.adapter import PresetFlags
from tests.policies.vibe_rl.test_golden import image_policy
from tests.shared import shared_path

NAMES = [
    "cartpole_ppo",
    "cartpole_ppo_shared",
    "cartpole_ppo_norm",
    "cartpole_dqn",
    "gridworld_dqn",
    "pendulum_sac",
    "pendulum_sac_norm",
    "pendulum_sac_pm2",
]
SERVED_BY_US_ALONE = {"err_big_endian"}  # the original refuses it
LATENCY_BYTES = 8  # the float64 at the end of a response


def policy_of(golden: Path) -> Policy:
    """The policy that golden/<name>/serve.json's command line serves, read by our command line."""
    serve = json.loads((golden / "serve.json").read_text())
    preset, *flags = serve["cli_args"]
    start = PresetFlags(config=PRESETS[preset].config)
    arguments = parse(PresetFlags, "serve", flags, start)
    return create_trained_policy(
        arguments.config,
        golden / str(arguments.checkpoint_dir),
        step=arguments.step,
        rescale_actions=golden.name != "pendulum_sac_pm2",
    )


def converse(policy: Policy, frame: bytes | str) -> Send | Close:
    """What a new session is sent back for one frame."""
    session = Session(by_name("vibe_rl"), max_pending=4)
    session.serve(policy.spec, {})
    effects = session.receive(frame, 0.0)
    for submit in [effect for effect in effects if isinstance(effect, Submit)]:
        (chunk,) = run_batch(policy, [PolicyInput(submit.observation, submit.batch_size)])
        outcome = Answered(chunk, 0.0, 0.0) if isinstance(chunk, ActionChunk) else chunk
        effects = session.answer(submit.ticket, outcome, 0.001)
    (said,) = [effect for effect in effects if isinstance(effect, (Send, Close))]
    return said


def check_response(frame: Any, golden: Path, record: dict[str, Any]) -> None:
    recorded = (golden / "frames" / record["response"]).read_bytes()
    if record["dtype"] == "<i4":
        assert frame[:-LATENCY_BYTES] == recorded[:-LATENCY_BYTES]
        return
    ours, theirs = (by_name("vibe_rl").read_reply(each).actions for each in (frame, recorded))
    assert (len(frame), ours.dtype, ours.shape) == (len(recorded), theirs.dtype, theirs.shape)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", NAMES)
def test_every_recorded_request_gets_the_recorded_answer(name: str) -> None:
    golden = shared_path("vibe_rl", "golden", name)
    policy = policy_of(golden)
    records = [record for record in json.loads((golden / "frames" / "index.json").read_text()) if record["request"]]
    good = [record for record in records if record["close_code"] is None]
    assert len(good) >= 10
    for record in good:
        said = converse(policy, (golden / "frames" / record["request"]).read_bytes())
        assert isinstance(said, Send), (record["kind"], said)
        check_response(said.message, golden, record)


def test_what_the_original_dropped_without_a_word_is_refused_with_a_reason() -> None:
    golden = shared_path("vibe_rl", "golden", "cartpole_ppo")
    policy = policy_of(golden)
    refused = 0
    for record in json.loads((golden / "frames" / "index.json").read_text()):
        if record["close_code"] != 1000 or record["kind"] in SERVED_BY_US_ALONE:
            continue
        frame = (golden / "frames" / record["request"]).read_bytes()
        said = converse(policy, frame.decode() if record["text_frame"] else frame)
        assert isinstance(said, Close), record["kind"]
        assert said.code == 1008
        assert "expected" in said.reason
        assert len(said.reason.encode()) <= 123
        refused += 1
    assert refused >= 10


def test_recorded_image_and_state_requests_get_the_recorded_answers() -> None:
    """The original's user-built policy. It took an image before the state for a batch, and closed: we answer it."""
    policy, _ = image_policy()
    golden = shared_path("vibe_rl", "golden", "image_cnn_dict")
    answered, refused = 0, 0
    for record in json.loads((golden / "frames" / "index.json").read_text()):
        said = converse(policy, (golden / "frames" / record["request"]).read_bytes())
        if record["close_code"] is None:
            assert isinstance(said, Send), (record["kind"], said)
            check_response(said.message, golden, record)
            answered += 1
        elif record["kind"] == "dict_image_first_order":
            assert isinstance(said, Send), said
        else:
            assert isinstance(said, Close)
            assert said.code == 1008
            assert said.reason.startswith("state: expected")
            refused += 1
    assert (answered, refused) == (7, 1)
