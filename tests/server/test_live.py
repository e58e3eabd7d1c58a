"""The live page without a browser: who gets it, what its data say, and that it costs nothing while nobody looks."""

from __future__ import annotations

import base64
import io
import json
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosedError, InvalidStatus

import policyserve
from policyserve.core.policy import FunctionPolicy
from policyserve.core.spec import ArraySpec, ImageSpec, PolicySpec, TextSpec
from policyserve.observe import thumbnails
from policyserve.server import live as live_module
from policyserve.server.server import Server
from tests.policies.frameworks import import_or_skip
from tests.server.live import DEADLINE_S, Live, ask, none_open, packed, serving

Image = import_or_skip("PIL.Image")
KEY = "a-key-of-many-letters"
PARTS = ("/live/live.css", "/live/live.js", "/live/charts.js", "/live/session.js", "/live/icon.svg")
SPEC = PolicySpec(
    "arm",
    {
        "camera": ImageSpec(32, 32),
        "state": ArraySpec((2,), doc="elbow rad, gripper 0 … 1"),
        "prompt": TextSpec(default=""),
    },
    ArraySpec((2,)),
    metadata={"checkpoint": "step_7"},
)
HTML = "<img src=x onerror=alert(1)>"


def arm() -> Any:
    return FunctionPolicy(lambda seen: seen["state"] * 2, SPEC)


def seen(colour: tuple[int, int, int] = (200, 30, 40)) -> dict[str, Any]:
    picture = np.full((32, 32, 3), colour, np.uint8)
    return {"camera": picture, "state": np.array([1, 2], np.float32), "prompt": HTML}


