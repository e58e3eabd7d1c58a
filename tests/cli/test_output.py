"""Commands whose output cannot be written: other encodings, full disks, closed pipes and descriptors."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest

from policyserve import Client
from tests.cli.serving import POLICYSERVE, run

pytestmark = pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")

DEADLINE_S = 60.0  # generous: only a bug reaches it
# A policy that says something while it loads, and at every request, to both streams and to the log.
CHATTY = """
import logging, sys, warnings

def act(observation):
    print("asked …", flush=True)
    print("asked …", file=sys.stderr, flush=True)
    logging.getLogger("robot").warning("asked …")
    return observation["x"]

print("loaded …", flush=True)
"""


def is_ready(path: Path) -> bool:
    with suppress(OSError), socket.socket(socket.AF_UNIX) as page:
        page.connect(str(path))
        page.sendall(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
        return page.recv(100).startswith(b"HTTP/1.1 200")
    return False


@contextmanager
def chatty_server(folder: Path, *flags: str, shell: str = "", **options: Any) -> Iterator[str]:
    """Serve the chatty policy on a Unix socket; at the end it has to stop by SIGTERM with exit code 0.

    shell: redirections, as a person types them behind the command.
    """
    (folder / "robot.py").write_text(CHATTY)
    path = folder / "robot.sock"
    command: Sequence[str] = [*POLICYSERVE, "serve", "robot:act", "--uds", str(path), *flags]
    if shell:
        command = ["/bin/sh", "-c", f"exec {shlex.join(command)} {shell}"]
    process = subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, **options)
    try:
        deadline = time.monotonic() + DEADLINE_S
        while not is_ready(path):
            assert process.poll() is None, process.returncode
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield f"ws+unix://{path}"
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE_S) == 0
    finally:
        process.kill()
        process.wait()


def answers(url: str) -> bool:
    with Client(url) as client:
        return all(client.infer({"x": np.full(1, n, np.float32)}).actions == n for n in range(3))


def full() -> IO[bytes]:
    return open("/dev/full", "wb")


def closed_pipe() -> int:
    """A pipe's end whose reader is gone."""
    reader, writer = os.pipe()
    os.close(reader)
    return writer


@pytest.mark.parametrize("runner", ["thread", "process"])
def test_a_server_whose_disk_is_full_serves(tmp_path: Path, runner: str) -> None:
    with full() as out, chatty_server(tmp_path, "--isolate", runner, stdout=out, stderr=out) as url:
        assert answers(url)


@pytest.mark.parametrize("runner", ["thread", "process"])
def test_a_server_whose_readers_are_gone_serves(tmp_path: Path, runner: str) -> None:
    out = closed_pipe()
    with chatty_server(tmp_path, "--isolate", runner, stdout=out, stderr=out) as url:
        assert answers(url)
    os.close(out)


@pytest.mark.parametrize("shell", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_a_server_without_descriptors_serves_and_no_socket_gets_their_numbers(tmp_path: Path, shell: str) -> None:
    options = {} if ">&- 2" in shell else {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with chatty_server(tmp_path, shell=shell, **options) as url:
        assert answers(url)


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_a_server_whose_terminal_lacks_characters_serves_and_replaces_them(tmp_path: Path, encoding: str) -> None:
    surroundings = {**os.environ, "PYTHONIOENCODING": encoding}
    with (
        open(tmp_path / "said", "wb") as out,
        chatty_server(tmp_path, "--debug", stdout=out, stderr=out, env=surroundings) as url,
    ):
        assert answers(url)
    said = (tmp_path / "said").read_bytes()
    assert b"asked ..." in said
    assert b"ready after" in said
    assert b"Traceback" not in said


def test_a_server_on_asyncios_loop_serves_too(tmp_path: Path) -> None:
    """The command takes uvloop where it is installed; without it the same must hold."""
    (tmp_path / "uvloop.py").write_text("raise ImportError('not installed')\n")
    surroundings = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    with full() as out, chatty_server(tmp_path, stdout=out, stderr=out, env=surroundings) as url:
        assert answers(url)


@pytest.mark.parametrize("argv", [("--help",), ("serve", "--help"), ("serve", "demo_image", "--help"), ("--version",)])
@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_help_is_shown_in_every_encoding(argv: tuple[str, ...], encoding: str) -> None:
    command = [*POLICYSERVE, *argv]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONIOENCODING": encoding}, capture_output=True, timeout=100, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"policyserve" in done.stdout


def test_a_reader_that_has_seen_enough_of_the_help_is_told_nothing() -> None:
    """`policyserve serve demo_image --help | head -1`"""
    out = closed_pipe()
    for argv in (("--help",), ("serve", "demo_image", "--help")):
        done = subprocess.run([*POLICYSERVE, *argv], stdout=out, stderr=subprocess.PIPE, timeout=100, check=False)
        assert (done.returncode, done.stderr) == (0, b"")
    os.close(out)


def test_a_command_whose_answer_is_its_output_fails_where_that_is_lost() -> None:
    with full() as out:
        done = subprocess.run(
            [*POLICYSERVE, "--version"], stdout=out, stderr=subprocess.PIPE, text=True, timeout=100, check=False
        )
    assert done.returncode == 1
    assert done.stderr.startswith("error: standard output cannot be written: ")


@pytest.mark.parametrize("stderr", ["/dev/full", "closed"])
def test_a_complaint_that_cannot_be_written_keeps_its_exit_code(stderr: str) -> None:
    redirected = "2>/dev/full" if stderr == "/dev/full" else "2>&-"
    done = run("/bin/sh", "-c", f"{shlex.join([*POLICYSERVE, 'serve', 'demo_image', '--port', '-1'])} {redirected}")
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "")


def test_what_loading_is_at_is_shown_to_a_terminal_that_lacks_characters(capfd: pytest.CaptureFixture[str]) -> None:
    program = (
        "from policyserve.cli.foreground.progress import stage_line\n"
        "from policyserve.cli.terminal import keep_output_harmless\n"
        "keep_output_harmless()\nprint(stage_line('weights: 50 % of 8 GB …'))\n"
    )
    subprocess.run([sys.executable, "-c", program], env={**os.environ, "PYTHONIOENCODING": "ascii"}, check=True)
    assert "50 % of 8 GB ..." in capfd.readouterr().out
