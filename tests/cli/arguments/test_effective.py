"""--print-config prints what --config takes: every flag, where its value is from, and no key."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any

import pytest

from policyserve.cli import main
from policyserve.cli.arguments.configuration import ConfigurationFlags, Given, keys_of, read_configuration
from policyserve.cli.arguments.effective import as_toml
from policyserve.cli.arguments.parsing import parse
from policyserve.cli.bench import BenchFlags
from policyserve.cli.eval import EvalServer
from policyserve.cli.policies import read_flags
from policyserve.cli.serve import ServeFlags
from policyserve.policies import registry
from policyserve.server.config import ServerConfig

KEY = "zq7-not-a-real-key-51"


@pytest.fixture(autouse=True)
def nothing_is_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each test begins in an empty directory, without variables of ours."""
    for name in [name for name in os.environ if name.startswith("POLICYSERVE_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def printed(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main(argv)
    assert ended.value.code == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def read(policy: str, *argv: str) -> ServeFlags[Any]:
    configuration = read_configuration(argv, policy, environment={})
    return read_flags(
        registry.find(policy), lambda flags: ServeFlags(ServerConfig(), flags), "test", argv, configuration
    )


@pytest.mark.parametrize("policy", [name for name in registry.listing() if ":" not in name])
def test_what_is_printed_can_be_given_back(policy: str, capsys: pytest.CaptureFixture[str]) -> None:
    typed = ["--port", "9", "--allowed-origins", "http://a", "--max-wait-ms", "2.5", "--no-debug", "--drain-s", "1e-7"]
    if policy == "wall-x":
        typed += ["--default-prompt", 'say "\\" and\ttab, ä\u2028 🤖\x7f', "--model-config.camera-key", "left", "b c"]
    Path("saved.toml").write_text(printed(capsys, "serve", policy, *typed, "--print-config"), encoding="utf-8")
    again = read(policy, "--config", "saved.toml")
    assert replace(again, config=None) == read(policy, *typed)
    third = printed(capsys, "serve", "--config", "saved.toml", "--print-config")
    assert [line.partition("  # ")[0] for line in third.splitlines()] == [
        line.partition("  # ")[0] for line in Path("saved.toml").read_text(encoding="utf-8").splitlines()
    ]


def test_every_flag_has_a_line_and_says_where_it_is_from(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("serve.toml").write_text('policy = "cartpole_ppo"\n\nport = 9\nhost = "::1"\n')
    monkeypatch.setenv("POLICYSERVE_REPLICAS", "2")
    monkeypatch.setenv("POLICYSERVE_API_KEY", KEY)
    told = printed(capsys, "serve", "--config", "serve.toml", "--no-debug-wire", "--host=::", "--print-config")
    for line in (
        'policy = "cartpole_ppo"  # serve.toml: line 1',
        "port = 9  # serve.toml: line 3",
        'host = "::"  # --host',
        "replicas = 2  # POLICYSERVE_REPLICAS",
        "debug-wire = false  # --debug-wire",
        "max-sessions = 256",
        "# step is not set",
        "# POLICYSERVE_API_KEY is set; its keys are not printed",
    ):
        assert f"{line}\n" in told
    assert KEY not in told
    monkeypatch.setenv("POLICYSERVE_API_KEY", "")
    told = printed(capsys, "serve", "cartpole_ppo", "--print-config")
    assert "# POLICYSERVE_API_KEY is empty, which no server takes: unset it\n" in told
    keys = keys_of(ServeFlags(ServerConfig(), registry.find("cartpole_ppo").defaults(None)))
    for key in keys.keys() - {"config", "print-config"}:
        assert re.search(rf"^(# )?{re.escape(key)} (= |is not set$)", told, re.MULTILINE), key


def test_paths_are_printed_whole_so_that_the_file_may_lie_anywhere(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "own.py").write_text("def act(obs):\n    return obs\n")
    told = printed(capsys, "serve", "own.py:act", "--uds", "a.sock", "--api-key-file", "~/keys", "--print-config")
    assert f'policy = "{tmp_path}/own.py:act"  # the command line\n' in told
    assert f'uds = "{tmp_path}/a.sock"  # --uds\n' in told
    assert f'api-key-file = "{os.path.expanduser("~/keys")}"  # --api-key-file\n' in told
    told = printed(capsys, "serve", "wall-x", "--model-config.model-path", "stand-in", "--print-config")
    assert 'model-config.model-path = "stand-in"  # --model-config.model-path\n' in told


def test_none_that_was_asked_for_is_written_and_read_again(capsys: pytest.CaptureFixture[str]) -> None:
    told = printed(capsys, "serve", "cartpole_ppo", "--step", "None", "--print-config")
    assert 'step = "None"  # --step\n' in told
    Path("saved.toml").write_text(told)
    assert read("cartpole_ppo", "--config", "saved.toml").policy.step is None


def test_bench_and_eval_print_theirs(capsys: pytest.CaptureFixture[str]) -> None:
    told = printed(capsys, "bench", "cartpole_ppo", "--clients", "3", "--print-config")
    assert 'target = "cartpole_ppo"  # TARGET\n' in told
    Path("bench.toml").write_text(told)
    argv = ("--config", "bench.toml")
    given = read_configuration(argv, has_policy=False, environment={}).given(BenchFlags, argv)
    assert parse(BenchFlags, "test", argv, given=given) == BenchFlags("cartpole_ppo", clients=3, config="bench.toml")
    assert 'url = "ws://a:1"  # --url\n' in printed(capsys, "eval", "--url", "ws://a:1", "--print-config")
    assert "episodes = 3  # --episodes\n" in printed(
        capsys, "eval", "cartpole_ppo", "--episodes", "3", "--print-config"
    )


@pytest.mark.parametrize("url", [f"ws://robot:{KEY}@a:1", f"robot:{KEY}@a:1", f"ws://a?key={KEY}"])
def test_a_url_with_a_key_is_not_printed(url: str) -> None:
    for flags in (BenchFlags(url, against=url), EvalServer(url)):
        told = as_toml(flags, Given(), None, {})
        assert KEY not in told
        assert " is set; it holds a key and is not printed\n" in told


class Side(Enum):
    LEFT = "l"


@dataclass(frozen=True)
class Odd(ConfigurationFlags):
    """Flags of every kind that a package may bring."""

    token: str = KEY
    side: Side = Side.LEFT
    weights: Path = Path("/weights")
    names: tuple[str, ...] = ("a", 'b"\n')
    gains: dict[str, int] = field(default_factory=dict)
    text: str = "\udcff"
    big: float = 1e300
    no_number: float = float("inf")


def test_values_of_every_kind_are_written_as_toml_or_left_out() -> None:
    assert as_toml(Odd(), Given(), None, {}).splitlines()[1:] == [
        "# token is set; it holds a key and is not printed",
        'side = "LEFT"',
        'weights = "/weights"',
        'names = ["a", "b\\"\\U0000000a"]',
        "# gains cannot be written as TOML",
        "# text cannot be written as TOML",
        "big = 1e+300",
        "no-number = inf",
    ]


def test_the_name_of_a_file_forges_no_line(capsys: pytest.CaptureFixture[str]) -> None:
    Path("a\nport = 1 # .toml").write_text("port = 2\n")
    told = printed(capsys, "serve", "cartpole_ppo", "--config", "a\nport = 1 # .toml", "--print-config")
    assert [line for line in told.splitlines() if line.startswith("port")] == [
        "port = 2  # a\\nport = 1 # .toml: line 1"
    ]
