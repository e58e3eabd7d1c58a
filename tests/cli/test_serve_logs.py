"""`policyserve serve` with --log-format, --log-level and --log-file: what a program reads, and what a person sees."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from policyserve import Client, RemoteError
from tests.cli.serving import POLICYSERVE, run, serving
from tests.cli.watching import needs_terminals, watching
from tests.logs.reading import Line, read_line
from tests.server.live import DEADLINE_S

PORT_0 = ("--host", "127.0.0.1", "--port", "0")
KEY = "a-secret-of-forty-characters-0123456789"
# Its import, its loading and its calls log, warn and print as torch and other libraries do.
CHATTY = """
import logging, sys, threading, warnings
import numpy as np

own = logging.getLogger("torch")
own.addHandler(logging.StreamHandler())
own.propagate = False

def act(observation):
    own.warning("asked \\x1b[2J")
    warnings.warn("an old way")
    logging.getLogger("quiet").info("chatter")
    thread = threading.Thread(target=lambda: 1 / 0)
    thread.start()
    thread.join()
    if np.size(observation["x"]) > 2:
        raise ValueError("too\\nmany")
    return np.zeros(2)
"""


class Running:
    """A server whose log is JSON on stderr."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[Line] = []
        self.texts: list[str] = []
        ready = self.until("ready")
        found = re.search(r"wss?://\S+:\d+", ready["message"])
        assert found
        self.url = found.group()

    def until(self, event: str) -> Line:
        assert self.process.stderr is not None
        for text in self.process.stderr:
            self.texts.append(text)
            self.lines.append(read_line(text.removesuffix("\n")))
            if self.lines[-1]["event"] == event:
                return self.lines[-1]
        raise AssertionError(f"{event} never came: {self.texts}")

    def of(self, event: str) -> list[Line]:
        return [line for line in self.lines if line["event"] == event]


