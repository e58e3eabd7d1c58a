"""`policyserve` that copies each message once, as the least that a recording takes of a server; for recordings.py.

    python -m measuring.copied drop serve measuring.policies:aloha_inline
    python -m measuring.copied FILE serve measuring.policies:aloha_inline

drop: the copy is dropped. FILE: it lies in shared memory, from where a process of its own writes it to that file as it
is, in pieces and with the patience of policyserve's own: no format, no checksum, no compression.
"""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from typing import Any

from policyserve.cli import main as serve
from policyserve.core.messages import EncodedText, Message
from policyserve.core.observer import Observer
from policyserve.server.server import Server

from .ablated import replace

_ROOM = 1 << 23
_WRITER = f"""
import mmap, os, sys, time
memory, pipe = int(sys.argv[1]), int(sys.argv[2])
os.nice(10)
os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
room = memoryview(mmap.mmap(memory, {_ROOM}))
file = os.open(sys.argv[3], os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
while said := os.read(pipe, 8):
    time.sleep(0.01)
    size = int.from_bytes(said, "little")
    for place in range(0, size, 1 << 17):
        os.write(file, room[place : min(place + (1 << 17), size)])
"""


class Copier(Observer):
    """What a recorder cannot do without: the policy may change a message as soon as it has it."""

    def __init__(self, target: str) -> None:
        self._pipe: int | None = None
        if target == "drop":
            self._room = memoryview(bytearray(_ROOM))
            return
        memory = os.memfd_create("copied")
        os.ftruncate(memory, _ROOM)
        self._room = memoryview(mmap.mmap(memory, _ROOM))
        reading, self._pipe = os.pipe()
        passed = (memory, reading)
        subprocess.Popen([sys.executable, "-c", _WRITER, *map(str, passed), target], pass_fds=passed)  # ends with us
        os.close(reading)

    def on_message(self, session: int, message: Message | EncodedText, arrived_at: float) -> None:
        if isinstance(message, (bytes, bytearray, memoryview)):
            self._room[: len(message)] = message
            if self._pipe is not None:
                os.write(self._pipe, len(message).to_bytes(8, "little"))


def copy_each_message(target: str) -> None:
    started = Server.__init__

    def start(self: Server, *arguments: Any, **named: Any) -> None:
        started(self, *arguments, **named)
        self.observers.add(Copier(target))

    replace(Server, "__init__", start)


if __name__ == "__main__":
    copy_each_message(sys.argv[1])
    serve(sys.argv[2:])
