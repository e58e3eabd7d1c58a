"""Drive our server, stand-ins of the others and bare TCP side by side: one client's round trip, a policy for nothing.

    python benchmarks/rivals.py [--payloads cartpole libero aloha] [--quick] [--openpi-python openpi-venv/bin/python]

One client process asks all stacks of a payload in turns, slice by slice, in several fresh starts of everything. Per
cell: the median round trip in µs, and in brackets its ratio to the first stack of the openpi family in the table, the
median of the starts' ratios. Payloads: cartpole (16 bytes of numbers), libero (301 kB), aloha (2.77 MB); replies are
(32, 7) float32. Each server runs in a process of its own. openpi-client needs an environment of its own
(measuring/driver.py says how).

    raw client   sends one prepared frame and decodes nothing: the server alone
    deflate      the library's defaults on both sides, as in vibe_rl's document: every message is compressed (the pixels
                 are random)
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from measuring.harness import Effort, add_effort, effort_of, machine, our_server, stand_in
from measuring.turns import Asker, Sides, in_turns, median_us, trip_ratio
from measuring.wire import tcp_server

_REFERENCES = ("openpi's server, openpi-client", "openpi's server, our client")


def stacks(payload: str, effort: Effort, openpi_python: str | None) -> list[Sides]:
    """Every pair of server and client, in turns."""
    with TemporaryDirectory() as folder:
        servers = {
            "tcp": tcp_server(payload),
            "openpi": stand_in("metadata_first"),
            "wall_x": stand_in("metadata_first", "--family", "wall_x"),
            "vibe_rl": stand_in("vibe_rl", "--policy", "zeros"),
            "inline": our_server(f"measuring.policies:{payload}_inline"),
            "thread": our_server(f"measuring.policies:{payload}_thread"),
            "uds": our_server(f"measuring.policies:{payload}_inline", "--uds", str(Path(folder) / "policy.sock")),
        }
        askers = {"raw TCP, nothing decoded": Asker("tcp", payload, "tcp")}
        if openpi_python is not None:
            askers["openpi's server, openpi-client"] = Asker("openpi", payload, "openpi-client")
            askers["our server, openpi-client"] = Asker("inline", payload, "openpi-client")
        for name, server, dialect in (
            ("openpi's server", "openpi", "openpi"),
            ("Wall-X's server", "wall_x", "wall_x"),
            ("vibe_rl's server", "vibe_rl", "vibe_rl"),
            ("our server", "inline", "openpi"),
            ("our server, policy in a thread", "thread", "openpi"),
        ):
            askers[f"{name}, raw client"] = Asker(server, payload, "raw", dialect)
            askers[f"{name}, our client"] = Asker(server, payload, "ours", dialect)
        askers["vibe_rl's server, deflate"] = Asker("vibe_rl", payload, "plain", "vibe_rl")
        askers["our server, our client, Unix socket"] = Asker("uds", payload, "ours")
        return in_turns(servers, askers, effort, openpi_python)


def column(starts: Sequence[Sides]) -> dict[str, str]:
    """One payload's cells."""
    reference = next(name for name in _REFERENCES if name in starts[0])
    return {
        name: f"{median_us(starts, name):9.0f} ({trip_ratio(starts, name, reference).median:.2f})" for name in starts[0]
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = ("cartpole", "libero", "aloha")
    parser.add_argument("--payloads", nargs="+", choices=known, default=list(known))
    add_effort(parser)
    parser.add_argument("--openpi-python", help="an interpreter that has openpi-client")
    arguments = parser.parse_args()
    print(machine())
    if arguments.openpi_python is None:
        print("rows of openpi-client are left out: no --openpi-python (measuring/driver.py says how to make it)")
    columns: dict[str, dict[str, str]] = {}
    for payload in arguments.payloads:
        columns[payload] = column(stacks(payload, effort_of(arguments), arguments.openpi_python))
    print(f"\n{'p50 in µs (ratio)':<44}" + "".join(f"{payload:>18}" for payload in columns))
    for name in next(iter(columns.values())):
        print(f"{name:<44}" + "".join(f"{cells[name]:>18}" for cells in columns.values()))


if __name__ == "__main__":
    main()