def told(live: Live, query: str = "", headers: dict[str, str] | None = None) -> dict[str, Any]:
    status, body, _ = live.http("GET", f"/live.json{query}", headers=headers)
    assert status == 200, body
    return json.loads(body, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def until(live: Live, condition: Callable[[dict[str, Any]], Any], query: str = "") -> dict[str, Any]:
    """What the data say once they say this."""
    ends_at = time.monotonic() + DEADLINE_S
    while not condition(now := told(live, query)):
        assert time.monotonic() < ends_at, now
        time.sleep(0.02)
    return now


def observers_of(server: Server) -> int:
    return len(server.observers._observers)  # pyright: ignore[reportPrivateUsage]


def test_a_browser_gets_the_page_at_both_paths_and_all_its_parts() -> None:
    with serving() as live:
        for path in ("/", "/live"):
            status, body, headers = live.http("GET", path)
            assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
            assert b"<title>policyserve</title>" in body
        for path in PARTS:
            status, body, headers = live.http("GET", path)
            assert status == 200
            assert body
            assert headers["content-security-policy"].startswith("default-src 'self';")
            assert headers["x-content-type-options"] == "nosniff"


def test_the_page_asks_nobody_else_for_anything() -> None:
    with serving() as live:
        for path in ("/", *PARTS):
            body = live.http("GET", path)[1].decode().replace("http://www.w3.org/2000/svg", "")
            assert "http://" not in body
            assert "https://" not in body
            assert "innerHTML" not in body


def test_a_session_opens_at_the_pages_path() -> None:
    with serving() as live, live.websocket("/") as peer:
        assert ask(peer, 3.0) == 3.0


def test_no_live_takes_the_page_away() -> None:
    with serving(live=False) as live:
        for path in ("/", "/live", "/live.json", *PARTS):
            assert live.http("GET", path)[0] == 404
        assert live.server.observers.refusal != ()  # those that count them
        with live.websocket("/") as peer:
            assert ask(peer, 3.0) == 3.0


def test_a_key_is_needed_where_the_server_has_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLICYSERVE_API_KEY", KEY)
    with serving() as live:
        for path in ("/", "/live", "/live.json", *PARTS):
            status, _, headers = live.http("GET", path)
            assert (status, headers["www-authenticate"]) == (401, 'Basic realm="policyserve"')
        assert live.server.live.watching is None  # who has no key has nothing watched
        basic = base64.b64encode(f"anybody:{KEY}".encode()).decode()
        assert told(live, headers={"Authorization": f"Basic {basic}"})["server"]["needs_key"] is True


def test_a_page_under_a_strangers_name_gets_nothing() -> None:
    with serving() as live:
        for path in ("/", "/live.json", "/live/live.js"):
            assert live.http("GET", path, headers={"Host": "evil.example"})[0] == 403
        assert live.server.live.watching is None


def test_the_data_say_what_is_served() -> None:
    with serving(arm()) as live:
        policy = told(live)["policy"]
        assert (policy["name"], policy["checkpoint"], policy["is_ready"]) == ("arm", "step_7", True)
        assert policy["takes"][0] == {"path": "camera", "kind": "uint8 image HWC, 32 x 32", "doc": ""}
        assert policy["gives"] == "float32 (2,)"


def test_the_data_say_what_loading_is_at() -> None:
    release = threading.Event()

    def load(on_stage: Callable[[str], None]) -> Any:
        on_stage("weights: 12 % of 4 GB")
        release.wait(DEADLINE_S)
        return arm()

    with serving(load=load, isolate="thread") as live:
        assert until(live, lambda now: now["policy"]["stage"].startswith("weights"))["policy"]["is_ready"] is False
        release.set()
        assert until(live, lambda now: now["policy"]["is_ready"])["policy"]["name"] == "arm"


def test_numbers_move_while_somebody_asks() -> None:
    with serving() as live, live.websocket() as peer:
        assert told(live)["numbers"]["answers_per_s"] is None  # a second has not passed
        stop = threading.Event()

        def keep_asking() -> None:
            while not stop.is_set():
                ask(peer, 1.0)

        asking = threading.Thread(target=keep_asking)
        asking.start()
        try:
            now = until(live, lambda now: now["numbers"]["answers_per_s"])
        finally:
            stop.set()
            asking.join()
        assert now["numbers"]["p99_ms"] >= now["numbers"]["p50_ms"] > 0
        assert 0 < now["numbers"]["busy"] <= 1
        assert now["batches"][0][0] == 1
        assert now["history"]["infer_ms"][-1] > 0
        (session,) = now["sessions"]
        assert (session["dialect"], session["pending"] in (0, 1)) == ("vibe_rl", True)
        assert session["hz"] > 0


def test_sessions_come_and_go() -> None:
    with serving() as live:
        assert told(live)["sessions"] == []
        with live.websocket():
            (session,) = until(live, lambda now: now["sessions"])["sessions"]
            assert session["peer"].startswith("127.0.0.1:")
            assert session["age_s"] >= 0
        none_open(live)
        until(live, lambda now: not now["sessions"])


def test_a_chosen_session_shows_what_it_sent_and_got() -> None:
    with serving(arm()) as live, policyserve.Client(live.url("/openpi")) as client:

        def has_picture(now: dict[str, Any]) -> Any:
            client.infer(seen())
            return now["selected"] and now["selected"]["pictures"]

        selected = until(live, has_picture, "?session=1&pictures=1")["selected"]
        (picture,) = selected["pictures"]
        assert (picture["path"], picture["shape"]) == ("camera", [32, 32, 3])
        image = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture["jpeg"]))))
        assert np.abs(image.mean(axis=(0, 1)) - (200, 30, 40)).max() < 6
        assert selected["texts"] == [["prompt", HTML]]
        assert selected["numbers"][0]["values"] == [1.0, 2.0]
        assert selected["numbers"][0]["names"] == ["elbow rad", "gripper 0 … 1"]
        assert [line[-1] for line in selected["actions"]["lines"]] == [2.0, 4.0]
        assert until(live, lambda now: True, "?session=1")["selected"]["pictures"] == []  # they were not asked for


def test_without_live_images_no_picture_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("policyserve.observe.looks.cut_down", lambda *args: pytest.fail("a picture was copied"))
    with serving(arm(), live_images=False) as live, policyserve.Client(live.url("/openpi")) as client:
        assert told(live, "?session=1&pictures=1")["pictures"] == "camera pictures are turned off (--no-live-images)"
        client.infer(seen())
        selected = until(live, lambda now: now["selected"]["texts"], "?session=1&pictures=1")["selected"]
        assert selected["pictures"] == []
        assert live.server.live.watching is not None


def test_without_pillow_the_data_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thumbnails, "find_spec", lambda name: None)
    with serving(arm()) as live, policyserve.Client(live.url("/openpi")) as client:
        assert "pip install 'policyserve[images]'" in told(live, "?session=1&pictures=1")["pictures"]
        client.infer(seen())
        assert until(live, lambda now: now["selected"]["texts"], "?session=1&pictures=1")["selected"]["pictures"] == []


def test_a_refusal_is_told_with_path_expected_and_got_whether_somebody_looked_or_not() -> None:
    with serving(arm()) as live, policyserve.Client(live.url("/openpi")) as client:
        wrong = {**seen(), "camera": np.zeros((8, 8, 3), np.uint8)}
        with pytest.raises(policyserve.RemoteError):
            client.infer(wrong)
        (refusal,) = told(live)["refusals"]
        assert (refusal["code"], refusal["session"], refusal["path"]) == ("bad_observation", 1, "camera")
        assert refusal["expected"] == "uint8 image HWC, 32 x 32"
        assert refusal["got"].startswith("uint8 (8, 8, 3)")
        assert told(live)["numbers"]["refused"] == {"bad_observation": 1}


