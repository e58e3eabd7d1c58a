"""Sends back every message, over our own WebSockets, and has Autobahn's fuzzing client judge how.

    python tests/interop/programs/echo_server.py --port 9001
    python tests/interop/programs/echo_server.py --wstest ../wstest/bin/wstest --report ../report

The first serves until it is stopped. The second runs the 301 cases that concern a server without compression, 1 to 10,
prints those that were not passed strictly, and exits with 1 if one failed. It takes a minute, and wants `wstest` of
autobahntestsuite, which is a program for Python 2.7; with it on the PATH `pytest -m interop` runs this, too:

    pip install 'virtualenv<20.22' && virtualenv -p python2.7 ../wstest
    ../wstest/bin/pip install autobahntestsuite==25.10.1

What is judged is a server's: its handshake, `Connection`, `Pipe` and `FrameReader`. In the place of a conversation with
a policy each message goes back as it came, at once, as the cases expect it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections import Counter
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from policyserve import PolicyServer, ServerConfig
from policyserve.server.conversation import Conversation
from policyserve.server.handshake import Credentials
from policyserve.server.peers import SessionPeer
from policyserve.server.reception import Reception
from policyserve.server.routes import Response

_AGENT = "policyserve"
_CASES = [f"{group}.*" for group in range(1, 11)]  # 12 and 13 are compression, which is never agreed on
_PASSED = ("OK", "INFORMATIONAL", "NON-STRICT")  # Autobahn's words; NON-STRICT: allowed, but late


class Echo(Reception):
    """Opens sessions that send back what they hear, and greets nobody."""

    def open_session(
        self, peer: SessionPeer, path: str, credentials: Credentials, asks_images: str = ""
    ) -> Conversation | Response:
        opened = super().open_session(peer, path, credentials, asks_images)
        if isinstance(opened, Conversation):
            opened.receive = partial(_send_back, peer)
        return opened

    def start_session(self, peer: SessionPeer) -> None:
        """There is no policy to begin with."""


def _send_back(peer: SessionPeer, message: Any, now: float) -> None:
    is_kept_encoded = hasattr(message, "text")  # a text message, which nobody has decoded yet
    peer.send(message.text() if is_kept_encoded else message)


class EchoServer(PolicyServer):
    """A server with such a reception."""

    def __init__(self, config: ServerConfig) -> None:
        super().__init__(lambda observation: observation, config=config)
        admission = self.reception.admission
        self.reception = Echo(self.config, self.catalogue, self.observers, self.counters, admission)


async def serve(port: int) -> None:
    """Serve until a signal comes, on a port that is printed."""
    server = EchoServer(ServerConfig(host="127.0.0.1", port=port))
    await server.run(lambda _: print(server.address.port, flush=True))


async def judge(wstest: Path, report: Path) -> dict[str, dict[str, Any]]:
    """Run Autobahn's fuzzing client; its results by case."""
    async with EchoServer(ServerConfig(host="127.0.0.1", port=0)) as server:
        agent = {"agent": _AGENT, "url": f"ws://127.0.0.1:{server.address.port}", "options": {"version": 18}}
        spec = {
            "outdir": str(report),
            "servers": [agent],
            "cases": _CASES,
            "exclude-cases": [],
            "exclude-agent-cases": {},
        }
        with TemporaryDirectory() as folder:
            told = Path(folder) / "spec.json"
            told.write_text(json.dumps(spec))
            client = await asyncio.create_subprocess_exec(wstest, "-m", "fuzzingclient", "-s", str(told))
            await client.wait()
    return json.loads((report / "index.json").read_text())[_AGENT]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--wstest", type=Path, help="Autobahn's program: run its fuzzing client and end")
    parser.add_argument("--report", type=Path, default=Path("autobahn"), help="the folder of its report")
    flags = parser.parse_args()
    if flags.wstest is None:
        asyncio.run(serve(flags.port))
        return 0
    results = asyncio.run(judge(flags.wstest, flags.report.absolute()))
    for case, result in results.items():
        if (result["behavior"], result["behaviorClose"]) != ("OK", "OK"):
            print(f"{case}: {result['behavior']}, closed {result['behaviorClose']}")
    counted = Counter(result["behavior"] for result in results.values())
    print(f"{len(results)} cases: " + ", ".join(f"{count} {word}" for word, count in counted.most_common()))
    failed = [1 for result in results.values() if {result["behavior"], result["behaviorClose"]} - {*_PASSED}]
    return 1 if failed or not results else 0


if __name__ == "__main__":
    sys.exit(main())
