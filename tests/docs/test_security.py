"""SECURITY.md's commands run as they stand there, and what it points to exists."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from policyserve.server.config import ServerConfig
from tests.cli.serving import ROOT, serving
from tests.cli.terminals import knows
from tests.docs.promises import exists, named_tests, shown_by

PAGE = (ROOT / "SECURITY.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl command here")
def test_a_reader_who_follows_the_steps_has_a_server_with_keys_and_tls(tmp_path: Path) -> None:
    *preparations, serve = blocks("bash")
    for script in preparations:
        subprocess.run(["bash", "-euo", "pipefail", "-c", script], cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "keys").stat().st_mode & 0o077 == 0
    _, key = (tmp_path / "keys").read_text().splitlines()[0].split(": ")
    command = [sys.executable, "-m", "policyserve.cli", *shlex.split(serve)[1:]]
    command[command.index("8000")] = "0"
    (client,) = blocks("python")
    with serving([*command, "--host", "127.0.0.1"], cwd=tmp_path) as server:
        assert server.url.startswith("wss://localhost:")
        program = client.replace("wss://localhost:8000", server.url)
        for sent, is_let_in in ((key, True), ("0" * 48, False)):
            done = subprocess.run(
                [sys.executable, "-c", program],
                cwd=tmp_path,
                env={**os.environ, "ROBOT_KEY": sent},
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert (done.stdout.strip() in ("0", "1")) == is_let_in, done.stderr
        _, log = server.stop()
    assert "key=robot-7" in log
    assert key not in log
    assert "WARNING" in log  # the client with a wrong key; nothing else
    assert log.count("WARNING") == log.count("refused peer=")


def test_the_unit_file_calls_a_command_that_exists() -> None:
    (unit,) = blocks("ini")
    found = re.search(r"ExecStart=\S+/policyserve (.*)", unit)
    assert found
    assert knows(shlex.split(found.group(1)))


def test_every_promise_names_its_test() -> None:
    rows = shown_by(PAGE)
    assert len(rows) > 12
    assert [promise for promise, cell in rows.items() if not named_tests(cell)] == []


@pytest.mark.parametrize("test", named_tests(PAGE))
def test_every_test_that_is_named_exists(test: str) -> None:
    assert exists(test)


def test_a_test_that_is_gone_is_noticed() -> None:
    assert exists("tests/docs/test_security.py::test_a_test_that_is_gone_is_noticed")
    assert not exists("tests/docs/test_security.py::test_a_test_that_is")
    assert not exists("tests/docs/no_such_file.py::test_a_test_that_is_gone_is_noticed")
    assert shown_by("| promise | shown by |\n|---|---|\n| a | `b` |\n| c | d |\n\ne\n") == {"a": "`b`", "c": "d"}


def test_the_programs_it_points_to_exist() -> None:
    named = re.findall(r"\b(benchmarks/[\w/]+\.py)", PAGE)
    assert named
    for path in named:
        assert (ROOT / path).exists(), path


def test_its_flags_are_the_servers_and_their_defaults_are_right() -> None:
    defaults = {one.name: one.default for one in fields(ServerConfig)}
    flags = set(re.findall(r"`--([a-z0-9-]+)", PAGE)) - {"port", "remote-key-env", "remote-sessions"}
    assert {flag.removeprefix("no-").replace("-", "_") for flag in flags} <= defaults.keys()
    for flag, shown in re.findall(r"^\| `--([a-z-]+)` \| ([\d,]+)", PAGE, re.MULTILINE):
        assert defaults[flag.replace("-", "_")] == float(shown.replace(",", "")), flag
