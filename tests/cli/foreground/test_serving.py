"""What a person sees of a server in a terminal of 80 columns, from its start to its end."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from policyserve import Client, ConnectionLost, RemoteError
from tests.cli.serving import POLICYSERVE, serving
from tests.cli.terminals import unbroken
from tests.cli.watching import Watched, needs_terminals, watching

pytestmark = needs_terminals

PORT_0 = ("--host", "127.0.0.1", "--port", "0")
CTRL_C = b"\x03"
# A policy whose import prints, logs and warns, as many do; what it waits for is a line on standard input.
CHATTY = """
import logging, sys
import numpy as np

print("loading weights ...")
sys.stdout.write("half of them ")
sys.stdout.flush()
sys.stdout.write("and the rest\\n")
logging.getLogger("jax").info("backend chatter")
logging.getLogger("jax").warning("no TPU here")
print("a note", file=sys.stderr)

def act(observation):
    return np.zeros(2)
"""
SLOW = """
import sys, threading
import numpy as np

def act(observation):
    sys.stdout.write("asked\\n")
    threading.Event().wait()

def load():
    sys.stdout.write("imported\\n")
    threading.Event().wait()
"""
STARTED = re.compile(r"\d\d:\d\d:\d\d (INFO|WARNING|ERROR) ")


def serve(folder: Path, program: str, name: str, *flags: str) -> list[str]:
    """A command that serves `name` of a module of this text."""
    (folder / "robot.py").write_text(program)
    return [*POLICYSERVE, "serve", f"robot:{name}", *PORT_0, *flags]


def url_of(watched: Watched) -> str:
    found = re.search(r"ws://localhost:\d+", watched.written)
    assert found, watched.written
    return found.group()


@pytest.mark.parametrize("policy", ["cartpole_ppo", "demo_flow", "demo_image", "wall-x"])
def test_the_screen_fits_the_terminal_and_has_no_line_of_the_log_in_it(policy: str) -> None:
    flags = ["--env", "aloha", "--model-config.model-path", "stand-in"] if policy == "wall-x" else []
    with watching([*POLICYSERVE, "serve", policy, *flags, *PORT_0]) as watched:
        watched.until("ready after")
        watched.press(CTRL_C)
        assert watched.end() == 0
    lines = watched.shown
    first = next(number for number, line in enumerate(lines) if line.startswith("policyserve "))
    last = next(number for number, line in enumerate(lines) if line.startswith("ready after"))
    screen = lines[first : last + 1]
    assert [line for line in screen if len(line) > 79] == []
    assert [line for line in screen if STARTED.match(line)] == []
    assert [line.split()[0] for line in screen if re.match(r"  \w", line)][-3:] == ["client", "watch", "health"]
    assert "\x1b[1mpolicyserve" in watched.written
    (end, nothing) = lines[last + 1 :]
    assert re.fullmatch(r"stopped after \d+ s: 0 answers", end)
    assert nothing == ""


@pytest.mark.parametrize("isolate", ["thread", "process"])
def test_what_a_policy_prints_and_logs_has_lines_of_its_own(tmp_path: Path, isolate: str) -> None:
    with watching(serve(tmp_path, CHATTY, "act", "--isolate", isolate), cwd=tmp_path) as watched:
        watched.until("ready after")
        watched.press(CTRL_C)
        assert watched.end() == 0
    lines = [re.sub(r"^\d\d:\d\d:\d\d", "15:49:41", line) for line in watched.shown]
    said = ["loading weights ...", "half of them and the rest", "15:49:41 WARNING jax: no TPU here", "a note"]
    assert [line for line in lines if line in said] == said
    assert not any("chatter" in line for line in lines)
    assert not any("importing" in line for line in lines)


@pytest.mark.parametrize("name", ["act", "other"])
def test_what_a_policy_prints_without_a_lines_end_is_not_run_into(tmp_path: Path, name: str) -> None:
    with watching(serve(tmp_path, f"{CHATTY}\nprint('99 %', end='')\n", name), cwd=tmp_path) as watched:
        if name == "act":
            watched.until("ready after")
            watched.press(CTRL_C)
        watched.end()
    after = watched.shown[watched.shown.index("99 %") + 1]
    assert after.startswith("policyserve " if name == "act" else "error: robot:other does not exist")


def test_ctrl_c_while_the_event_loop_is_made_stops_the_server_without_a_traceback() -> None:
    program = (
        "import asyncio.events, os, signal, sys\n"
        "sys.modules['uvloop'] = None\n"
        "make = asyncio.events.new_event_loop\n"
        "def interrupted():\n    os.kill(os.getpid(), signal.SIGINT)\n    return make()\n"
        "asyncio.events.new_event_loop = interrupted\n"
        "from policyserve.entry_point import main\n"
        f"sys.argv[1:] = {['serve', 'demo_image', *PORT_0]}\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("stopped before it was ready\n")


@pytest.mark.parametrize(
    ("name", "reason"), [("act", "No module named 'nowhere'"), ("other", "robot:other does not exist")]
)
def test_an_error_while_loading_has_a_line_of_its_own(tmp_path: Path, name: str, reason: str) -> None:
    program = CHATTY + ("\nimport nowhere\n" if name == "act" else "")
    with watching(serve(tmp_path, program, name), cwd=tmp_path) as watched:
        assert watched.end() == 1
    *_, complaint, rest = unbroken("\n".join(watched.shown)).split("\n")
    assert reason in complaint
    assert complaint.startswith("error: ")
    assert rest == ""


def test_ctrl_c_while_loading_leaves_no_mark_and_is_answered(tmp_path: Path) -> None:
    with watching(serve(tmp_path, SLOW, "load"), cwd=tmp_path) as watched:
        watched.until("imported")
        watched.press(CTRL_C)
        assert watched.end() == 0
    assert watched.shown == ["imported", "stopped before it was ready", ""]


def test_a_terminal_is_left_as_it_was(tmp_path: Path) -> None:
    program = CHATTY + "\nimport os; os.system('stty -a < /dev/tty')\n"
    command = shlex.join(serve(tmp_path, program, "act"))
    with watching(["/bin/sh", "-c", f"trap : INT; stty -a; {command}; stty -a"], cwd=tmp_path) as watched:
        watched.until("ready after")
        watched.press(CTRL_C)
        watched.end()
    assert [word for word in watched.written.split() if "echoctl" in word] == ["echoctl", "-echoctl", "echoctl"]


def test_the_first_ctrl_c_tells_what_is_waited_for_and_the_second_ends_it(tmp_path: Path) -> None:
    def ask(url: str) -> None:
        with Client(url) as client, pytest.raises(ConnectionLost):
            client.infer({"x": np.zeros(1)})

    with watching(serve(tmp_path, SLOW, "act"), cwd=tmp_path) as watched, ThreadPoolExecutor() as threads:
        watched.until("ready after")
        asked = threads.submit(ask, url_of(watched))
        watched.until("asked")
        watched.press(CTRL_C)
        watched.until("stopping: 1 request in flight, up to 10 s; Ctrl-C again stops now")
        watched.press(CTRL_C)
        assert watched.end() == 0
        asked.result()
    lines = watched.shown
    assert not any("^C" in line for line in lines)
    assert [line for line in lines if line.startswith("stopping")] == [
        "stopping: 1 request in flight, up to 10 s; Ctrl-C again stops now"
    ]
    assert any(line.endswith("WARNING stopping with requests unanswered") for line in lines)
    assert re.fullmatch(r"stopped after \d+ s: 0 answers", lines[-2])


def test_a_terminals_log_is_short_and_a_pipes_is_whole(tmp_path: Path) -> None:
    command = serve(tmp_path, CHATTY, "act")
    with watching(command, cwd=tmp_path) as watched:
        watched.until("ready after")
        with Client(url_of(watched)) as client:
            client.infer({"x": np.zeros(1)})
        watched.until("session 1 closed")
        assert "\x1b[33mWARNING\x1b[0m jax: no TPU here" in watched.written
    opened = next(line for line in watched.shown if "opened" in line)
    assert re.fullmatch(r"\d\d:\d\d:\d\d INFO session 1 opened dialect=openpi peer=127.0.0.1:\d+", opened)
    with serving(command, cwd=tmp_path) as server:
        with Client(server.url) as client:
            client.infer({"x": np.zeros(1)})
        _, log = server.stop()
    assert re.search(r"^\d{4}-\d\d-\d\d .* INFO    policyserve\.server\.reception: session 1 opened", log, re.MULTILINE)
    assert "\x1b" not in log


def test_a_long_path_in_a_terminals_log_lacks_its_middle(tmp_path: Path) -> None:
    with watching([*POLICYSERVE, "serve", "cartpole_ppo", *PORT_0]) as watched:
        watched.until("ready after")
    assert [line for line in watched.shown if "checkpoint" in line and len(line) > 79] == []
    assert any(re.search(r"checkpoint [~/]\S+…\S+/state.eqx", line) for line in watched.shown)


def test_a_terminal_without_colours_and_with_few_characters_gets_neither(tmp_path: Path) -> None:
    plain = {"NO_COLOR": "1", "PYTHONIOENCODING": "ascii"}
    with watching([*POLICYSERVE, "serve", "cartpole_ppo", *PORT_0], columns=60, variables=plain) as watched:
        watched.until("ready after")
    assert "\x1b[1m" not in watched.written
    first = next(line for line in watched.shown if line.startswith("policyserve "))
    assert re.match(r"policyserve \S+ - cartpole_ppo: ", first)
    assert "?" not in "".join(watched.shown)


def test_at_the_end_a_server_tells_what_it_did_and_of_a_pipe_that_closes_nothing(tmp_path: Path) -> None:
    with serving([*POLICYSERVE, "serve", "cartpole_ppo", *PORT_0]) as server:
        assert server.process.stdout is not None
        with Client(server.url) as client:
            for _ in range(3):
                client.infer({"obs": np.zeros(4, np.float32)})
            with pytest.raises(RemoteError):
                client.infer({"obs": np.zeros(5, np.float32)})
        server.process.send_signal(signal.SIGTERM)
        assert re.fullmatch(r"stopped after \d+ s: 3 answers, 1 refused, p99 [\d.]+ ms\n", server.process.stdout.read())
    command = shlex.join([*POLICYSERVE, "serve", "cartpole_ppo", *PORT_0])
    with serving(["/bin/sh", "-c", f"exec {command} 2>{tmp_path}/log"]) as server:
        assert server.process.stdout is not None
        server.process.stdout.close()
        with Client(server.url) as client:
            client.infer({"obs": np.zeros(4, np.float32)})
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == 0
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_an_error_of_the_loop_is_not_told_as_one_of_uvloop(tmp_path: Path) -> None:
    (tmp_path / "uvloop.py").write_text("raise ImportError('not installed')\n")
    program = (
        "from policyserve.cli.foreground import serving\n"
        "async def fail(): raise ValueError('a bug')\n"
        "serving._run_in_loop(fail())\n"
    )
    surroundings = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=surroundings, capture_output=True, text=True, check=False)
    assert "ValueError: a bug" in done.stderr
    assert "During handling" not in done.stderr
