"""Torch programs on the command line, and what is not imported for it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import policyserve
from policyserve import Client, ConfigError
from policyserve.policies import registry
from policyserve.policies.torch_files.adapter import TorchAdapter
from policyserve.policies.torch_files.flags import TorchFlags
from tests.cli.serving import POLICYSERVE, run, serving
from tests.policies.frameworks import import_or_skip
from tests.policies.torch_files.cases import LSTM, RAN, REFUSED, TOLERANCE, file_of, golden, refused

PORT_0 = ("--host", "127.0.0.1", "--port", "0")


def test_a_file_is_found_by_its_scheme_and_by_what_is_in_it() -> None:
    path = str(file_of(LSTM))
    assert isinstance(registry.find(f"torch:{path}"), TorchAdapter)
    source = registry.find(path).source(TorchFlags())
    assert source.title == "the torch program policy.pt"
    assert source.origin == f"file {path} (a TorchScript program, by the names in it)"
    assert registry.listing()["torch:FILE"] == TorchAdapter("torch").help
    with pytest.raises(ConfigError, match="expected torch:FILE, got 'torch'"):
        registry.find("torch")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"obs": ""}, "obs: expected sizes as 45 or image=3x36x48,state=5"),
        ({"image": "x"}, "image: expected KEY=uint8:HWC/255, by commas, got 'x'"),
        ({"device": "gpu"}, "device: expected auto, cpu, cuda or cuda:N, got 'gpu'"),
    ],
)
def test_a_flag_that_can_never_be_is_refused(flags: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(said)}"):
        TorchFlags(**flags)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("isolate", ["thread", "process"])
def test_a_bare_path_is_served_and_remembers_each_session(tmp_path: Path, isolate: str) -> None:
    import_or_skip("torch")
    shutil.copy(file_of(LSTM), tmp_path / "policy.pt")
    observed, wanted = golden(LSTM)["episode/obs"], golden(LSTM)["episode/actions"]
    command = [*POLICYSERVE, "serve", "policy.pt", "--obs", "10", "--isolate", isolate, *PORT_0]
    with serving(command, cwd=tmp_path) as server, Client(server.url) as first, Client(server.url) as second:
        told = "".join(server.lines)
        assert server.lines[0] == f"policyserve {policyserve.__version__} · the torch program policy.pt\n"
        assert "policy.pt (a TorchScript program, by the names in it)" in told
        for step in range(3):
            for session, client in enumerate((first, second)):
                found = client.infer({"obs": observed[session, step]}).actions
                np.testing.assert_allclose(found, wanted[session, step], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_to_refuse_ends_the_command_before_a_port_is_opened(name: str, tmp_path: Path) -> None:
    shutil.copy(refused(name), tmp_path / name)
    done = run(*POLICYSERVE, "serve", f"torch:{name}", "--obs", "45", *PORT_0, cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n"), done.stdout) == (1, 1, "")
    assert done.stderr.startswith(f"error: {name}: {REFUSED[name]}"[:100])
    assert not (tmp_path / RAN).exists()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("torch:nowhere.pt",), 1, "nowhere.pt: there is no such file"),
        (("policy.pt",), 1, "policy.pt: forward(x): TorchScript stores no sizes; add --obs 10, which its first layer"),
        (("policy.pt", "--obs", "y=10"), 1, "policy.pt: forward(x): --obs: expected a size for each of x, got y"),
        (("policy.pt", "--obs", "ten"), 2, "--obs: expected sizes as 45 or image=3x36x48,state=5"),
    ],
)
@pytest.mark.parametrize("command", [("serve", *PORT_0), ("eval", "--env", "CartPole-v1")])
def test_a_wrong_command_ends_in_one_line(
    command: tuple[str, ...], words: tuple[str, ...], code: int, said: str, tmp_path: Path
) -> None:
    shutil.copy(file_of(LSTM), tmp_path / "policy.pt")
    done = run(*POLICYSERVE, command[0], *words, *command[1:], cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (code, 1)
    assert done.stderr.startswith(f"error: {said}")


@pytest.mark.parametrize("words", [["serve", "torch:policy.pt", "--help"], ["serve", "--help"], ["list"]])
def test_help_and_lists_import_no_torch(words: list[str]) -> None:
    program = (
        "import sys\n"
        "import policyserve\n"
        "from policyserve.cli import main\n"
        "try:\n"
        f"    main({words!r})\n"
        "finally:\n"
        "    print('torch' in sys.modules, file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "False\n")
    assert "torch" in done.stdout
