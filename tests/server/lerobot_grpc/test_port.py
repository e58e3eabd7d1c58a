"""LeRobot's port over real sockets: what a client gets, and what one that misbehaves does not take from others."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest

from policyserve import Client
from policyserve.core.errors import ConfigError, MissingDependency
from policyserve.core.policy import FunctionPolicy
from policyserve.core.spec import ArraySpec, ImageSpec, PolicySpec
from policyserve.dialects import by_name
from policyserve.dialects.lerobot.messages import BEGIN, END, MIDDLE
from policyserve.recordings.reading import open_recording
from policyserve.server.config import ServerConfig
from policyserve.server.policy_server import PolicyServer
from policyserve.server.server import Server
from tests.dialects.lerobot.test_pickled import GOLDEN, own, programs
from tests.dialects.lerobot.written import features, seen, setup
from tests.policies.frameworks import import_or_skip
from tests.server.lerobot_grpc.calling import (
    STATE,
    SlowPolicy,
    asking,
    calling,
    doubled,
    lerobot_port,
    part,
    parts,
    policy,
    refused,
    rows,
)
from tests.server.live import DEADLINE_S, always, running, serving
from tests.shared import shared_path

grpc: Any = import_or_skip("grpc")

SEEING = PolicySpec(
    "lerobot act",
    {"observation.state": ArraySpec((3,)), "observation.images.top": ImageSpec(480, 640)},
    ArraySpec((3,)),
    horizon=4,
)


def test_a_client_gets_its_chunk_and_the_timesteps_count_on() -> None:
    with serving(policy(), lerobot=0) as live, asking(live, "double rows") as caller:
        for step in (0, 7):
            caller.observe(1.0, 2.0, step, timestep=step)
            actions, timesteps = caller.actions()
            np.testing.assert_array_equal(actions, rows(1.0, 2.0, step))
            assert timesteps == list(range(step, step + 4))
        assert [facts.dialect for facts in live.call(lambda: live.server.reception.sessions)] == ["lerobot"]
        assert live.server.counters.requests == 2
    assert live.server.counters.sessions_open == 0


def test_it_gets_no_more_actions_than_it_asked_for() -> None:
    with serving(policy(), lerobot=0) as live, asking(live, "double rows", actions=2) as caller:
        caller.observe(1.0, 2.0, 3.0)
        assert len(caller.actions()[0]) == 2


def test_camera_frames_come_in_parts_and_meet_lerobots_names() -> None:
    told = features(top=(480, 640, 3))
    seeing = FunctionPolicy(
        lambda observation: rows(*observation["observation.state"] + observation["observation.images.top"].max()),
        SEEING,
    )
    with serving(seeing, lerobot=0) as live, asking(live, "lerobot-act", told) as caller:
        picture = np.zeros((480, 640, 3), np.uint8)
        picture[-1, -1, -1] = 7
        data = seen(1.0, 2.0, 3.0, top=picture, task="fold")
        assert len(parts(data, 1 << 18)) > 3
        assert caller.observing(iter(parts(data, 1 << 18))) == b""
        np.testing.assert_array_equal(caller.actions()[0], rows(8.0, 9.0, 10.0))


def test_the_port_serves_beside_the_others_on_one_policy() -> None:
    with serving(policy(), lerobot=0) as live, ExitStack() as stack:
        callers = [stack.enter_context(asking(live, "double rows")) for _ in range(4)]
        websocket = stack.enter_context(Client(live.url("/openpi")))
        for step in range(20):
            for number, caller in enumerate(callers):
                caller.observe(number, step, 0.0)
            np.testing.assert_array_equal(
                websocket.infer({"state": np.array([9, step, 0], np.float32)}).actions, rows(9.0, step, 0.0)
            )
            for number, caller in enumerate(callers):
                np.testing.assert_array_equal(caller.actions()[0], rows(number, step, 0.0))


def test_of_observations_the_newest_is_answered() -> None:
    with serving(policy(), lerobot=0) as live, asking(live, "double rows") as caller:
        for step in range(10):
            caller.observe(step, 0.0, 0.0, timestep=step, must_go=step == 0)
        actions, timesteps = caller.actions()
        assert timesteps[0] == 9
        np.testing.assert_array_equal(actions, rows(9.0, 0.0, 0.0))
        assert live.server.counters.requests == 1


def test_an_observation_that_comes_while_the_policy_works_waits_for_its_turn() -> None:
    slow = SlowPolicy()
    with (
        serving(slow, lerobot=0, isolate="thread") as live,
        asking(live, "double rows") as caller,
    ):
        caller.observe(0.0, 1.0, 0.0)
        first = caller.acting.future(b"", timeout=DEADLINE_S)
        assert slow.began.acquire(timeout=DEADLINE_S)
        for step in (1, 2, 3):
            caller.observe(step, 1.0, 0.0, must_go=step == 1)
        slow.go_on.release()
        assert first.result()
        slow.go_on.release()
        np.testing.assert_array_equal(caller.actions()[0], rows(3.0, 1.0, 0.0))


def test_a_call_for_actions_waits_for_an_observation_and_a_newer_call_takes_its_place() -> None:
    with serving(policy(), lerobot=0) as live, asking(live, "double rows") as caller:
        calls = [caller.acting.future(b"", timeout=DEADLINE_S) for _ in range(2)]
        while not any(call.done() for call in calls):
            threading.Event().wait(0.002)
        caller.observe(1.0, 2.0, 3.0)
        assert sorted(bool(call.result()) for call in calls) == [False, True]


def test_ready_resets_the_peer_that_says_it_and_nobody_else() -> None:
    with serving(policy(), lerobot=0) as live, asking(live, "double rows") as one, asking(live, "double rows") as other:
        one.observe(1.0, 0.0, 0.0)
        other.observe(2.0, 0.0, 0.0)
        one.ready()
        assert live.server.counters.sessions_open == 1
        np.testing.assert_array_equal(other.actions()[0], rows(2.0, 0.0, 0.0))
        status, told = refused(lambda: one.observe(1.0, 0.0, 0.0))
        assert (status, "SendPolicyInstructions" in told) == ("FAILED_PRECONDITION", True)
        one.instruct(setup("double rows"))
        one.observe(3.0, 0.0, 0.0)
        np.testing.assert_array_equal(one.actions()[0], rows(3.0, 0.0, 0.0))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (setup("user/model"), r"pretrained_name_or_path: expected a policy that is served here ('double rows')"),
        (setup("/etc/passwd"), "nothing that a client names is loaded"),
        (setup("double rows", features(("a", "b"))), "state: expected float32 (3,), got float32 (2,)"),
        (setup("double rows", {}), "state: expected float32 (3,), got keys prompt"),
        (b"", "expected a pickle of LeRobot's client"),
        (seen(1.0), "expected a RemotePolicyConfig of LeRobot's, got lerobot.async_inference.helpers TimedObservation"),
    ],
)
def test_instructions_that_cannot_be_followed_are_refused_in_words(data: bytes, expected: str) -> None:
    with serving(policy(), lerobot=0) as live, calling(live) as caller:
        caller.ready()
        status, told = refused(lambda: caller.instruct(data))
        assert status == "INVALID_ARGUMENT"
        assert expected in told
        caller.instruct(setup("double rows"))


def test_a_wrong_observation_is_told_to_the_call_that_waits_and_the_session_goes_on() -> None:
    with serving(policy(), lerobot=0) as live, asking(live, "double rows") as caller:
        for data, expected in ((b"no pickle", "bad_frame"), (seen(1.0), "state/elbow_flex.pos: expected a number")):
            caller.send(data)
            status, told = refused(caller.raw_actions)
            assert (status, expected in told) == ("INVALID_ARGUMENT", True)
        caller.observe(1.0, 2.0, 3.0)
        np.testing.assert_array_equal(caller.actions()[0], rows(1.0, 2.0, 3.0))


def test_what_the_policy_raises_is_told_as_ours() -> None:
    def fails(observation: Any) -> Any:
        if observation["state"][0] == 1.0:
            raise RuntimeError("the arm fell off")
        return doubled(observation)

    with serving(FunctionPolicy(fails, STATE), lerobot=0) as live, asking(live, "double rows") as caller:
        caller.observe(1.0, 2.0, 3.0)
        status, told = refused(caller.raw_actions)
        assert (status, "the arm fell off" in told) == ("INTERNAL", True)
        caller.observe(2.0, 2.0, 3.0)
        np.testing.assert_array_equal(caller.actions()[0], rows(2.0, 2.0, 3.0))


def test_no_program_of_a_peer_runs_in_the_server(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = tmp_path / "ran"
    called: list[int] = []
    golden = [
        shared_path("design", "golden_more", "unsafe", f"lerobot_pickle_{name}.bin").read_bytes() for name in GOLDEN
    ]
    with serving(policy(), lerobot=0) as live, asking(live, "double rows") as good, calling(live) as bad:
        with monkeypatch.context() as patch:
            patch.setattr(sys.modules[os.name], "getpid", lambda: called.append(1) or 1)
            for data in [*golden, *programs(mark)[::7], *own(mark)]:
                assert refused(lambda data=data: bad.instruct(data))[0] == "INVALID_ARGUMENT"
                good.send(data)
                assert refused(good.raw_actions)[0] == "INVALID_ARGUMENT"
        assert called == []
        assert not mark.exists()
        good.observe(1.0, 2.0, 3.0)
        np.testing.assert_array_equal(good.actions()[0], rows(1.0, 2.0, 3.0))


def endless(state: int) -> Iterator[bytes]:
    while True:
        yield part(state, bytes(1 << 16))


@pytest.mark.parametrize(
    ("stream", "status"),
    [
        ([part(MIDDLE, b"x")], "INVALID_ARGUMENT"),
        ([part(BEGIN, b"x"), part(MIDDLE, b"x")], "INVALID_ARGUMENT"),
        ([part(BEGIN, b"x"), b"\xff"], "INVALID_ARGUMENT"),
        ([], "INVALID_ARGUMENT"),
        ([part(9, b"x")], "INVALID_ARGUMENT"),
    ],
)
def test_parts_in_a_wrong_order_are_refused_and_the_session_goes_on(stream: list[bytes], status: str) -> None:
    with serving(policy(), lerobot=0) as live, asking(live, "double rows") as caller:
        assert refused(lambda: caller.observing(iter(stream), timeout=DEADLINE_S))[0] == status
        caller.observe(1.0, 2.0, 3.0)
        np.testing.assert_array_equal(caller.actions()[0], rows(1.0, 2.0, 3.0))


def test_a_stream_that_never_ends_is_bounded_in_bytes_and_in_time() -> None:
    def silent() -> Iterator[bytes]:
        yield part(BEGIN, b"x")
        assert over.wait(DEADLINE_S)

    over = threading.Event()
    bounds: dict[str, Any] = {"max_frame_mib": 1.0, "message_timeout_s": 1.0}
    with serving(policy(), lerobot=0, **bounds) as live, ExitStack() as stack:
        caller, other = [stack.enter_context(asking(live, "double rows")) for _ in range(2)]
        status, told = refused(lambda: caller.observing(endless_parts(), timeout=DEADLINE_S))
        assert (status, "--max-frame-mib" in told) == ("INVALID_ARGUMENT", True)
        status, told = refused(lambda: caller.observing(silent(), timeout=DEADLINE_S))
        over.set()
        assert (status, "--message-timeout-s" in told) == ("DEADLINE_EXCEEDED", True)
        assert refused(lambda: caller.observing(endless(BEGIN), timeout=DEADLINE_S))[0] == "DEADLINE_EXCEEDED"
        assert live.call(lambda: sum(peer.held_bytes() for peer in live.server.reception.peers)) < 1 << 20
        for robot in (caller, other):
            robot.observe(1.0, 2.0, 3.0)
            np.testing.assert_array_equal(robot.actions()[0], rows(1.0, 2.0, 3.0))


def endless_parts() -> Iterator[bytes]:
    yield part(BEGIN, b"")
    yield from endless(MIDDLE)


def test_a_second_observation_beside_one_that_is_not_whole_is_refused() -> None:
    begun, over = threading.Event(), threading.Event()

    def slow() -> Iterator[bytes]:
        yield part(BEGIN, seen(1.0, 2.0, 3.0))
        begun.set()
        assert over.wait(DEADLINE_S)
        yield part(END, b"")

    with serving(policy(), lerobot=0) as live, asking(live, "double rows") as caller:
        first = caller.observing.future(slow(), timeout=DEADLINE_S)
        assert begun.wait(DEADLINE_S)
        live.until(lambda server: any(peer.held_bytes() for peer in server.reception.peers))
        assert refused(lambda: caller.observe(9.0, 9.0, 9.0))[0] == "RESOURCE_EXHAUSTED"
        over.set()
        assert first.result() == b""
        np.testing.assert_array_equal(caller.actions()[0], rows(1.0, 2.0, 3.0))


def test_a_message_beyond_the_servers_memory_ends_the_session_that_holds_most() -> None:
    bounds: dict[str, Any] = {"max_frame_mib": 2.0, "max_buffered_mib": 2.0}
    with serving(policy(), lerobot=0, **bounds) as live, ExitStack() as stack:
        callers = [stack.enter_context(asking(live, "double rows")) for _ in range(3)]
        callers[0].send(seen(1.0, 2.0, 3.0, filling=np.zeros(1 << 20, np.uint8)))
        status, told = refused(lambda: callers[1].send(seen(1.0, 2.0, 3.0, filling=np.zeros(3 << 19, np.uint8))))
        assert (status, told) == ("UNAVAILABLE", "the session has ended meanwhile")
        assert live.server.counters.sessions_open == 2
        for caller in callers:  # a session that is over begins anew with the next observation
            caller.observe(1.0, 2.0, 3.0)
            np.testing.assert_array_equal(caller.actions()[0], rows(1.0, 2.0, 3.0))


def test_keys_are_asked_for_where_there_are_some(tmp_path: Any) -> None:
    keys = tmp_path / "keys"
    keys.write_text("arm: " + "k" * 32 + "\n")
    keys.chmod(0o600)
    with serving(policy(), lerobot=0, api_key_file=str(keys)) as live, calling(live) as caller:
        status, told = refused(lambda: caller.instruct(setup("double rows")))
        assert (status, "an API key is needed" in told) == ("UNAUTHENTICATED", True)
        caller.instruct(setup("double rows"), metadata=[("authorization", "Bearer " + "k" * 32)])
        caller.observe(1.0, 2.0, 3.0)
        caller.actions()
        assert [facts.key for facts in live.call(lambda: live.server.reception.sessions)] == ["arm"]


def test_its_sessions_count_among_those_of_the_server() -> None:
    with serving(policy(), lerobot=0, max_sessions=1) as live, asking(live, "double rows"), calling(live) as caller:
        status, told = refused(lambda: caller.instruct(setup("double rows")))
        assert (status, "1 sessions are open" in told) == ("UNAVAILABLE", True)


def test_a_policy_that_cannot_be_loaded_is_told() -> None:
    def load(stage: Any) -> Any:
        raise ConfigError("no weights there")

    with serving(load=load, lerobot=0, isolate="thread") as live, calling(live) as caller:
        status, told = refused(lambda: caller.instruct(setup("double rows")))
        assert (status, "no weights there" in told) == ("UNAVAILABLE", True)


def test_a_client_that_comes_early_waits_for_the_policy() -> None:
    loaded = threading.Event()

    def load(stage: Any) -> Any:
        assert loaded.wait(DEADLINE_S)
        return policy()

    with serving(load=load, lerobot=0, isolate="thread") as live, calling(live) as caller:
        call = caller.instructing(setup("double rows"))
        assert not call.done()
        loaded.set()
        assert call.result() == b""
        caller.observe(1.0, 2.0, 3.0)
        np.testing.assert_array_equal(caller.actions()[0], rows(1.0, 2.0, 3.0))


def test_a_stopping_server_releases_the_calls_that_wait() -> None:
    with serving(policy(), lerobot=0) as live, asking(live, "double rows") as caller:
        call = caller.acting.future(b"", timeout=DEADLINE_S)
        live.until(lambda server: any(getattr(peer, "calls", 0) for peer in server.reception.peers))
        live.stop()
        live.join()
        assert call.code().name == "UNAVAILABLE"


def test_a_port_that_is_taken_is_told_and_the_server_lets_go_of_its_own() -> None:
    with serving(policy(), lerobot=0) as live:
        with pytest.raises(ConfigError, match=rf"lerobot: port {lerobot_port(live)} on 127\.0\.0\.1 cannot be bound"):
            PolicyServer(
                policy(), config=ServerConfig(host="127.0.0.1", port=0, lerobot=lerobot_port(live))
            ).run_blocking()
        with asking(live, "double rows") as caller:
            caller.observe(1.0, 2.0, 3.0)
            caller.actions()


def test_a_client_asks_for_one_of_several_policies_by_its_name() -> None:
    def negative(observation: Any) -> Any:
        return -doubled(observation)

    offers = {"left": always(policy()), "right": always(FunctionPolicy(negative, STATE))}
    server = Server(offers, ServerConfig(host="127.0.0.1", port=0, lerobot=0))
    with running(server) as live, asking(live, "right") as right, asking(live, "left") as left, calling(live) as other:
        for caller in (left, right):
            caller.observe(1.0, 2.0, 3.0)
        np.testing.assert_array_equal(left.actions()[0], rows(1.0, 2.0, 3.0))
        np.testing.assert_array_equal(right.actions()[0], -rows(1.0, 2.0, 3.0))
        told = refused(lambda: other.instruct(setup("middle")))[1]
        assert "expected a policy that is served here ('left', 'right')" in told


def test_without_grpcio_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "grpc", None)
    with pytest.raises(
        MissingDependency, match=r"grpc is not installed; run: pip install 'policyserve\[lerobot-client\]'"
    ):
        PolicyServer(policy(), config=ServerConfig(lerobot=0))
    assert PolicyServer(policy()).lerobot is None


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, None),
        ({"lerobot_host": "0.0.0.0"}, "anyone who reaches 0.0.0.0:"),
        ({"lerobot_host": "localhost"}, None),
    ],
)
def test_the_start_says_where_it_listens_and_who_may_come(
    settings: dict[str, Any], told: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with serving(policy(), lerobot=0, **settings) as live:
        port = lerobot_port(live)
    texts = [record.getMessage() for record in caplog.records if "lerobot_grpc" in record.name]
    assert texts[0].startswith(f"LeRobot's RobotClient connects to {settings.get('lerobot_host', '127.0.0.1')}:{port}")
    assert ("from this machine alone: its protocol has neither keys nor TLS" in texts[0]) == (told is None)
    assert [text.startswith(told or "?") for text in texts[1:-1]] == [True] * (told is not None)
    assert texts[-1] == "LeRobot's clients ask for it by --pretrained_name_or_path='double rows'"


def test_a_recording_has_its_messages_and_its_actions(tmp_path: Any) -> None:
    import_or_skip("mcap")
    import_or_skip("zstandard")
    with serving(policy(), lerobot=0, record=str(tmp_path)) as live, asking(live, "double rows") as caller:
        for step in range(3):
            caller.observe(1.0, 2.0, step)
            caller.actions()
    recording = open_recording(next(tmp_path.glob("*.mcap")))
    (session,) = recording.sessions
    assert session.dialect == "lerobot"
    asked = [one for one in recording.exchanges(session.number) if one.reply is not None]
    assert [one.sent["state"].tolist() for one in asked] == [[1.0, 2.0, step] for step in range(3)]
    dialect = by_name("lerobot")
    replies = [dialect.read_reply(one.reply).actions for one in asked if one.reply]
    np.testing.assert_array_equal(replies, [rows(1.0, 2.0, step) for step in range(3)])


def test_calls_that_no_service_has_are_refused() -> None:
    with serving(policy(), lerobot=0) as live, calling(live) as caller:
        for name in ("/transport.AsyncInference/Shutdown", "/transport.Other/Ready"):
            assert refused(lambda name=name: caller.channel.unary_unary(name)(b""))[0] == "UNIMPLEMENTED"
        assert refused(lambda: caller.channel.unary_unary("/transport.AsyncInference/SendPolicyInstructions")(b"\xff"))
        assert refused(lambda: caller.instruct(bytes(5 << 20)))[0] == "RESOURCE_EXHAUSTED"


@pytest.mark.parametrize("settings", [{"lerobot": -1}, {"lerobot": 70_000}, {"lerobot_host": "http://x"}])
def test_settings_that_name_no_place_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        ServerConfig(**settings)
