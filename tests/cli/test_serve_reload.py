"""`policyserve serve --reload`, as a person who writes a policy uses it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

from policyserve import Client, RemoteError
from policyserve.cli import main
from tests.cli.serving import POLICYSERVE, Serving, run, serving
from tests.server.live import DEADLINE_S

PORT_0 = ("--host", "127.0.0.1", "--port", "0")
OBSERVATION = {
    "observation/image": np.zeros((224, 224, 3), np.uint8),
    "observation/state": np.zeros(8),
    "prompt": "fold",
}

needs_processes = pytest.mark.skipif(os.name != "posix", reason="a policy's own process needs Linux or macOS")


def until(client: Client, value: float) -> None:
    """Ask until the changed policy answers; a request that crosses the end of its session says to ask again."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        try:
            if client.infer(OBSERVATION).actions[0, 0] == value:
                return
        except RemoteError as error:
            if not error.retryable or "the policy was loaded anew: connect again" not in str(error):
                raise
    raise AssertionError(f"no answer is {value}")


def until_logged(server: Serving, text: str) -> None:
    assert server.process.stderr is not None
    for line in server.process.stderr:
        if text in line:
            return
    raise AssertionError(f"it ended without: {text}")


@needs_processes
@pytest.mark.parametrize("target", ["my_policy:policy", "./my_policy.py:policy"])
def test_the_template_is_served_changed_broken_and_mended(target: str, tmp_path: Path) -> None:
    run(*POLICYSERVE, "new", "my_policy.py", cwd=tmp_path)
    file = tmp_path / "my_policy.py"
    written = file.read_text()
    command = [*POLICYSERVE, "serve", target, "--reload", *PORT_0]
    with serving(command, cwd=tmp_path) as server, Client(server.url) as client:
        until(client, 0.0)
        file.write_text(written.replace("np.zeros((HORIZON", "np.ones((HORIZON"))
        until(client, 1.0)
        file.write_text(written.replace("def infer", "def infer("))
        until_logged(server, "so the one before goes on: ")
        until(client, 1.0)
        file.write_text(written)
        until(client, 0.0)
        code, stderr = server.stop()
    assert code == 0
    assert "Traceback" not in stderr


@pytest.mark.parametrize("preset", ["cartpole_ppo", "demo_image"])
def test_a_preset_is_refused(preset: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_request:
        main(["serve", preset, "--reload", *PORT_0])
    assert exit_request.value.code == 2
    told = capsys.readouterr().err
    assert "--reload: expected a policy of your own, such as my_policy.py:policy, got " in told
    assert len(told.splitlines()) == 1


@needs_processes
def test_a_policy_of_an_installed_package_is_refused_once_that_is_known(tmp_path: Path) -> None:
    done = run(*POLICYSERVE, "serve", "numpy:sin", "--reload", *PORT_0, cwd=tmp_path)
    assert done.returncode == 1
    assert "--reload: expected code of your own to watch" in done.stderr
    assert "Traceback" not in done.stderr


@needs_processes
def test_a_file_that_is_wrong_from_the_start_ends_the_command(tmp_path: Path) -> None:
    (tmp_path / "my_policy.py").write_text("def policy(\n")
    done = run(*POLICYSERVE, "serve", "my_policy:policy", "--reload", *PORT_0, cwd=tmp_path)
    assert done.returncode == 1
    assert "SyntaxError" in done.stderr
    assert "Traceback" not in done.stderr
