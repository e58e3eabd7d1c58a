"""Measure every mark of the project and print them with what was reached and the machine.

    python benchmarks/marks.py [--only server clients …] [--quick] [--openpi-python openpi-venv/bin/python]

Marks are ratios where they can be: one client process asks both sides in turns, slice by slice, and a ratio is the
median of what several fresh starts of the client and the servers found, with its quartiles (of one start: those of its
slices). Payloads: P1 CartPole (16 bytes of numbers), P2 LIBERO (two 224x224 images, 301 kB), P3 ALOHA (three 480x640
images, 2.77 MB); replies are (32, 7) float32. The openpi family is stood in for by rivals/; its client is PyPI's
openpi-client, which needs an environment of its own (measuring/driver.py says how).

    server    servers alone, asked by raw clients that decode nothing      pipeline  one session sends 200 at once
    clients   whole round trips: ours, openpi's, raw TCP, a Unix socket    healthz   while a policy works for 30 s
    faults    page faults per request                                      child     --isolate process
    batching  a 5 ms policy that batches, 1 to 64 clients                  start     start to ready, client import
    robots    8 robots that pause                                          idle      memory of idle sessions
    slow      a 20 ms policy, 32 clients
    cartpole  the demo against vibe_rl's stand-in (needs the extra jax)
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

from measuring import batching, life, wire
from measuring.harness import Effort, Row, add_effort, effort_of, machine, print_rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="measure these alone")
    add_effort(parser)
    parser.add_argument("--openpi-python", help="an interpreter that has openpi-client")
    arguments = parser.parse_args()
    groups: dict[str, Callable[[Effort], list[Row]]] = {
        "server": wire.server_rows,
        "clients": lambda effort: wire.pair_rows(effort, arguments.openpi_python),
        "faults": wire.fault_rows,
        "batching": batching.batch_rows,
        "robots": batching.robot_rows,
        "slow": batching.slow_rows,
        "cartpole": batching.cartpole_rows,
        "pipeline": batching.pipeline_rows,
        "healthz": life.health_rows,
        "child": life.child_rows,
        "start": life.start_rows,
        "idle": life.idle_rows,
    }
    for name in arguments.only or ():
        if name not in groups:
            parser.error(f"--only: expected {', '.join(groups)}, got {name!r}")
    started_at = time.monotonic()
    print(machine())
    for name, measure in groups.items():
        if not arguments.only or name in arguments.only:
            print(f"\n{name}")
            print_rows(measure(effort_of(arguments)))
    print(f"\n{time.monotonic() - started_at:.0f} s")


if __name__ == "__main__":
    main()
