"""`policyserve eval`: the closed loop in Gymnasium's environments."""

from __future__ import annotations

import re

import pytest

from policyserve.cli import main
from tests.cli.serving import POLICYSERVE, serving

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


WRONG = {
    "nothing": ([], 2, "expected --url ws://host:port or a policy (cartpole_ppo"),
    "no environment": (["--url", "ws://127.0.0.1:1"], 2, "--env is required, CartPole-v1"),
    "no server": (["--url", "ws://127.0.0.1:1", "--env", "CartPole-v1"], 1, "cannot connect to ws://127.0.0.1:1"),
    "a URL that is none": (["--url", "localhost:1", "--env", "CartPole-v1"], 1, "expected ws://host:port"),
    "an unknown environment": (["cartpole_ppo", "--env", "Nowhere-v0"], 1, "no environment 'Nowhere-v0'"),
    "another environment": (["cartpole_ppo", "--env", "Pendulum-v1"], 1, "expected float32 (4,), got float32 (3,)"),
    "no episodes": (["cartpole_ppo", "--episodes", "0"], 2, "--episodes: expected 1 or more, got 0"),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_a_mistake_is_one_line(mistake: str, capfd: pytest.CaptureFixture[str]) -> None:
    argv, code, said = WRONG[mistake]
    with pytest.raises(SystemExit) as exit_request:
        main(["eval", *argv])
    assert exit_request.value.code == code
    err = capfd.readouterr().err
    assert said in err
    assert "Traceback" not in err
