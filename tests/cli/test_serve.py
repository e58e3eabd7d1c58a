"""`policyserve serve` and scripts/serve_policy.py, as a person uses them."""

from __future__ import annotations

import re
import shlex
import signal
import socket
import sys
from pathlib import Path

import numpy as np
import pytest

from policyserve import Client, RemoteError
from policyserve.cli import main
from policyserve.policies.vibe_rl import demo_directory
from tests.cli.serving import POLICYSERVE, ROOT, run, serving
from tests.cli.terminals import WHERE, Where, plain, run_in, unbroken

PORT_0 = ("--host", "127.0.0.1", "--port", "0")
CARTPOLE = str(demo_directory("cartpole_ppo") / "checkpoints")
PENDULUM = str(demo_directory("pendulum_sac") / "checkpoints")


def test_a_newcomer_is_told_what_is_served_and_the_client_line_works() -> None:
    with serving([*POLICYSERVE, "serve", "cartpole_ppo", *PORT_0]) as server:
        told = "".join(server.lines)
        assert "the demo checkpoint that ships with policyserve" in told
        assert "obs  float32 (4,)" in told
        assert "/healthz" in told
        (line,) = [line for line in server.lines if line.strip().startswith("client")]
        _, *command = shlex.split(line.split("client", 1)[1])
        asked = run(sys.executable, *command)
        assert re.search(r"reply.actions +int32 \(\)\n +[01]\n", asked.stdout), asked.stderr
        program = asked.stdout.partition("reply.actions")[0] + "print(reply.actions)\n"
        assert run(sys.executable, "-c", program).stdout.strip() in ("0", "1")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_server_with_0_and_without_a_traceback(number: signal.Signals) -> None:
    with serving([*POLICYSERVE, "serve", "pendulum_sac", *PORT_0]) as server:
        with Client(server.url) as client:
            assert client.infer({"obs": np.zeros(3, np.float32)}).actions.shape == (1,)
            code, stderr = server.stop(number)
        assert code == 0
        assert "Traceback" not in stderr


@pytest.mark.parametrize(
    "flags",
    [
        ("--checkpoint_dir", CARTPOLE, "--step", "409600"),
        ("--checkpoint-dir", CARTPOLE, "--step", "None"),
        (f"--checkpoint_dir={CARTPOLE}", "--config.algo.hidden_sizes", "64", "64"),
    ],
)
def test_the_founding_script_takes_both_spellings_of_its_flags(flags: tuple[str, ...]) -> None:
    command = [sys.executable, "scripts/serve_policy.py", "cartpole_ppo", *flags, *PORT_0]
    with serving(command) as server, Client(server.url, dialect="vibe_rl") as client:
        assert client.infer({"obs": np.zeros(4, np.float32)}).actions in (0, 1)


def test_a_run_is_served_as_it_was_trained_and_a_flag_goes_before_it() -> None:
    pose = {"obs": np.array([-1, 0.05, 3], np.float32)}  # the demo's torque is almost its bound of 2
    for flags, torque in (((), 2.0), (("--config.algo.action-high", "1"), 1.0)):
        command = [*POLICYSERVE, "serve", "pendulum_sac", "--checkpoint-dir", PENDULUM, *flags, *PORT_0]
        with serving(command) as server, Client(server.url) as client:
            assert client.infer(pose).actions == pytest.approx(torque, abs=0.01)


def test_an_object_of_the_users_is_served_from_the_working_directory(tmp_path: Path) -> None:
    (tmp_path / "robot.py").write_text("import numpy as np\ndef act(obs):\n    return np.asarray(obs) * 2\n")
    command = [*POLICYSERVE, "serve", "robot:act", *PORT_0]
    with serving(command, cwd=tmp_path) as server, Client(server.url, dialect="vibe_rl") as client:
        assert client.infer({"obs": np.arange(3.0)}).actions.tolist() == [0, 2, 4]


_WHERE = """
import asyncio, sys
import numpy as np
from policyserve import ActionChunk, ArraySpec, PolicySpec

class Where:
    spec = PolicySpec("where", {"x": ArraySpec((1,))}, ArraySpec((1,)), inline=True)

    def infer(self, batch):
        try:
            loop = type(asyncio.get_running_loop()).__module__
        except RuntimeError:  # warming up, in a thread
            loop = ""
        extras = {"loop": loop, "switch_s": sys.getswitchinterval()}
        return [ActionChunk(np.zeros(1, np.float32), extras=extras) for _ in batch]

    def close(self): ...

where = Where()
"""


