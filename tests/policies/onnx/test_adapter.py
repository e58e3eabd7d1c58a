"""ONNX models on the command line, and what is not imported for it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import policyserve
from policyserve import Client
from policyserve.core.errors import ConfigError
from policyserve.policies import registry
from policyserve.policies.onnx.adapter import OnnxAdapter
from policyserve.policies.onnx.flags import OnnxFlags
from tests.cli.serving import POLICYSERVE, run, serving
from tests.policies.frameworks import import_or_skip
from tests.policies.onnx.golden import REFUSED, refused
from tests.policies.onnx.models import choosing, linear, save, summing

PORT_0 = ("--host", "127.0.0.1", "--port", "0")
BALANCING = np.array([[0, 0], [0, 0.5], [0, 2], [0, 1]])  # right where the pole leans or falls to the right


def test_a_file_is_found_by_its_scheme_and_by_its_name(tmp_path: Path) -> None:
    path = save(tmp_path / "policy.onnx", b"\x08")
    assert isinstance(registry.find(f"onnx:{path}"), OnnxAdapter)
    source = registry.find(path).source(OnnxFlags())
    assert source.title == "the ONNX model policy.onnx"
    assert source.origin == f"file {path} (an ONNX model, by its name)"
    assert registry.listing()["onnx:FILE"] == OnnxAdapter("onnx").help
    with pytest.raises(ConfigError, match="expected onnx:FILE, got 'onnx'"):
        registry.find("onnx")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"action": ""}, "--action: expected a value, got nothing"),
        ({"state": " "}, "--state: expected a value, got nothing"),
        ({"image": "x"}, "image: expected KEY=uint8:HWC/255, by commas, got 'x'"),
        ({"extras": "some"}, "extras: expected none or all, got 'some'"),
        ({"device": "gpu"}, "device: expected auto, cpu, cuda or cuda:N, got 'gpu'"),
    ],
)
def test_a_flag_that_can_never_be_is_refused(flags: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(said)}"):
        OnnxFlags(**flags)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("isolate", ["thread", "process"])
def test_a_bare_path_is_served_and_remembers_each_session(tmp_path: Path, isolate: str) -> None:
    import_or_skip("onnxruntime")
    save(tmp_path / "policy.onnx", summing(3))
    command = [*POLICYSERVE, "serve", "policy.onnx", "--isolate", isolate, *PORT_0]
    with serving(command, cwd=tmp_path) as server, Client(server.url) as first, Client(server.url) as second:
        told = "".join(server.lines)
        assert server.lines[0] == f"policyserve {policyserve.__version__} · the ONNX model policy.onnx\n"
        assert "policy.onnx (an ONNX model, by its name)" in told
        assert "obs  float32 (3,)" in told
        for step in (1, 2):
            assert first.infer({"obs": [1, 1, 1]}).actions.tolist() == [step] * 3
            assert second.infer({"obs": [5, 5, 5]}).actions.tolist() == [5 * step] * 3


def test_the_founding_client_sends_an_array_and_no_map(tmp_path: Path) -> None:
    import_or_skip("onnxruntime")
    path = save(tmp_path / "policy.onnx", linear(np.eye(3)))
    with policyserve.start(f"onnx:{path}") as server, Client(f"{server.url}/vibe_rl", dialect="vibe_rl") as client:
        assert client.infer({"obs": np.arange(3)}).actions.tolist() == [0, 1, 2]


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_to_refuse_ends_the_command_before_a_port_is_opened(name: str) -> None:
    done = run(*POLICYSERVE, "serve", f"onnx:{refused(name)}", *PORT_0)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {refused(name)}: {REFUSED[name]}")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("onnx:nowhere.onnx",), 1, "nowhere.onnx: there is no such file"),
        (("nowhere.onnx",), 2, "nowhere.onnx: there is no such file"),
        (("policy.onnx", "--action", "left"), 1, "policy.onnx: --action: expected an output of the model, actions"),
        (("policy.onnx", "--rename", "camera"), 2, "--rename: expected client=policy, by commas, got 'camera'"),
        (("policy.onnx", "--rename", "x=camera"), 1, "policy.onnx: --rename: expected one of the policy's inputs"),
        (("policy.onnx", "--horizon", "0"), 2, "--horizon: expected 1 or more actions, or all, got '0'"),
    ],
)
@pytest.mark.parametrize("command", [("serve", *PORT_0), ("eval", "--env", "CartPole-v1")])
def test_a_wrong_command_ends_in_one_line(
    command: tuple[str, ...], words: tuple[str, ...], code: int, said: str, tmp_path: Path
) -> None:
    import_or_skip("onnxruntime")
    save(tmp_path / "policy.onnx", linear(np.eye(4)))
    done = run(*POLICYSERVE, command[0], *words, *command[1:], cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (code, 1)
    assert done.stderr.startswith(f"error: {said}")


def test_eval_and_bench_take_a_path(tmp_path: Path) -> None:
    import_or_skip("onnxruntime")
    import_or_skip("gymnasium")
    save(tmp_path / "balance.onnx", choosing(BALANCING))
    done = run(*POLICYSERVE, "eval", "balance.onnx", "--env", "CartPole-v1", "--episodes", "3", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^taken for +an ONNX model, by its name$", done.stdout, re.MULTILINE), done.stdout
    found = re.search(r"return\s+.*?([\d.]+)", done.stdout)
    assert found
    assert float(found.group(1)) > 100
    command = ("bench", "balance.onnx", "--duration-s", "0.2", "--warmup-s", "0")
    done = run(*POLICYSERVE, *command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "balance.onnx" in done.stdout


@pytest.mark.parametrize("words", [["serve", "onnx:policy.onnx", "--help"], ["serve", "--help"], ["list"]])
def test_help_and_lists_import_no_onnxruntime(words: list[str]) -> None:
    program = (
        "import sys\n"
        "import policyserve\n"
        "from policyserve.cli import main\n"
        "try:\n"
        f"    main({words!r})\n"
        "finally:\n"
        "    print('onnxruntime' in sys.modules, file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "False\n")
    assert "onnx" in done.stdout
