"""What a server is asked for, and what is said where it gives nothing."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest

from policyserve.cli.watch.asking import Asking, ask, ask_until_counted
from policyserve.core.errors import ConfigError
from policyserve.doctor.server import Examined, as_websocket
from tests.cli.watch.told import document
from tests.doctor.sick import closed_port, stand_in, tcp_server
from tests.plain_servers import in_thread
from tests.server.live import DEADLINE_S, serving

KEY = "a-key-of-16-letters"


def why_not(url: str, **settings: str) -> str:
    with pytest.raises(ConfigError) as caught:
        ask(Examined(url, **settings))  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return str(caught.value)


@contextmanager
def answering(status: int, body: str) -> Iterator[str]:
    """A web server that gives this for every page; its URL."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *args: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Answer) as server, in_thread(server):
        yield f"ws://127.0.0.1:{server.server_port}"


def test_a_server_tells_what_it_does() -> None:
    with serving() as live, live.websocket():
        told = ask(Examined(live.url("/")))
        assert (told.policy.is_ready, len(told.sessions)) == (True, 1)
        assert told.numbers.answers_per_s.now is None
        assert ask_until_counted(Examined(live.url("/"))).numbers.answers_per_s.now == 0.0


def test_a_key_is_asked_for_and_given(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"robot: {KEY}\n")
    keys.chmod(0o600)
    with serving(api_key_file=str(keys)) as live:
        assert "it needs an API key: set POLICYSERVE_API_KEY, or name a file" in why_not(live.url("/"))
        assert "it does not know this API key" in why_not(live.url("/"), api_key="another-key-of-letters")
        assert ask(Examined(live.url("/"), api_key=KEY)).policy.is_ready
        assert ask(Examined(f"ws://robot:{KEY}@127.0.0.1:{live.port}")).policy.is_ready


def test_a_server_without_the_page_is_told_from_one_that_is_none_of_ours() -> None:
    with serving(live=False) as live:
        assert "started with --no-live" in why_not(live.url("/"))
    with stand_in("openpi", np.zeros(2, np.float32)) as url:
        assert "it is no policyserve server" in why_not(url)


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (200, "<html>", "/live.json is not JSON"),
        (200, '{"status": "ok"}', "it is no policyserve server"),
        (403, "not under\nthis name", "(HTTP 403): not under this name"),
        (403, "<html>go away</html>", "(HTTP 403); `policyserve doctor URL`"),
        (404, "", "it has no live data"),
        (503, "full", "(HTTP 503): full"),
        (502, "", "a proxy answers for it (HTTP 502)"),
    ],
)
def test_another_answer_is_told_with_what_to_do(status: int, body: str, said: str) -> None:
    with answering(status, body) as url:
        assert said in why_not(url)


def test_what_speaks_no_http_and_what_ends_at_once() -> None:
    def ssh(peer: socket.socket) -> None:
        peer.recv(4096)
        peer.sendall(b"SSH-2.0-OpenSSH_9\r\n" * 9)

    with tcp_server(ssh) as port:
        assert "speaks no HTTP" in why_not(f"ws://127.0.0.1:{port}")
    with tcp_server(lambda peer: None) as port:
        assert "`policyserve doctor URL` tells more" in why_not(f"ws://127.0.0.1:{port}")


def test_a_closed_port_has_the_doctors_cure() -> None:
    assert "nothing listens there: start the server" in why_not(f"ws://127.0.0.1:{closed_port()}")


def test_a_server_that_says_nothing_is_waited_for_no_longer_than_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(ConfigError, match=r"no answer within 0\.2 s"):
        ask(Examined(f"ws://127.0.0.1:{silent.getsockname()[1]}", timeout_s=0.2))


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("http://robot:8000/", "ws://robot:8000/"),
        (f"https://a:{KEY}@robot", f"wss://a:{KEY}@robot"),
        (" robot:8000", "ws://robot:8000"),
        ("localhost", "ws://localhost"),
        ("ws+unix:///run/policy.sock", "ws+unix:///run/policy.sock"),
        ("cartpole_ppo", "cartpole_ppo"),
    ],
)
def test_a_web_address_is_taken_for_the_server_behind_it(typed: str, meant: str) -> None:
    assert as_websocket(typed) == meant


def test_what_is_asked_in_the_background_is_replaced_and_kept_where_the_server_goes() -> None:
    with serving() as live:
        asking = Asking(Examined(live.url("/")), document(), 0.01)
        asking.start()
        until(lambda: asking.heard.document.policy.name != "kitchen_arm")
    until(lambda: "nothing listens there" in asking.heard.trouble)
    assert asking.heard.document.policy.is_ready
    asking.stop()
    until(lambda: all(thread.name != "asking" for thread in threading.enumerate()))


def until(condition: object) -> None:
    assert callable(condition)
    over = threading.Event()
    for _ in range(int(DEADLINE_S / 0.01)):
        if condition():
            return
        over.wait(0.01)
    raise AssertionError("it never came")