def test_the_command_serves_on_uvloop_and_takes_the_interpreter_back_after_a_millisecond(tmp_path: Path) -> None:
    pytest.importorskip("uvloop")
    (tmp_path / "robot.py").write_text(_WHERE)
    with serving([*POLICYSERVE, "serve", "robot:where", *PORT_0], cwd=tmp_path) as server, Client(server.url) as client:
        reply = client.infer({"x": np.zeros(1, np.float32)})
    assert reply["loop"] == "uvloop"
    assert reply["switch_s"] == pytest.approx(1e-3)


def test_the_example_client_runs_against_a_flat_and_an_image_policy() -> None:
    for policy, options in (("cartpole_ppo", ()), ("demo_image", ("--image", "--obs_shape", "14"))):
        with serving([*POLICYSERVE, "serve", policy, *PORT_0]) as server:
            done = run(
                sys.executable, "examples/simple_client.py", "--url", server.url, "--n_steps", "3", *options, cwd=ROOT
            )
            assert done.returncode == 0, done.stderr
            lines = done.stdout.splitlines()
            assert lines[0] == f"Connected to {server.url}"
            assert lines[3].startswith("step   2 | action=")
            assert "server=" in lines[3]
            assert "rtt=" in lines[3]
            assert lines[-1] == "Done."


def test_wall_x_is_served_with_the_founding_flags_and_finds_out_its_clients_dialect() -> None:
    flags = ["--env", "aloha", "--model-config.model-path", "stand-in", "--model-config.pred-horizon", "5", *PORT_0]
    images = {camera: np.zeros((8, 10, 3), np.uint8) for camera in ("face_view", "left_wrist_view", "right_wrist_view")}
    observation = {**images, "prompt": "fold", "state": np.zeros(14, np.float32)}
    with serving([*POLICYSERVE, "serve", "wall-x", *flags]) as server:
        assert "control nothing" in server.lines[0]
        for dialect in ("wall_x", "openpi"):
            with Client(f"{server.url}/robot", dialect=dialect) as client:  # a path that is no dialect
                assert client.infer(observation).actions.shape == (5, 14)
                assert client.metadata["env"] == "aloha"


