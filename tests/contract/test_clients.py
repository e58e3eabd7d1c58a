"""What both clients promise, in every dialect: one body of tests."""

from __future__ import annotations

import copy
import pickle
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from websockets.sync.server import ServerConnection

from policyserve.core.errors import (
    BadObservation,
    ConfigError,
    ConnectionLost,
    DeadlineExceeded,
    RemoteError,
    WireError,
)
from policyserve.core.messages import Timing
from policyserve.core.policy import ActionChunk, FunctionPolicy
from policyserve.core.recipe import Recipe
from policyserve.dialects import by_name
from tests.contract.clients import DIALECTS, Make, Waiting
from tests.contract.policies import SPEC
from tests.plain_servers import plain_server
from tests.server.live import DEADLINE_S, Live, serving

X = np.array([1, 2], np.float32)


@contextmanager
def serving_named(policy: str) -> Iterator[Live]:
    """Serve one of policies.py."""
    with serving(load=Recipe(f"tests.contract.policies:{policy}")) as live:
        live.ready()
        yield live


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    with serving_named("double") as live:
        yield live


def url(live: Live) -> str:
    return f"ws://127.0.0.1:{live.port}"


dialects = pytest.mark.parametrize("dialect", DIALECTS)


@dialects
def test_infer_gives_actions_timing_and_all_that_the_wire_carried(make: Make, live: Live, dialect: str) -> None:
    client = make(url(live), dialect=dialect)
    client.infer({"x": X})
    for _ in range(2):
        reply = client.infer({"x": X})
        assert reply.actions.tolist() == [2, 4]
        assert reply.actions.dtype == np.float32
        assert reply.timing or dialect == "roboarena", "whose wire has no place for it"
        assert all(isinstance(value, float) for value in reply.timing.values())
        assert len(reply) == len(list(reply)) > 0
    wire = by_name(dialect)
    written = wire.write_reply(ActionChunk(X, extras={"note": "hi"}), Timing(0.1, 0.5, 1.0, 0.9))
    told = wire.read_reply(written)
    reply = client.infer({"x": X})
    assert (set(reply), set(reply.timing)) == (set(told), set(told.timing)), "what else this wire has a place for"
    assert reply.get("note") == told.get("note")
    assert max(reply.timing.values(), default=1) > 0


@dialects
def test_metadata_is_what_the_server_greets_with(make: Make, live: Live, dialect: str) -> None:
    client = make(url(live), dialect=dialect)
    assert (client.metadata, client.sessions_opened) == ({}, 0), "to look at it connects nobody"
    client.connect()
    client.connect()
    assert client.sessions_opened == 1
    if dialect == "vla_eval":  # the answer to its hello
        assert client.metadata["harness_version"]
    elif dialect == "roboarena":  # whose greeting has six keys and no other
        assert len(client.metadata) == 6
        return
    elif by_name(dialect).greets:
        assert client.metadata["robot"] == "arm"
    if client.metadata:
        assert client.metadata["spec"]["observation"]["x"]["shape"] == [2]
    else:
        assert dialect == "vibe_rl"


@dialects
def test_a_refusal_is_a_remote_error_with_the_reason(make: Make, live: Live, dialect: str) -> None:
    client = make(url(live), dialect=dialect)
    with pytest.raises(RemoteError, match=r"x: expected float32 \(2,\), got float32 \(3,\)") as caught:
        client.infer({"x": np.zeros(3, np.float32)})
    assert not isinstance(caught.value, ConnectionLost)
    assert caught.value.close_code == by_name(dialect).write_error(BadObservation("x", "", "")).close_code
    assert client.infer({"x": X}).actions.tolist() == [2, 4]


@pytest.mark.parametrize("dialect", ["starvla", "dreamzero", "vllm_omni", "behavior1k", "gr00t", "cosmos"])
def test_dialects_that_other_programs_mostly_speak_are_asked_and_refuse_as_well(
    make: Make, live: Live, dialect: str
) -> None:
    client = make(url(live), dialect=dialect)
    for _ in range(3):
        assert client.infer({"x": X}).actions.ravel().tolist() == [2, 4]
        with pytest.raises(RemoteError, match=r"x: expected float32 \(2,\), got float32 \(3,\)"):
            client.infer({"x": np.zeros(3, np.float32)})
    assert client.sessions_opened == 1


