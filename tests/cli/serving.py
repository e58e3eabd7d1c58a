"""A server in a process of its own, started by a command as a person types it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
POLICYSERVE = (sys.executable, "-m", "policyserve.cli")


class Serving:
    """A started server: its URL, and what it printed up to being ready."""

    def __init__(self, process: subprocess.Popen[str], lines: list[str]) -> None:
        self.process = process
        self.lines = lines
        text = "".join(lines)
        own = re.search(r"^ *url .*", text, re.MULTILINE)  # another line may tell of another server
        found = re.search(r"wss?://\S+:\d+|ws\+unix://\S+", own.group() if own else text)
        assert found, lines
        self.url = found.group()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
        """Signal it; returns its exit code and all of stderr."""
        self.process.send_signal(number)
        _, stderr = self.process.communicate(timeout=30)
        return self.process.returncode, stderr


@contextmanager
def serving(command: Sequence[str], cwd: Path = ROOT) -> Iterator[Serving]:
    """Run a serve command until it says that it is ready; kill it at the end if nobody stopped it."""
    process = subprocess.Popen(
        command,
        cwd=cwd,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        assert process.stdout is not None
        lines: list[str] = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("ready"):
                break
        else:
            raise AssertionError(f"not ready: {process.communicate()[1]}")
        yield Serving(process, lines)
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def run(*command: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(command, cwd=cwd, text=True, capture_output=True, timeout=100, check=False)
