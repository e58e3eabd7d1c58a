"""docs/remote.md: its commands serve, its program runs, its flags are there."""

from __future__ import annotations

import re
import shlex
import ssl
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from policyserve import Client
from policyserve.policies.fakes import EchoPolicy
from policyserve.policies.remote.adapter import RemoteFlags
from tests.cli.serving import POLICYSERVE, ROOT, run, serving
from tests.policies.frameworks import import_or_skip
from tests.server import live
from tests.server.certificates import make_certificate

PAGE = (ROOT / "docs" / "remote.md").read_text()
COMMANDS = [
    line
    for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    for line in block.splitlines()
    if line.startswith("policyserve ")
]


@contextmanager
def upstream(command: str, folder: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The server that a command asks, and how to ask the command's own."""
    if "wss://" not in command:
        with live.serving(EchoPolicy()) as theirs:
            yield theirs.port, {}
        return
    certificate, key = make_certificate(folder, "server")
    (folder / "keys").write_text("robot: a-key-of-a-robot\n")
    (folder / "their-keys").write_text("us: their-key-for-us\n")
    keys = str(folder / "their-keys")
    with live.serving(EchoPolicy(), tls_cert=certificate, tls_key=key, api_key_file=keys) as theirs:
        yield (
            theirs.port,
            {"api_key": "a-key-of-a-robot", "ssl_context": ssl.create_default_context(cafile=certificate)},
        )


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_works(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with upstream(command, tmp_path) as (port, options):
        words = shlex.split(command.replace("localhost:8000", f"localhost:{port}").replace("8001", "0"))[1:]
        if options:
            monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "server.pem"))
            monkeypatch.setenv("GPU_LAB_KEY", "their-key-for-us")
        if words[0] == "bench":
            import_or_skip("gymnasium")
            done = run(*POLICYSERVE, *words, cwd=tmp_path)
            assert done.returncode == 0, done.stderr
            return
        command_here = [*POLICYSERVE, *words, "--host", "127.0.0.1"]
        with serving(command_here, cwd=tmp_path) as server, Client(server.url, **options) as client:
            assert client.infer({"obs": [1, 2, 3, 4]}).actions.tolist() == [1, 2, 3, 4]


def test_the_program_prints_an_action(tmp_path: Path) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    with live.serving(EchoPolicy()) as theirs:
        program = program.replace("localhost:8000", f"127.0.0.1:{theirs.port}")
        done = run(sys.executable, "-c", program, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[0. 0. 0. 0.]\n"


def test_its_flags_and_their_defaults_are_there() -> None:
    flags = set(re.findall(r"--(remote-[a-z-]+)", PAGE))
    assert flags == {name.replace("_", "-") for name in RemoteFlags.__dataclass_fields__}
    assert f"`--remote-sessions`, {RemoteFlags().remote_sessions} by default" in PAGE
    assert f"`--remote-timeout-s` ({RemoteFlags().remote_timeout_s:g} s)" in PAGE
