"""`policyserve eval`: the closed loop in Gymnasium's environments."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from policyserve.cli import main
from policyserve.policies.vibe_rl import demo_directory
from tests.cli.serving import POLICYSERVE, serving
from tests.cli.terminals import WHERE, Where, plain, run_in

pytest.importorskip("gymnasium")


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


WRONG = {
    "no environment": (["--url", "ws://127.0.0.1:1"], 2, "--env is required, CartPole-v1"),
    "no server": (["--url", "ws://127.0.0.1:1", "--env", "CartPole-v1"], 1, "cannot connect to ws://127.0.0.1:1"),
    "a URL that is none": (["--url", "localhost:1", "--env", "CartPole-v1"], 1, "expected ws://host:port"),
    "an unknown environment": (["cartpole_ppo", "--env", "Nowhere-v0"], 1, "no environment 'Nowhere-v0'"),
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
    complaint = plain(said.err).splitlines()[-1]  # behind the progress of a terminal
    assert complaint.startswith("error: ")
    assert told in complaint
    assert "Traceback" not in said.err
