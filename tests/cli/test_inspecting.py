"""`policyserve inspect` as a person uses it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from policyserve.cli.layout import width_of
from policyserve.core.version import VERSION
from policyserve.policies.fakes import demo_image
from tests.cli.terminals import COLUMNS, WHERE, Where, plain, run_in, unbroken
from tests.doctor.sick import closed_port, stand_in
from tests.policies.frameworks import import_or_skip
from tests.policies.onnx.models import Value, copying, elsewhere, save
from tests.server.live import serving

KEY = "a-key-of-16-letters"
OWN = """
print("a word while it is imported")

def act(observation):
    return [0.0]

class Arm:
    def infer(self, observation):
        return [0.0]

    def reset(self):
        self.steps = 0

def broken():
    raise KeyError("joints")
"""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving(demo_image()) as live:
        yield f"ws://127.0.0.1:{live.port}"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with files to look at."""
    obs, hidden = Value("obs", [1, 12]), Value("h_in", [1, 1, 64])
    save(tmp_path / "policy.onnx", copying([obs, hidden], [Value("actions", [1, 12]), Value("h_out", [1, 1, 64])]))
    arms = [Value("left_arm", [1, 2]), Value("right_arm", [1, 3])]
    save(tmp_path / "two_arms.onnx", copying([Value("obs", [1, 2]), Value("right", [1, 3])], arms))
    (tmp_path / "empty.onnx").write_bytes(b"")
    (tmp_path / "weights.pkl").write_bytes(b"\x80\x04N.")
    (tmp_path / "inspected_arm.py").write_text(OWN)
    monkeypatch.delitem(sys.modules, "inspected_arm", raising=False)  # that of the test before
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("where", WHERE)
def test_a_preset_is_told_with_its_units(where: Where) -> None:
    said = run_in(where, ["inspect", "cartpole_ppo"])
    assert (said.code, said.err) == (0, "")
    lines = plain(said.out).splitlines()
    assert any(line.startswith("  takes   obs  float32 (4,)  cart position m") for line in lines)
    assert "  state   none: an answer depends on its observation alone" in lines
    assert where == "pipe" or max(map(width_of, lines)) <= COLUMNS
    for row in ("from", "kind", "size", "gives", "batch", "tells"):
        assert sum(line.startswith(f"  {row} ") for line in lines) == 1


def test_a_file_is_told_with_the_state_of_a_session(folder: Path) -> None:
    import_or_skip("onnxruntime")
    said = run_in("pipe", ["inspect", "policy.onnx", "--max-batch", "4"])
    assert (said.code, said.err) == (0, "")
    for line in (
        "  kind    onnx, an ONNX model, by its name",
        "  state   256 bytes of each session: states float32 (1, 1, 64)",
        "  batch   up to 4 sessions a call",
    ):
        assert line in said.out


def test_programs_get_one_object_and_nothing_else(folder: Path) -> None:
    import_or_skip("onnxruntime")
    said = run_in("pipe", ["inspect", "onnx:policy.onnx", "--json"])
    told = json.loads(said.out)
    assert (said.code, said.err) == (0, "")
    assert (told["kind"], told["files"], told["refused"]) == ("onnx", 1, None)
    assert told["size_bytes"] == (folder / "policy.onnx").stat().st_size
    assert told["state"] == {"kept": True, "told": "states float32 (1, 1, 64)", "bytes": 256, "parts": {"states": 256}}
    assert told["spec"]["observation"]["obs"]["shape"] == [12]
    assert (told["batch"]["max_batch"], told["batch"]["max_client_batch"]) == (64, 0)


def test_weights_in_a_second_file_are_counted(folder: Path) -> None:
    import_or_skip("onnxruntime")
    (folder / "weights.bin").write_bytes(bytes(4096))
    (folder / "two.onnx").write_bytes(elsewhere("weights.bin"))
    told = json.loads(run_in("pipe", ["inspect", "two.onnx", "--json"]).out)
    assert (told["files"], told["refused"]) == (2, None)