WRONG = {
    "no command": ([], 0, "", "usage: policyserve COMMAND"),
    "a policy of no name": (["serve", ""], 2, "expected a policy, cartpole_ppo, ", ""),
    "a checkpoint whose variable is not set": (
        ["serve", "cartpole_ppo", "--checkpoint-dir", ""],
        2,
        "--checkpoint-dir: expected a value, got nothing",
        "",
    ),
    "a model whose variable is not set": (
        ["serve", "wall-x", "--model-config.model-path="],
        2,
        "--model-config.model-path: expected a value, got nothing",
        "",
    ),
    "a checkpoint that is not there": (
        ["serve", "cartpole_ppo", "--checkpoint-dir", "nowhere", *PORT_0],
        1,
        "checkpoint directory not found: nowhere",
        "policyserve",
    ),
    "a step that is not there": (
        ["serve", "cartpole_ppo", "--checkpoint-dir", CARTPOLE, "--step", "7", *PORT_0],
        1,
        "step_7",
        "policyserve",
    ),
    "norm stats that are not there": (
        ["serve", "cartpole_ppo", "--norm-stats-path", "nowhere.json", *PORT_0],
        1,
        "nowhere.json",
        "policyserve",
    ),
    "another preset's run": (
        ["serve", "cartpole_ppo", "--checkpoint-dir", PENDULUM, *PORT_0],
        2,
        "got SAC on Pendulum-v1: serve it with pendulum_sac",
        "",
    ),
    "other hidden sizes": (
        ["serve", "cartpole_ppo", "--config.algo.hidden-sizes", "32", *PORT_0],
        1,
        "expected float32 (32, 4), found float32 (64, 4)",
        "policyserve",
    ),
    "a module that is not there": (
        ["serve", "nowhere:policy", *PORT_0],
        1,
        "no module 'nowhere'",
        "policyserve",
    ),
    "a wait beyond the deadline": (
        ["serve", "cartpole_ppo", "--max-wait-ms", "900", "--request-timeout-s", "0.5"],
        2,
        "--max-wait-ms: expected 0 … 500, the request's time-out, got 900.0",
        "",
    ),
    "polling for ever": (
        ["serve", "cartpole_ppo", "--busy-poll-us", "-1"],
        2,
        "--busy-poll-us: expected 0 … 10000, got -1.0",
        "",
    ),
    "a depth that nothing fits in": (
        ["serve", "cartpole_ppo", "--max-depth", "2"],
        2,
        "--max-depth: expected 3 … 64, got 2",
        "",
    ),
    "images without pixels": (
        ["serve", "wall-x", "--max-image-mpixels", "0"],
        2,
        "--max-image-mpixels: expected more than 0, got 0.0",
        "",
    ),
    "more replicas than devices": (
        ["serve", "cartpole_ppo", "--isolate", "process", "--replicas", "2", "--devices", "cuda:0"],
        2,
        "--devices: expected as many as replicas (2)",
        "",
    ),
    "a socket's path that is too long": (
        ["serve", "cartpole_ppo", "--uds", "/tmp/" + "a" * 120],
        2,
        "--uds: expected a path of at most 107 bytes, got '/tmp/aaa",
        "",
    ),
    "a name that is not there": (["serve", "json:policy", *PORT_0], 1, "json:policy does not exist", "policyserve"),
}


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("mistake", WRONG)
def test_a_mistake_is_one_line_and_no_traceback(mistake: str, where: Where) -> None:
    argv, code, told, printed = WRONG[mistake]
    said = run_in(where, argv)
    assert said.code == code
    lines = unbroken(plain(said.err)).splitlines()
    complaint = [line for line in lines if not line[:2].isdigit()]  # a log's begin with a number
    assert [line[:7] for line in complaint] == (["error: "] if code else []), said.err
    assert told in "".join(complaint)
    assert said.out.startswith(printed) or where == "terminal"  # which shows what is loaded, and then no more


def test_a_port_in_use_is_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SystemExit) as exit_request:
            main(["serve", "cartpole_ppo", "--host", "127.0.0.1", "--port", str(port)])
    assert exit_request.value.code == 1
    assert f"port {port} on 127.0.0.1 is in use" in capfd.readouterr().err


@pytest.mark.parametrize("isolate", ["thread", "process"])
def test_a_clients_text_in_a_policys_error_forges_no_line_of_the_log(isolate: str, tmp_path: Path) -> None:
    """As many policies say what they do not know; one prints it, logs it and raises it."""
    (tmp_path / "my_policy.py").write_text(
        "import logging\n\n\n"
        "class Odd:\n"
        "    def __del__(self):\n"
        "        raise KeyError('odd')\n\n\n"
        "def policy(observation):\n"
        "    Odd()\n"
        "    logging.warning('got %s', observation['prompt'])\n"
        "    raise ValueError(f\"unknown task {observation['prompt']}\")\n"
    )
    forged = "2001-01-01 00:00:00,000 INFO    policyserve.server.server: session 1 opened key=robot-7"
    command = [*POLICYSERVE, "serve", "my_policy:policy", "--host", "127.0.0.1", "--port", "0", "--isolate", isolate]
    with serving(command, cwd=tmp_path) as server:
        for prompt in (f"x\n{forged}\x1b[2J\x9b31m\u202e", "A" * 100_000):
            with (
                Client(server.url, dialect="openpi") as client,
                pytest.raises(RemoteError, match="policy_failed") as told,
            ):
                client.infer({"prompt": prompt})
            assert str(told.value).isprintable()
            assert len(str(told.value)) <= 3_100
        code, log = server.stop()
    assert code == 0
    assert "ValueError: unknown task x\\n2001-01-01" in log
    assert "ERROR   policyserve.core.log: KeyError: 'odd', in <function Odd.__del__" in log
    assert [line for line in log.split("\n") if not line.isprintable() or line.startswith("2001-01-01")] == []
    assert len(log) < 40_000
