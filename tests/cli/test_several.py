"""`policyserve serve` with several policies: words, tables, what is wrong with them, and that they answer."""

from __future__ import annotations

import json
import os
import sys
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserve import Client, PolicyserveError
from policyserve.cli import main
from policyserve.server.config import ServerConfig
from policyserve.server.server import Server
from tests.cli.serving import POLICYSERVE, run, serving

LAB = """
[server]
host = "127.0.0.1"
port = 0
max-queue-ms = 1000

[policies.pole]
source = "cartpole_ppo"
max-queue-ms = 500
max_sessions = 3

[policies.swing]
source = "pendulum_sac"
config.algo.action-high = 1

[policies.gone]
source = "onnx:gone.onnx"

[routes."/either"]
split = {pole = 1, swing = 1}
seed = 3
"""
POLE = '[policies.pole]\nsource = "cartpole_ppo"\n'


@pytest.fixture(autouse=True)
def in_a_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("POLICYSERVE_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def made(monkeypatch: pytest.MonkeyPatch, *words: str) -> Server:
    """The server that a command line would run."""
    found: list[Server] = []
    monkeypatch.setattr("policyserve.cli.serve.serve_until_stopped", lambda server, *_: found.append(server))
    main(["serve", *words])
    return found[0]


def refusal(capfd: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line with which the command ends, with 2."""
    with pytest.raises(SystemExit) as ended:
        main(["serve", *words])
    out, err = capfd.readouterr()
    assert (ended.value.code, out, err.count("\n")) == (2, "", 1), err
    return err


def test_tables_give_each_policy_its_flags_and_its_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("lab.toml").write_text(LAB)
    server = made(monkeypatch, "--config", "lab.toml", "--max-queue", "9")
    assert [served.name for served in server.catalogue] == ["pole", "swing", "gone"]
    configs = [served.config for served in server.catalogue]
    assert [config.max_queue_ms for config in configs] == [500, 1000, 1000]
    assert [config.max_queue for config in configs] == [9, 9, 9]
    assert server.served("pole").max_sessions == 3
    assert server.config.max_sessions == ServerConfig().max_sessions
    assert server.catalogue.routes["/either"].split.seed == 3


def test_words_and_a_file_name_policies_together(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("lab.toml").write_text(POLE)
    server = made(monkeypatch, "--port", "0", "swing=pendulum_sac", "demo_image", "--config", "lab.toml")
    assert [served.name for served in server.catalogue] == ["pole", "swing", "demo_image"]
    assert [served.name for served in made(monkeypatch, "demo_image", "--config", "lab.toml").catalogue] == [
        "pole",
        "demo_image",
    ]


def test_one_policy_may_have_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not made(monkeypatch, "pole=cartpole_ppo").catalogue.is_plain
    assert made(monkeypatch, "cartpole_ppo").catalogue.is_plain


def test_words_that_name_no_policy_are_no_second_one(capfd: pytest.CaptureFixture[str]) -> None:
    assert "unexpected word '8000'" in refusal(capfd, "cartpole_ppo", "8000")
    assert "did you mean --port=80?" in refusal(capfd, "cartpole_ppo", "port=80")


def test_a_table_of_the_server_may_stand_in_the_file_of_one_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("serve.toml").write_text('policy = "cartpole_ppo"\n[server]\nport = 7\n')
    assert made(monkeypatch, "--config", "serve.toml").config.port == 7


WRONG_FILES = {
    "a setting of the server": (POLE + "port = 3\n", "line 3: policies.pole.port: holds for the whole server"),
    "a misspelt key": (POLE + "max-queu = 3\n", "line 3: unknown key policies.pole.max-queu; did you mean max-queue?"),
    "a wrong value": (POLE + "max-queue = 0\n", "line 3: policies.pole.max-queue: expected 1 or more, got 0"),
    "a policy beside them": (f'policy = "demo_image"\n{POLE}', "line 1: policy: stands beside tables or words"),
    "a dialect": ('[policies.openpi]\nsource = "cartpole_ppo"\n', "/openpi is the dialect openpi: choose another"),
    "a page": ('[policies.metrics]\nsource = "cartpole_ppo"\n', "/metrics is the page /metrics: choose another"),
    "a route to none": (
        f'{POLE}[routes."/a"]\nsplit = {{pol = 1}}\n',
        "no policy is named 'pol' (did you mean pole?)",
    ),
    "routes alone": ('[routes."/a"]\nsplit = {pol = 1}\n', "expected [policies.NAME] beside it"),
    "an unknown source": ('[policies.a]\nsource = "cartpole_p"\n', "line 2: policies.a.source: there is no policy"),
    "a flag that is missing": ('[policies.a]\nsource = "cartpole_dqn"\n', "policies.a: --checkpoint-dir is required"),
}


@pytest.mark.parametrize("mistake", WRONG_FILES)
def test_a_mistake_in_a_file_is_one_line_with_its_place(mistake: str, capfd: pytest.CaptureFixture[str]) -> None:
    content, told = WRONG_FILES[mistake]
    Path("lab.toml").write_text(content)
    assert told in refusal(capfd, "--config", "lab.toml")


WRONG_WORDS = {
    "two of one name": (("a=demo_image", "a=cartpole_ppo"), "two policies are named a: give one another"),
    "one without a name": (("a=demo_image", "onnx:b.onnx"), "needs a name: NAME=onnx:b.onnx"),
    "a policy's own flag": (("a=demo_image", "--checkpoint-dir", "x"), "under [policies.NAME]"),
    "reloading": (("a=demo_image", "--reload"), "--reload: expected one policy, got 1 policy: a"),
}


@pytest.mark.parametrize("mistake", WRONG_WORDS)
def test_a_mistake_in_words_is_one_line(mistake: str, capfd: pytest.CaptureFixture[str]) -> None:
    words, told = WRONG_WORDS[mistake]
    assert told in refusal(capfd, *words)


def test_help_is_given_whatever_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["serve", "a=demo_image", "a=demo_image", "--help"])
    assert ended.value.code == 0
    assert "--port" in capsys.readouterr().out


def test_what_is_printed_is_taken_again(capsys: pytest.CaptureFixture[str]) -> None:
    Path("lab.toml").write_text(LAB)
    main(["serve", "--config", "lab.toml", "image=demo_image", "--print-config"])
    first = capsys.readouterr().out
    assert 'source = "pendulum_sac"  # lab.toml: line 13' in first
    assert 'source = "demo_image"  # the command line' in first
    Path("again.toml").write_text(first)
    main(["serve", "--config", "again.toml", "--print-config"])
    assert _values(capsys.readouterr().out) == _values(first)


def _values(text: str) -> list[str]:
    return [line.partition("  #")[0] for line in text.splitlines()]


def test_they_are_served_and_one_that_is_broken_costs_the_others_nothing() -> None:
    Path("lab.toml").write_text(LAB)
    with serving([*POLICYSERVE, "serve", "--config", "lab.toml"], cwd=Path.cwd()) as server:
        told = "".join(server.lines)
        assert "3 policies: pole, swing, gone" in told
        assert "/gone    not served: gone.onnx: there is no such file" in told
        assert "/either  each session gets one of pole 1, swing 1, drawn with seed 3" in told
        assert _action(f"{server.url}/pole", 4).dtype == np.int32
        assert abs(float(_action(f"{server.url}/swing", 3)[0])) <= 1.0  # its table's flag
        with pytest.raises(PolicyserveError, match=r"gone\.onnx: there is no such file"):
            _action(f"{server.url}/gone", 3)
        page = json.loads(urllib.request.urlopen(f"{server.url.replace('ws', 'http', 1)}/policies").read())
        assert [one["name"] for one in page["policies"]] == ["pole", "swing", "gone"]
        asked = run(sys.executable, "-m", "policyserve.client", f"{server.url}/swing")
        assert "reply.actions" in asked.stdout, asked.stderr


def test_the_line_for_a_client_names_one_that_is_served() -> None:
    words = ["gone=gone.py:policy", "pole=cartpole_ppo", "--host", "127.0.0.1", "--port", "0"]
    with serving([*POLICYSERVE, "serve", *words], cwd=Path.cwd()) as server:
        assert f"  client  python -m policyserve.client {server.url}/pole\n" in "".join(server.lines)


def _action(url: str, size: int) -> Any:
    with Client(url) as client:
        return client.infer({"obs": np.full(size, 0.1, np.float32)}).actions
