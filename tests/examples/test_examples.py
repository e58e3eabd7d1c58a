"""Each program of examples/ is run as its `Usage:` says, on a port of its own, and prints what it is there to show."""

from __future__ import annotations

import ast
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.cli.serving import POLICYSERVE, ROOT, serving
from tests.policies.frameworks import import_or_skip

EXAMPLES = ROOT / "examples"


class Shown(NamedTuple):
    """What an example prints, a pattern for each line; lines of its server; the framework or program that it needs."""

    lines: Sequence[str]
    of_server: Sequence[str] = ()
    needs: str = ""


SHOWN: Mapping[str, Shown] = {
    "function": Shown(
        [
            r"after 1 s: acceleration \[-1\. +0\.5\] m/s², velocity \[2\. 0\.\] m/s",
            *[rf"after {second} s: acceleration \[-1\. -?0\.\] .*" for second in (2, 3)],
            r"after 4 s: acceleration \[-?0\. -?0\.\] m/s², velocity \[0\. 0\.\] m/s",
        ]
    ),
    "openpi_class": Shown(
        ["the server drives a panda", *[rf"step {step}: action \[.*0\.48.*\]" for step in (0, 10)]],
    ),
    "openpi_class_with_spec": Shown(
        [
            r"change of position in m, .*: \(50, 7\)",
            r"refused: .*observation/image: expected uint8 image .* got uint8 \(3, 224, 224\), which looks like CHW",
            r"refused: .*observation/image: expected uint8 image .* got float64 .*; send uint8 0 … 255",
            r"refused: .*; did you mean 'observation/wrist_image' by 'observation/wrist_imge'\? --map .*",
        ]
    ),
    "torch_vla": Shown(
        [
            r"8 simulators with a task each got 8 different chunks of \(10, 8\)",
            r"a simulator of 32 robots gets \(32, 10, 8\) for one request",
        ],
        needs="torch",
    ),
    "stateful": Shown(
        [
            r"one: step 1 to \[0\.5 +0\. *\], 0\.500 m left",
            r"one: step 2 to \[0\.75 +0\. *\], 0\.250 m left",
            r"other: step 1 to \[0\.5 +0\. *\], 0\.500 m left",
            r"one after its reset: step 1 to \[0\.5 +0\. *\], 0\.500 m left",
        ]
    ),
    "jax_policy": Shown(
        [r"100 chunks of \(16, 7\)", r"the model took [\d.]+ ms for the first, [\d.]+ ms for half of them"],
        of_server=[f"compiling for a batch of {size}" for size in (1, 4, 16)],
        needs="jax",
    ),
    "async_client": Shown(
        [rf"chunk {one} moved the joint to 0\.{one}0 rad; the next took \d+ ms meanwhile" for one in range(1, 5)]
    ),
    "realtime_500hz": Shown(
        [
            r"\d+ commands at 500 Hz, \d+ chunks, \d+ steps without a row",
            r"largest step \d+ mm, \d+ turns late, answers after \d+ ms",
        ]
    ),
    "realtime_vs_sync": Shown(
        [
            r"waits for each chunk: stands still 23 %, actions 463 ms old, \d\d cm off its way, jumps at seams 0\.\d ×",
            r"real time: stands still 0 %, actions 227 ms old, \d\d cm off its way, jumps at seams 0\.\d ×",
            r"written: realtime\.png, realtime\.gif \([1-9]\d\d kB\)",
        ],
        needs="matplotlib",
    ),
    "several_policies": Shown(
        [
            r"v1: 0\.35 m left",
            r"v2: 0\.11 m left",
            r"drawn:( 0\.35| 0\.11){10}",
            "told which: False",
            "answers: v1 70, v2 50",
        ]
    ),
    "several_robots": Shown(
        [
            *[rf"{robot}: 50 answers, pushed right \d+ times" for robot in ("left", "right")],
            r"without a key: .*401.*",
        ],
        needs="openssl",
    ),
    "tls_and_keys": Shown(
        [r"made .*ca\.pem.*", r"action [01] from wss://localhost:\d+/openpi"],
        needs="openssl",
    ),
    "unix_socket": Shown([r"200 answers, half of them within [\d.]+ ms"]),
    "simple_client": Shown(
        [r"Connected to ws://.*", *[rf"step +{step} \| action=[01] \| .*" for step in range(10)], "Done."]
    ),
}


def programs() -> list[str]:
    return sorted(path.stem for path in EXAMPLES.glob("*.py"))


def usage(name: str) -> list[str]:
    """The lines to paste: those that are indented below `Usage:` in the program's docstring."""
    docstring = ast.get_docstring(ast.parse((EXAMPLES / f"{name}.py").read_text())) or ""
    found = re.search(r"^Usage:\n((?:    .+\n)+)", docstring, re.MULTILINE)
    assert found, f"{name}.py has no Usage"
    return [line.strip() for line in found.group(1).splitlines()]


def require(needs: str) -> None:
    """Skip where a framework or a program is missing; where CI is true its absence is an error."""
    if needs and shutil.which(needs) is None and find_spec(needs) is None:
        import_or_skip(needs)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Where lines are pasted: a directory with the examples, and a folder of programs called python and policyserve."""
    (tmp_path / "examples").symlink_to(EXAMPLES)
    (tmp_path / "bin").mkdir()
    for name, command in (("python", [sys.executable]), ("policyserve", POLICYSERVE)):
        program = tmp_path / "bin" / name
        program.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
        program.chmod(0o755)
    return tmp_path


def paste(lines: Sequence[str], place: Path) -> list[str]:
    """Run lines in a shell, as they stand; returns what they print."""
    script = "\n".join(['PATH="$PWD/bin:$PATH"', *lines])
    shell = ["bash", "-euo", "pipefail", "-c", script]
    done = subprocess.run(shell, cwd=place, text=True, capture_output=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.splitlines()


def unlike(patterns: Sequence[str], lines: Sequence[str]) -> list[tuple[str, str]]:
    """The patterns that their lines do not meet."""
    return [(pattern, line) for pattern, line in zip(patterns, lines, strict=True) if not re.fullmatch(pattern, line)]


@pytest.mark.parametrize("name", programs())
def test_an_example_does_what_its_usage_says(name: str, checkout: Path) -> None:
    shown = SHOWN[name]
    require(shown.needs)
    lines = usage(name)
    (place,) = [place for place, line in enumerate(lines) if line.startswith("policyserve serve ")]
    printed = paste(lines[:place], checkout)
    is_local = "--uds" in lines[place]
    port = [] if is_local else ["--host", "127.0.0.1", "--port", "0"]
    with serving([*POLICYSERVE, *shlex.split(lines[place])[1:], *port], cwd=checkout) as server:
        url = "" if is_local else f" --url {server.url}"
        printed += paste([f"{line}{url}" for line in lines[place + 1 :]], checkout)
        assert not unlike(shown.lines, printed)
        told = [line.strip() for line in server.lines]
        assert [line for line in shown.of_server if line not in told] == []
        assert server.stop()[0] == 0


def test_every_example_is_in_the_table_and_every_one_that_it_names_is_there() -> None:
    table = (EXAMPLES / "README.md").read_text()
    assert sorted(re.findall(r"^\| \[(\w+)\.py\]\(\1\.py\) ", table, re.MULTILINE)) == programs()


def test_the_pages_point_to_every_example() -> None:
    pages = "".join(
        (ROOT / "docs" / name).read_text() for name in ("writing_a_policy.md", "realtime.md", "several_policies.md")
    )
    assert sorted({*re.findall(r"\]\(\.\./examples/(\w+)\.py\)", pages), "simple_client"}) == programs()
