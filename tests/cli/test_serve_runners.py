"""`policyserve serve` with the policy in processes of its own, and with several of them."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest

from policyserve import Client
from policyserve.cli import main
from tests.cli.serving import POLICYSERVE, run, serving

PORT_0 = ("--host", "127.0.0.1", "--port", "0")
OBS = {"obs": np.zeros(4, np.float32)}


@pytest.mark.parametrize(
    "flags",
    [
        ("--isolate", "process"),
        ("--replicas", "2"),
        ("--isolate", "process", "--replicas", "2", "--devices", "cpu,cpu"),
    ],
    ids=" ".join,
)
def test_a_preset_is_served_by_any_kind_and_number_of_runners(flags: tuple[str, ...]) -> None:
    with serving([*POLICYSERVE, "serve", "cartpole_ppo", *flags, *PORT_0]) as server:
        with Client(server.url) as one, Client(server.url, dialect="vibe_rl") as other:
            for client in (one, other):
                assert client.infer(OBS).actions in (0, 1)
        code, stderr = server.stop()
    assert code == 0
    assert "Traceback" not in stderr


@pytest.mark.parametrize("policy", [("demo_image",), ("wall-x", "--model-config.model-path", "stand-in")], ids=str)
def test_demos_and_wall_x_are_served_by_a_process_too(policy: tuple[str, ...]) -> None:
    with serving([*POLICYSERVE, "serve", *policy, "--isolate", "process", *PORT_0]) as server:
        assert server.stop(signal.SIGTERM)[0] == 0


def test_a_module_of_the_users_is_found_by_the_process(tmp_path: Path) -> None:
    (tmp_path / "robot.py").write_text("import os\ndef act(obs):\n    return [os.getpid(), obs[0]]\n")
    command = [*POLICYSERVE, "serve", "robot:act", "--isolate", "process", *PORT_0]
    with serving(command, cwd=tmp_path) as server, Client(server.url, dialect="vibe_rl") as client:
        process, number = client.infer({"obs": np.array([5.0])}).actions
        assert number == 5
        assert process != server.process.pid
        assert os.getpgid(int(process)) != os.getpgid(server.process.pid)  # Ctrl-C in a terminal is not for it


def test_a_module_that_cannot_be_imported_is_the_same_line_as_in_a_thread(tmp_path: Path) -> None:
    said: list[str] = []
    for isolate in ("thread", "process"):
        done = run(*POLICYSERVE, "serve", "nowhere:act", "--isolate", isolate, *PORT_0, cwd=tmp_path)
        assert done.returncode == 1
        said.append(done.stderr)
    assert said == ["error: there is no module 'nowhere' here or on the Python path\n"] * 2


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--isolate", "process", "--replicas", "2", "--devices", "cuda:0"), "as many as replicas (2)"),
        (("--isolate", "process", "--devices", "gpu1"), "devices: expected cpu or cuda:N"),
        (("--devices", "cuda:0"), "devices: expected none, or isolate=process too"),
        (("--replicas", "0"), "replicas: expected 1 or more, got 0"),
    ],
)
def test_what_does_not_go_together_is_one_line(
    flags: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_request:
        main(["serve", "cartpole_ppo", *flags, *PORT_0])
    assert exit_request.value.code == 2
    err = capsys.readouterr().err
    assert said in err
    assert len(err.splitlines()) == 1
