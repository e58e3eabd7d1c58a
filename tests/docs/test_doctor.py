"""docs/doctor.md: its commands have the flags that it shows, and a healthy and a sick server read as it says."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from policyserve.dialects import by_name
from policyserve.policies.fakes import demo_image
from tests.cli.serving import ROOT
from tests.cli.terminals import knows, run_in
from tests.doctor.sick import closed_port, take_any_time
from tests.server.live import serving

PAGE = (ROOT / "docs" / "doctor.md").read_text()
COMMANDS = re.findall(r"```bash\npolicyserve (.*?)\n```", PAGE)
HEALTHY, DEAD, FRAME = re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)
_NUMBER = re.compile(r"\d+(\.\d+)?")


@pytest.fixture(autouse=True)
def on_any_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    take_any_time(monkeypatch)


def shape_of(text: str) -> list[str]:
    """The lines without their numbers, and without the name service's line, which differs from machine to machine."""
    lines = text.replace("localhost", "127.0.0.1").splitlines()
    kept = [line for line in lines if not line.startswith(("✓ name", "healthy", "broken"))]
    return [" ".join(_NUMBER.sub("0", line).split()) for line in kept]


@pytest.mark.parametrize("command", COMMANDS)
def test_its_commands_have_their_flags(command: str) -> None:
    assert knows(shlex.split(command))


def test_a_healthy_server_reads_as_the_page_shows() -> None:
    with serving(demo_image()) as live:
        said = run_in("pipe", ["doctor", f"ws://127.0.0.1:{live.port}"])
    assert shape_of(said.out) == shape_of(HEALTHY)


def test_a_dead_port_reads_as_the_page_shows() -> None:
    said = run_in("terminal", ["doctor", f"ws://127.0.0.1:{closed_port()}"], NO_COLOR="1")
    assert shape_of(said.out) == shape_of(DEAD)


def test_a_frame_reads_as_the_page_shows(tmp_path: Path) -> None:
    path = tmp_path / "frame.bin"
    path.write_bytes(by_name("openpi").write_request({"camera": np.zeros((3, 64, 64), np.uint8)}))
    with serving(demo_image()) as live:
        said = run_in("terminal", ["doctor", f"ws://127.0.0.1:{live.port}", "--frame", str(path)], NO_COLOR="1")
    assert FRAME in said.out


def test_every_flag_that_a_cure_names_is_there() -> None:
    sources = "".join(path.read_text() for path in (ROOT / "src/policyserve/doctor").glob("*.py"))
    named = set(re.findall(r"(?<![-\w])--[a-z][a-z-]+", sources))
    helps = [run_in("pipe", command).out for command in (["doctor", "--help"], ["serve", "demo_image", "--help-all"])]
    there = set(re.findall(r"--[a-z][a-z-]+", "".join(helps)))
    # bench's own, whose complaint is told under another name
    assert named - {"--payload"} <= there
    assert "--api-key-file" in named


def test_the_page_names_every_key_of_the_object() -> None:
    said = run_in("pipe", ["doctor", f"ws://127.0.0.1:{closed_port()}", "--json"])
    told = json.loads(said.out)
    for key in (*told, *told["findings"][0]):
        assert f"`{key}`" in PAGE