@contextmanager
def running(folder: Path, *flags: str, variables: Mapping[str, str] | None = None) -> Iterator[Running]:
    (folder / "robot.py").write_text(CHATTY)
    process = subprocess.Popen(
        [*POLICYSERVE, "serve", "./robot.py:act", *PORT_0, "--log-format", "json", *flags],
        cwd=folder,
        env={**os.environ, **(variables or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield Running(process)
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("isolate", ["thread", "process"])
def test_a_whole_session_is_json_line_by_line_and_has_no_key_in_it(isolate: str, tmp_path: Path) -> None:
    if isolate == "process" and os.name != "posix":
        pytest.skip("a policy's own process needs Linux or macOS")
    key = {"POLICYSERVE_API_KEY": KEY}
    with running(tmp_path, "--isolate", isolate, "--debug", variables=key) as server:
        with pytest.raises(InvalidStatus):
            connect(f"{server.url}/openpi?key={KEY}", additional_headers={"Authorization": f"Bearer {KEY}x"})
        with Client(server.url, dialect="openpi", api_key=KEY) as client:
            client.infer({"x": np.zeros(2)})
            with pytest.raises(RemoteError):
                client.infer({"x": np.zeros(3)})
        server.until("session_closed")
        server.process.send_signal(signal.SIGTERM)
        server.until("stopped")
        stdout, rest = server.process.communicate(timeout=DEADLINE_S)
    assert (server.process.returncode, stdout, rest) == (0, "", "")
    assert not any(KEY in text for text in server.texts)
    events = [line["event"] for line in server.lines]
    for event in ("connection_refused", "session_opened", "request_refused", "session_closed", "stopping", "uncaught"):
        assert event in events
    theirs = {(line["logger"], line["message"]) for line in server.of("log")}
    assert ("torch", "asked \\x1b[2J") in theirs
    assert any(name == "py.warnings" and "an old way" in message for name, message in theirs)
    assert not any(name == "quiet" for name, _ in theirs)
    (refused,) = server.of("request_refused")
    assert (refused["level"], refused["code"], refused["session"]) == ("error", "policy_failed", 1)
    if isolate == "thread":
        assert "too\\nmany" in refused["traceback"]


def test_a_levels_lines_and_graver_ones_are_logged(tmp_path: Path) -> None:
    (tmp_path / "robot.py").write_text(CHATTY)
    flags = (*PORT_0, "--log-level", "error", "--host", "0.0.0.0")
    with serving([*POLICYSERVE, "serve", "./robot.py:act", *flags], cwd=tmp_path) as server:
        code, stderr = server.stop()
    assert code == 0
    assert "anyone who reaches" not in stderr


@pytest.mark.parametrize("isolate", ["thread", "process"])
@pytest.mark.parametrize("form", ["text", "json"])
def test_a_log_file_gets_the_lines_and_the_terminal_keeps_its_screen(form: str, isolate: str, tmp_path: Path) -> None:
    (tmp_path / "robot.py").write_text(CHATTY)
    flags = (*PORT_0, "--log-format", form, "--log-file", "serve.log", "--isolate", isolate)
    with serving([*POLICYSERVE, "serve", "./robot.py:act", *flags], cwd=tmp_path) as server:
        with Client(server.url) as client:
            client.infer({"x": np.zeros(2)})
        code, stderr = server.stop()
    assert code == 0
    assert any(line.startswith("ready after") for line in server.lines)
    assert stderr == ""
    text = (tmp_path / "serve.log").read_text()
    if form == "json":
        events = [read_line(line)["event"] for line in text.splitlines()]
        for event in ("ready", "session_opened", "log", "stopping", "stopped"):
            assert event in events
    else:
        assert "\x1b" not in text
        assert re.search(r" INFO    policyserve\.\S+: session 1 opened dialect=", text)
        assert re.search(r" WARNING torch: asked \\x1b\[2J", text)
        assert " INFO    policyserve.cli.foreground.serving: stopped after" in text


@pytest.mark.parametrize(
    ("flags", "variables", "blamed"),
    [
        (("--log-file", "gone/serve.log"), {}, "--log-file"),
        ((), {"POLICYSERVE_LOG_FILE": "gone/serve.log"}, "POLICYSERVE_LOG_FILE"),
        (("--config", "serve.toml"), {}, "serve.toml"),
    ],
)
def test_a_file_that_cannot_be_written_is_told_before_anything_starts(
    flags: tuple[str, ...], variables: dict[str, str], blamed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "robot.py").write_text("from pathlib import Path\nPath('imported').touch()\ndef act(x): return x\n")
    (tmp_path / "serve.toml").write_text('log-file = "gone/serve.log"\n')
    done = run(*POLICYSERVE, "serve", "./robot.py:act", *PORT_0, *flags, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert blamed in line
    assert "gone/serve.log: there is no directory" in line
    assert "mkdir -p" in line
    assert not (tmp_path / "imported").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_disk_that_is_full_is_one_line_and_robots_are_served(tmp_path: Path) -> None:
    (tmp_path / "robot.py").write_text(CHATTY)
    flags = (*PORT_0, "--log-file", "/dev/full")
    with serving([*POLICYSERVE, "serve", "./robot.py:act", *flags], cwd=tmp_path) as server:
        for _ in range(3):
            with Client(server.url) as client:
                client.infer({"x": np.zeros(2)})
        code, stderr = server.stop()
    assert code == 0
    assert stderr == (
        "error: --log-file: /dev/full cannot be written: No space left on device; lines are lost until it can be\n"
    )


def test_an_error_that_ends_it_is_json_too_and_in_a_file_it_is_told_twice(tmp_path: Path) -> None:
    (tmp_path / "robot.py").write_text("def act(x): return x\n")
    command = (*POLICYSERVE, "serve", "./robot.py:act", "--host", "no.such.host.invalid", "--log-format", "json")
    done = run(*command, cwd=tmp_path)
    lines = [read_line(line) for line in done.stderr.splitlines()]
    assert (done.returncode, done.stdout) == (1, "")
    assert [line["event"] for line in lines] == ["failed"]
    assert lines[0]["message"].startswith("--host: expected an address of this machine")
    done = run(*command, "--log-file", "serve.log", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == f"error: {lines[0]['message']}\n"
    told = json.loads((tmp_path / "serve.log").read_text())
    assert told["message"] == lines[0]["message"]


@needs_terminals
@pytest.mark.parametrize(
    ("flags", "variables", "is_coloured"),
    [
        ((), {}, True),
        ((), {"NO_COLOR": "1"}, False),
        ((), {"TERM": "dumb"}, False),
        (("--log-format", "json"), {}, False),
    ],
)
def test_colours_are_of_text_on_a_terminal(
    flags: tuple[str, ...], variables: dict[str, str], is_coloured: bool, tmp_path: Path
) -> None:
    (tmp_path / "robot.py").write_text("import numpy as np\ndef act(x): return np.zeros(2)\n")
    command = [*POLICYSERVE, "serve", "./robot.py:act", "--host", "0.0.0.0", "--port", "0", *flags]
    with watching(command, cwd=tmp_path, variables=variables) as watched:
        watched.until("ready after")
        watched.press(b"\x03")
        assert watched.end() == 0
    assert ("\x1b[33mWARNING\x1b[0m" in watched.written) is is_coloured
    if flags:
        lines = [line for line in watched.written.replace("\x03", "").split("\r\n") if line]
        assert [read_line(line)["event"] for line in lines] == ["access_warned", "ready", "stopping", "stopped"]
    elif not is_coloured:
        assert not re.search(r"\x1b\[\d+m", watched.written)


def test_in_a_pipe_text_has_no_colours_and_what_the_screen_says_once(tmp_path: Path) -> None:
    (tmp_path / "robot.py").write_text("import numpy as np\ndef act(x): return np.zeros(2)\n")
    command = [*POLICYSERVE, "serve", "./robot.py:act", "--host", "0.0.0.0", "--port", "0"]
    with serving(command, cwd=tmp_path) as server:
        code, stderr = server.stop()
    assert code == 0
    assert "\x1b" not in stderr + "".join(server.lines)
    assert [line.split(" ", 2)[2] for line in stderr.splitlines()] == [
        f"WARNING policyserve.server.entrance: anyone who reaches {server.url.replace('localhost', '0.0.0.0')} may use "
        "this policy: set --api-key-file, or --host 127.0.0.1; see SECURITY.md"
    ]


def test_what_a_policy_without_a_spec_takes_is_a_line_too(tmp_path: Path) -> None:
    with running(tmp_path, "--write-spec", "spec.py") as server:
        with Client(server.url) as client:
            client.infer({"x": np.zeros(2)})
        seen = server.until("policy_spec_seen")
        assert seen["policy"] == "act"
        server.process.send_signal(signal.SIGTERM)
        server.until("stopped")
        assert server.process.communicate(timeout=DEADLINE_S)[0] == ""
    assert "spec = " in (tmp_path / "spec.py").read_text()


def test_the_flags_stand_in_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLICYSERVE_LOG_LEVEL", "warning")
    (tmp_path / "serve.toml").write_text('policy = "cartpole_ppo"\nlog-format = "json"\n')
    command = (*POLICYSERVE, "serve", "--config", "serve.toml", "--log-file", "x.log", "--print-config")
    printed = run(*command, cwd=tmp_path).stdout
    assert re.search(r'^log-format = "json"  # .*serve\.toml', printed, re.MULTILINE)
    assert re.search(r'^log-level = "warning"  # POLICYSERVE_LOG_LEVEL', printed, re.MULTILINE)
    assert re.search(r'^log-file = ".*x\.log"  # --log-file', printed, re.MULTILINE)
    assert not (tmp_path / "x.log").exists()


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--log-format", "xml"), "--log-format: expected text or json, got 'xml'"),
        (("--log-level", "loud"), "--log-level: expected debug, info, warning or error, got 'loud'"),
        (("--log-file", ""), "--log-file: expected a path, got nothing"),
        (("--log-file", "."), "--log-file: expected a file, got the directory"),
    ],
)
def test_a_wrong_value_is_one_line(flags: tuple[str, ...], told: str, tmp_path: Path) -> None:
    (tmp_path / "robot.py").write_text("def act(x): return x\n")
    done = run(sys.executable, "-m", "policyserve.cli", "serve", "./robot.py:act", *PORT_0, *flags, cwd=tmp_path)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert told in line
