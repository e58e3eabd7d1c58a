"""`policyserve eval`: the closed loop in Gymnasium's environments."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from policyserve.cli import main
from policyserve.policies.vibe_rl import demo_directory
from tests.cli.serving import POLICYSERVE, ROOT, serving
from tests.cli.terminals import WHERE, Where, plain, run_in, unbroken
from tests.cli.watching import rendered
from tests.server.live import serving as live_server

pytest.importorskip("gymnasium")

from tests.bench.toy_environments import HERE, STEPS

TOY = ("tests.bench.toy_environments:lean", "--env")
KEY = "zq7-not-a-real-key-51"


def mean_return(table: str) -> float:
    found = re.search(r"^return +(-?[\d.]+) ± [\d.]+", table, re.MULTILINE)
    assert found, table
    return float(found.group(1))


def test_the_cartpole_demo_balances_over_the_wire_of_a_running_server(capsys: pytest.CaptureFixture[str]) -> None:
    with serving([*POLICYSERVE, "serve", "cartpole_ppo", "--host", "127.0.0.1", "--port", "0"]) as server:
        main(["eval", "--url", server.url, "--env", "CartPole-v1", "--episodes", "8"])
    table = capsys.readouterr().out
    assert mean_return(table) >= 475
    assert re.search(r"round trip +p50 [\d.]+ ms, p99 [\d.]+ ms", table)


def test_the_pendulum_demo_swings_up_from_the_preset_alone(capsys: pytest.CaptureFixture[str]) -> None:
    main(["eval", "pendulum_sac", "--episodes", "20", "--seed", "0"])
    assert mean_return(capsys.readouterr().out) >= -200


PENDULUM = str(demo_directory("pendulum_sac") / "checkpoints")


def test_a_policy_of_the_users_own_is_evaluated_where_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "leaning.py").write_text("def act(observation):\n    return int(observation[2] > 0)\n")
    monkeypatch.chdir(tmp_path)
    main(["eval", "leaning.py:act", "--env", "CartPole-v1", "--episodes", "4"])
    assert 20 < mean_return(capsys.readouterr().out) < 80  # what leaning with the pole brings


@pytest.mark.parametrize("flags", [("Leaning", "--dialect", "openpi"), ("Leaning()", "--dialect", "openpi"), ("lean",)])
def test_a_class_an_object_and_a_function_are_evaluated(
    flags: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = flags[0]
    (tmp_path / "served_here.py").write_text(f"import tests.bench.toy_environments as toys\npolicy = toys.{name}\n")
    monkeypatch.chdir(tmp_path)
    main(["eval", "served_here.py:policy", "--env", f"{HERE}Dot-v0", "--episodes", "2", *flags[1:]])
    table = capsys.readouterr().out
    assert "policy       served_here.py:policy\n" in table
    assert f"episodes     2, of {STEPS} steps\n" in table
    sys.modules.pop("served_here")


def test_figures_picture_and_film_are_written_where_they_are_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    image = pytest.importorskip("PIL.Image")
    figures, picture, film = tmp_path / "out.json", tmp_path / "out.svg", tmp_path / "out.gif"
    files = ("--json", str(figures), "--plot", str(picture), "--video", str(film), "--video-episodes", "2")
    main(["eval", *TOY, f"{HERE}Dot-v0", "--episodes", "3", "--seed", "5", *files])
    table = capsys.readouterr().out
    for path in (figures, picture, film):
        assert f"written      {path}\n" in table
    document = json.loads(figures.read_text())
    assert [episode["seed"] for episode in document["episodes"]] == [5, 6, 7]
    assert document["answers"] == 3 * STEPS
    assert picture.read_text().startswith("<?xml")
    with image.open(film) as shown:
        assert shown.info["duration"] == 40
        assert 10 < shown.n_frames <= STEPS + 1  # every second of 2 * 21; equal ones are joined


def test_stdout_can_be_the_file_of_figures(capsys: pytest.CaptureFixture[str]) -> None:
    main(["eval", *TOY, f"{HERE}Dot-v0", "--episodes", "2", "--json", "-"])
    out, err = capsys.readouterr()
    assert len(json.loads(out)["episodes"]) == 2
    assert mean_return(err)


def test_a_policys_only_key_is_found_in_its_spec(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "keyed.py").write_text(
        "from policyserve import ArraySpec, FunctionPolicy, PolicySpec\n"
        "spec = PolicySpec('keyed', {'state': ArraySpec((2,))}, ArraySpec((), 'int32'))\n"
        "policy = FunctionPolicy(lambda observation: int(observation['state'][0] < 0), spec)\n"
    )
    monkeypatch.chdir(tmp_path)
    main(["eval", "keyed.py:policy", "--env", f"{HERE}Dot-v0", "--episodes", "1"])
    assert mean_return(capsys.readouterr().out)


def test_what_a_policy_prints_has_lines_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "talking.py").write_text(
        "print('reading weights')\n"
        "def act(observation):\n"
        "    print('step', end=' ')\n"
        "    return int(observation[0] < 0)\n"
    )
    monkeypatch.chdir(tmp_path)
    said = run_in("terminal", ["eval", "talking.py:act", "--env", f"{HERE}Dot-v0", "--episodes", "1"])
    sys.modules.pop("talking")
    lines = rendered(said.out)
    assert lines[0] == "reading weights"
    assert set(lines[1].split()) == {"step"}
    assert any(line.startswith("environment ") for line in lines)


def test_a_terminal_shows_how_many_episodes_are_over_until_all_are() -> None:
    said = run_in("terminal", ["eval", *TOY, f"{HERE}Dot-v0", "--episodes", "2"])
    assert "0/2 [" in said.out
    assert rendered(said.out)[0].startswith("environment ")


def test_ctrl_c_prints_the_episodes_that_are_over(tmp_path: Path) -> None:
    (tmp_path / "slowing.py").write_text(
        "import time\n"
        "calls = 0\n"
        "def act(observation):\n"
        "    global calls\n"
        "    calls += 1\n"
        f"    if calls > {STEPS}:\n"
        "        print('one is over', flush=True)\n"
        "        time.sleep(0.5)\n"
        "    return int(observation[0] + 10 * observation[1] < 0)\n"
    )
    command = [*POLICYSERVE, "eval", "slowing.py:act", "--env", f"{HERE}Dot-v0", "--sessions", "1"]
    command += ["--json", "out.json", "--episodes", "3"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])}
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, cwd=tmp_path, text=True, stdout=pipe, stderr=pipe, env=environment)
    assert process.stdout is not None
    assert process.stdout.readline() == "one is over\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert "episodes     1, of 20 steps" in out
    assert err.endswith(": stopped after 1 of 3 episodes; no file is written\n")
    assert "out.json" not in os.listdir(tmp_path)


def test_a_server_that_wants_a_key_is_answered_with_where_a_command_takes_it_from(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("POLICYSERVE_API_KEY", raising=False)
    (tmp_path / "keys").write_text(f"robot-7: {KEY}\n")
    (tmp_path / "keys").chmod(0o600)
    with live_server(lambda observation: 0, api_key_file=str(tmp_path / "keys")) as live:
        url = f"ws://127.0.0.1:{live.port}"
        for command in (["eval", "--url", url, "--env", "CartPole-v1"], ["bench", url]):
            with pytest.raises(SystemExit) as exit_request:
                main(command)
            assert exit_request.value.code == 1
            err = capfd.readouterr().err
            assert "wants an API key" in err
            assert "set POLICYSERVE_API_KEY" in err
            assert "api_key=" not in err


WRONG = {
    "no environment": (["--url", "ws://127.0.0.1:1"], 2, "--env is required, CartPole-v1"),
    "no server": (["--url", "ws://127.0.0.1:1", "--env", "CartPole-v1"], 1, "cannot connect to ws://127.0.0.1:1"),
    "a URL that is none": (["--url", "localhost:1", "--env", "CartPole-v1"], 1, "expected ws://host:port"),
    "an unknown environment": (["cartpole_ppo", "--env", "Nowhere-v0"], 2, "no environment 'Nowhere-v0'"),
    "a misspelt environment": (["cartpole_ppo", "--env", "CartPol-v1"], 2, "(did you mean CartPole-v1?)"),
    "an environment that cannot be made": ([*TOY, f"{HERE}Unmade-v0"], 2, "physics is not installed, run `pip"),
    "an environment that breaks": ([*TOY, f"{HERE}Broken-v0"], 1, "RuntimeError: the simulator is gone"),
    "actions of another kind": ([*TOY, f"{HERE}Slider-v0"], 1, "the policy answers int64 ()"),
    "an unknown dialect": (["cartpole_ppo", "--dialect", "opnpi"], 2, "got 'opnpi' (did you mean 'openpi'?)"),
    "an unknown dialect of a server": (
        ["--url", "ws://x:1", "--env", "CartPole-v1", "--dialect", "opnpi"],
        2,
        "(did you mean 'openpi'?)",
    ),
    "another key": (["cartpole_ppo", "--obs-key", "state"], 1, "--obs-key names the key of what is sent"),
    "a film of no kind": (["cartpole_ppo", "--video", "out.avi"], 2, "--video: expected a file that ends in .mp4 or"),
    "a film of nothing": ([*TOY, f"{HERE}Undrawn-v0", "--video", "out.gif"], 2, "draws no pictures: it renders ansi"),
    "a film in no directory": (["cartpole_ppo", "--video", "no/out.gif"], 2, "--video: there is no directory"),
    "a picture of no kind": (["cartpole_ppo", "--plot", "out.jpg"], 2, "(did you mean out.png?)"),
    "figures in a directory": (["cartpole_ppo", "--json", "."], 2, "--json: expected a file, got the directory"),
    "figures over a picture": (["cartpole_ppo", "--json", "a.png", "--plot", "a.png"], 2, "expected two files"),
    "no film": (["cartpole_ppo", "--video-episodes", "0"], 2, "--video-episodes: expected 1 or more, got 0"),
    "a seed below 0": (["cartpole_ppo", "--seed", "-1"], 2, "--seed: expected 0 or more, got -1"),
    "no time": (["cartpole_ppo", "--timeout-s", "0"], 2, "--timeout-s: expected more than 0, got 0.0"),
    "another environment": (["cartpole_ppo", "--env", "Pendulum-v1"], 1, "expected float32 (4,), got float32 (3,)"),
    "another preset's run": (["cartpole_ppo", "--checkpoint-dir", PENDULUM], 2, "serve it with pendulum_sac"),
    "a policy of no environment": (["demo_image"], 2, "--env is required, CartPole-v1 for example"),
    "an environment whose variable is not set": (["cartpole_ppo", "--env", ""], 2, "--env: expected a value, got"),
    "a checkpoint whose variable is not set": (
        ["cartpole_ppo", "--checkpoint-dir", ""],
        2,
        "--checkpoint-dir: expected",
    ),
    "a URL whose variable is not set": (["--url", "", "--env", "CartPole-v1"], 2, "--url: expected a value"),
    "no checkpoint": (["cartpole_dqn"], 2, "--checkpoint-dir is required"),
    "no episodes": (["cartpole_ppo", "--episodes", "0"], 2, "--episodes: expected 1 or more, got 0"),
}


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("mistake", WRONG)
def test_a_mistake_is_one_line(mistake: str, where: Where) -> None:
    argv, code, told = WRONG[mistake]
    said = run_in(where, ["eval", *argv])
    assert said.code == code
    complaint = unbroken(plain(said.err)).splitlines()[-1]  # behind the progress of a terminal
    assert complaint.startswith("error: ")
    assert told in complaint
    assert "Traceback" not in said.err
