"""What the live page's data say of a server, its sessions, and what was refused."""

from __future__ import annotations

import base64
import http.client
import io
import json
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosedError, InvalidStatus

import policyserve
from policyserve.core.policy import FunctionPolicy
from policyserve.observe import thumbnails
from tests.policies.frameworks import import_or_skip
from tests.server.certificates import make_certificate, trusting
from tests.server.live import DEADLINE_S, ask, none_open, packed, serving, until_eof
from tests.server.looking import HTML, SPEC, arm, seen, told, until

Image = import_or_skip("PIL.Image")


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


def test_a_failed_tls_handshake_is_told_too(tmp_path: Path) -> None:
    cert, key = make_certificate(tmp_path)
    with serving(tls_cert=cert, tls_key=key) as live:
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", live.port), DEADLINE_S) as peer:
                peer.sendall(b"GET /live HTTP/1.1\r\n\r\n")
                until_eof(peer)
        page = http.client.HTTPSConnection("localhost", live.port, timeout=DEADLINE_S, context=trusting(cert))
        page.request("GET", "/live.json")
        (refusal,) = json.load(page.getresponse())["refusals"]
        page.close()
        assert (refusal["code"], refusal["session"], refusal["count"]) == ("tls", None, 3)
        assert refusal["peer"].startswith("127.0.0.1:")
        assert refusal["text"] == "the client speaks plain HTTP; it needs wss:// or https://"
