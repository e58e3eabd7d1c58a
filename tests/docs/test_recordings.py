"""docs/recordings.md: its commands have the flags that it shows, its program runs, its topics are those of a file."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from policyserve import Client
from policyserve.policies.fakes import demo_image
from tests.cli.serving import ROOT
from tests.cli.terminals import knows
from tests.policies.frameworks import import_or_skip
from tests.server.live import serving

PAGE = (ROOT / "docs" / "recordings.md").read_text()
COMMANDS = re.findall(r"^policyserve (.*)$", PAGE, re.MULTILINE)
NAME = "policyserve-20260301-101500.mcap"


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """A recording of one session, where the page's program looks for it."""
    import_or_skip("mcap.writer")
    observation = {"image": np.zeros((64, 64, 3), np.uint8), "state": np.ones(3, np.float32)}
    with serving(demo_image(), record=str(tmp_path / "runs")) as live, Client(f"ws://127.0.0.1:{live.port}") as client:
        client.infer(observation)
    (path,) = (tmp_path / "runs").glob("policyserve-*.mcap")
    return path.rename(path.with_name(NAME))


@pytest.mark.parametrize("command", COMMANDS)
def test_its_commands_have_their_flags(command: str) -> None:
    assert knows(shlex.split(command))


def test_its_program_prints_each_exchange(recorded: Path) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=recorded.parents[1], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    first, exchange, *_ = done.stdout.splitlines()
    assert first == "demo_image 0 False"
    assert exchange.startswith("1 dict_keys(['image', 'state']) [")


def test_its_topics_are_those_of_a_file(recorded: Path) -> None:
    reader = import_or_skip("mcap.reader")
    with recorded.open("rb") as file:
        read = reader.make_reader(file)
        channels = read.get_summary().channels.values()
        metadata = {one.name for one in read.iter_metadata()}
    told = {topic for row in re.findall(r"^\| (`/.*?) \|", PAGE, re.MULTILINE) for topic in re.findall(r"`(.*?)`", row)}
    found = {channel.topic.replace("/s1/image", "/s1/observation/image").replace("/s1", "/s3") for channel in channels}
    assert found == told
    assert {channel.message_encoding for channel in channels} <= {"binary", "text", "json"}
    assert metadata == set(re.findall(r"`(policyserve\.\w+)`", PAGE))
