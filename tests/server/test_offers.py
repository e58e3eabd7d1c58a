"""Several policies in one server: each has its sessions, its settings and its end, and none disturbs another."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from websockets.exceptions import InvalidStatus

from policyserve import ArraySpec, Client, FunctionPolicy, PolicyFailed, PolicySpec
from policyserve.core.errors import ConfigError, PolicyserveError
from policyserve.core.policy import Policy
from policyserve.core.recipe import Recipe
from policyserve.server.config import ServerConfig
from policyserve.server.offers import Offer
from policyserve.server.server import Server
from policyserve.server.splits import Split
from tests.server.live import DEADLINE_S, Live, always, answer, ask, frame, none_open, running


def saying(number: float, **facts: Any) -> Policy:
    spec = PolicySpec("mine", {"obs": ArraySpec((1,))}, ArraySpec((1,)), **facts)
    return FunctionPolicy(lambda observation: np.full(1, number, np.float32), spec)


def failing(_on_stage: Any) -> Policy:
    raise PolicyFailed("no such checkpoint")


def make(offers: Mapping[str, Any], routes: Mapping[str, Split] | None = None, **settings: Any) -> Server:
    usual = {"host": "127.0.0.1", "port": 0, "max_queue_ms": 60_000.0}
    return Server(offers, ServerConfig(**{**usual, **settings}), routes)


def answer_of(live: Live, path: str) -> float:
    with live.websocket(path) as peer:
        return ask(peer, 0.0)


TWO = {"pick": always(saying(1.0)), "place": always(saying(2.0))}


def test_each_path_is_answered_by_its_policy() -> None:
    with running(make(TWO)) as live:
        live.ready()
        answers = [answer_of(live, path) for path in ("/vibe_rl", "/pick/vibe_rl", "/place/vibe_rl", "/place", "/")]
        assert answers == [1.0, 1.0, 2.0, 2.0, 1.0]
        with Client(live.url("/place")) as client:
            assert client.infer({"obs": np.zeros(1, np.float32)}).actions.tolist() == [2.0]
        assert live.server.served("place").counters.requests == 3
        assert live.server.served("pick").counters.requests == 3
        assert live.server.counters.requests == 6


def test_a_path_to_none_is_refused_and_told_what_there_is() -> None:
    with running(make(TWO)) as live, pytest.raises(InvalidStatus) as refused:
        live.websocket("/pik")
    assert refused.value.response.status_code == 404
    assert b"did you mean /pick?" in (refused.value.response.body or b"")


def test_one_that_cannot_be_loaded_tells_its_sessions_and_no_others() -> None:
    with running(make({"pick": failing, **{"place": TWO["place"]}})) as live:
        live.ready()
        assert answer_of(live, "/place/vibe_rl") == 2.0
        with pytest.raises(PolicyserveError, match="no such checkpoint"), Client(live.url("/pick")) as client:
            client.infer({"obs": np.zeros(1, np.float32)})
        assert live.http("GET", "/readyz")[0] == 503
        assert live.http("GET", "/readyz/pick")[1] == b'{"status":"loading","stage":"loading failed"}\n'
        assert live.http("GET", "/readyz/place")[0] == 200
        assert live.http("GET", "/readyz/other")[0] == 404


def test_if_none_can_be_loaded_the_server_says_why() -> None:
    with running(make({"pick": failing, "place": failing})) as live, pytest.raises(PolicyFailed, match="no such"):
        live.ready()


def test_one_that_still_loads_and_one_that_hangs_keep_nobody_else_waiting() -> None:
    loads, hangs = threading.Event(), threading.Event()

    def slow(_on_stage: Any) -> Policy:
        loads.wait()
        return saying(3.0)

    def hang(observation: Any) -> Any:
        hangs.wait()
        return np.zeros(1, np.float32)

    try:
        with running(make({"slow": slow, "hangs": always(hang), **TWO})) as live:
            live.until(lambda server: not server.served("pick").stage and not server.served("hangs").stage)
            with live.websocket("/hangs/vibe_rl") as stuck, live.websocket("/slow/vibe_rl") as early:
                stuck.send(frame([0.0]))
                early.send(frame([0.0]))
                live.until(lambda server: server.served("hangs").engine.load == 1)
                assert [answer_of(live, "/pick/vibe_rl") for _ in range(3)] == [1.0] * 3
                loads.set()
                live.ready()
                hangs.set()
                assert answer(early.recv(timeout=DEADLINE_S)) == 3.0
            none_open(live)
    finally:
        loads.set()
        hangs.set()


DYING = """
import os
import numpy as np


