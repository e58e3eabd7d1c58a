"""A policy without a spec: what its terminal shows after the first answer, and what is written to a file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserve import Client
from policyserve.cli import main
from policyserve.cli.foreground.seen_spec import module_of
from policyserve.core.spec_from_values import seen_observation, seen_policy
from tests.cli.serving import POLICYSERVE, Serving, run, serving

PORT_0 = ("--host", "127.0.0.1", "--port", "0")
VLA = """
import numpy as np


class Policy:
    def infer(self, obs):
        obs["observation/image"][0, 0, 0] + obs["observation/state"][7]
        return {"actions": np.zeros((50, 32), np.float32) + len(obs["prompt"])}
"""
OBSERVATION: dict[str, Any] = {
    "observation/image": np.zeros((224, 224, 3), np.uint8),
    "observation/state": np.zeros(8),
    "prompt": "fold the towel",
}


def serve(tmp_path: Path, *flags: str, source: str = VLA, target: str = "my_vla:Policy") -> Any:
    (tmp_path / "my_vla.py").write_text(source)
    return serving([*POLICYSERVE, "serve", target, *PORT_0, *flags], cwd=tmp_path)


def rest_of_output(server: Serving) -> str:
    """What it printed after being ready, up to its end."""
    assert server.process.stdout is not None
    server.process.terminate()
    return server.process.stdout.read()


def test_no_client_line_is_printed_that_cannot_work(tmp_path: Path) -> None:
    with serve(tmp_path) as server:
        told = "".join(server.lines)
        assert "any observation (the policy declares no spec)" in told
        assert "python -c" not in told


@pytest.mark.parametrize("isolate", ["thread", "process"])
def test_the_first_answer_shows_a_spec_that_works_when_it_is_pasted(isolate: str, tmp_path: Path) -> None:
    with serve(tmp_path, "--isolate", isolate) as server:
        with Client(server.url, dialect="openpi") as client:
            assert "pred_horizon" not in client.metadata
            client.infer(OBSERVATION)
            client.infer({**OBSERVATION, "other": 1})
        with Client(server.url, dialect="openpi") as client:
            client.connect()
            assert (client.metadata["pred_horizon"], client.metadata["action_dim"]) == (50, 32)
        shown = rest_of_output(server)
    assert shown.startswith(
        "seen: observation/image uint8 (224, 224, 3), observation/state float64 (8,),\n"
        "      prompt text -> actions float32 (50, 32)\n"
        "with it: mistakes are explained, "
    )
    assert shown.count("seen:") == 1
    source = shown.partition("\n\n")[2].partition("\n# Then serve")[0]
    pasted = f"{VLA}\n{source}\npolicy = as_policy(Policy(), spec)\n"
    with serve(tmp_path, "--isolate", isolate, source=pasted, target="my_vla:policy") as server:
        assert any("observation/image  " in line and "image HWC, 224 x 224" in line for line in server.lines)
        with Client(server.url, dialect="openpi") as client:
            assert client.infer(OBSERVATION).actions[0, 0] == len("fold the towel")
        assert "seen" not in rest_of_output(server)


def test_the_spec_is_written_to_a_file_that_can_be_imported(tmp_path: Path) -> None:
    with serve(tmp_path, "--write-spec", "vla_spec.py") as server:
        assert not (tmp_path / "vla_spec.py").exists()
        with Client(server.url, dialect="openpi") as client:
            client.infer(OBSERVATION)
        assert "its spec is written to vla_spec.py" in rest_of_output(server)
    code = "import vla_spec; print(vla_spec.spec.horizon, *vla_spec.spec.leaves)"
    done = run(sys.executable, "-c", code, cwd=tmp_path)
    assert done.stdout.split() == ["50", "observation/image", "observation/state", "prompt"], done.stderr


STRANGE: tuple[dict[str, Any], ...] = (
    {"nothing": None, "bytes": b"\0\1", "empty": {}, "none": [], "mixed": [1, "two", None]},
    {"deep": {"er": {"still": {"x": np.float16(1), "list": [[1], [2, 3]]}}}},
    {str(number): number for number in range(500)},
    {"a/b": 1, "a": {"b": 2}},
    {'quote"""': "\\", "line\nend": 2**63, "\u202e": True},
    {},
)


@pytest.mark.parametrize("observation", STRANGE)
def test_strange_observations_are_answered_as_ever(observation: dict[str, Any], tmp_path: Path) -> None:
    source = "import numpy as np\ndef act(obs):\n    return np.ones(2)\n"
    with serve(tmp_path, "--write-spec", "seen_spec.py", source=source, target="my_vla:act") as server:
        with Client(server.url, dialect="openpi") as client:
            for _ in range(3):
                assert client.infer(observation).actions.tolist() == [1, 1]
        code, stderr = server.stop()
    assert code == 0
    assert "ERROR" not in stderr
    if (tmp_path / "seen_spec.py").exists():
        assert run(sys.executable, "-c", "import seen_spec", cwd=tmp_path).returncode == 0


def test_a_file_that_is_there_is_refused_before_anything_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.py").write_text("mine")
    with pytest.raises(SystemExit) as exit_request:
        main(["serve", "cartpole_ppo", "--write-spec", str(tmp_path / "mine.py")])
    assert exit_request.value.code == 2
    told = capsys.readouterr()
    assert "--write-spec: " in told.err
    assert "mine.py is there already and stays as it is" in told.err
    assert told.out == ""


def test_a_file_that_came_meanwhile_stays_and_the_server_goes_on(tmp_path: Path) -> None:
    with serve(tmp_path, "--write-spec", "vla_spec.py") as server:
        (tmp_path / "vla_spec.py").write_text("mine")
        with Client(server.url, dialect="openpi") as client:
            client.infer(OBSERVATION)
            client.infer(OBSERVATION)
        _, stderr = server.stop()
    assert "--write-spec: vla_spec.py is there already" in stderr
    assert (tmp_path / "vla_spec.py").read_text() == "mine"


def test_of_a_policy_with_a_spec_nothing_is_written_and_that_is_said(tmp_path: Path) -> None:
    command = [*POLICYSERVE, "serve", "cartpole_ppo", *PORT_0, "--write-spec", "spec.py"]
    with serving(command, cwd=tmp_path) as server:
        with Client(server.url) as client:
            client.infer({"obs": np.zeros(4, np.float32)})
        _, stderr = server.stop()
    assert "--write-spec: the policy declares its spec itself, so spec.py is not written" in stderr
    assert not (tmp_path / "spec.py").exists()


def test_a_key_that_would_end_a_text_ends_no_comment(tmp_path: Path) -> None:
    seen = seen_policy('"""\n', seen_observation({'"""': 1, "\\": 2, "\n": 3}), np.zeros(1))
    (tmp_path / "spec_file.py").write_text(module_of(seen))
    subprocess.run([sys.executable, "spec_file.py"], cwd=tmp_path, check=True)
