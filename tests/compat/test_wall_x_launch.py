"""launch_serving, as a person uses it."""

from __future__ import annotations

import re
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

from policyserve.compat.wall_x import WallXClient, launch_serving
from tests.cli.serving import run, serving
from tests.compat.test_wall_x_client import observation
from tests.policies.frameworks import import_or_skip

LAUNCH = (sys.executable, "-m", "policyserve.compat.wall_x")
STAND_IN = ("--model-config.model-path", "stand-in", "--host", "127.0.0.1", "--port", "0")


def refusal(capsys: pytest.CaptureFixture[str], *flags: str) -> tuple[object, str]:
    """The exit code and the one line on stderr."""
    with pytest.raises(SystemExit) as ended:
        launch_serving(flags)
    said = capsys.readouterr().err
    assert said.count("\n") == 1, said
    return ended.value.code, said


def test_aloha_is_served_with_its_own_defaults_and_says_that_it_is_a_stand_in() -> None:
    with serving([*LAUNCH, "--env", "aloha", *STAND_IN, "--default-prompt", "it's fine"]) as server:
        told = "".join(server.lines)
        assert "a stand-in for a Wall-X model of aloha: its actions control nothing" in told
        assert re.search(r"state +float32 \(14,\)", told)
        client = WallXClient(server.url)
        images = {key: np.zeros((8, 8, 3), np.uint8) for key in ("face_view", "left_wrist_view", "right_wrist_view")}
        response = client.predict_sync({**images, "state": np.zeros(14)})
        assert response["action"].shape == (32, 14)
        greeting = client.metadata
        assert (greeting["env"], greeting["device"], greeting["predict_mode"]) == ("aloha", "cpu", "fast")
        assert "control nothing" in greeting["stand_in"]
        assert "policyserve" in greeting
        client.close_sync()
        code, stderr = server.stop(signal.SIGINT)
    assert code == 0
    assert "Traceback" not in stderr


def test_every_flag_of_the_model_changes_what_is_served() -> None:
    flags = {"action-dim": "3", "state-dim": "2", "pred-horizon": "5", "device": "cpu", "dtype": "float32"}
    spelled = [word for name, value in flags.items() for word in (f"--model-config.{name}", value)]
    cameras = ["--model-config.camera-key", "top", "side", "--model-config.predict_mode=diffusion"]
    with serving([*LAUNCH, *STAND_IN, *spelled, *cameras]) as server:
        client = WallXClient(server.url)
        image = np.zeros((8, 8, 3), np.uint8)
        response = client.predict_sync({"top": image, "side": image, "prompt": "", "state": np.zeros(2)})
        assert response["action"].shape == (5, 3)
        assert client.metadata["predict_mode"] == "diffusion"
        assert list(client.metadata["spec"]["observation"])[:2] == ["top", "side"]
        with pytest.raises(RuntimeError, match="top"):
            client.predict_sync(observation())
        client.close_sync()


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        ((), "expected a path of your own for --model-config.model-path, --model-config.action-tokenizer-path"),
        (("--model-config.model-path", "/m"), "for --model-config.action-tokenizer-path"),
        (("--env", "mars"), "--env: expected libero or aloha, got 'mars'"),
        (("--env",), "--env: expected libero or aloha, got nothing"),
        (
            (*STAND_IN, "--model-config.camera-key", "a", "a"),
            "--model-config.camera-key: expected different keys, got a twice",
        ),
        ((*STAND_IN, "--model-config.camera-key"), "--model-config.camera-key: expected at least one key"),
        ((*STAND_IN, "--model-config.camera-key", "state"), "got 'state'"),
        ((*STAND_IN, "--model-config.action-dim", "0"), "--model-config.action-dim: expected 1 or more, got 0"),
        (
            (*STAND_IN, "--model-config.dtype", "int8"),
            "--model-config.dtype: expected bfloat16, float16 or float32, got 'int8'",
        ),
        ((*STAND_IN, "--prot", "1"), "did you mean --port"),
        ((*STAND_IN, "--port", "70000"), "port: expected 0 … 65535, got 70000"),
    ],
)
def test_wrong_arguments_are_one_line_and_exit_code_2(
    flags: tuple[str, ...], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = refusal(capsys, *flags)
    assert code == 2
    assert reason in said


def test_a_bad_checkpoint_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    for package in ("torch", "safetensors", "tokenizers", "PIL.Image", "yaml"):
        import_or_skip(package)
    (tmp_path / "model").mkdir()
    paths = ["model-path", "action-tokenizer-path", "train-config-path"]
    flags = [word for name in paths for word in (f"--model-config.{name}", str(tmp_path / "model"))]
    missing = [*flags[:-1], str(tmp_path / "config.yml")]
    for given, reason in ((flags, "expected a training run's YAML file"), (missing, "config.yml does not exist")):
        ended = run(*LAUNCH, "--host", "127.0.0.1", "--port", "0", "--model-config.device", "cpu", *given)
        assert ended.returncode == 1
        assert reason in ended.stderr
        assert ended.stderr.count("\n") == 1, ended.stderr


def test_cuda_where_there_is_none_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    torch = import_or_skip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    paths = ["model-path", "action-tokenizer-path", "train-config-path"]
    flags = [word for name in paths for word in (f"--model-config.{name}", str(tmp_path))]
    ended = run(*LAUNCH, *flags, "--model-config.device", "cuda")
    assert ended.returncode == 2
    assert "--model-config.device: cuda is not there: torch " in ended.stderr
    assert "choose the CPU (--model-config.device cpu --model-config.dtype float32)" in ended.stderr
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize(("env", "state_dim"), [("libero", "8"), ("aloha", "14")])
def test_help_shows_the_robots_own_defaults(env: str, state_dim: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        launch_serving([f"--env={env}", "--help=model-config"])
    assert ended.value.code == 0
    told = " ".join(capsys.readouterr().out.split())
    assert f"Numbers in the robot's state (default: {state_dim})" in told
