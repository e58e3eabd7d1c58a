"""Who may open a session: keys, browsers' pages, sessions per address; the rules alone, then over sockets."""

from __future__ import annotations

import json
import logging
import threading
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from policyserve import Client
from policyserve.core.errors import ConfigError, RemoteError
from policyserve.core.policy import Policy, as_policy
from policyserve.server.admission import Admission, is_local
from policyserve.server.config import ServerConfig
from policyserve.server.handshake import Credentials
from tests.server.live import DEADLINE_S, HANDSHAKE, Live, ask, serving, until_eof

KEY, SECOND = "0f4be1d2a9c34c1e8f7a", "6f2c9e0b7d1a4c5e9b3d"


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.write_text(f"robot-7: {KEY}\n")
    path.chmod(0o600)
    return path


def refused(live: Live, **options: Any) -> tuple[int, str, dict[str, str]]:
    with pytest.raises(InvalidStatus) as caught:
        live.websocket(**options)
    response = caught.value.response
    return response.status_code, (response.body or b"").decode(), {k.lower(): v for k, v in response.headers.items()}


# Keys


@pytest.mark.parametrize("header", [None, "Bearer wrong", f"Bearer {SECOND}", f"Basic {KEY}", ""])
def test_without_a_key_the_handshake_is_401(key_file: Path, header: str | None, caplog: Any) -> None:
    headers = {} if header is None else {"Authorization": header}
    with serving(api_key_file=str(key_file)) as live, caplog.at_level(logging.INFO):
        status, body, answered = refused(live, additional_headers=headers)
        assert live.call(lambda: live.server.counters.sessions_opened) == 0  # type: ignore[union-attr]
    assert status == 401
    assert "Authorization: Bearer KEY" in body
    assert "Api-Key" in answered["www-authenticate"]
    assert "refused peer=127.0.0.1:" in caplog.text
    for secret in (KEY, SECOND):
        assert secret not in caplog.text


@pytest.mark.parametrize(
    "header", [f"Api-Key {KEY}", f"Bearer {KEY}", f"Basic {b64encode(f'x:{KEY}'.encode()).decode()}"]
)
def test_with_a_key_a_session_opens_and_the_log_names_it(key_file: Path, header: str, caplog: Any) -> None:
    caplog.set_level(logging.DEBUG, "policyserve")
    with (
        serving(api_key_file=str(key_file)) as live,
        live.websocket(additional_headers={"Authorization": header}) as me,
    ):
        assert ask(me, 2.0) == 2.0
    assert "key=robot-7" in caplog.text
    assert KEY not in caplog.text


def test_a_client_that_cannot_send_a_header_has_the_key_in_its_url(key_file: Path) -> None:
    """As Wall-X's and vibe_rl's clients, which pass a URL to `websockets` and nothing else."""
    from websockets.sync.client import connect

    def url(live: Live) -> str:
        return live.url().replace("ws://", f"ws://robot:{KEY}@")

    with serving(api_key_file=str(key_file)) as live, connect(url(live), compression=None) as peer:
        assert ask(peer, 3.0) == 3.0


def test_our_client_sends_its_key_and_is_told_of_a_wrong_one(key_file: Path) -> None:
    with serving(api_key_file=str(key_file)) as live:
        with Client(live.url(), dialect="vibe_rl", api_key=KEY) as client:
            assert client.infer({"obs": [4.0]}).actions == [4.0]
        with pytest.raises(RemoteError, match="401"):
            Client(live.url(), dialect="vibe_rl", api_key=SECOND).infer({"obs": [4.0]})


def test_keys_of_the_environment_count_and_wrong_ones_stop_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLICYSERVE_API_KEY", f"sim:{KEY}")
    with serving() as live:
        assert refused(live)[0] == 401
        with live.websocket(additional_headers={"Authorization": f"Bearer {KEY}"}) as peer:
            assert ask(peer, 1.0) == 1.0
    monkeypatch.setenv("POLICYSERVE_API_KEY", "sim:secret")
    with pytest.raises(ConfigError, match="POLICYSERVE_API_KEY, key 1: expected a key of 16") as caught, serving():
        pass
    assert "secret" not in str(caught.value)


def test_pages_stay_open_and_tell_the_stage_only_to_whom_has_a_key(key_file: Path) -> None:
    release = threading.Event()

    def load(on_stage: Callable[[str], None]) -> Policy:
        on_stage("reading /data/secret.ckpt")
        assert release.wait(DEADLINE_S)
        return as_policy(lambda x: x)

    with serving(load=load, api_key_file=str(key_file)) as live:
        live.until(lambda server: "secret" in server.reception.stage)
        assert live.http("GET", "/healthz")[0] == 200
        status, body, _ = live.http("GET", "/readyz")
        assert (status, json.loads(body)) == (503, {"status": "loading"})
        status, body, _ = live.http("GET", "/readyz", headers={"Authorization": f"Bearer {KEY}"})
        assert json.loads(body)["stage"] == "reading /data/secret.ckpt"
        release.set()
        live.ready()