def policy(observation):
    if observation["obs"][0] < 0:
        os._exit(7)
    return np.ones(1, np.float32)
"""


@pytest.mark.skipif(os.name != "posix", reason="a policy's own process needs Linux or macOS")
def test_one_that_dies_is_replaced_and_the_others_notice_nothing(tmp_path: Path) -> None:
    path = tmp_path / "dying.py"
    path.write_text(DYING)
    recipe = Recipe("policyserve.policies.objects:load_from_file", {"path": path, "name": "policy"})
    with running(make({"dying": Offer(recipe, {"isolate": "process"}), "place": always(saying(2.0))})) as live:
        live.ready()
        with Client(live.url("/dying")) as dying, live.websocket("/place/vibe_rl") as other:
            assert ask(other, 0.0) == 2.0
            with pytest.raises(PolicyserveError) as lost:
                dying.infer({"obs": -np.ones(1, np.float32)})
            assert lost.value.retryable
            assert ask(other, 0.0) == 2.0
            assert not live.call(lambda: live.server.served("place").stage)
            live.until(lambda server: not server.served("dying").stage)
            assert dying.infer({"obs": np.ones(1, np.float32)}).actions.tolist() == [1.0]
        page = live.http("GET", "/metrics")[1].decode()
        for policy, count in (("dying", 1), ("place", 0)):
            assert f'policyserve_policy_replacements_total{{policy="{policy}",reason="broke"}} {count}.0' in page


def test_settings_of_its_own_hold_for_one_alone() -> None:
    server = make({"pick": Offer(saying_loader(1.0), {"max_pending": 3}), "place": always(saying(2.0))})
    assert [served.config.max_pending for served in server.catalogue] == [3, 256]


def saying_loader(number: float) -> Any:
    return always(saying(number))


def test_sessions_of_one_may_be_bounded() -> None:
    with running(make({"pick": Offer(saying_loader(1.0), max_sessions=1), "place": always(saying(2.0))})) as live:
        live.ready()
        with live.websocket("/pick"):
            with pytest.raises(InvalidStatus) as refused:
                live.websocket("/pick/openpi")
            assert refused.value.response.status_code == 503
            assert answer_of(live, "/place/vibe_rl") == 2.0
        none_open(live)
        assert answer_of(live, "/pick/vibe_rl") == 1.0


@pytest.mark.parametrize(
    ("offer", "told"),
    [
        (Offer(always(saying(1.0)), {"port": 1}), r"policies\.pick\.port: no setting of one policy"),
        (Offer(always(saying(1.0)), {"max_queu": 1}), r"did you mean max_queue\?"),
        (Offer(always(saying(1.0)), {"max_queue": 0}), r"policies\.pick: max_queue: expected 1 or more, got 0"),
        (Offer(always(saying(1.0)), max_sessions=0), r"policies\.pick\.max_sessions: expected 1 or more, got 0"),
    ],
)
def test_settings_that_it_cannot_have_are_refused(offer: Offer, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        make({"pick": offer})


@pytest.mark.parametrize("name", ["openpi", "metrics", "healthz", "spec", "live", "a/b"])
def test_a_name_that_is_taken_is_refused_before_a_port_is_open(name: str) -> None:
    with pytest.raises(ConfigError, match=r"choose another name|expected a name"), running(make({name: failing})):
        pass
