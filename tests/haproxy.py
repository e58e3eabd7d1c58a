"""Debian's HAProxy, run by the tests that stand behind it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_DEADLINE_S = 30.0


@contextmanager
def haproxy(folder: Path, configuration: str) -> Iterator[int]:
    """HAProxy with this configuration, whose `bind :8000` becomes a free port of this machine; gives the port."""
    found = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")
    if found is None:
        assert os.environ.get("CI") != "true", "CI installs haproxy: make debian"
        pytest.skip("needs haproxy")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert "bind :8000" in configuration
    (folder / "haproxy.cfg").write_text(configuration.replace("bind :8000", f"bind 127.0.0.1:{port}"))
    with subprocess.Popen([found, "-db", "-f", str(folder / "haproxy.cfg")], stderr=subprocess.DEVNULL) as process:
        try:
            _until_it_listens(port)
            yield port
        finally:
            process.terminate()
            process.wait(_DEADLINE_S)


def _until_it_listens(port: int) -> None:
    deadline = time.monotonic() + _DEADLINE_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            assert time.monotonic() < deadline, "haproxy does not listen"
            time.sleep(0.02)
