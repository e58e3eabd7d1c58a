"""GR00T's port as its clients see it: ZeroMQ's own sockets, and peers that mean no good."""

from __future__ import annotations

import logging
import socket
import threading
from contextlib import closing, suppress
from typing import Any

import numpy as np
import pytest

from policyserve import ArraySpec, FunctionPolicy, PolicySpec
from policyserve.core.errors import ConfigError, NotReady
from policyserve.core.observer import Observer, SessionFacts
from policyserve.core.policy import PerSessionPolicy, as_policy
from policyserve.dialects.gr00t.spellings import NPY
from policyserve.engine.engine import Change
from policyserve.server.config import ServerConfig
from policyserve.server.server import Server
from policyserve.server.splits import Split
from tests.dialects.gr00t.golden import ACTIONS, ARM, golden, unsafe
from tests.policies.frameworks import import_or_skip
from tests.server.certificates import make_certificate
from tests.server.gr00t.asking import (
    HELLO,
    Asker,
    asker,
    asking,
    by_hand,
    echo,
    echoed,
    error_in,
    exactly,
    packed,
    serves,
    tcp,
    unpacked,
    until_cut,
    url_of,
)
from tests.server.live import DEADLINE_S, always, none_open, running, serving
from tests.server.test_life_cycle import gate

zmq = import_or_skip("zmq")

KEY = "a-key-of-sixteen-letters"
PING = packed({"endpoint": "ping"})
counted = pytest.mark.skipif(not hasattr(socket, "TCP_INFO"), reason="this system does not tell what came in")


def test_clients_of_each_version_get_the_golden_answers_from_one_policy() -> None:
    with serving(FunctionPolicy(lambda seen: ACTIONS, ARM), gr00t=0) as live:
        for version in ("n16", "n15", "n16"):
            with asker(live) as one:
                answer = one.ask(golden(version, "get_action"))
                if version == "n16":
                    assert answer == golden(version, "get_action_reply")
                assert one.ask(golden("n16", "ping")) == golden("n16", "ping_reply")
                assert one.ask(golden("n16", "reset")) == golden("n16", "reset_reply")
                assert one.ask(packed({"endpoint": "nope"})) == golden("n16", "unknown_endpoint_reply")


def test_the_first_question_of_a_client_of_n15_is_answered_so_where_the_setting_says_it() -> None:
    bare = packed({"endpoint": "get_modality_config"})
    for is_n15 in (False, True):
        with serving(FunctionPolicy(lambda seen: ACTIONS, ARM), gr00t=0, gr00t_n15=is_n15) as live, asker(live) as one:
            assert isinstance(unpacked(one.ask(bare))["action"]["as_json"], str) == is_n15


def signed(sign: int) -> Any:
    return always(FunctionPolicy(lambda _: sign * ACTIONS, ARM))


def test_each_of_several_policies_may_have_a_port_of_its_own_and_so_may_a_route() -> None:
    offers = {"plus": signed(1), "minus": signed(-1)}
    config = ServerConfig(host="127.0.0.1", port=0, gr00t=0, gr00t_for=("minus=0", "arm=0"))
    with running(Server(offers, config, {"/arm": Split({"minus": 1.0})})) as live:
        default, named = live.server.gr00t, live.server.gr00t_for
        assert default is not None
        for port, sign in ((default, 1), (named["minus"], -1), (named["arm"], -1)):
            with closing(Asker(port.url)) as one:
                answer = unpacked(one.ask(golden("n16", "get_action")))[0]
                np.testing.assert_array_equal(NPY.unmark(answer)["single_arm"][0], sign * ACTIONS[:, :5])
        none_open(live)


