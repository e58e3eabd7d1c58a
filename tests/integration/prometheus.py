"""A real Prometheus, of Debian's package, on a free port of this machine and in a folder of its own."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

DEADLINE_S = 60.0  # generous: only a bug reaches it


def program_or_skip(name: str) -> str:
    """A program of the package; where it is missing the test skips, and under CI=true it fails."""
    path = shutil.which(name)
    if path is None:
        told = f"{name} is not there: apt-get install prometheus"
        pytest.fail(told) if os.environ.get("CI") == "true" else pytest.skip(told)
    return path


class Prometheus:
    """A running one, asked by its HTTP API."""

    def __init__(self, url: str) -> None:
        self.url = url

    def get(self, path: str, **query: str) -> Any:
        """The data of an answer of the API; raises HTTPError for a query that it does not understand."""
        with urllib.request.urlopen(f"{self.url}{path}?{urlencode(query)}", timeout=DEADLINE_S) as response:
            return json.load(response)["data"]

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Labels and value of each series that the expression has now."""
        found = self.get("/api/v1/query", query=expression)["result"]
        return [(one["metric"], float(one["value"][1])) for one in found]

    def until(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """What the expression has, once it has anything."""
        ends_at = time.monotonic() + DEADLINE_S
        while not (found := self.query(expression)):
            assert time.monotonic() < ends_at, f"never any result: {expression}"
            time.sleep(0.1)
        return found


@contextmanager
def prometheus(config: str, folder: Path) -> Iterator[Prometheus]:
    """Run one with this configuration until the block ends."""
    file = folder / "prometheus.yml"
    file.write_text(config)
    address = f"127.0.0.1:{_free_port()}"
    flags = (f"--config.file={file}", f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address={address}")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program_or_skip("prometheus"), *flags], stdout=log, stderr=log, cwd=folder)
    try:
        _wait_until_ready(f"http://{address}", process, folder / "log")
        yield Prometheus(f"http://{address}")
    finally:
        process.terminate()
        process.wait(DEADLINE_S)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        return holder.getsockname()[1]


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    ends_at = time.monotonic() + DEADLINE_S
    while True:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < ends_at, log.read_text()
        try:
            urllib.request.urlopen(f"{url}/-/ready", timeout=DEADLINE_S).close()
            return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
