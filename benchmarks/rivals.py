"""Drive our server, stand-ins of the others and bare TCP side by side: one client's round trip, a policy for nothing.

    python benchmarks/rivals.py [--payloads cartpole libero aloha] [--quick] [--openpi-python openpi-venv/bin/python]

All stacks of a payload take turns, slice by slice. Per cell: the median round trip in µs, and in brackets its ratio to
the first stack of the openpi family in the table, the median of the slices' ratios. Payloads: cartpole (16 bytes of
numbers), libero (301 kB), aloha (2.77 MB); replies are (32, 7) float32. Each server runs in a process of its own, and
so does openpi-client (rivals/unmodified_client.py says which environment it needs).

    raw client   sends one prepared frame and decodes nothing: the server alone
    deflate      the library's defaults on both sides, as in vibe_rl's document: every message is compressed (the pixels
                 are random)
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from measuring.harness import (
    QUICK,
    Effort,
    OpenpiClient,
    TcpFleet,
    machine,
    median_us,
    observation_for,
    rival,
    serve,
    take_turns,
    takes_flag,
    trip_ratio,
)
from websockets.sync.client import connect

from policyserve.bench.fleet import Fleet, Single
from policyserve.bench.load import Load
from policyserve.bench.payloads import payload_for
from policyserve.bench.raw_fleet import RawFleet
from policyserve.bench.tally import Tally
from policyserve.dialects import by_name

_REPLY_BYTES = 1050
_REFERENCES = ("openpi's server, openpi-client", "openpi's server, our client")


class PlainClient:
    """vibe_rl's documented client: `websockets` on its defaults, but for the size of messages."""

    def __init__(self, url: str, observation: Mapping[str, Any]) -> None:
        self._dialect = by_name("vibe_rl")
        self._observation = observation
        # Entered by hand, since it outlives this call: the same in every release of the library.
        self._connection = connect(url, max_size=None).__enter__()

    def drive(self, tally: Tally, seconds: float) -> None:
        start = time.perf_counter()
        while (sent := time.perf_counter()) < start + seconds:
            self._connection.send(self._dialect.write_request(self._observation))
            self._dialect.read_reply(self._connection.recv())
            tally.answered(sent, sent, time.perf_counter(), {})
        tally.seconds += time.perf_counter() - start

    def close(self) -> None:
        self._connection.close()


def stacks(payload: str, openpi_python: str | None, stack: ExitStack) -> dict[str, Fleet]:
    """Every pair of server and client, connected; the stack ends them."""
    observation = observation_for(payload)
    arrays = {key: value for key, value in payload_for(payload, {}, "vibe_rl").observation.items() if key != "prompt"}
    request = by_name("openpi").write_request(observation)
    inline = stack.enter_context(serve(f"measuring.policies:{payload}_inline"))
    thread = stack.enter_context(serve(f"measuring.policies:{payload}_thread"))
    openpi = stack.enter_context(rival("metadata_first"))
    wall_x = stack.enter_context(rival("metadata_first", "--family", "wall_x"))
    vibe_rl = stack.enter_context(rival("vibe_rl", "--policy", "zeros"))
    tcp = stack.enter_context(rival("tcp", "--request-bytes", str(len(request)), "--reply-bytes", str(_REPLY_BYTES)))
    fleets: dict[str, Fleet] = {"raw TCP, nothing decoded": TcpFleet(tcp.url, len(request), _REPLY_BYTES)}
    if openpi_python is not None:
        fleets["openpi's server, openpi-client"] = OpenpiClient(openpi_python, openpi.port, payload)
        fleets["our server, openpi-client"] = OpenpiClient(openpi_python, inline.port, payload)
    for name, url, dialect, sent in (
        ("openpi's server", openpi.url, "openpi", observation),
        ("Wall-X's server", wall_x.url, "wall_x", observation),
        ("vibe_rl's server", vibe_rl.url, "vibe_rl", arrays),
        ("our server", inline.url, "openpi", observation),
        ("our server, policy in a thread", thread.url, "openpi", observation),
    ):
        fleets[f"{name}, raw client"] = RawFleet(Load(url, dialect, sent))
        fleets[f"{name}, our client"] = Single(Load(url, dialect, sent))
    fleets["vibe_rl's server, deflate"] = PlainClient(vibe_rl.url, arrays)
    if takes_flag("--uds"):
        place = Path(stack.enter_context(TemporaryDirectory())) / "policy.sock"
        stack.enter_context(serve(f"measuring.policies:{payload}_inline", "--uds", str(place)))
        fleets["our server, our client, Unix socket"] = Single(Load(f"ws+unix://{place}", "openpi", observation))
    for fleet in fleets.values():
        stack.callback(fleet.close)
    return fleets


def column(tallies: Mapping[str, Sequence[Tally]]) -> dict[str, str]:
    """One payload's cells."""
    reference = next(name for name in _REFERENCES if name in tallies)
    return {
        name: f"{median_us(slices):9.0f} ({trip_ratio(tallies, name, reference).median:.2f})"
        for name, slices in tallies.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = ("cartpole", "libero", "aloha")
    parser.add_argument("--payloads", nargs="+", choices=known, default=list(known))
    parser.add_argument("--quick", action="store_true", help="a tenth of the time, more noise")
    parser.add_argument("--openpi-python", help="an interpreter that has openpi-client")
    arguments = parser.parse_args()
    print(machine())
    if arguments.openpi_python is None:
        print(
            "rows of openpi-client are left out: no --openpi-python (rivals/unmodified_client.py says how to make it)"
        )
    columns: dict[str, dict[str, str]] = {}
    for payload in arguments.payloads:
        with ExitStack() as stack:
            fleets = stacks(payload, arguments.openpi_python, stack)
            columns[payload] = column(take_turns(fleets, QUICK if arguments.quick else Effort()))
    print(f"\n{'p50 in µs (ratio)':<44}" + "".join(f"{payload:>18}" for payload in columns))
    for name in next(iter(columns.values())):
        print(f"{name:<44}" + "".join(f"{cells[name]:>18}" for cells in columns.values()))


if __name__ == "__main__":
    main()
