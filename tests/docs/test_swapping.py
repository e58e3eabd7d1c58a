"""docs/swapping.md: its commands run, and a training run is followed while a client stays connected."""

from __future__ import annotations

import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserve import Client
from policyserve.cli.arguments.flags import flags_of
from policyserve.cli.swap import SwapFlags
from policyserve.policies.vibe_rl import demo_directory
from tests.cli.serving import POLICYSERVE, ROOT, Serving, run, serving
from tests.policies.frameworks import import_or_skip

PAGE = (ROOT / "docs" / "swapping.md").read_text()
COMMANDS = [line for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
PATIENCE_S = 120.0  # a training program compiles first
_LAST_STEP, _EPISODES = 24_576, 10


def commands(start: str) -> list[str]:
    return [line for line in COMMANDS if line.startswith(start)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the commands are typed: the keys that the page makes, and a run."""
    made = tmp_path_factory.mktemp("lab")
    import_or_skip_openssl()
    for line in (*commands("echo "), *commands("chmod ")):
        subprocess.run(line, shell=True, cwd=made, check=True)
    shutil.copytree(demo_directory("cartpole_ppo"), made / "runs" / "CartPole-v1")
    return made


def import_or_skip_openssl() -> None:
    if shutil.which("openssl") is None:
        pytest.skip("no openssl command here")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Serving]:
    (command,) = commands("policyserve serve cartpole_ppo")
    with serving([*POLICYSERVE, *shlex.split(command)[1:], "--port", "0", "--host", "127.0.0.1"], folder) as started:
        yield started


def test_its_commands_exchange_a_policy_and_go_back(server: Serving, folder: Path) -> None:
    told = []
    for command in commands("policyserve swap"):
        words = shlex.split(command.replace("ws://localhost:8000", server.url))
        done = run(*POLICYSERVE, *words[1:], cwd=folder)
        assert (done.returncode, done.stderr) == (0, "")
        told.append(done.stdout)
    assert told == ["PPO on CartPole-v1 answers, version 2\n", "cartpole_ppo answers, version 3\n"]


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl here")
def test_its_requests_by_http_are_answered(server: Serving, folder: Path) -> None:
    key = re.findall(r"admin: (\w+)", (folder / "keys").read_text())[0]
    told = []
    for command in commands("curl"):
        here = command.replace("http://localhost:8000", server.url.replace("ws://", "http://")).replace("$KEY", key)
        told.append(run(*shlex.split(here), "--silent").stdout)
    assert '"number":' in told[0]
    assert '"title":' in told[1]


def test_an_evaluation_counts_the_answers_of_each_version(
    server: Serving, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import_or_skip("gymnasium")
    monkeypatch.setenv("POLICYSERVE_API_KEY", re.findall(r"robot-7: (\w+)", (folder / "keys").read_text())[0])
    (command,) = commands("policyserve eval")
    words = shlex.split(command.replace("ws://localhost:8000", server.url))
    done = run(*POLICYSERVE, *words[1:], "--episodes", "1")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"^versions     \d+: 500 answers$", done.stdout, re.MULTILINE)


def test_the_program_prints_what_the_second_answers() -> None:
    (program,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    done = run(sys.executable, "-c", program)
    assert (done.returncode, done.stdout, done.stderr) == (0, "2 [1. 1.]\n", "")


def test_the_flags_that_it_tells_are_the_commands() -> None:
    names = {name for flag in flags_of(SwapFlags, None) for name in flag.names}
    told = set(re.findall(r"^\| `(--[\w-]+)", PAGE, re.MULTILINE))
    assert told
    assert told <= names


def test_a_thousand_swaps_are_measured_by_a_program_that_runs() -> None:
    (program,) = re.findall(r"`python (benchmarks/swaps\.py) --swaps 1000 --clients 8`", PAGE)
    done = run(sys.executable, str(ROOT / program), "--swaps", "40", "--clients", "3")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "lost 0\ncrossed or out of order 0\n" in done.stdout


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="a program can be held up on Linux and macOS")
def test_learning_is_seen_over_the_wire_while_a_client_stays(tmp_path: Path) -> None:
    for module in ("jax", "matplotlib", "tqdm", "gymnasium"):
        import_or_skip(module)
    train, serve = [shlex.split(line) for line in (*commands("python scripts"), *commands("policyserve serve vibe_rl"))]
    short = ("--total-steps", str(_LAST_STEP))  # some checkpoints: CartPole is learned by then
    training = subprocess.Popen([sys.executable, str(ROOT / train[1]), *train[2:], *short], cwd=tmp_path)
    try:
        until(lambda: list(tmp_path.glob("runs/learning/checkpoints/step_*")))
        training.send_signal(signal.SIGSTOP)  # until the first one has been played: training takes a second from here
        here = ("--port", "0", "--host", "127.0.0.1")
        with serving([*POLICYSERVE, *serve[1:], *here], tmp_path) as server, Client(server.url) as client:
            first_step, first = step_told(server), played(client)
            training.send_signal(signal.SIGCONT)
            assert training.wait(PATIENCE_S) == 0
            until(lambda: step_told(server) == _LAST_STEP)
            last = played(client)
    finally:
        training.kill()
        training.wait()
    assert first_step < _LAST_STEP
    assert last > first, (first_step, first, last)


def until(is_so: Any) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def step_told(server: Serving) -> int:
    """The step of the policy that answers, as a new greeting tells it."""
    with Client(server.url, dialect="openpi") as client:
        client.connect()
        return int(client.metadata["checkpoint_step"])


def played(client: Client) -> float:
    """The mean return of some episodes of CartPole, by one client that stays connected."""
    import gymnasium

    environment, total = gymnasium.make("CartPole-v1"), 0.0
    for seed in range(_EPISODES):
        observation, over = environment.reset(seed=seed)[0], False
        while not over:
            action = int(np.ravel(client.infer({"obs": np.asarray(observation, np.float32)}).actions)[0])
            observation, reward, ended, cut, _ = environment.step(action)
            total, over = total + float(reward), ended or cut
    return total / _EPISODES
