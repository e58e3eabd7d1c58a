"""A server learns the spec of a policy that declares none from its first answer, and tells it in greetings to come."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from policyserve import Client, RemoteError
from policyserve.core.policy import FunctionPolicy
from policyserve.core.spec import ArraySpec, PolicySpec
from policyserve.core.spec_from_values import SeenPolicy
from tests.server.live import Live, ask, serving


def chunk(observation: Any) -> Any:
    if "wrong" in observation:
        raise KeyError("state")
    return {"actions": np.zeros((50, 7), np.float32)}


def greeting(live: Live, path: str = "/openpi") -> dict[str, Any]:
    with Client(live.url(path)) as client:
        client.connect()
        return {key: value for key, value in client.metadata.items() if key not in ("spec", "policyserve")}


def test_the_first_answer_is_told_once_and_nothing_listens_afterwards() -> None:
    with serving(chunk) as live, Client(live.url("/openpi")) as client:
        seen: list[SeenPolicy] = []
        live.server.on_seen = seen.append
        assert live.server.learns_spec
        assert len(live.server.catalogue.default.observers.request) == 1
        with pytest.raises(RemoteError):
            client.infer({"wrong": 1.0})
        assert live.server.learns_spec
        for _ in range(3):
            client.infer({"state": np.zeros(3)})
        live.until(lambda server: not server.learns_spec)
        (told,) = seen
        assert told.spec.leaves == {"state": ArraySpec((3,), "float64")}
        assert (told.spec.name, told.spec.horizon) == ("chunk", 50)
        assert live.server.catalogue.default.observers.request == ()
        assert len(live.server.catalogue.default.observers.answer) == 2  # the counters, and the tally of metrics


def test_greetings_say_nothing_before_the_first_answer_and_what_is_true_after_it() -> None:
    with serving(chunk) as live:
        blanks = dict.fromkeys(("action_dim", "pred_horizon", "device", "predict_mode", "env"))
        assert greeting(live) == greeting(live, "/") == {}
        assert greeting(live, "/wall_x") == blanks
        with Client(live.url("/openpi")) as client:
            client.infer({"state": np.zeros(3)})
        live.until(lambda server: not server.learns_spec)
        facts = {"action_dim": 7, "pred_horizon": 50}
        assert greeting(live) == greeting(live, "/") == facts
        assert greeting(live, "/wall_x") == {**blanks, **facts}


def test_what_the_policy_says_itself_goes_before_what_was_seen() -> None:
    class Arm:
        metadata = {"action_dim": 6, "robot": "arm"}  # noqa: RUF012 - as people write it

        def infer(self, observation: Any) -> Any:
            return chunk(observation)

    with serving(Arm()) as live:
        with Client(live.url("/openpi")) as client:
            client.infer({"state": np.zeros(3)})
        live.until(lambda server: not server.learns_spec)
        assert greeting(live) == {"action_dim": 6, "robot": "arm", "pred_horizon": 50}


def test_an_array_alone_teaches_too_and_is_logged_where_nobody_shows_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    with serving(lambda x: x) as live, live.websocket() as peer:
        assert ask(peer, 1.0) == 1.0
        live.until(lambda server: not server.learns_spec)
    assert "declares no spec; it was seen to take and give obs float32 (1,) -> actions float32 (1,)" in caplog.text


def test_of_a_policy_with_a_spec_nothing_is_learned() -> None:
    with serving(FunctionPolicy(lambda x: x["x"], PolicySpec("echo", {"x": ArraySpec((1,))}, None))) as live:
        assert not live.server.learns_spec
        assert live.server.catalogue.default.observers.request == ()
