"""A policy that is exchanged under open sessions, over real sockets: they stay, and nothing is lost or crossed."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from policyserve import Client, RemoteError
from policyserve.core.errors import ConfigError
from policyserve.core.spec import ArraySpec
from policyserve.engine.swaps import Swap
from tests.policies.frameworks import import_or_skip
from tests.server.exchanging import CONFIG, Numbered, numbered, swapping
from tests.server.live import DEADLINE_S, Live

PATHS = ("/openpi", "/wall_x", "/vibe_rl")


def ask(client: Client, x: float = 0.0) -> list[float]:
    return np.ravel(client.infer({"x": np.array([x], np.float32)}).actions).tolist()


def page(live: Live, path: str) -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPConnection("127.0.0.1", live.port, timeout=DEADLINE_S)
    connection.request("GET", path)
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


def test_the_metrics_tell_which_checkpoint_answers() -> None:
    import_or_skip("prometheus_client")
    with swapping() as (live, engine):
        live.finish(engine.swap(numbered(2)))
        connection = http.client.HTTPConnection("127.0.0.1", live.port, timeout=DEADLINE_S)
        connection.request("GET", "/metrics")
        told = connection.getresponse().read().decode()
        (line,) = [line for line in told.splitlines() if line.startswith("policyserve_build_info{")]
        assert 'checkpoint="2"' in line


@pytest.mark.parametrize("path", PATHS)
def test_sessions_of_each_dialect_stay_and_are_answered_by_the_next_one(path: str) -> None:
    with swapping() as (live, engine), Client(live.url(path), dialect=path[1:]) as client:
        assert [ask(client, 5.0), ask(client, 6.0)] == [[1, 1, 5], [1, 2, 6]]
        live.finish(engine.swap(numbered(2)))
        assert [ask(client, 7.0), ask(client, 8.0)] == [[2, 1, 7], [2, 2, 8]]
        assert live.server.counters.sessions_opened == 1


def test_new_sessions_are_told_of_the_next_one() -> None:
    with swapping() as (live, engine):
        live.finish(engine.swap(numbered(2)))
        with Client(live.url("/openpi")) as client:
            ask(client)
            assert client.metadata["checkpoint_step"] == 2
        assert page(live, "/spec")[1]["checkpoint_step"] == 2
        assert page(live, "/live.json")[1]["policy"]["checkpoint"] == "2"


def test_a_request_under_way_is_answered_by_the_one_that_it_was_sent_to() -> None:
    may_answer = threading.Event()
    first = Numbered(1)
    with swapping(numbered(1, policy=first)) as (live, engine), Client(live.url("/openpi")) as client:
        ask(client)
        first.may_answer = may_answer
        first.is_asked.clear()
        answers: list[list[float]] = []
        asking = threading.Thread(target=lambda: answers.append(ask(client)))
        asking.start()
        assert first.is_asked.wait(DEADLINE_S)
        live.finish(engine.swap(numbered(2)))
        with Client(live.url("/openpi")) as other:
            assert ask(other) == [2, 1, 0]
        assert answers == []
        may_answer.set()
        asking.join(DEADLINE_S)
        assert answers == [[1, 2, 0]]
        assert ask(client) == [2, 1, 0]


def test_rows_of_the_one_before_are_handed_out_no_more() -> None:
    config = replace(CONFIG, serve_steps=True)
    with swapping(numbered(1, horizon=4), config) as (live, engine), Client(live.url("/openpi")) as client:
        assert [ask(client), ask(client)] == [[1, 1, 0], [1, 1, 0]]
        live.finish(engine.swap(numbered(2, horizon=4)))
        assert ask(client) == [2, 1, 0]


def test_a_running_session_may_end_on_the_one_before() -> None:
    with swapping() as (live, engine):
        with Client(live.url("/openpi")) as client:
            ask(client)
            live.finish(engine.swap(numbered(2), Swap(when="next-session")))
            assert ask(client) == [1, 2, 0]
            with Client(live.url("/openpi")) as other:
                assert ask(other) == [2, 1, 0]
            assert live.call(lambda: engine.staying) == 1
        live.until(lambda _: engine.staying == 0)


def test_another_spec_closes_its_sessions_which_connect_again() -> None:
    wider = {"x": ArraySpec((1,)), "y": ArraySpec((1,), optional=True)}
    with swapping() as (live, engine), live.websocket("/openpi") as peer, Client(live.url("/openpi")) as client:
        peer.recv(timeout=DEADLINE_S)
        ask(client)
        with pytest.raises(ConfigError, match=r"y: not there, now float32 \(1,\) \(optional\)"):
            live.finish(engine.swap(numbered(2, observation=wider)))
        assert ask(client) == [1, 2, 0]
        live.finish(engine.swap(numbered(2, observation=wider), Swap(force=True)))
        assert ask(client) == [2, 1, 0]
        with pytest.raises(Exception, match="another policy with another spec took over") as ended:
            peer.recv(timeout=DEADLINE_S)
        received = getattr(ended.value, "rcvd", None)
        assert received is not None
        told = "another policy with another spec took over: connect again [policy_changed]"
        assert (received.code, received.reason) == (1012, told)


def test_while_there_is_no_policy_requests_wait_and_readyz_says_so() -> None:
    may_load = threading.Event()
    with swapping() as (live, engine), Client(live.url("/openpi")) as client:
        ask(client)
        swap = threading.Thread(
            target=lambda: live.finish(engine.swap(numbered(2, may_load=may_load), Swap(unload_first=True)))
        )
        swap.start()
        live.until(lambda _: "reading weights" in engine.stage)
        status, told = page(live, "/readyz")
        assert (status, told["status"]) == (503, "loading")
        assert told["stage"].startswith("exchanging the policy: checkpoint 2, reading weights")
        answers: list[list[float]] = []
        asking = threading.Thread(target=lambda: answers.append(ask(client)))
        asking.start()
        live.until(lambda server: server.engine.load == 1)
        may_load.set()
        swap.join(DEADLINE_S)
        asking.join(DEADLINE_S)
        assert answers == [[2, 1, 0]]
        assert page(live, "/readyz")[0] == 200


def test_a_policy_that_hangs_is_exchanged_all_the_same() -> None:
    never = threading.Event()
    hanging = Numbered(1)
    config = replace(CONFIG, request_timeout_s=0.2)
    with swapping(numbered(1, policy=hanging, config=config), config) as (live, engine):
        hanging.may_answer = never
        with Client(live.url("/openpi")) as client:
            with pytest.raises(RemoteError, match="no answer within"):
                ask(client)
            live.finish(engine.swap(numbered(2, config=config)))
            assert ask(client) == [2, 1, 0]
        never.set()


def test_metadata_that_no_client_could_read_keeps_a_policy_out() -> None:
    with swapping() as (live, engine), Client(live.url("/openpi")) as client:
        with pytest.raises(ConfigError, match="metadata/spec: expected another key"):
            live.finish(engine.swap(numbered(2, metadata={"spec": 1})))
        assert ask(client) == [1, 1, 0]


def test_under_load_no_answer_is_lost_or_crossed() -> None:
    async def swap_all() -> None:
        for number in range(2, 12):
            await engine.swap(numbered(number))
            await asyncio.sleep(0)

    faults: list[Any] = []
    is_over = threading.Event()

    def ask_on(robot: int) -> None:
        version, asked = 0.0, 0
        with Client(live.url("/openpi")) as client:
            while not is_over.is_set():
                asked += 1
                number, _, x = ask(client, robot * 10_000 + asked)
                if x != robot * 10_000 + asked or number < version:
                    faults.append((robot, asked, number, x))
                version = number
        if not asked:
            faults.append((robot, "nothing asked"))

    with swapping() as (live, engine):
        robots = [threading.Thread(target=ask_on, args=(robot,)) for robot in range(4)]
        for robot in robots:
            robot.start()
        live.finish(swap_all())
        is_over.set()
        for robot in robots:
            robot.join(DEADLINE_S)
        assert faults == []
        assert not live.server.counters.errors
        live.finish(engine.retired())


def test_whoever_asks_for_it_is_told_with_each_answer_which_policy_gave_it() -> None:
    with swapping() as (live, engine), Client(live.url("/openpi?policy_version=true")) as client:
        versions = [version_told(client)]
        live.finish(engine.swap(numbered(2), Swap(when="next-session")))
        with Client(live.url("/openpi?policy_version=true")) as other, Client(live.url("/openpi")) as silent:
            versions += [version_told(client), version_told(other), version_told(silent)]
        live.finish(engine.swap(numbered(3), Swap(unload_first=True)))
        assert [*versions, version_told(client)] == [1, 1, 2, None, 3]


def version_told(client: Client) -> object:
    return client.infer({"x": np.zeros(1, np.float32)}).fields.get("policy_version")
