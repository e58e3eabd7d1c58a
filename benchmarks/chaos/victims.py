"""Our own clients among servers that misbehave: each call must end by its deadline, and take little memory."""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from asyncio.subprocess import PIPE, Process
from pathlib import Path
from typing import Any

from .bad_server import MISDEEDS, path_of
from .ledger import Ledger

_FOLDER = Path(__file__).parents[1]
_SHORT_S, _LONG_S = 0.4, 10.0  # time-outs of a call: of one that nothing but its time-out ends; of any other
_LATE_S = 10.0  # beyond a time-out, on a machine that fifty others share
_MOST_KB = 128 * 1024  # that a call may add to the peak of its program's memory
_LONGEST_TEXT = 8192  # characters of an error
_LEAST = 3  # calls of each client, however short the soak
_PAUSE_S = 10.0  # between calls, once each misdeed was tried: floods of pings take a core
# How a call may end, but for those that its time-out ends.
_ENDS = {
    "messages that nobody asked for": {"WireError", "ConnectionLost"},
    "an error of a megabyte": {"RemoteError"},
    "pings instead of a close frame": {"answered"},
}
# A server may be seen to break the protocol, or a bound of ours, before the time is over.
_LATE_ENDS = {"DeadlineExceeded", "ConnectionLost"}


async def suffer(ledger: Ledger, dice: random.Random, end: float) -> None:
    """Both clients, one call after another until `end`, and each misdeed once if there is time."""
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "chaos.bad_server", cwd=_FOLDER, stdin=PIPE, stdout=PIPE
    )
    try:
        assert server.stdout is not None
        port = int(await server.stdout.readline())
        await asyncio.gather(*(_call_on(kind, port, ledger, dice, end) for kind in ("Client", "AsyncClient")))
    finally:
        server.kill()
        await server.wait()


async def _call_on(kind: str, port: int, ledger: Ledger, dice: random.Random, end: float) -> None:
    caller = _Caller(kind, port)
    misdeeds = dice.sample(MISDEEDS, len(MISDEEDS))
    number = 0
    try:
        while number < _LEAST or time.monotonic() < end:
            misdeed = misdeeds[number % len(misdeeds)]
            ledger.misdeed(f"{misdeed}, at {kind}", await caller.complaint(misdeed))
            number += 1
            if number >= len(misdeeds):
                await asyncio.sleep(max(0.0, min(_PAUSE_S, end - time.monotonic())))
    finally:
        await caller.kill()


class _Caller:
    """One kind of client in a process, which is started anew when a call does not end."""

    def __init__(self, kind: str, port: int) -> None:
        self._kind = kind
        self._port = port
        self._process: Process | None = None

    async def complaint(self, misdeed: str) -> str:
        """Call a server that does this; what was wrong with how the call ended, nothing if it was right."""
        timeout_s = _LONG_S if misdeed in _ENDS else _SHORT_S
        process = self._process = self._process or await self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        url = f"ws://127.0.0.1:{self._port}{path_of(misdeed)}"
        process.stdin.write(f"{json.dumps({'url': url, 'timeout_s': timeout_s})}\n".encode())
        try:
            line = await asyncio.wait_for(process.stdout.readline(), timeout_s + _LATE_S)
        except asyncio.TimeoutError:
            await self.kill()
            return f"timeout_s={timeout_s:g}, and not over after {timeout_s + _LATE_S:g} s"
        if not line:
            code = await process.wait()
            self._process = None
            return f"the program ended with {code}"
        return _wrong(misdeed, json.loads(line))

    async def kill(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            process.kill()
            await process.wait()

    async def _start(self) -> Process:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "chaos.caller", self._kind, cwd=_FOLDER, stdin=PIPE, stdout=PIPE, limit=1 << 24
        )


def _wrong(misdeed: str, told: dict[str, Any]) -> str:
    if told["ended"] not in _ENDS.get(misdeed, _LATE_ENDS):
        return f"ended with {told['ended']}: {told['text'][:120]!r}"
    if len(told["text"]) > _LONGEST_TEXT or not told["text"].replace("\n", "").isprintable():
        return f"an error of {len(told['text'])} characters: {told['text'][:120]!r}"
    if told["grown_kb"] > _MOST_KB:
        return f"took {told['grown_kb']} kB"
    return ""
