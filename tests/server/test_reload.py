"""SIGHUP: keys and certificate are read again, wherever they come from, and a server without either goes on."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserve import Client
from policyserve.core.errors import ConfigError, RemoteError
from policyserve.server import keys
from policyserve.server.config import ServerConfig
from policyserve.server.policy_server import PolicyServer
from tests.cli.serving import POLICYSERVE, serving
from tests.server.certificates import make_certificate
from tests.server.live import DEADLINE_S
from tests.server.live import serving as serving_here
from tests.server.test_tls import certificate_of

FIRST, SECOND = "not-a-real-key-number-1", "not-a-real-key-number-2"
X = {"obs": np.zeros(3)}

needs_hangup = pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="no SIGHUP here")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a file of one key and a certificate."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(keys.VARIABLE, raising=False)
    write_keys(tmp_path, f"robot-7: {FIRST}\n")
    make_certificate(tmp_path, "server")
    return tmp_path


def write_keys(folder: Path, text: str) -> None:
    (folder / "keys").write_text(text)
    (folder / "keys").chmod(0o600)


PAIR: dict[str, Any] = {"tls_cert": "server.pem", "tls_key": "server.key"}
SOURCES: dict[str, tuple[dict[str, Any], str | None, list[str]]] = {
    "nothing": ({}, None, ["nothing to read again: there are no API keys, and there is no certificate"]),
    "the environment": (
        {},
        f"robot-7:{FIRST}",
        ["nothing to read again: the keys come from POLICYSERVE_API_KEY, and there is no certificate"],
    ),
    "a file": ({"api_key_file": "keys"}, None, ["1 key: robot-7; loaded from {folder}/keys"]),
    "a file and the environment": (
        {"api_key_file": "keys"},
        f"other:{SECOND}",
        ["2 keys: other, robot-7; loaded from {folder}/keys"],
    ),
    "a certificate": (PAIR, None, ["certificate {folder}/server.pem loaded"]),
    "a certificate and the environment": (PAIR, f"robot-7:{FIRST}", ["certificate {folder}/server.pem loaded"]),
    "a certificate and a file": (
        {**PAIR, "api_key_file": "keys"},
        None,
        ["1 key: robot-7; loaded from {folder}/keys", "certificate {folder}/server.pem loaded"],
    ),
}


@needs_hangup
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("source", SOURCES)
def test_a_hang_up_is_answered_by_what_was_read_again(
    source: str, loop: str, folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    run: Callable[[Any], None] = asyncio.run if loop == "asyncio" else pytest.importorskip("uvloop").run
    settings, variable, expected = SOURCES[source]
    if variable is not None:
        monkeypatch.setenv(keys.VARIABLE, variable)
    server = PolicyServer(lambda x: x, "127.0.0.1", 0, config=ServerConfig(**settings))

    def said() -> list[str]:
        return [one.getMessage() for one in caplog.records if one.name == "policyserve.server.entrance"]

    async def main() -> None:
        running = asyncio.ensure_future(server.run(on_ready=lambda _: os.kill(os.getpid(), signal.SIGHUP)))
        while len(said()) < len(expected) and not running.done():  # noqa: ASYNC110 - a log line tells nobody
            await asyncio.sleep(0.01)
        server.stop()
        await asyncio.wait_for(running, DEADLINE_S)

    caplog.set_level(logging.INFO)
    run(main())
    assert said() == [line.format(folder=folder) for line in expected]


@needs_hangup
@pytest.mark.parametrize("variable", [None, FIRST])
def test_a_command_that_is_hung_up_serves_on(variable: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(keys.VARIABLE, raising=False)
    if variable is not None:
        monkeypatch.setenv(keys.VARIABLE, variable)
    with (
        serving([*POLICYSERVE, "serve", "pendulum_sac", "--host", "127.0.0.1", "--port", "0"]) as server,
        Client(server.url, api_key=variable) as robot,
    ):
        robot.infer({"obs": np.zeros(3, np.float32)})
        assert server.process.stderr is not None
        server.process.send_signal(signal.SIGHUP)
        for line in server.process.stderr:
            if "nothing to read again" in line:
                break
        robot.infer({"obs": np.zeros(3, np.float32)})
        assert robot.sessions_opened == 1
        code, _ = server.stop()
    assert code == 0


def may_ask(port: int, key: str) -> bool:
    try:
        with Client(f"ws://127.0.0.1:{port}", api_key=key, retry_for_s=0) as robot:
            robot.infer(X)
    except RemoteError:
        return False
    return True


def test_the_keys_file_is_the_one_of_the_start_whatever_directory_the_policy_goes_to(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    write_keys(elsewhere, f"intruder: {SECOND}-of-another-file\n")
    with serving_here(lambda x: x["obs"] if isinstance(x, dict) else x, api_key_file="keys") as live:
        assert live.server is not None
        os.chdir(elsewhere)
        write_keys(folder, f"robot-7: {SECOND}\n")
        live.call(live.server.reload)
        assert may_ask(live.port, SECOND)
        assert not may_ask(live.port, FIRST)
        assert not may_ask(live.port, f"{SECOND}-of-another-file")


def test_the_certificate_is_the_one_of_the_start_too(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, caplog: pytest.LogCaptureFixture
) -> None:
    with serving_here(lambda x: x, **PAIR) as live:
        assert live.server is not None
        first = certificate_of(live)
        os.chdir(tmp_path_factory.mktemp("elsewhere"))
        new_cert, new_key = make_certificate(folder, "new")
        os.replace(new_cert, folder / "server.pem")
        os.replace(new_key, folder / "server.key")
        live.call(live.server.reload)
        assert "the certificate stays" not in caplog.text
        assert certificate_of(live) != first


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "expected one `name: key` per line, got no key"),
        ("robot-7: short\n", "expected a key of 16 characters or more"),
        (None, "cannot be read: No such file"),
    ],
)
def test_a_file_that_became_wrong_changes_nothing_and_is_told(
    text: str | None, told: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with serving_here(lambda x: x["obs"] if isinstance(x, dict) else x, api_key_file="keys") as live:
        assert live.server is not None
        (folder / "keys").unlink()
        if text is not None:
            write_keys(folder, text)
        live.call(live.server.reload)
        assert "the API keys stay as they were: " in caplog.text
        assert told in caplog.text
        assert may_ask(live.port, FIRST)


@pytest.mark.parametrize("name", [FIRST, "0f4be1d2a9c34c1e8f7a", "c2VjcmV0LXNlY3JldC1zZWNyZXQ1="])
def test_a_key_in_place_of_its_file_is_not_shown(name: str, folder: Path) -> None:
    with pytest.raises(ConfigError, match=f"api_key_file: {folder}/… cannot be read: No such file") as caught:
        keys.load(str(folder / name), None)
    assert name not in str(caught.value)


@pytest.mark.parametrize("name", ["no-keys", "robot-keys-of-the-lab.txt", "keys-of-7.d/lab-keys-2"])
def test_a_file_that_is_not_there_is_named(name: str, folder: Path) -> None:
    with pytest.raises(ConfigError, match=f"api_key_file: {folder}/{name} cannot be read: No such file"):
        keys.load(str(folder / name), None)