def test_a_refused_handshake_is_told_too() -> None:
    with serving() as live:
        with pytest.raises(InvalidStatus):
            live.websocket(additional_headers={"Origin": "https://evil.example"}).close()
        (refusal,) = told(live)["refusals"]
        assert (refusal["code"], refusal["session"]) == ("http_403", None)
        assert "evil.example" in refusal["text"]
        assert refusal["peer"].startswith("127.0.0.1:")


def test_nothing_is_observed_and_no_frame_is_held_while_nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_module, "EVERY_S", 0.05)
    monkeypatch.setattr(live_module, "WATCHED_S", 0.5)
    with serving(arm(), metrics=False) as live, policyserve.Client(live.url("/openpi")) as client:
        observers = live.server.observers
        before = live.call(lambda: observers_of(live.server))
        silent = ("request", "message", "sent", "batch_started", "inline_batch_started", "inline_batch_ended")
        assert all(getattr(observers, name) == () for name in silent)
        client.infer(seen())
        until(live, lambda now: client.infer(seen()) and now["selected"]["pictures"], "?session=1&pictures=1")
        watching = live.server.live.watching
        assert watching is not None
        assert live.call(lambda: observers_of(live.server)) == before + 1
        live.until(lambda server: server.live.watching is None)
        assert live.call(lambda: observers_of(live.server)) == before
        assert all(getattr(observers, name) == () for name in silent)
        assert watching.watcher.looks == {}
        live.until(lambda _: not [one for one in threading.enumerate() if one.name.startswith("thumbnails")])


def test_a_hundred_who_look_get_the_same_answer_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_module, "_MADE_FOR_S", 3600.0)
    made: list[object] = []
    described = live_module.json_of
    monkeypatch.setattr(live_module, "json_of", lambda status, fields: made.append(fields) or described(status, fields))
    bodies: list[bytes] = []
    with serving() as live, live.websocket() as peer:
        watchers = [
            threading.Thread(target=lambda: bodies.append(live.http("GET", "/live.json")[1])) for _ in range(100)
        ]
        for one in watchers:
            one.start()
        for number in range(20):
            assert ask(peer, number) == number
        for one in watchers:
            one.join()
        # A sample that falls due meanwhile drops what was made; that is a second later at the earliest.
        assert len(bodies) == 100
        assert len(set(bodies)) == len(made) <= 3


def test_a_page_client_that_never_reads_holds_nobody_up_and_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("policyserve.server.connection._CLOSE_TIMEOUT_S", 0.3)
    with serving() as live, live.websocket() as peer:
        silent: list[socket.socket] = []
        for _ in range(20):
            one = live.tcp()
            one.sendall(b"GET /live.json HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            silent.append(one)
        assert ask(peer, 5.0) == 5.0
        live.until(lambda server: server.reception.waiting == 0)
        for one in silent:
            one.close()


@pytest.mark.parametrize("query", ["?session=x", "?session=-1", "?session=" + "9" * 40, "?session=%F0%9D%9F%99"])
def test_a_session_that_is_no_number_is_refused(query: str) -> None:
    with serving() as live:
        assert live.http("GET", f"/live.json{query}")[0] == 400
        assert live.server.live.watching is None


def test_a_session_that_is_not_there_shows_nothing() -> None:
    with serving() as live:
        assert told(live, "?session=77&pictures=1")["selected"] is None


def test_values_that_json_has_no_word_for_are_none() -> None:
    with serving(FunctionPolicy(lambda seen: np.zeros(2, np.float32), SPEC)) as live:
        with policyserve.Client(live.url("/openpi")) as client:
            sent = {
                **seen(),
                "state": np.array([np.nan, np.inf], np.float32),
                "prompt": "a\ud83d".encode("utf-8", "ignore").decode(),
            }
            now = until(
                live, lambda now: client.infer(sent) and now["selected"] and now["selected"]["numbers"], "?session=1"
            )
        assert now["selected"]["numbers"][0]["values"] == [None, None]


def test_a_session_that_ends_badly_stands_among_the_refusals_with_its_peer() -> None:
    with serving() as live, live.websocket() as peer:
        peer.send(packed({"obs": 1}))
        with pytest.raises(ConnectionClosedError):
            peer.recv(timeout=DEADLINE_S)
        (refusal,) = told(live)["refusals"]
        assert refusal["peer"].startswith("127.0.0.1:")
        assert refusal["code"]
