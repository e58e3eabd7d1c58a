"""The live page without a browser: who gets it, and that it costs nothing while nobody looks."""

from __future__ import annotations

import base64
import socket
import threading

import pytest

import policyserve
from policyserve.server import live as live_module
from policyserve.server import live_data
from policyserve.server.server import Server
from tests.policies.frameworks import import_or_skip
from tests.server.live import ask, serving
from tests.server.looking import arm, seen, told, until

import_or_skip("PIL.Image")
KEY = "a-key-of-many-letters"
PARTS = ("/live/live.css", "/live/live.js", "/live/charts.js", "/live/session.js", "/live/icon.svg")


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


def test_nothing_is_observed_and_no_frame_is_held_while_nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_data, "EVERY_S", 0.05)
    monkeypatch.setattr(live_data, "WATCHED_S", 0.5)
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
    monkeypatch.setattr(live_data, "_MADE_FOR_S", 3600.0)
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
