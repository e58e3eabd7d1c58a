"""Count the connections of websockets' synchronous client, which is openpi's, that hang while they open by TLS.

    python benchmarks/tls_connections.py --connections 1500

A server of ours that sends TLS 1.3 session tickets, as Python's do by default, hangs one in some hundreds: the client
takes them up in one thread while it writes its request in another, and the request never leaves. So ours sends none.
This opens connections one after the other, with and without tickets, asks once on each, and prints how many hung.
Needs the command openssl, which makes a certificate.
"""

from __future__ import annotations

import argparse
import shutil
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from measuring.harness import Program, started
from websockets.sync.client import connect

from policyserve.dialects.vibe_rl import VibeRL

SERVER = """
import asyncio, logging, sys, policyserve
from policyserve.server import tls
logging.basicConfig(level=logging.ERROR)
load = tls.load

def load_with_tickets(cert, key):
    context = load(cert, key)
    context.num_tickets = int(sys.argv[3])
    return context

if sys.argv[3:]:
    tls.load = load_with_tickets
config = policyserve.ServerConfig(host="127.0.0.1", port=0, tls_cert=sys.argv[1], tls_key=sys.argv[2])
server = policyserve.PolicyServer(lambda x: x, config=config)
asyncio.run(server.run(on_ready=lambda spec: print(f"url {server.address.url}\\nready", flush=True)))
"""
PYTHONS_TICKETS = 2  # what ssl.SSLContext has by default
_PATIENCE_S = 3.0  # a connection takes some ten milliseconds


@dataclass
class Tally:
    """What became of connections to one server."""

    tickets: int | None  # that the server sends; None: as it does by itself
    opened_ms: list[float] = field(default_factory=list)
    hung: int = 0

    @property
    def connections(self) -> int:
        return len(self.opened_ms) + self.hung


def has_openssl() -> bool:
    """Whether a certificate can be made."""
    return shutil.which("openssl") is not None


def open_many(connections: int, tickets: int | None, seconds: float) -> Tally:
    """Open so many connections, one after the other, to a new server; stop early after so many seconds.

    tickets: how many the server sends; None: as it does by itself.
    """
    tally = Tally(tickets)
    with tempfile.TemporaryDirectory() as folder:
        cert, key = _make_certificate(Path(folder))
        context = ssl.create_default_context(cafile=cert)
        with started(Program(("-c", SERVER, cert, key, *([] if tickets is None else [str(tickets)])))) as server:
            ends_at = time.monotonic() + seconds
            while tally.connections < connections and time.monotonic() < ends_at:
                _open(f"wss://localhost:{server.port}/vibe_rl", context, tally)
    return tally


def _open(url: str, context: ssl.SSLContext, tally: Tally) -> None:
    """Open one connection, ask once, close it."""
    started_at = time.perf_counter()
    request = VibeRL().write_request({"obs": np.zeros(1, np.float32)})
    try:
        with connect(url, ssl=context, compression=None, open_timeout=_PATIENCE_S, close_timeout=_PATIENCE_S) as peer:
            peer.send(request)
            peer.recv(timeout=_PATIENCE_S)
            tally.opened_ms.append((time.perf_counter() - started_at) * 1e3)
    except TimeoutError:
        tally.hung += 1


def _make_certificate(folder: Path) -> tuple[str, str]:
    """A self-signed certificate for localhost and its key."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    names += ["-addext", "keyUsage=critical,digitalSignature,keyCertSign"]
    subprocess.run([*made, *names, "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True)
    return str(cert), str(key)


def table(tallies: Sequence[Tally]) -> str:
    """One line for each server."""
    lines = [f"{'session tickets':<16} {'connections':>12} {'hung':>6} {'p50 ms':>8} {'p99 ms':>8}"]
    for tally in tallies:
        p50, p99 = np.percentile(tally.opened_ms, (50, 99)) if tally.opened_ms else (np.nan, np.nan)
        sent = "none, as ours" if tally.tickets is None else f"{tally.tickets}, as Python's"
        lines.append(f"{sent:<16} {tally.connections:>12} {tally.hung:>6} {p50:>8.1f} {p99:>8.1f}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=1500, help="to each of the two servers")
    parser.add_argument("--seconds", type=float, default=300.0, help="for each of the two servers, at most")
    flags = parser.parse_args()
    if not has_openssl():
        print("no openssl command here: nothing was measured")
        return 0
    tallies = [open_many(flags.connections, tickets, flags.seconds) for tickets in (PYTHONS_TICKETS, None)]
    print(table(tallies))
    return 1 if tallies[-1].hung else 0


if __name__ == "__main__":
    sys.exit(main())
