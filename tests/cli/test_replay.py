"""`policyserve replay` as a person uses it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from policyserve.cli.layout import width_of
from tests.cli.serving import POLICYSERVE, ROOT
from tests.cli.terminals import COLUMNS, WHERE, Where, plain, run_in, unbroken
from tests.doctor.sick import closed_port
from tests.policies.frameworks import import_or_skip
from tests.replay.recorded import record, toy, walk
from tests.server.live import serving

KEY = "a-key-of-16-letters"
SAME, OTHER = "tests.replay.served:same", "tests.replay.served:other"
GREEN, RED = "\x1b[32m", "\x1b[31m"


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    return record(tmp_path / "one.mcap", toy(), [walk(6), walk(4, 1)])


@pytest.fixture(autouse=True)
def in_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "served.py").write_text("no recording")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("where", WHERE)
def test_the_same_policy_ends_with_0(recording: Path, where: Where) -> None:
    said = run_in(where, ["replay", "one.mcap", SAME, "--tolerance", "0"])
    assert (said.code, said.err) == (0, ""), said
    lines = plain(said.out).splitlines()
    assert "the same: no number of 10 answers differs" in lines[-1]
    assert max(map(width_of, lines)) <= COLUMNS
    assert (GREEN in said.out) == (where == "terminal")


@pytest.mark.parametrize("where", WHERE)
def test_another_one_ends_with_1_and_says_where_they_part(recording: Path, where: Where) -> None:
    said = run_in(where, ["replay", "one.mcap", OTHER])
    assert (said.code, said.err) == (1, "")
    lines = plain(said.out).splitlines()
    assert lines[-1].endswith("different: 10 of 10 answers are beyond the tolerance")
    assert any(line.startswith("first beyond session 1, request 1: reach") for line in lines)
    assert max(map(width_of, lines)) <= COLUMNS
    assert (RED in said.out) == (where == "terminal")


def test_a_tolerance_is_in_the_actions_own_units(recording: Path) -> None:
    said = run_in("pipe", ["replay", "one.mcap", OTHER, "--tolerance", "100"])
    assert said.code == 0
    assert said.out.splitlines()[-1] == "within the tolerance: 10 of 10 answers differ"


def test_the_policy_may_stand_before_the_file() -> None:
    golden = Path(__file__).parents[1] / "replay" / "recordings" / "cartpole_ppo.mcap"
    said = run_in("pipe", ["replay", "cartpole_ppo", str(golden)])
    assert said.code == 0, said


@pytest.mark.parametrize("has_key", [False, True])
def test_a_running_server_is_asked(recording: Path, has_key: bool, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(KEY)
    keys.chmod(0o600)
    settings: dict[str, Any] = {"api_key_file": str(keys)} if has_key else {}
    with serving(toy(), **settings) as live:
        url = f"ws://127.0.0.1:{live.port}"
        said = run_in("pipe", ["replay", "one.mcap", "--url", url], POLICYSERVE_API_KEY=KEY if has_key else "")
        refused = run_in("pipe", ["replay", "one.mcap", "--url", url], POLICYSERVE_API_KEY="")
    assert said.code == 0, said
    assert f"replayed     {url}\n" in said.out
    assert refused.code == (1 if has_key else 0)
    assert ("POLICYSERVE_API_KEY" in refused.err) == has_key
    assert KEY not in said.out + said.err + refused.out + refused.err


def test_two_recordings_are_compared(recording: Path, tmp_path: Path) -> None:
    record(tmp_path / "two.mcap", toy(1.25), [walk(6), walk(4, 1)])
    assert run_in("pipe", ["replay", "one.mcap", "--against", "one.mcap"]).code == 0
    said = run_in("pipe", ["replay", "one.mcap", "--against", "two.mcap"])
    assert said.code == 1
    assert "replayed     two.mcap: toy, checkpoint toy-1" in said.out


def test_programs_get_one_object_and_nothing_else(recording: Path) -> None:
    said = run_in("pipe", ["replay", "one.mcap", OTHER, "--json"])
    told = json.loads(said.out)
    assert (said.code, said.err) == (1, "")
    assert (told["verdict"], told["status"], told["compared"]) == ("beyond", 1, 10)
    assert told["dimensions"][0]["name"] == "reach"


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
@pytest.mark.parametrize("policy", ["same", "other"])
def test_a_picture_is_drawn(recording: Path, policy: str, ending: str, tmp_path: Path) -> None:
    import_or_skip("matplotlib")
    said = run_in("pipe", ["replay", "one.mcap", f"tests.replay.served:{policy}", "--plot", f"out.{ending}"])
    assert said.code == (0 if policy == "same" else 1)
    assert f"written      out.{ending}\n" in said.out
    assert (tmp_path / f"out.{ending}").stat().st_size > 1000


def test_nothing_is_drawn_of_nothing(tmp_path: Path) -> None:
    import_or_skip("matplotlib")
    record(tmp_path / "empty.mcap", toy(), [])
    said = run_in("pipe", ["replay", "empty.mcap", SAME, "--plot", "out.png"])
    assert said.code == 1
    assert "there is nothing to draw" in said.out
    assert "nothing could be compared" in said.out.splitlines()[-1]
    assert not (tmp_path / "out.png").exists()


def test_a_recording_that_was_cut_is_replayed_as_far_as_it_goes(tmp_path: Path) -> None:
    record(tmp_path / "cut.mcap", toy(), [walk(5)], is_cut=True)
    said = run_in("pipe", ["replay", "cut.mcap", SAME])
    assert said.code == 0, said
    assert "warning: cut.mcap has no end" in said.err
    assert "5 of 5 requests" in said.out


def test_a_policy_of_another_spec_is_told_by_its_keys(recording: Path) -> None:
    said = run_in("pipe", ["replay", "one.mcap", "cartpole_ppo"])
    assert (said.code, said.out) == (1, "")
    assert "obs: expected float32 (4,), got float32 (3,)" in said.err


def test_a_closed_port_is_told(recording: Path) -> None:
    said = run_in("pipe", ["replay", "one.mcap", "--url", f"ws://127.0.0.1:{closed_port()}"])
    assert (said.code, said.out) == (1, "")
    assert said.err.startswith("error: cannot connect to ws://127.0.0.1:")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "expected FILE, a recording, got none"),
        (["one.mcap"], "expected a policy, --url ws://host:port of a server, or --against FILE2, got none"),
        (["nowhere.mcap", SAME], "nowhere.mcap: expected a recording, got no such file"),
        (["one.mcap", "--against", "nowhere.mcap"], "--against: nowhere.mcap: expected a recording"),
        (["served.py", SAME], "served.py: expected an MCAP file of policyserve"),
        (["one.mcap", SAME, "--url", "ws://robot"], "got tests.replay.served:same and --url"),
        (["one.mcap", "--against", "one.mcap", "--url", "ws://robot"], "got --url and --against"),
        (["one.mcap", "two.mcap", SAME], "expected one recording, got a second one, two.mcap: --against compares two"),
        ([".", SAME], "got a directory; name one of the .mcap files in it"),
        (["one.mcap", "cartpole_pp"], "did you mean cartpole_ppo?"),
        (["one.mcap", SAME, "--tolerance", "-1"], "--tolerance: expected 0 or more, got -1.0"),
        (["one.mcap", SAME, "--tolerance", "nan"], "--tolerance: expected 0 or more, got nan"),
        (["one.mcap", SAME, "--plot", "out.txt"], "--plot: expected a file that ends in .png"),
        (["one.mcap", SAME, "--speed", "reel"], "did you mean real?"),
        (["one.mcap", SAME, "--timeout-s", "0"], "--timeout-s: expected more than 0"),
        (["one.mcap", SAME, "--api-key", KEY], "set POLICYSERVE_API_KEY"),
        (["one.mcap", SAME, "another"], "unexpected word 'another'"),
    ],
)
@pytest.mark.parametrize("where", WHERE)
def test_a_mistake_is_told_in_one_line(recording: Path, where: Where, words: list[str], told: str) -> None:
    said = run_in(where, ["replay", *words])
    assert (said.code, said.out) == (2, "")
    assert told in unbroken(said.err)
    assert KEY not in said.err


def test_the_help_names_its_exit_statuses_and_the_policies() -> None:
    for words in (["replay", "--help"], ["replay", "one.mcap", "--help"]):
        said = run_in("pipe", words)
        assert said.code == 0
        told = " ".join(said.out.split())
        assert "with 1 if something is not" in told
        assert "POLICY is cartpole_ppo" in told
    said = run_in("pipe", ["replay", "cartpole_ppo", "--help"])
    assert "--checkpoint-dir" in said.out


def test_ctrl_c_tells_what_there_is_and_never_passes(tmp_path: Path) -> None:
    record(tmp_path / "slow.mcap", toy(), [walk(1), walk(2)], period_s=3600)
    command = [*POLICYSERVE, "replay", str(tmp_path / "slow.mcap"), "--speed", "real", "--url"]
    with (
        serving(toy()) as live,
        subprocess.Popen(
            [*command, f"ws://127.0.0.1:{live.port}"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        try:
            live.until(lambda server: sum(server.counters.round_trip_ms.counts) == 2)  # the first has arrived
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, err) == (130, "")
    assert re.search(r"compared     [12] of 3 requests in 2 sessions", out), out
    assert out.splitlines()[-1] == "not all could be compared: stopped early"


def test_without_its_package_the_extra_is_named(recording: Path) -> None:
    program = (
        "import sys; sys.modules['mcap'] = None; from policyserve.cli import main; "
        f"main(['replay', {str(recording)!r}, 'cartpole_ppo'])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "pip install 'policyserve[record]'" in done.stderr


def test_flags_may_stand_in_a_file(recording: Path, tmp_path: Path) -> None:
    (tmp_path / "replay.toml").write_text(f'policy = "{OTHER}"\ntolerance = 100.0\n')
    said = run_in("pipe", ["replay", "one.mcap", "--config", "replay.toml"])
    assert said.code == 0, said
    printed = run_in("pipe", ["replay", "one.mcap", "--config", "replay.toml", "--print-config"])
    assert "tolerance = 100.0" in printed.out