@pytest.mark.parametrize(
    ("offers", "told"),
    [
        ({"plus": lambda _: None}, r"^gr00t_for: no policy is named 'minus': there are /plus"),
        (lambda _: None, r"^gr00t_for: minus: the only policy here has no name; its port is --gr00t"),
    ],
)
def test_a_port_of_a_policy_that_there_is_not_is_refused(offers: Any, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        Server(offers, ServerConfig(port=0, gr00t_for=("minus=0",)))


def test_clients_at_once_get_their_own_answers_and_so_does_a_websocket_beside_them() -> None:
    with serving(echo(), gr00t=0) as live:
        wrong: list[str] = []

        def run(salt: int) -> None:
            with asker(live) as one:
                for number in range(20):
                    if echoed(one.ask(asking(salt * 1000 + number))) != salt * 1000 + number:
                        wrong.append(f"{salt}: {number}")

        threads = [threading.Thread(target=run, args=(salt,)) for salt in range(8)]
        for thread in threads:
            thread.start()
        with live.websocket("/gr00t") as peer:
            peer.send(asking(7.0))
            answer = peer.recv(timeout=DEADLINE_S)
            assert isinstance(answer, bytes)
            assert echoed(answer) == 7.0
        for thread in threads:
            thread.join(DEADLINE_S)
        assert wrong == []
        none_open(live)


def test_every_message_gets_exactly_one_answer_in_its_turn(caplog: pytest.LogCaptureFixture) -> None:
    with serving(echo(), gr00t=0) as live, asker(live, kind=zmq.DEALER) as one:
        messages = [
            asking(1.0), b"", b"\xc1", golden("n16", "kill"), asking(2.0), unsafe("torch_save_n10"), packed([1]),
            packed({"endpoint": "get_action"}), golden("n16", "ping"), unsafe("npy_header_is_code"), asking(3.0),
        ]  # fmt: skip
        for message in messages:
            one.socket.send_multipart([b"", message])
        one.socket.send_multipart([b"", b"two", b"parts"])
        one.socket.send(asking(4.0))  # without the empty part, as some write a DEALER
        answers = [unpacked(one.answer()) for _ in range(len(messages) + 2)]
        kinds = ["actions" if isinstance(one, list) else next(iter(one)) for one in answers]
        assert kinds == [
            "actions", "error", "error", "error", "actions", "error", "error",
            "error", "status", "error", "actions", "error", "actions",
        ]  # fmt: skip
        assert one.socket.poll(0) == 0
        assert "got kill; no client may stop this server" in caplog.text
        assert serves(live)


def test_a_session_is_seen_as_any_other_and_ends_with_its_connection() -> None:
    opened: list[SessionFacts] = []

    class Comings(Observer):
        def on_session_opened(self, session: SessionFacts) -> None:
            opened.append(session)

    with serving(echo(), gr00t=0) as live:
        live.call(lambda: live.server.observers.add(Comings()))
        with asker(live) as one:
            one.ask(asking(1.0))
            (facts,) = live.call(lambda: live.server.reception.sessions)
            assert facts.dialect == "gr00t"
            assert facts.peer.startswith("127.0.0.1:")
            assert live.server.counters.requests == 1
        none_open(live)
        assert len(opened) == 1
        assert live.call(lambda: live.server.reception.waiting) == 0


def test_a_reset_makes_the_policy_forget() -> None:
    spec = PolicySpec("counting", {"state": {"x": ArraySpec((1,))}}, ArraySpec((1,)), horizon=1)

    class Counting:
        def __init__(self) -> None:
            self.calls = 0

        def infer(self, seen: Any) -> Any:
            self.calls += 1
            return np.full((1, 1), self.calls)

    policy = PerSessionPolicy(lambda: as_policy(Counting(), spec))
    with serving(policy, gr00t=0, isolate="thread") as live, asker(live) as one:
        counts = []
        for _ in range(2):
            for _ in range(2):
                groups, _ = unpacked(one.ask(asking(0.0)))
                counts.append(float(groups["action"][0, 0, 0]))
            assert one.ask(golden("n17", "reset")) == golden("n17", "reset_reply")
        assert counts == [1, 2, 1, 2]


# Keys


def test_a_token_is_an_api_key_and_each_message_needs_one(tmp_path: Any, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "keys"
    path.write_text(f"robot: {KEY}\n")
    path.chmod(0o600)
    seen: list[bytes] = []

    class Keeper(Observer):
        def on_message(self, session: int, message: Any, arrived_at: float) -> None:
            seen.append(bytes(message))

    with serving(echo(), gr00t=0, api_key_file=str(path)) as live, asker(live) as one, asker(live) as stranger:
        live.call(lambda: live.server.observers.add(Keeper()))
        for message in (golden("n16", "ping"), golden("n15", "ping"), asking(1.0), b"\xc1", unsafe("torch_save_n10")):
            assert stranger.ask(message) == golden("n16", "bad_token_reply")
        assert live.server.counters.sessions_open == 0
        assert echoed(one.ask(asking(2.0, api_token=KEY))) == 2.0
        assert live.call(lambda: live.server.reception.sessions[0].key) == "robot"
        assert one.ask(asking(3.0, api_token=KEY + "x")) == golden("n16", "bad_token_reply")
        assert one.ask(asking(3.0)) == golden("n16", "bad_token_reply")
        assert echoed(one.ask(asking(4.0, api_token=KEY))) == 4.0
        assert KEY not in caplog.text
        assert len(seen) == 2
        assert not any(KEY.encode() in message for message in seen), "a recording would have it"


# Bounds


def test_one_session_too_many_is_told_so_and_has_a_turn_when_another_ends() -> None:
    with serving(echo(), gr00t=0, max_sessions=1) as live, asker(live) as late:
        with asker(live) as one:
            assert echoed(one.ask(asking(1.0))) == 1.0
            assert "1 sessions are open, the most this server takes" in error_in(late.ask(asking(2.0)))
            assert echoed(one.ask(asking(3.0))) == 3.0
        none_open(live)
        assert echoed(late.ask(asking(4.0))) == 4.0


def test_of_hundreds_of_connections_those_without_a_session_are_cut_and_a_robot_goes_on() -> None:
    with serving(echo(), gr00t=0, max_sessions=4, max_handshakes=8) as live, asker(live) as robot:
        assert echoed(robot.ask(asking(1.0))) == 1.0
        peers = [by_hand(live) for _ in range(100)]
        for peer in peers[:80]:
            until_cut(peer)
        assert echoed(robot.ask(asking(2.0))) == 2.0
        live.until(lambda server: server.reception.waiting <= 8)
        for peer in peers:
            peer.close()
        assert serves(live)


def test_an_idle_session_ends_and_its_client_begins_another() -> None:
    with serving(echo(), gr00t=0, idle_timeout_s=0.3) as live, asker(live) as one:
        assert echoed(one.ask(asking(1.0))) == 1.0
        none_open(live)
        assert echoed(one.ask(asking(2.0))) == 2.0
        assert live.server.counters.sessions_opened == 2


GARBAGE = {
    "HTTP": b"GET / HTTP/1.1\r\n\r\n" * 10,
    "ones": b"\xff" * 200,
    "zeros": bytes(200),
    "all bytes": bytes(range(256)),
    "nothing": b"",
    "half a hello": HELLO[:30],
    "an older ZeroMQ": b"\x01\x00" * 50,
    "a hello and zeros": HELLO + bytes(200),
    "a hello and a command": HELLO + b"\x04\xff" + bytes(255),
}


def test_a_client_without_zeromq_speaks_its_wire() -> None:
    """What the tests below send by hand is good up to where it is bad."""
    with serving(echo(), gr00t=0) as live, by_hand(live) as peer:
        peer.sendall(b"\x01\x00" + b"\x00" + bytes([len(PING)]) + PING)
        answer = golden("n16", "ping_reply")
        assert exactly(peer, 4 + len(answer)) == b"\x01\x00" + b"\x00" + bytes([len(answer)]) + answer


def test_garbage_disturbs_nobody() -> None:
    with serving(echo(), gr00t=0, handshake_timeout_s=0.2) as live, asker(live) as robot:
        assert echoed(robot.ask(asking(1.0))) == 1.0
        peers = {name: tcp(live) for name in GARBAGE}
        for name, peer in peers.items():
            peer.sendall(GARBAGE[name])
        for name in ("ones", "zeros", "all bytes", "nothing", "half a hello"):
            until_cut(peers[name])
        assert echoed(robot.ask(asking(2.0))) == 2.0
        for peer in peers.values():
            peer.close()
        live.until(lambda server: server.reception.waiting == 0)


def test_a_message_that_says_it_is_too_large_ends_its_connection() -> None:
    with serving(echo(), gr00t=0, max_frame_mib=1.0) as live, by_hand(live) as peer:
        peer.sendall(b"\x01\x00" + b"\x02" + (1 << 62).to_bytes(8, "big"))
        until_cut(peer)
        assert serves(live)


@counted
def test_a_message_of_parts_without_end_is_cut(caplog: pytest.LogCaptureFixture) -> None:
    with serving(echo(), gr00t=0, max_frame_mib=0.25) as live, by_hand(live) as peer:
        part = (b"\x03" + (65536).to_bytes(8, "big") + bytes(65536)) * 4
        peer.settimeout(1.0)
        with suppress(OSError):
            peer.sendall(part * 1000)
        live.until(lambda server: server.reception.waiting == 0)
        assert "that are no whole message (--max-frame-mib)" in caplog.text
        assert serves(live)


@counted
def test_a_message_that_never_ends_is_cut() -> None:
    with serving(echo(), gr00t=0, max_frame_mib=1.0, message_timeout_s=0.5) as live, by_hand(live) as peer:
        peer.sendall(b"\x01\x00" + b"\x02" + (1 << 19).to_bytes(8, "big") + bytes(1 << 18))
        until_cut(peer)
        assert serves(live)


def test_a_peer_that_reads_nothing_is_cut_and_others_are_served(caplog: pytest.LogCaptureFixture) -> None:
    wide = PolicySpec("wide", None, ArraySpec((1 << 18,)), horizon=1)
    policy = FunctionPolicy(lambda seen: np.zeros((1, 1 << 18), np.float32), wide)
    narrow = {"kind": zmq.DEALER, "RCVHWM": 1, "RCVBUF": 4096}
    with serving(policy, gr00t=0, max_pending=2) as live, asker(live) as robot, asker(live, **narrow) as deaf:
        for _ in range(500):
            deaf.socket.send_multipart([b"", asking(1.0)])
            groups, _ = unpacked(robot.ask(asking(2.0)))
            assert groups["action"].size == 1 << 18
            if "it reads none of its answers" in caplog.text:
                break
        else:
            pytest.fail("it was never cut")


@counted
def test_messages_that_are_whole_are_none_that_is_under_way_whatever_their_size_and_zeromqs_own_among_them() -> None:
    with serving(echo(), gr00t=0) as live, asker(live, HEARTBEAT_IVL=20) as one:
        for size in (0, 1, 100, 255, 256, 1000, 70_000, 300_000):
            for _ in range(20):
                one.ask(packed({"endpoint": "ping", "data": b"x" * size}))

        def unfinished() -> list[int]:
            port = live.server.gr00t
            assert port is not None
            port.look()
            return [peer.unfinished for peer in port.peers]

        assert live.call(unfinished)[0] < 1024


def test_a_client_that_dies_while_it_waits_is_forgotten() -> None:
    started, release = threading.Event(), threading.Event()
    with serving(echo(gate(started, release)), gr00t=0) as live:
        with asker(live) as one:
            one.socket.send(asking(1.0))
            assert started.wait(DEADLINE_S)
        none_open(live)
        release.set()
        assert serves(live)


# Beginning and end


def test_who_asks_while_the_policy_loads_is_answered_when_it_has() -> None:
    loading = threading.Event()

    def load(_: Any) -> Any:
        assert loading.wait(DEADLINE_S)
        return always(echo())(_)

    with serving(load=load, gr00t=0) as live, asker(live) as one:
        one.socket.send(asking(5.0))
        live.until(lambda server: server.counters.sessions_open == 1)
        loading.set()
        assert echoed(one.answer()) == 5.0


def test_who_waits_for_a_policy_that_fails_to_load_is_told() -> None:
    loading = threading.Event()

    def load(_: Any) -> Any:
        assert loading.wait(DEADLINE_S)
        raise ConfigError("no such checkpoint")

    with serving(load=load, gr00t=0) as live, asker(live) as one:
        one.socket.send(asking(5.0))
        live.until(lambda server: server.counters.sessions_open == 1)
        loading.set()
        assert "no such checkpoint" in error_in(one.answer())
        assert "no such checkpoint" in error_in(one.ask(asking(6.0)))


def test_a_stopping_server_answers_what_is_in_flight_and_refuses_what_comes_then() -> None:
    started, release = threading.Event(), threading.Event()
    with serving(echo(gate(started, release)), gr00t=0) as live, asker(live) as busy, asker(live) as late:
        assert late.ask(golden("n16", "ping")) == golden("n16", "ping_reply")
        busy.socket.send(asking(1.0))
        assert started.wait(DEADLINE_S)
        live.stop()
        live.until(lambda server: len(server.reception.conversations) == 1)
        assert "the server is stopping" in error_in(late.ask(asking(2.0)))
        release.set()
        assert echoed(busy.answer()) == 1.0


def test_a_request_that_is_not_answered_in_time_is_told_so_when_the_server_stops() -> None:
    started, release = threading.Event(), threading.Event()
    with serving(echo(gate(started, release)), gr00t=0, drain_s=0.1) as live, asker(live) as one:
        one.socket.send(asking(1.0))
        assert started.wait(DEADLINE_S)
        live.stop()
        assert "the server is stopping" in error_in(one.answer())
        release.set()


def test_another_policy_in_its_place_answers_the_next_request() -> None:
    with serving(echo(), gr00t=0) as live, asker(live) as one:
        assert echoed(one.ask(asking(1.0))) == 1.0
        served = live.server.catalogue.default
        assert served.spec is not None
        change = Change(served.spec, closing=NotReady("the policy was loaded anew: connect again"))
        live.call(lambda: served.say_changed(change))
        assert echoed(one.ask(asking(2.0))) == 2.0


def test_the_log_tells_where_its_clients_connect_to(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with serving(echo(), gr00t=0) as live:
        assert f"GR00T's clients connect to {url_of(live)}" in caplog.text
        assert url_of(live).startswith("tcp://127.0.0.1:")


def test_a_certificate_does_not_hold_here_which_is_told(tmp_path: Any, caplog: pytest.LogCaptureFixture) -> None:
    cert, key = make_certificate(tmp_path)
    for host, is_told in (("127.0.0.1", False), ("0.0.0.0", True)):
        caplog.clear()
        with serving(echo(), host=host, gr00t=0, tls_cert=cert, tls_key=key):
            assert ("crosses the network in the clear, API keys too" in caplog.text) is is_told


def test_pictures_arrive_whole() -> None:
    spec = PolicySpec("camera", {"video": {"front": ArraySpec((480, 640, 3), "uint8")}}, ArraySpec((1,)), horizon=1)
    policy = FunctionPolicy(lambda seen: np.full((1, 1), seen["video"]["front"].astype(np.int64).sum() % 9973), spec)
    with serving(policy, gr00t=0) as live, asker(live) as one:
        for salt in range(3):
            picture = np.random.default_rng(salt).integers(0, 255, (1, 1, 480, 640, 3), dtype=np.uint8)
            message = {"endpoint": "get_action", "data": {"observation": {"video": {"front": NPY.write(picture)}}}}
            groups, _ = unpacked(one.ask(packed(message)))
            assert groups["action"].item() == picture.astype(np.int64).sum() % 9973