@dialects
def test_a_policys_failure_is_a_remote_error_and_the_client_recovers(make: Make, dialect: str) -> None:
    with serving_named("picky") as live:
        client = make(url(live), dialect=dialect)
        with pytest.raises(RemoteError, match="the arm fell off"):
            client.infer({"x": -X})
        assert client.infer({"x": X}).actions.tolist() == [1, 2], "a close behind the error met the next call"
        client.close()


@dialects
def test_reset_starts_a_new_session(make: Make, dialect: str) -> None:
    with serving_named("Counter") as live:
        client = make(url(live), dialect=dialect)
        counts = [client.infer({"x": X}).actions[0] for _ in range(3)]
        client.reset()
        assert [*counts, client.infer({"x": X}).actions[0]] == [1, 2, 3, 1]
        client.close()
        assert client.infer({"x": X}).actions[0] == 1  # a closed client opens again
        client.close()


@dialects
def test_a_late_answer_is_a_deadline_exceeded_and_never_the_next_requests(make: Make, dialect: str) -> None:
    release = threading.Event()

    def slow(observation: Any) -> Any:
        if observation["x"][0] == 1:
            assert release.wait(DEADLINE_S)
        return observation["x"]

    with serving(FunctionPolicy(slow, SPEC)) as live:
        client = make(url(live), dialect=dialect, timeout_s=1.0)
        with pytest.raises(DeadlineExceeded, match="no answer"):
            client.infer({"x": X})
        release.set()
        live.until(lambda server: server.counters.sessions_open == 0)
        assert client.infer({"x": X * 5}).actions.tolist() == [5, 10]
        client.close()


@dialects
def test_a_server_that_goes_is_a_connection_lost_and_its_successor_is_found(make: Make, dialect: str) -> None:
    with serving(FunctionPolicy(lambda observation: observation["x"], SPEC)) as live:
        port = live.port
        client = make(url(live), dialect=dialect, timeout_s=10, retry_for_s=0.1)
        client.infer({"x": X})
    for _ in range(2):
        with pytest.raises(ConnectionLost, match=rf"127.0.0.1:{port}.*refused.*; tried \d+ times in 0\.\d s"):
            client.infer({"x": X})
    with serving(FunctionPolicy(lambda observation: observation["x"] * 3, SPEC), port=port):
        assert client.infer({"x": X}).actions.tolist() == [3, 6]
        client.close()


@dialects
def test_a_connection_that_breaks_mid_call_is_lost(make: Make, dialect: str) -> None:
    started, release = threading.Event(), threading.Event()

    def block(observation: Any) -> Any:
        if observation["x"][0] == 1 and not started.is_set():  # not the zeros of the warm-up
            started.set()
            assert release.wait(DEADLINE_S)
        return observation["x"]

    with serving(FunctionPolicy(block, SPEC)) as live:
        client = make(url(live), dialect=dialect)

        def cut() -> None:
            assert started.wait(DEADLINE_S)
            assert live.server is not None
            live.call(lambda: [one.abort() for one in live.server.reception.peers])

        cutter = threading.Thread(target=cut)
        cutter.start()
        with pytest.raises(ConnectionLost):
            client.infer({"x": X})
        cutter.join()
        release.set()
        assert client.infer({"x": X}).actions.tolist() == [1, 2]
        client.close()


def test_a_refused_connection_is_lost_and_says_where(make: Make) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(ConnectionLost, match=f"127.0.0.1:{port}"):
        make(f"ws://127.0.0.1:{port}", retry_for_s=0).infer({"x": X})


@dialects
def test_who_asks_while_the_policy_loads_is_told_that_it_may(make: Make, dialect: str) -> None:
    release = threading.Event()

    def load(_: Any) -> Any:
        release.wait(DEADLINE_S)
        raise ConfigError("never")

    with serving(load=load) as live:
        with pytest.raises(
            DeadlineExceeded, match=rf"{live.port}/{dialect}.*may still be loading \(GET /readyz tells\)"
        ):
            make(url(live), dialect=dialect, timeout_s=0.2).infer({"x": X})
        live.until(lambda server: server.counters.sessions_open == 0)
        release.set()