def test_a_reload_takes_new_keys_and_keeps_the_old_ones_if_the_file_is_broken(key_file: Path, caplog: Any) -> None:
    with serving(api_key_file=str(key_file)) as live:
        assert live.server is not None
        old, new = ({"Authorization": f"Bearer {key}"} for key in (KEY, SECOND))
        with live.websocket(additional_headers=old) as open_before:
            key_file.write_text("robot-8: short\n")
            live.call(live.server.reload)
            assert "the API keys stay as they were" in caplog.text
            assert "short" not in caplog.text
            with live.websocket(additional_headers=old) as peer:
                assert ask(peer, 1.0) == 1.0
            key_file.write_text(f"robot-8: {SECOND}\n")
            live.call(live.server.reload)
            with live.websocket(additional_headers=new) as peer:
                assert ask(peer, 1.0) == 1.0
            assert refused(live, additional_headers=old)[0] == 401
            assert ask(open_before, 5.0) == 5.0  # who is in stays in


# Browsers


@pytest.mark.parametrize(
    ("host", "origin", "is_let_in"),
    [
        ("127.0.0.1:8000", "", True),
        ("robot.lab:8000", "", True),
        ("127.0.0.1:8000", "http://127.0.0.1:8000", True),
        ("localhost:8000", "http://LocalHost:8000", True),
        ("[::1]:8000", "http://[::1]:8000", True),
        ("10.0.0.7:443", "https://10.0.0.7:443", True),
        ("127.0.0.1:8000", "http://evil.example", False),
        ("127.0.0.1:8000", "http://127.0.0.1:8001", False),
        ("127.0.0.1:8000", "null", False),
        ("127.0.0.1:8000", "file://127.0.0.1:8000", False),
        ("evil.example:8000", "http://evil.example:8000", False),  # a name that its owner pointed here
        ("", "http://", False),
        ("127.0.0.1:8000", "https://lab.example", True),  # allowed by name
        ("127.0.0.1:8000", "http://lab.example", False),
        ("[::1", "http://[::1", False),
    ],
)
def test_a_page_passes_from_this_host_or_if_it_is_allowed(host: str, origin: str, is_let_in: bool) -> None:
    admission = Admission(ServerConfig(allowed_origins=("https://Lab.example",)))
    refusal = admission.refusal(Credentials(host, origin), "10.0.0.9")
    assert (refusal is None) == is_let_in
    if refusal is not None:
        assert refusal.status == 403
        assert b"--allowed-origins" in refusal.body


def test_a_strangers_page_is_403_over_a_socket_and_others_go_on(caplog: Any) -> None:
    with serving() as live:
        status, body, _ = refused(live, origin="http://evil.example")
        assert status == 403
        assert "evil.example" in body
        assert live.answers()
        with live.websocket(origin=f"http://127.0.0.1:{live.port}") as peer:
            assert ask(peer, 1.0) == 1.0
    assert "403" in caplog.text


def test_an_origin_writes_no_control_character_to_the_log_or_the_answer(caplog: Any) -> None:
    with serving() as live:
        peer = live.tcp()
        peer.sendall(HANDSHAKE + b"Origin: http://a\x9b31m\x85forged" + b"z" * 5_000 + b"\r\n\r\n")
        answer = until_eof(peer).decode()
        peer.close()
    assert "403" in answer
    for text in (answer.rpartition("\r\n\r\n")[2].rstrip("\n"), *(one.getMessage() for one in caplog.records)):
        assert text.isprintable()
        assert "http://a\\x9b31m\\x85forged" in text
        assert len(text) < 500


@pytest.mark.parametrize("origin", ["lab.example", "https://lab.example/", "ws://lab.example", ""])
def test_an_allowed_origin_that_is_none_is_named(origin: str) -> None:
    with pytest.raises(ConfigError, match="allowed_origins: expected scheme://host"):
        ServerConfig(allowed_origins=(origin,))


# Numbers


@pytest.mark.parametrize("address", ["", "127.0.0.1", "127.3.2.1", "::1", "::ffff:127.0.0.1"])
def test_this_machine_is_local(address: str) -> None:
    assert is_local(address)


@pytest.mark.parametrize("address", ["10.0.0.7", "fe80::1%eth0", "192.0.2.1", "::ffff:10.0.0.7"])
def test_another_machine_is_not(address: str) -> None:
    assert not is_local(address)


def test_one_address_cannot_take_all_sessions_and_gets_its_places_back() -> None:
    admission = Admission(ServerConfig(max_sessions=4, max_sessions_per_address=2))
    for _ in range(2):
        assert admission.refusal(Credentials(), "10.0.0.7") is None
        admission.enter("10.0.0.7")
    refusal = admission.refusal(Credentials(), "10.0.0.7")
    assert refusal is not None
    assert refusal.status == 503
    assert b"2 sessions are open from 10.0.0.7" in refusal.body
    for _ in range(2):
        assert admission.refusal(Credentials(), "127.0.0.1") is None
        admission.enter("127.0.0.1")
    full = admission.refusal(Credentials(), "")
    assert full is not None
    assert b"4 sessions are open, the most" in full.body
    admission.leave("10.0.0.7")
    assert admission.refusal(Credentials(), "10.0.0.7") is None


def test_sessions_of_one_address_are_counted_over_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("policyserve.server.admission.is_local", lambda address: not address)
    with serving(max_sessions_per_address=1) as live:
        with live.websocket() as first:
            status, body, _ = refused(live)
            assert (status, "from 127.0.0.1" in body) == (503, True)
            assert ask(first, 1.0) == 1.0
        live.until(lambda server: server.counters.sessions_open == 0)
        assert live.answers()
