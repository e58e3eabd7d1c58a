"""A program that is a slow cable: what comes in at one of two devices goes out at the other, late, or not at all.

    python slow_cable.py ONE OTHER DELAY_S LOSS

Linux has this in its kernel as netem, but many kernels are built without; these are two devices of the kind tap, which
the program makes, and which are gone when it ends. It prints `up`, ends with its stdin, and prints at last how many
packets it carried and how many it lost.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import random
import struct
import sys
from collections import deque

_TUNSETIFF, _IFF_TAP, _IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
_LONGEST = 1 << 16  # bytes of a frame


def tap(name: str) -> int:
    """A device of that name; what is read from the file was sent by it."""
    file = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(file, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI))
    return file


class Way:
    """One direction. All frames take as long, so that none overtakes another."""

    def __init__(self, source: int, target: int, delay_s: float, loss: float) -> None:
        self._source = source
        self._target = target
        self._delay_s = delay_s
        self._loss = loss
        self._under_way: deque[bytes] = deque()
        self.carried = self.lost = 0  # packets
        asyncio.get_running_loop().add_reader(source, self._take)

    def _take(self) -> None:
        try:
            frame = os.read(self._source, _LONGEST)
        except OSError:  # the device is not up yet
            return
        if random.random() < self._loss:
            self.lost += 1
        else:
            self.carried += 1
            self._under_way.append(frame)
            asyncio.get_running_loop().call_later(self._delay_s, self._give)

    def _give(self) -> None:
        try:
            os.write(self._target, self._under_way.popleft())
        except OSError:  # the other device is not up yet, or full: a cable loses it
            return


async def main(one: str, other: str, delay_s: str, loss: str) -> None:
    files = tap(one), tap(other)
    ways = [Way(source, target, float(delay_s), float(loss)) for source, target in (files, files[::-1])]
    print("up", flush=True)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin, ended.set)
    await ended.wait()
    print(sum(way.carried for way in ways), sum(way.lost for way in ways))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
