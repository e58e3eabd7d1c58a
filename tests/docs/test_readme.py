"""The README's programs and commands run as they stand there."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest

from policyserve import Client
from tests.cli.serving import POLICYSERVE, ROOT, run, serving
from tests.cli.terminals import knows, run_in

README = (ROOT / "README.md").read_text()
PORT_0 = ("--host", "127.0.0.1", "--port", "0")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands() -> list[list[str]]:
    """Every `policyserve …` command of the README, without its comment."""
    lines = [part.strip() for block in blocks("bash") for line in block.splitlines() for part in line.split("&&")]
    return [shlex.split(line, comments=True) for line in lines if line.startswith("policyserve ")]


def test_the_first_command_serves_and_the_client_below_it_gets_an_action() -> None:
    (command,) = [command for command in commands() if command[1:] == ["serve", "cartpole_ppo"]]
    (client,) = [block for block in blocks("python") if "policyserve.Client" in block]
    assert len([line for line in client.splitlines() if line]) <= 6
    with serving([sys.executable, "-m", "policyserve.cli", *command[1:], *PORT_0]) as server:
        done = run(sys.executable, "-c", client.replace("ws://localhost:8000", server.url))
    assert re.match(r"[01] \{'infer_ms': [\d.]+, .*\}", done.stdout), done.stderr


def test_the_server_in_a_thread_answers_its_client(capsys: pytest.CaptureFixture[str]) -> None:
    (program,) = [block for block in blocks("python") if "policyserve.start" in block]
    exec(program, {})
    assert capsys.readouterr().out in ("0\n", "1\n")


def test_a_robot_moves_in_real_time() -> None:
    (program,) = [block for block in blocks("python") if "RealtimeClient" in block]
    with serving([*POLICYSERVE, "serve", "demo_flow", *PORT_0]) as server:
        done = run(sys.executable, "-c", program.replace("ws://localhost:8000", server.url))
    assert re.fullmatch(r"\[-?\d\.[\de-]+ +-?\d\.[\de-]+\]\n", done.stdout), done.stderr


def save_policy(kind: str, folder: Path) -> None:
    """Save the program around a policy of this kind as swing.py, its policy by name and its server left out."""
    (program,) = [block for block in blocks("python") if kind in block]
    module = program.replace(f"PolicyServer({kind}", f"policy = ({kind}")
    (folder / "swing.py").write_text(module.split(", host=")[0] + ")\n")


def test_the_policy_of_ones_own_is_served(tmp_path: Path) -> None:
    save_policy("FunctionPolicy", tmp_path)
    with serving([*POLICYSERVE, "serve", "swing:policy", *PORT_0], cwd=tmp_path) as server:
        told = "".join(server.lines)
    assert "obs  float32 (3,)" in told
    assert "torque, N m" in told


def test_the_policy_that_batches_answers_a_robot(tmp_path: Path) -> None:
    save_policy("StackedPolicy", tmp_path)
    with (
        serving([*POLICYSERVE, "serve", "swing:policy", *PORT_0], cwd=tmp_path) as server,
        Client(server.url) as client,
    ):
        assert client.infer({"obs": np.array([0, 0, 1.5])}).actions.tolist() == [-1.5]


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_every_command_is_one_that_the_program_knows(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("serve.toml").write_text('policy = "cartpole_ppo"\n')
    assert command[0] == "policyserve"
    if command[1] == "swap":  # what it does not know is the policy's, which the server reads
        assert "--when: expected now or next-session" in run_in("pipe", [*command[1:], "--when", "never"]).err
    elif any("=" in word for word in command[2:]):  # several policies, whose own flags stand in a file
        assert "unknown flag --no-such-flag" in run_in("pipe", [*command[1:], "--no-such-flag"]).err
    else:
        assert "--help" in command or knows(command[1:])


def test_ci_calls_the_readmes_test_command_word_for_word() -> None:
    shown = re.search(r"<!-- test command -->\n```bash\n(.*?)\n```", README)
    assert shown
    assert shown.group(1) == "pip install -c constraints.txt '.[dev]' && make debian check"
    script = (ROOT / ".ci" / "run").read_text()
    assert "README.md" in script
    assert "make " not in script
