"""POST /act on the robots' port: real sockets, requests that wait their turn, and peers at their limits."""

from __future__ import annotations

import base64
import http.client
import json
import logging
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserve.core.policy import ActionChunk, FunctionPolicy, PolicyInput
from policyserve.core.spec import ArraySpec, ImageSpec, PolicySpec, TextSpec
from policyserve.dialects.rest.recognition import FAMILIES
from policyserve.policies.fakes import EchoPolicy, FailingPolicy, NanPolicy, SlowPolicy
from policyserve.recordings.reading import open_recording
from policyserve.server.config import ServerConfig
from policyserve.server.server import Server
from tests.policies.frameworks import import_or_skip
from tests.server.certificates import make_certificate, trusting
from tests.server.live import DEADLINE_S, HANDSHAKE, Live, always, ask, running, serving, until_eof

BODY = b'{"obs": [1]}'


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    with serving(EchoPolicy(1)) as live:
        yield live


@contextmanager
def connected(live: Live) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection("127.0.0.1", live.port, timeout=DEADLINE_S)
    try:
        yield connection
    finally:
        connection.close()


def post(
    connection: http.client.HTTPConnection, body: Any = BODY, path: str = "/act", **headers: str
) -> tuple[int, Any, dict[str, str]]:
    """An answer: its status, JSON and headers."""
    connection.request("POST", path, body, headers)
    response = connection.getresponse()
    read = response.read()
    told = {name.lower(): value for name, value in response.getheaders()}
    return response.status, json.loads(read) if "json" in told["content-type"] else read.decode(), told


def raw(body: bytes = BODY, head: bytes = b"") -> bytes:
    return b"POST /act HTTP/1.1\r\nHost: x\r\n" + head + b"Content-Length: %d\r\n\r\n" % len(body) + body


def chunks(*pieces: bytes) -> bytes:
    coded = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    return b"POST /act HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + coded


def numbers(first: float) -> bytes:
    return json.dumps({"obs": [first]}).encode()


def no_sessions(server: Server) -> bool:
    return not server.reception.conversations


def test_a_connection_asks_again_and_again_in_one_session(live: Live) -> None:
    with connected(live) as connection:
        first = post(connection)
        assert first[:2] == (200, {"actions": [1], "server_timing": first[1]["server_timing"]})
        sock = connection.sock
        opened = live.server.counters.sessions_opened
        for number in range(20):
            assert post(connection, numbers(number))[1]["actions"][0] == number
        assert connection.sock is sock
        assert live.server.counters.sessions_opened == opened
        assert [facts.dialect for facts in live.call(lambda: live.server.reception.sessions)] == ["json"]
    live.until(no_sessions)


def test_requests_are_counted_as_any_others() -> None:
    with serving(EchoPolicy(1)) as live, connected(live) as connection:
        post(connection)
        post(connection, b'{"obs": [1, 2]}')
        assert live.server.counters.requests == 1
        metrics = live.http("GET", "/metrics")[1].decode()
        assert 'requests_total{dialect="json",outcome="answered",policy="EchoPolicy"} 1.0' in metrics
        assert 'requests_total{dialect="json",outcome="bad_observation",policy="EchoPolicy"} 1.0' in metrics


def test_a_wrong_observation_is_told_with_path_expected_got_and_the_connection_stays(live: Live) -> None:
    with connected(live) as connection:
        status, told, headers = post(connection, b'{"obs": [1, 2]}')
        assert status == 422
        assert told["error"]["path"] == "obs"
        assert told["error"]["expected"] == "float32 (1,)"
        assert "connection" not in headers
        status, told, _ = post(connection, b'{"abs": [1, 2, 3, 4]}')
        assert "--map abs=obs" in told["error"]["cure"]
        assert post(connection, b"{")[0] == 400
        assert post(connection)[0] == 200


def test_a_policy_that_fails_is_told_as_500() -> None:
    for policy, code in ((FailingPolicy(), "policy_failed"), (NanPolicy(4), "bad_action")):
        with serving(policy) as live, connected(live) as connection:
            for _ in range(2):
                status, told, _ = post(connection, b'{"obs": [1, 2, 3, 4]}')
                assert (status, told["error"]["code"]) == (500, code)


def test_errors_are_https_own_where_the_server_is_told_so() -> None:
    body = b'{"instruction": "go"}'
    for setting, status in (("original", 200), ("plain", 400)):
        with serving(EchoPolicy(1), http_errors=setting) as live, connected(live) as connection:
            got, told, headers = post(connection, body)
            assert got == status
            assert headers["x-error"].startswith("bad_frame: image: ")
            assert (told == "error") == (setting == "original")


