"""One of our clients, a program of its own, which calls servers that misbehave: `python -m chaos.caller Client`.

Each line on stdin is a call, JSON of url and timeout_s; each line on stdout is how it ended. A call that never ends is
for its starter to notice, who kills the program.
"""

from __future__ import annotations

import asyncio
import json
import logging
import resource
import sys
import time
from typing import Any

import numpy as np

from policyserve import AsyncClient, Client
from policyserve.core.errors import PolicyserveError

_MOST_BYTES = 4 << 30  # of address space: a client without a bound shall not take the machine with it
_PAUSE_S = 0.2  # between two calls: what nobody asked for comes then
_OBSERVATION = {"state": np.zeros(3)}


def call_blocking(url: str, timeout_s: float) -> None:
    with Client(url, dialect="openpi", timeout_s=timeout_s, retry_for_s=0) as client:
        client.infer(_OBSERVATION)
        if "nobody" in url:
            time.sleep(_PAUSE_S)
            client.infer(_OBSERVATION)


async def call(url: str, timeout_s: float) -> None:
    async with AsyncClient(url, dialect="openpi", timeout_s=timeout_s, retry_for_s=0) as client:
        await client.infer(_OBSERVATION)
        if "nobody" in url:
            await asyncio.sleep(_PAUSE_S)
            await client.infer(_OBSERVATION)


def end_of(kind: str, url: str, timeout_s: float) -> dict[str, Any]:
    """How a session ended: the error's class and text, seconds, and kilobytes that the peak of memory rose by."""
    began_at, before_kb = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ended, text = "answered", ""
    try:
        if kind == "Client":
            call_blocking(url, timeout_s)
        else:
            asyncio.run(call(url, timeout_s))
    except PolicyserveError as error:
        ended, text = type(error).__name__, str(error)
    except Exception as error:  # told, like every other end
        ended, text = f"{type(error).__name__}: {error}"[:200], ""
    grown_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb
    return {"ended": ended, "text": text, "seconds": time.monotonic() - began_at, "grown_kb": grown_kb}


def main() -> None:
    """Call as told until stdin ends."""
    logging.getLogger("policyserve").setLevel(logging.ERROR)  # a client's lines about servers that are gone
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_BYTES, _MOST_BYTES))
    for line in sys.stdin:
        print(json.dumps(end_of(sys.argv[1], **json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
