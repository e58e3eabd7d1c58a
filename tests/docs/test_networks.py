"""docs/networks.md: its program runs, its commands measure, its texts are what is said."""

from __future__ import annotations

import re
import shlex
import sys

import pytest

from policyserve.policies.fakes import demo_image
from tests.cli.serving import POLICYSERVE, ROOT, run
from tests.policies.frameworks import import_or_skip
from tests.server.live import serving

import_or_skip("simplejpeg")

PAGE = (ROOT / "docs" / "networks.md").read_text()
COMMANDS = [line for line in PAGE.splitlines() if line.startswith("policyserve ")]


def test_the_program_prints_the_shape_of_an_answer() -> None:
    (program,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    with serving(demo_image()) as live:
        done = run(sys.executable, "-c", program.replace("localhost:8000", f"127.0.0.1:{live.port}"))
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"\(\d+(, \d+)?,?\)\n", done.stdout)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_measures(command: str) -> None:
    with serving(demo_image()) as live:
        words = shlex.split(command.replace("localhost:8000", f"127.0.0.1:{live.port}"))[1:]
        done = run(*POLICYSERVE, *words, "--duration-s", "0.2", "--warmup-s", "0.05")
    assert done.returncode == 0, done.stderr
    assert "Mbit/s" in done.stdout


def test_what_it_quotes_is_what_is_said() -> None:
    source = (ROOT / "src/policyserve/client/images.py").read_text()
    assert "does not say that it takes JPEG: images go raw" in source
    assert "send uint8 0 … 255" in source
    for quoted in ("does not say that it takes JPEG: images go raw", "send uint8 0 … 255"):
        assert quoted in PAGE
