"""`policyserve cluster`: what its words mean, before a cluster is asked. tests/ray/test_drills.py has the rest."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress

import pytest

from policyserve.cli import main
from policyserve.ray import cluster
from policyserve.ray.cluster import Deployed
from tests.cli.terminals import run_in


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["restart"], "expected deploy, roll, scale, status, remove, got 'restart'"),
        (["deploy"], "expected a name for the policy on the cluster"),
        (["deploy", "arm"], "expected a policy behind arm"),
        (["deploy", "arm/left", "cartpole_ppo"], "NAME: expected letters, digits, - and _, got 'arm/left'"),
        (["deploy", "arm", "cartpole_ppo", "--num-gpus", "-1"], "--num-gpus: expected 0 or more, got -1.0"),
        (["deploy", "arm", "cartpole_ppo", "--min-replicas", "2"], "--max-replicas: expected 2 or more, got 1"),
        (["deploy", "arm", "nothing_like_it"], "nothing_like_it"),
        (["scale", "arm"], "REPLICAS is missing"),
        (["scale", "arm", "many"], "REPLICAS: expected a whole number, got 'many'"),
        (["scale", "arm", "-1"], "REPLICAS: expected 1 or more, got -1"),
        (["deploy", "arm", "cartpole_ppo", "--deployed-as", "leg"], "--deployed-as: expected arm, which is NAME, got"),
        (["scale", "arm", "0"], "REPLICAS: expected 1 or more, got 0"),
        (["scale", "arm", "3", "--max-replicas", "2"], "--max-replicas: expected 3 or more, got 2"),
        (["remove"], "NAME is missing"),
        (["status", "--gpus"], "unknown flag --gpus"),
    ],
)
def test_wrong_words_end_it_with_one_line(words: list[str], told: str) -> None:
    done = run_in("pipe", ["cluster", *words])
    assert done.code == 2, done.err
    assert told in " ".join(done.err.split())


@pytest.mark.parametrize("action", ["deploy", "roll", "scale", "status", "remove"])
def test_each_action_has_help(action: str) -> None:
    assert action in run_in("pipe", ["cluster", "--help"]).out
    done = run_in("pipe", ["cluster", action, "--help"])
    assert done.code == 0
    assert "--ray-address" in done.out


@pytest.mark.parametrize("flags", [["--reload"], ["--isolate", "process"], ["--replicas", "2"]])
def test_an_edge_refuses_flags_of_a_policy_on_this_machine(flags: list[str]) -> None:
    done = run_in("pipe", ["serve", "cartpole_ppo", "--engine", "ray", *flags])
    assert done.code == 2
    assert "--engine ray" in done.err


def test_ctrl_c_ends_the_waiting_and_tells_what_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def wait(name: str, on_stage: Callable[[str], None], *, leave: threading.Event) -> None:
        on_stage("0 of 1 replicas")
        with suppress(KeyboardInterrupt):  # as Ray's library does with one now and then
            os.kill(os.getpid(), signal.SIGINT)
        leave.wait()

    for name in ("connect", "deploy"):
        monkeypatch.setattr(cluster, name, lambda *_: None)
    monkeypatch.setattr(cluster, "wait_until_running", wait)
    with pytest.raises(KeyboardInterrupt):
        main(["cluster", "deploy", "arm", "cartpole_ppo"])
    assert "arm loads without this command: `policyserve cluster status` says how far" in capsys.readouterr().err


def test_the_status_of_a_failed_policy_says_that_none_answers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = Deployed("arm", "1", "DEPLOY_FAILED", 0, 0, "arm.onnx: there is no such file")
    monkeypatch.setattr(cluster, "connect", lambda *_: None)
    monkeypatch.setattr(cluster, "status", lambda: [failed])
    main(["cluster", "status"])
    assert capsys.readouterr().out.endswith("DEPLOY_FAILED no replica answers: arm.onnx: there is no such file\n")
