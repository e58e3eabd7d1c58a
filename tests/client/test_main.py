"""`python -m policyserve.client`: a first question to a server, and the program that asks it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserve.client.__main__ import main
from policyserve.core.policy import FunctionPolicy
from policyserve.core.spec import ArraySpec, ImageSpec, PolicySpec, TextSpec
from tests.cli.serving import run
from tests.server.certificates import make_certificate
from tests.server.live import serving

SPEC = PolicySpec(
    "arm", {"camera": ImageSpec(4, 4), "state": ArraySpec((3,)), "prompt": TextSpec()}, ArraySpec((2,)), horizon=5
)


def act(observation: Any) -> Any:
    return np.ones((5, 2), np.float32) * observation["camera"].shape[0]


def test_one_action_is_asked_for_and_the_program_is_shown_that_does(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(FunctionPolicy(act, SPEC)) as live:
        url = live.url("")
        assert main([url]) == 0
        program, _, answer = capsys.readouterr().out.partition("\nreply.actions")
        assert "    'camera': np.zeros((4, 4, 3), 'uint8'),\n" in program
        assert answer.split()[:3] == ["float32", "(5,", "2)"]
        assert "reply.timing" in answer
        done = run(sys.executable, "-c", f"{program}\nprint(reply.actions.sum())\nclient.close()")
        assert (done.stdout, done.stderr) == ("40.0\n", "")


def test_of_a_server_that_does_not_tell_what_it_takes_nothing_is_asked(capsys: pytest.CaptureFixture[str]) -> None:
    with serving() as live:
        assert main([live.url("")]) == 1
        assert live.call(lambda: live.server.counters.requests) == 0
    assert "does not tell what it takes" in capsys.readouterr().out


def test_a_key_is_taken_from_the_environment_by_the_program_too_and_shown_nowhere(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for keys in ("0123456789abcdef0123", "robot-7:0123456789abcdef0123,sim:abcdef0123456789abcd"):
        monkeypatch.setenv("POLICYSERVE_API_KEY", keys)
        with serving(FunctionPolicy(act, SPEC)) as live:  # it takes the keys of the same variable
            assert main([live.url("")]) == 0
            program, _, _ = capsys.readouterr().out.partition("\nreply.actions")
            assert "0123456789" not in program
            done = run(sys.executable, "-c", f"{program}\nprint(reply.actions.sum())\nclient.close()")
            assert (done.stdout, done.stderr) == ("40.0\n", "")


def test_a_key_that_is_missing_is_asked_for_by_its_variable(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("POLICYSERVE_API_KEY", raising=False)
    keys = tmp_path / "keys"
    keys.write_text("robot-7: 0123456789abcdef0123\n")
    with serving(FunctionPolicy(act, SPEC), api_key_file=str(keys)) as live:
        assert main([live.url("")]) == 1
        told = capsys.readouterr().err
        assert told.startswith(f"error: {live.url('')}")
        assert "wants an API key (set POLICYSERVE_API_KEY)" in told


def test_a_ca_that_is_not_known_is_asked_for_by_its_variable(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    cert, key = make_certificate(tmp_path)
    with serving(FunctionPolicy(act, SPEC), tls_cert=cert, tls_key=key) as live:
        assert main([f"wss://127.0.0.1:{live.port}"]) == 1
    told = capsys.readouterr().err
    assert "; SSL_CERT_FILE=ca.pem in the environment trusts a CA of your own" in told
    assert "ssl_context" not in told


@pytest.mark.parametrize(
    ("argv", "status", "said"),
    [
        ([], 2, "usage: python -m policyserve.client URL"),
        (["--prot"], 2, "usage: python -m policyserve.client URL"),
        (["ws://x", "ws://y"], 2, "usage: python -m policyserve.client URL"),
        (["http://x"], 1, "error: url: expected ws://host:port"),
        (["ws://user:hidden@[::1"], 1, ""),
    ],
)
def test_a_mistake_is_one_line(argv: list[str], status: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == status
    err = capsys.readouterr().err
    assert err.startswith(said)
    assert "hidden" not in err
    assert status == 2 or err.count("\n") == 1


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_is_printed_for_whoever_asks_and_is_no_mistake(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([flag]) == 0
    told = capsys.readouterr()
    assert told.out.startswith("usage: python -m policyserve.client URL")
    assert told.err == ""