def test_a_connection_may_change_its_family_and_gets_another_session(live: Live) -> None:
    with connected(live) as connection:
        assert post(connection)[0] == 200
        assert post(connection, b'{"image": 1, "instruction": ""}')[:2] == (200, "error")
        assert post(connection)[0] == 200
        assert len(live.call(lambda: live.server.reception.sessions)) == 1
        assert post(connection, b"", "/reset")[:2] == (200, {"status": "ok"})


class Remembering(EchoPolicy):
    """Answers how many requests of the session it remembers."""

    def infer(self, batch: Sequence[PolicyInput]) -> list[ActionChunk]:
        counts = [(one.state or 0) + 1 for one in batch]
        return [ActionChunk(np.full(1, count, np.float32), state=count) for count in counts]


def test_a_policy_remembers_nothing_of_the_request_before() -> None:
    with serving(Remembering(1)) as live, connected(live) as connection:
        assert [post(connection)[1]["actions"][0] for _ in range(3)] == [1, 1, 1]
        with live.websocket() as peer:
            assert [ask(peer, 0.0) for _ in range(3)] == [1, 2, 3]
        assert post(connection)[1]["actions"][0] == 1


def test_a_large_body_is_read_in_a_thread_and_answered_right() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)

    def act(observation: Any) -> Any:
        return observation["images"]["0"].reshape(-1)[[0, 7, 921_599]]

    data = {"__numpy__": base64.b64encode(picture.tobytes()).decode(), "dtype": "|u1", "shape": [480, 640, 3]}
    with serving(act) as live, connected(live) as connection:
        told = post(connection, json.dumps({"image": data, "instruction": "go"}))[1]
        assert [*base64.b64decode(told["__numpy__"])] == [*picture.reshape(-1)[[0, 7, 921_599]]]


def test_a_client_that_connects_for_each_request_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with serving(EchoPolicy(1)) as live:
        for _ in range(20):
            with connected(live) as connection:
                post(connection)
        live.until(no_sessions)
        assert live.server.counters.sessions_opened == 20
    told = [record.getMessage() for record in caplog.records if record.getMessage().startswith("session ")]
    assert [line.split()[2] for line in told] == ["opened", "speaks"]


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_a_picture_may_come_as_a_png_or_a_jpeg(form: str) -> None:
    """As base64 in plain JSON, and as X-VLA's clients send its bytes."""
    image_module = import_or_skip("PIL.Image")
    import_or_skip("simplejpeg")
    written = BytesIO()
    image_module.fromarray(np.full((8, 8, 3), (250, 20, 20), np.uint8)).save(written, form)
    data = written.getvalue()
    told = {"__numpy__": base64.b64encode(data).decode(), "dtype": "|u1", "shape": [len(data)]}
    spec = PolicySpec("seeing", {"image": ImageSpec(8, 8)}, ArraySpec((3,), "float32"))
    xvla = {"image0": json.dumps(told), "language_instruction": "", "domain_id": 0}
    with serving(FunctionPolicy(lambda one: one["image"][0, 0], spec)) as live, connected(live) as connection:
        for body in ({"image": base64.b64encode(data).decode()}, xvla):
            status, answer, _ = post(connection, json.dumps(body))
            assert status == 200, answer
            colour = answer["actions"] if "actions" in answer else answer["action"][0]
            assert np.allclose(colour, (250, 20, 20), atol=6)
        broken = base64.b64encode(data[: -20 if form == "PNG" else -40]).decode()
        status, answer, _ = post(connection, json.dumps({"image": broken}))
        assert (status, answer["error"]["path"]) == (422, "image")


def test_large_bodies_cross_tls(tmp_path: Path) -> None:
    cert, key = make_certificate(tmp_path)
    body = json.dumps({"obs": [7], "padding": "x" * 2_000_000})
    with serving(EchoPolicy(1), tls_cert=cert, tls_key=key, max_text=4_000_000) as live:
        connection = http.client.HTTPSConnection("localhost", live.port, timeout=DEADLINE_S, context=trusting(cert))
        for _ in range(3):
            assert post(connection, body)[1]["actions"] == [7]
        connection.close()


# How requests come


def test_requests_that_come_at_once_are_answered_in_their_order(live: Live) -> None:
    count = 200
    with live.tcp() as peer:
        peer.sendall(b"".join(raw(numbers(number)) for number in range(count)) + raw(head=b"Connection: close\r\n"))
        answers = until_eof(peer).split(b"HTTP/1.1 ")[1:]
    got = [json.loads(answer.partition(b"\r\n\r\n")[2])["actions"][0] for answer in answers]
    assert got == [*range(count), 1]


