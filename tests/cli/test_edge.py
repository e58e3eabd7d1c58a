"""`policyserve serve --engine ray`: the engines of its words and tables; tests/ray/test_drills.py has one at work."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from policyserve.cli import main
from policyserve.cli.edge import EdgeFlags
from policyserve.engine.swapping import SwappingEngine
from policyserve.ray.edge import RayEngine
from policyserve.ray.engine import Wanted
from policyserve.server.server import Server

LAB = """
[server]
engine = "ray"
num-gpus = 0.25
max-queue = 9

[policies.pole]
source = "cartpole_ppo"
deployed-as = "balance"
max-replicas = 3
max-queue = 7

[policies.swing]
source = "pendulum_sac"

[policies.here]
source = "demo_image"
engine = "local"
isolate = "process"
"""


@pytest.fixture(autouse=True)
def in_a_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("POLICYSERVE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr("policyserve.ray.cluster.check_installed", lambda: None)
    monkeypatch.chdir(tmp_path)


def made(monkeypatch: pytest.MonkeyPatch, *words: str) -> Server:
    """The server that a command line would run."""
    found: list[Server] = []
    monkeypatch.setattr("policyserve.cli.serve.serve_until_stopped", lambda server, *_: found.append(server))
    main(["serve", *words])
    return found[0]


def wanted(server: Server, name: str) -> Wanted:
    engine = server.served(name).engine
    assert isinstance(engine, RayEngine)
    return vars(engine)["_wanted"]


def test_policies_of_words_are_called_on_the_cluster_as_they_are_here(monkeypatch: pytest.MonkeyPatch) -> None:
    server = made(monkeypatch, "pole=cartpole_ppo", "demo_image", "--engine", "ray", "--num-gpus", "0")
    assert [wanted(server, name).config.deployed_as for name in ("pole", "demo_image")] == ["pole", "demo_image"]
    assert wanted(server, "demo_image").config.num_gpus == 0
    assert wanted(server, "pole").recipe != wanted(server, "demo_image").recipe


def test_a_table_says_what_one_policy_has_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("lab.toml").write_text(LAB)
    server = made(monkeypatch, "--config", "lab.toml")
    pole, swing = wanted(server, "pole"), wanted(server, "swing")
    assert (pole.config.deployed_as, pole.config.max_replicas, pole.settings.max_queue) == ("balance", 3, 7)
    assert (swing.config.deployed_as, swing.config.max_replicas, swing.settings.max_queue) == ("swing", 1, 9)
    assert pole.config.num_gpus == swing.config.num_gpus == 0.25
    assert isinstance(server.served("here").engine, SwappingEngine)


def test_what_is_printed_is_taken_again(capsys: pytest.CaptureFixture[str]) -> None:
    Path("lab.toml").write_text(LAB)
    main(["serve", "--config", "lab.toml", "--print-config"])
    first = capsys.readouterr().out
    assert 'deployed-as = "balance"' in first
    Path("again.toml").write_text(first)
    main(["serve", "--config", "again.toml", "--print-config"])
    again = capsys.readouterr().out
    assert [line.partition("  #")[0] for line in again.splitlines()] == [
        line.partition("  #")[0] for line in first.splitlines()
    ]


WRONG = {
    "a name for all": (
        ["a=demo_image", "b=cartpole_ppo", "--engine", "ray", "--deployed-as", "arm"],
        "--deployed-as: expected it under [policies.NAME] of a file, got 'arm' for 2 policies: a, b",
    ),
    "two of one name": (
        ["--config", "lab.toml", "balance=demo_image"],
        "policies.balance.deployed-as: pole is deployed as 'balance' as well: give one another",
    ),
    "another cluster": (["--config", "address.toml"], "line 3: policies.a.ray-address: holds for the whole server"),
    "a process here": (
        ["--config", "process.toml"],
        "line 3: policies.a.engine: --engine ray: expected --min-replicas",
    ),
    "no name": (["--config", "name.toml"], "line 3: policies.a.deployed-as: expected letters, digits, - and _"),
    "a wrong number": (["--config", "number.toml"], "line 3: policies.a.num-gpus: expected 0 or more, got -1"),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_a_mistake_is_one_line_with_its_place(mistake: str, capfd: pytest.CaptureFixture[str]) -> None:
    Path("lab.toml").write_text(LAB)
    settings = {"address": 'ray-address = "local"', "process": 'engine = "ray"\nisolate = "process"'}
    settings |= {"name": 'deployed-as = "a@2"', "number": "num-gpus = -1"}
    for name, setting in settings.items():
        Path(f"{name}.toml").write_text(f'[policies.a]\nsource = "demo_image"\n{setting}\n')
    words, told = WRONG[mistake]
    with pytest.raises(SystemExit, match="2"):
        main(["serve", *words])
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert told in err


def test_a_policy_is_on_this_machine_unless_it_is_told_otherwise() -> None:
    assert EdgeFlags().engine == "local"
