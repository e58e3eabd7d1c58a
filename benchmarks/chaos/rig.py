"""The server's process, seen from the soak: started, asked, signalled, killed; and what the system says of it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parents[1]
_START_S, _ANSWER_S = 60.0, 30.0
KEY, OTHER_KEY = "soak-key-of-24-characters", "soak-other-key-24-characters"


@dataclass(frozen=True)
class Place:
    """Where the server listens: a port of this machine, or a Unix socket.

    gr00t, lerobot: the ports of GR00T's and LeRobot's clients; None without pyzmq, and without grpcio.
    """

    port: int
    uds: str | None
    gr00t: int | None = None
    lerobot: int | None = None


@dataclass(frozen=True)
class Held:
    """What the server holds. Kilobytes and counts of its process, children_kb of those that it has started.

    peak_kb: the most that rss_kb ever was.
    """

    rss_kb: int
    peak_kb: int
    children_kb: int
    fds: int
    threads: int
    tasks: int
    sessions: int
    strangers: int
    pending: int
    stage: str
    replaced: int  # how often the policy was


class Rig:
    """One life of the server. Start it before all else.

    keys: the file of its API keys; None: it has its key from the environment alone.
    """

    def __init__(self, settings: Mapping[str, Any], log: Path, keys: Path | None) -> None:
        self._settings = {**settings, "api_key_file": None if keys is None else str(keys)}
        self._log = log
        self._keys = keys
        self._process: Process | None = None
        self._turn = asyncio.Lock()
        self.place = Place(0, None)

    async def start(self) -> None:
        """Start it and wait until it is ready; raises RuntimeError if it is not."""
        await self.listen()
        await self.ready()

    async def listen(self) -> None:
        """Start it and wait until it listens; its policy may be loading still, and ready() is to be called."""
        environment = {**os.environ}
        if self._keys is None:
            environment["POLICYSERVE_API_KEY"] = f"soak:{KEY}"
        else:
            self.write_keys()
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "chaos.host", json.dumps(self._settings),
                cwd=_FOLDER, stdin=PIPE, stdout=PIPE, stderr=log, env=environment,
            )  # fmt: skip
        told = await self._read(_START_S)
        uds = self._settings.get("uds")
        self.place = Place(told["port"], uds, told["gr00t"], told["lerobot"])

    async def ready(self) -> None:
        """Wait until its policy is loaded; raises RuntimeError if it never is. Ask it nothing before."""
        await self._read(_START_S)

    @property
    def settings(self) -> Mapping[str, Any]:
        """What it was started with."""
        return self._settings

    def write_keys(self, more: str = "") -> None:
        """Write the file of API keys anew."""
        assert self._keys is not None, "its key is in its environment"
        beside = self._keys.with_suffix(".new")
        beside.touch(mode=0o600)
        beside.write_text(f"soak: {KEY}\n" + (f"other: {more}\n" if more else ""))
        beside.replace(self._keys)

    async def ask(self, word: str = "") -> Held:
        """How it stands. word: what it is to do before, see host.obey()."""
        async with self._turn:
            process = self._running
            assert process.stdin is not None
            process.stdin.write(f"{word}\n".encode())
            told = await self._read(_ANSWER_S)
        own = Path(f"/proc/{process.pid}")
        children = _children(process.pid)
        return Held(
            _status(own, "VmRSS"),
            _status(own, "VmHWM"),
            sum(_status(Path(f"/proc/{child}"), "VmRSS") for child in children),
            len(os.listdir(own / "fd")),
            _status(own, "Threads"),
            **told,
        )

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._running.send_signal(number)

    def kill_child(self) -> bool:
        """Kill the policy's process; False if there is none."""
        children = _children(self._running.pid)
        for child in children[-1:]:  # the last of a keeper and the policy's own
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        return bool(children)

    async def end(self) -> tuple[int, Mapping[str, Any]]:
        """Wait for the end that a signal brings: the exit code and its last words, none if it was killed."""
        process = self._running
        assert process.stdout is not None
        said = await asyncio.wait_for(process.stdout.read(), _START_S)
        code = await asyncio.wait_for(process.wait(), _START_S)
        lines = said.decode().splitlines()
        return code, json.loads(lines[-1]) if lines else {}

    async def kill(self) -> None:
        """End it however it stands."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    @property
    def _running(self) -> Process:
        assert self._process is not None, "start it first"
        return self._process

    async def _read(self, timeout_s: float) -> dict[str, Any]:
        assert self._running.stdout is not None
        line = await asyncio.wait_for(self._running.stdout.readline(), timeout_s)
        if not line:
            raise RuntimeError(f"the server has ended; its log: {self._log}")
        return json.loads(line)


def _status(process: Path, name: str) -> int:
    """A number in /proc's status; 0 if the process has ended."""
    with suppress(FileNotFoundError, ProcessLookupError):
        for line in (process / "status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1])
    return 0


def _children(number: int) -> list[int]:
    """Those that it has started, each followed by those that they have started."""
    direct: list[int] = []
    with suppress(FileNotFoundError, ProcessLookupError):
        for task in Path(f"/proc/{number}/task").iterdir():
            with suppress(FileNotFoundError, ProcessLookupError):
                direct += map(int, (task / "children").read_text().split())
    return [one for child in direct for one in (child, *_children(child))]