def test_one_request_of_a_connection_is_at_the_policy_at_a_time() -> None:
    policy = SlowPolicy(1)
    with serving(policy, isolate="thread") as live, live.tcp() as peer:
        peer.sendall(raw() * 3)
        live.until(lambda server: server.engine.load == 1)
        assert live.call(lambda: [one.session.received for one in live.server.reception.conversations]) == [1]
        policy.release.set()
        peer.shutdown(socket.SHUT_WR)
        until_eof(peer)


def test_a_request_byte_by_byte_is_answered(live: Live) -> None:
    with live.tcp() as peer:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in raw(head=b"Connection: close\r\n"):
            peer.send(bytes([byte]))
        assert until_eof(peer).startswith(b"HTTP/1.1 200 ")


def test_chunks_are_taken_and_a_peer_that_waits_is_told_to_go_on(live: Live) -> None:
    with live.tcp() as peer:
        peer.sendall(chunks(BODY[:5], BODY[5:], b"") + raw(head=b"Expect: 100-continue\r\nConnection: close\r\n"))
        said = until_eof(peer)
    assert said.count(b"HTTP/1.1 200 ") == 2
    assert said.count(b"HTTP/1.1 100 Continue\r\n\r\n") == 1


def test_a_peer_that_ends_its_side_first_still_reads_the_answer() -> None:
    policy = SlowPolicy(1)
    with serving(policy, isolate="thread") as live, live.tcp() as peer:
        peer.sendall(raw())
        assert policy.entered.wait(DEADLINE_S)
        peer.shutdown(socket.SHUT_WR)
        policy.release.set()
        assert until_eof(peer).startswith(b"HTTP/1.1 200 ")
        live.until(no_sessions)


def test_http_1_0_gets_one_answer(live: Live) -> None:
    with live.tcp() as peer:
        peer.sendall(raw().replace(b"HTTP/1.1", b"HTTP/1.0"))
        assert until_eof(peer).startswith(b"HTTP/1.1 200 ")