def test_what_an_object_prints_is_not_in_the_answer(folder: Path) -> None:
    said = run_in("pipe", ["inspect", "inspected_arm.py:act", "--json"])
    assert said.code == 0
    assert "a word while" in said.err
    told = json.loads(said.out)
    assert (told["kind"], told["spec"]["observation"], told["state"]["kept"]) == ("object", None, None)
    assert "an object of its own" in run_in("pipe", ["inspect", "inspected_arm.py:Arm"]).out


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("two_arms.onnx", "say which with --action"),
        ("onnx:two_arms.onnx", "say which with --action"),
        ("onnx:nowhere.onnx", "there is no such file"),
        ("empty.onnx", "the file is empty"),
        ("weights.pkl", "a pickle, which can run any code"),
        ("inspected_arm.py:broken", "broken() failed: KeyError: 'joints'"),
    ],
)
def test_what_is_refused_ends_with_1_and_the_reason(target: str, told: str, folder: Path) -> None:
    import_or_skip("onnxruntime")
    said = run_in("pipe", ["inspect", target])
    assert (said.code, said.out) == (1, "")
    assert told in said.err.splitlines()[-1]
    said = run_in("pipe", ["inspect", target, "--json"])
    assert said.code == 1
    assert told in json.loads(said.out)["refused"]
    assert "error:" not in said.err


def test_a_flag_that_mends_it_is_taken(folder: Path) -> None:
    import_or_skip("onnxruntime")
    assert run_in("pipe", ["inspect", "two_arms.onnx", "--action", "left_arm"]).code == 0


@pytest.mark.parametrize("where", WHERE)
def test_a_server_of_ours_tells_its_spec(url: str, where: Where) -> None:
    said = run_in(where, ["inspect", url])
    assert (said.code, said.err) == (0, "")
    lines = plain(said.out).splitlines()
    assert "  takes   image  uint8 image HWC, 64 x 64  any picture" in lines
    assert lines[0] == url
    assert lines[1].startswith(f"  kind    policyserve {VERSION}, which speaks openpi, ")
    assert max(map(width_of, lines)) <= COLUMNS


def test_a_server_of_others_tells_what_it_is() -> None:
    with stand_in("openpi", np.zeros(2, np.float32)) as other:
        told = json.loads(run_in("pipe", ["inspect", other, "--json"]).out)
    assert (told["kind"], told["dialects"], told["spec"], told["batch"]) == ("server", ["openpi"], None, None)


def test_a_closed_port_ends_with_1() -> None:
    said = run_in("pipe", ["inspect", f"ws://127.0.0.1:{closed_port()}"])
    assert (said.code, said.out) == (1, "")
    assert "nothing listens there: start the server" in said.err


@pytest.mark.parametrize("given", ["variable", "file", "url", "none"])
def test_a_key_is_taken_from_where_it_is_kept_and_never_shown(given: str, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"robot: {KEY}\n")
    keys.chmod(0o600)
    flags = ["--api-key-file", str(keys)] if given == "file" else []
    with serving(demo_image(), api_key_file=str(keys)) as live:
        host = f"robot:{KEY}@127.0.0.1" if given == "url" else "127.0.0.1"
        environment = {"POLICYSERVE_API_KEY": KEY if given == "variable" else ""}
        said = run_in("pipe", ["inspect", f"ws://{host}:{live.port}", "--json", *flags], **environment)
    assert said.code == (1 if given == "none" else 0), said
    assert KEY not in said.out + said.err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "expected a policy or a server's URL"),
        (["carpole_ppo"], "did you mean cartpole_ppo?"),
        (["nowhere.onnx"], "there is no such file"),
        (["localhost:8000"], "did you mean ws://localhost:8000?"),
        (["http://robot:8000"], "did you mean ws://robot:8000?"),
        (["cartpole_ppo", "--prot", "1"], "unknown flag --prot"),
        (["cartpole_ppo", "--timeout-s", "1"], "unknown flag --timeout-s"),
        (["anything:ws://robot:8000"], "expected package.module:name"),
        (["gridworld_dqn"], "--checkpoint-dir is required"),
        (["ws://robot", "--dialect", "openpy"], "did you mean 'openpi'?"),
        (["ws://robot", "--timeout-s", "0"], "--timeout-s: expected more than 0"),
        (["ws://robot", "--api-key", KEY], "set POLICYSERVE_API_KEY"),
    ],
)
@pytest.mark.parametrize("where", WHERE)
def test_a_mistake_is_told_in_one_line(where: Where, words: list[str], told: str) -> None:
    said = run_in(where, ["inspect", *words])
    assert (said.code, said.out) == (2, "")
    assert told in unbroken(said.err)
    assert KEY not in said.err


def test_the_help_names_its_exit_statuses_and_the_policies() -> None:
    said = run_in("pipe", ["inspect", "--help"])
    assert said.code == 0
    assert "with 1 for what cannot be served" in " ".join(said.out.split())
    assert "onnx:FILE" in said.out
    assert "--step" in run_in("pipe", ["inspect", "cartpole_ppo", "--help"]).out