@dialects
def test_a_server_whose_policy_failed_to_load_tells_why(make: Make, dialect: str) -> None:
    def load(_: Any) -> Any:
        raise ConfigError("no checkpoint in /data")

    with serving(load=load) as live:
        with pytest.raises(RemoteError, match="no checkpoint in /data"):
            make(url(live), dialect=dialect).infer({"x": X})
        live.until(lambda server: server.counters.sessions_open == 0)


@pytest.mark.parametrize(
    "wrong",
    ["http://127.0.0.1:8000", "127.0.0.1:8000", "ws://", "ws://:8000", "ws://host:port", "ws://host:99999", ""],
)
def test_a_wrong_url_is_refused_at_once(make: Make, wrong: str) -> None:
    with pytest.raises(ConfigError, match="url"):
        make(wrong)


def test_an_unknown_dialect_is_refused_at_once(make: Make) -> None:
    with pytest.raises(ConfigError, match="openpi"):
        make("ws://127.0.0.1:8000", dialect="klingon")


@dialects
def test_what_the_wire_cannot_carry_is_refused_and_nothing_is_sent(make: Make, live: Live, dialect: str) -> None:
    client = make(url(live), dialect=dialect)
    with pytest.raises(WireError):
        client.infer({"x": np.array([None, None])})
    assert client.infer({"x": X}).actions.tolist() == [2, 4]


@dialects
def test_large_observations_and_actions_pass(make: Make, dialect: str) -> None:
    with serving(lambda observation: observation["x"]) as live:
        sent = np.random.default_rng(0).integers(0, 255, (2, 1000, 1000, 3), np.uint8)
        client = make(url(live), dialect=dialect)
        answered = client.infer({"x": sent}).actions
        assert np.array_equal(answered, sent[0] if dialect == "vla_eval" else sent), "the dialect of one action"
        client.close()


def test_an_api_key_is_sent_as_a_header(make: Make) -> None:
    keys: list[str | None] = []

    def handle(peer: ServerConnection) -> None:
        assert peer.request is not None
        keys.append(peer.request.headers.get("Authorization"))

    with plain_server(handle) as port:
        for key in ("secret", "secret\n", "  secret\r\n"):  # as a file or an environment variable has it
            with pytest.raises(ConnectionLost):
                make(f"ws://127.0.0.1:{port}", dialect="vibe_rl", api_key=key).infer({"x": X})
    assert keys == ["Api-Key secret"] * 3


@dialects
@pytest.mark.parametrize("again", [lambda client: pickle.loads(pickle.dumps(client)), copy.deepcopy])
def test_a_client_that_was_pickled_or_copied_has_a_session_of_its_own(
    make: Make, dialect: str, again: Callable[[Any], Any]
) -> None:
    with serving_named("Counter") as live:
        client = make(url(live), dialect=dialect)
        assert [client.infer({"x": X}).actions[0] for _ in range(2)] == [1, 2]
        copied = again(client)
        assert copied.infer({"x": X}).actions[0] == 1
        assert client.infer({"x": X}).actions[0] == 3, "the first one's session goes on"
        assert (client.sessions_opened, copied.sessions_opened) == (1, 1)
        copied.close()
        client.close()
        if isinstance(copied, Waiting):
            copied.end()


def test_a_client_without_a_dialect_asks_any_server_of_ours(make: Make, live: Live) -> None:
    for path in ("", "/", "/openpi", "/wall_x", "/vibe_rl"):
        client = make(url(live) + path)
        assert client.infer({"x": X}).actions.tolist() == [2, 4]
        client.close()


def test_a_client_that_was_closed_for_its_silence_asks_on_a_new_connection(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("policyserve.server.connection._CLOSE_TIMEOUT_S", 0.1)  # it reads no close frame while it rests
    policy = FunctionPolicy(lambda observation: observation["x"] * 2, SPEC)
    with serving(policy, first_frame_timeout_s=0.05) as live:
        client = make(url(live), dialect="vibe_rl")
        client.reset()  # connects
        live.until(lambda server: server.counters.sessions_opened == 1 and server.counters.sessions_open == 0)
        np.testing.assert_array_equal(client.infer({"x": X}).actions, X * 2)
        client.close()