def test_a_page_may_be_asked_for_on_the_same_connection(live: Live) -> None:
    with live.tcp() as peer:
        peer.sendall(raw() + b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        said = until_eof(peer)
    assert said.count(b"HTTP/1.1 200 ") == 2
    assert b"avg_latency_ms" in said


def test_a_get_is_told_to_post(live: Live) -> None:
    status, body, headers = live.http("GET", "/act")
    assert (status, headers["allow"]) == (405, "POST")
    assert b"docs/wire/rest.md" in body


# Peers at their limits

MIB = 1 << 20
REFUSED = {
    "a body of 100 MB": (b"POST /act HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n", 413),
    "more digits than a size has": (raw(head=b"Content-Length: " + b"9" * 40 + b"\r\n"), 400),
    "two sizes": (raw(head=b"Content-Length: 3\r\n"), 400),
    "a size below zero": (b"POST /act HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
    "a size that is a word": (b"POST /act HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n", 400),
    "a coding that nobody knows": (b"POST /act HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
    "a packed body": (raw(head=b"Content-Encoding: gzip\r\n"), 415),
    "chunks beyond the bound": (chunks(bytes(MIB), bytes(MIB)), 413),
    "chunks of a byte each": (chunks(*[b"1"] * 3000), 400),
    "a chunk without a size": (chunks() + b"x\r\n", 400),
    "a WebSocket behind a request": (raw() + HANDSHAKE.replace(b"/vibe_rl", b"/openpi") + b"\r\n", 400),
    "more than the size says": (raw()[:-1] + b"}}}}\r\n\r\n", 400),
    "garbage behind a request": (raw() + b"\x00\x01\x02\r\n\r\n", 400),
    "a head that is too long": (raw(head=b"X: " + b"y" * 30_000 + b"\r\n"), 431),
    "a head that is too long behind a request": (raw() + raw(head=b"X: " + b"y" * 30_000 + b"\r\n"), 431),
}  # fmt: skip


@pytest.fixture(scope="module")
def small() -> Iterator[Live]:
    with serving(EchoPolicy(1), max_body_mib=1) as live:
        yield live


@pytest.mark.parametrize(("sent", "status"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_request_is_refused_and_others_go_on(small: Live, sent: bytes, status: int) -> None:
    with small.tcp() as peer:
        peer.sendall(sent)
        said = until_eof(peer)
    assert int(said.rpartition(b"HTTP/1.1 ")[2].split()[0]) == status
    assert small.answers()
    small.until(no_sessions)


def test_a_body_that_does_not_come_and_one_that_never_ends_are_ended_by_time() -> None:
    with serving(EchoPolicy(1), message_timeout_s=0.3) as live:
        for sent in (
            raw()[:-1],
            chunks(b"{"),
            chunks(b" " * 1000) * 1,
            b"POST /act HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n",
        ):
            with live.tcp() as peer:
                peer.sendall(sent)
                said = until_eof(peer)
            assert said.startswith(b"HTTP/1.1 408 ")
            assert b"--message-timeout-s" in said
        assert live.answers()


def test_a_head_that_never_ends_behind_a_request_is_ended_by_time() -> None:
    with serving(EchoPolicy(1), handshake_timeout_s=0.3) as live, live.tcp() as peer:
        peer.sendall(raw() + b"POST /act HT")
        assert b"HTTP/1.1 408 " in until_eof(peer)


def test_a_connection_that_asks_nothing_more_is_closed() -> None:
    with serving(EchoPolicy(1), keep_alive_s=0.2) as live:
        with live.tcp() as peer:
            peer.sendall(raw())
            assert until_eof(peer).startswith(b"HTTP/1.1 200 ")
        live.until(no_sessions)


def test_a_peer_that_leaves_in_its_body_costs_nothing(live: Live) -> None:
    for sent in (raw()[:-3], chunks(b"{"), raw() * 50):
        with live.tcp() as peer:
            peer.sendall(sent)
    live.until(no_sessions)
    assert live.answers()


def test_bodies_count_in_what_the_server_holds() -> None:
    with serving(EchoPolicy(1), max_body_mib=8, max_frame_mib=4, max_buffered_mib=4) as live, live.tcp() as hog:
        hog.sendall(b"POST /act HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % (8 * MIB))
        hog.sendall(bytes(3 * MIB))
        live.until(lambda server: sum(peer.held_bytes() for peer in server.reception.peers) >= 3 * MIB)
        hog.sendall(bytes(2 * MIB))
        said = until_eof(hog)
        assert said.startswith((b"HTTP/1.1 413 ", b"HTTP/1.1 503 "))
        assert live.answers()


def test_a_server_that_stops_answers_what_it_has() -> None:
    policy = SlowPolicy(1)
    with serving(policy, isolate="thread") as live, live.tcp() as peer, live.tcp() as half:
        half.sendall(raw()[:-1])
        peer.sendall(raw())
        assert policy.entered.wait(DEADLINE_S)
        live.until(lambda server: len(server.reception.conversations) == 2)
        live.stop()
        assert b"HTTP/1.1 503 " in until_eof(half)
        policy.release.set()
        assert until_eof(peer).startswith(b"HTTP/1.1 200 ")


def test_a_request_before_the_policy_is_there_waits_for_it_or_is_told_why_there_is_none() -> None:

    may_load, fails = threading.Event(), threading.Event()

    def load(stage: Any) -> Any:
        may_load.wait(DEADLINE_S)
        if fails.is_set():
            raise RuntimeError("no such file")
        return EchoPolicy(1)

    for is_broken, status in ((False, b"200"), (True, b"503")):
        may_load.clear()
        if is_broken:
            fails.set()
        with serving(load=load, isolate="thread") as live, live.tcp() as peer:
            peer.sendall(raw())
            live.until(lambda server: any(one.session.received for one in server.reception.conversations))
            may_load.set()
            if is_broken:
                assert until_eof(peer).startswith(b"HTTP/1.1 " + status)
                with live.tcp() as later:
                    later.sendall(raw())
                    assert until_eof(later).startswith(b"HTTP/1.1 " + status)
            else:
                assert peer.recv(12) == b"HTTP/1.1 " + status


# Who may ask


def test_a_key_is_needed_for_each_request(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    keys = tmp_path / "keys"
    keys.write_text("arm: a-long-enough-key-of-24-a\nleg: a-long-enough-key-of-24-b\n")
    with serving(EchoPolicy(1), api_key_file=str(keys)) as live:
        with connected(live) as connection:
            assert post(connection)[0] == 401
        with connected(live) as connection:
            for name in "ab":
                assert post(connection, Authorization=f"Bearer a-long-enough-key-of-24-{name}")[0] == 200
            assert post(connection)[0] == 401
    opened = [record.getMessage() for record in caplog.records if " opened " in record.getMessage()]
    assert [line.rpartition("key=")[2] for line in opened] == ["arm", "leg"]


def test_a_page_of_strangers_may_not_ask(live: Live) -> None:
    with connected(live) as connection:
        assert post(connection, Origin="https://evil.example")[0] == 403
    with connected(live) as connection:
        assert post(connection)[0] == 200
        assert post(connection, Origin="https://evil.example")[0] == 403


def test_there_are_as_many_connections_as_sessions() -> None:
    with serving(EchoPolicy(1), max_sessions=1) as live, connected(live) as connection:
        assert post(connection)[0] == 200
        with connected(live) as other:
            assert post(other)[0] == 503
        assert post(connection)[0] == 200


def test_requests_are_recorded_and_read_again(tmp_path: Path) -> None:
    import_or_skip("mcap")
    with serving(EchoPolicy(1), record=str(tmp_path)) as live, connected(live) as connection:
        for number in range(3):
            post(connection, numbers(number))
        post(connection, b'{"obs": [1, 2]}')
    (file,) = tmp_path.glob("*.mcap")
    recording = open_recording(file)
    (session,) = recording.sessions
    assert session.dialect == "json"
    *answered, refused = recording.exchanges(session.number)
    assert [float(one.observation["obs"][0]) for one in answered] == [0, 1, 2]
    assert [float(one.actions[0]) for one in answered if one.actions is not None] == [0, 1, 2]
    assert refused.error is not None
    assert refused.error.code == "bad_observation"


def test_each_of_several_policies_is_asked_below_its_name() -> None:
    offers = {"one": always(lambda _: [1.0]), "two": always(lambda _: [2.0])}
    with running(Server(offers, ServerConfig(host="127.0.0.1", port=0))) as live, connected(live) as connection:
        live.until(lambda server: all(served.spec is not None for served in server.catalogue))
        asked = [post(connection, BODY, path) for path in ("/act", "/two/act", "/one/act", "/two/act")]
        assert [told["actions"] for _, told, _ in asked] == [[1.0], [2.0], [1.0], [2.0]]
        assert post(connection, BODY, "/three/act")[0] == 404


# Whatever the policy calls things

SPEC = PolicySpec(
    "arm",
    {
        "observation/image": ImageSpec(2, 3),
        "observation/state": ArraySpec((2,), "float32"),
        "prompt": TextSpec(),
    },
    ArraySpec((3,), "float32"),
    horizon=2,
    metadata={"modality": {"arm": 2, "gripper": 1}},
)
PICTURE = {"__numpy__": base64.b64encode(bytes(range(18))).decode(), "dtype": "|u1", "shape": [2, 3, 3]}
STATE = {"__numpy__": base64.b64encode(np.arange(2.0).tobytes()).decode(), "dtype": "<f8", "shape": [2]}
BODIES: dict[str, dict[str, Any]] = {
    "openvla": {"image": PICTURE, "instruction": "go", "state": STATE},
    "openvla_oft": {"full_image": PICTURE, "state": STATE, "instruction": "go"},
    "xvla": {"image0": json.dumps(PICTURE), "proprio": json.dumps(STATE), "language_instruction": "go", "domain_id": 1},
    "molmoact2": {"top_cam": PICTURE, "state": STATE, "instruction": "go", "num_steps": 10},
    "gr00t_http": {"observation": {"video.front": PICTURE, "state.arm": STATE, "annotation.human.task": ["go"]}},
    "json": {"observation/image": PICTURE, "observation": {"state": [0, 1]}, "prompt": "go"},
    "json by role": {"image": PICTURE, "state": [0, 1], "prompt": "go"},
}


def act(observation: Any) -> Any:
    """Two numbers of the picture, and how many the state has."""
    assert observation["prompt"] in ("go", "")  # it is warmed up by an empty one
    return [[*observation["observation/image"][0, 0, 1:], len(observation["observation/state"])]] * 2


@pytest.fixture(scope="module")
def arm() -> Iterator[Live]:
    with serving(FunctionPolicy(act, SPEC)) as live:
        yield live


@pytest.mark.parametrize("name", BODIES)
def test_every_family_meets_a_spec_by_what_its_keys_are(arm: Live, name: str) -> None:
    with connected(arm) as connection:
        status, told, headers = post(connection, json.dumps(BODIES[name]))
    assert status == 200, told
    assert "x-error" not in headers
    family = FAMILIES[name.partition(" ")[0]]
    if name == "gr00t_http":
        assert list(told) == ["action.arm", "action.gripper"]
    actions = family.read_reply(json.dumps(told)).actions
    assert np.array_equal(np.atleast_2d(actions)[0], [1, 2, 2])
