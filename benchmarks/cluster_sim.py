#!/usr/bin/env python3
"""Where a cluster's limits are, from one replica to a thousand: a simulation of events with measured costs.

    python benchmarks/cluster_sim.py                        # all tables, less than a minute
    python benchmarks/cluster_sim.py --replicas 64 --sessions 5000 --edges 8 --seconds 20   # one row of your own

Nothing is started and Ray is not needed. benchmarks/simulated/costs.py has each cost and where it is from: some are
assumed. The first table holds the model against real runs on one machine, and shows where it misses. A robot asks once
a second; a policy takes 20 ms for a batch of up to 16; in the middle of each run one replica is killed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace

from simulated.costs import Costs
from simulated.fleet import Fleet
from simulated.limits import control_share, edges_for, quantile, requests_at_balancer, requests_of_edge
from simulated.parts import Shape

_BUSY = 0.7  # of a core, that an edge may be: beyond it answers come late
_PER_REPLICA = 100  # sessions
_CELL = 16  # replicas
_MOST_REQUESTS = 60_000  # of one run, which bounds its time


@dataclass(frozen=True)
class Real:
    """A run of `benchmarks/cluster.py --replicas`. left: cores that other programs left to it."""

    replicas: int
    rate: float
    group: float | None  # None: was not read
    left: float


# On two cores, in four rounds. The costs are fitted to the first two, six rows, and to nothing of the others.
REAL = (
    Real(1, 377, None, 0.7),
    Real(2, 350, None, 1.0),
    Real(4, 294, None, 1.5),
    Real(1, 368, 8.0, 0.6),
    Real(2, 316, 4.0, 0.9),
    Real(4, 157, 2.0, 1.1),
    Real(1, 339, 7.9, 0.5),
    Real(1, 293, 8.0, 0.55),
    Real(2, 514, 7.3, 0.94),
    Real(4, 444, 3.0, 1.28),
)


def main() -> int:
    parser = argparse.ArgumentParser(description="Where a cluster's limits are: a simulation with measured costs.")
    parser.add_argument("--replicas", type=int, default=0, help="one row: so many replicas")
    parser.add_argument("--sessions", type=int, default=0, help="of that row; 0: 100 a replica")
    parser.add_argument("--edges", type=int, default=0, help="of that row; 0: as many as it takes")
    parser.add_argument("--seconds", type=float, default=0.0, help="of each run; 0: so long as 60,000 requests take")
    parser.add_argument("--every-s", type=float, default=1.0, help="from one request of a robot to its next")
    parser.add_argument("--batch-ms", type=float, default=20.0, help="that the policy takes for a batch")
    parser.add_argument("--max-batch", type=int, default=16, help="requests in a batch, at most")
    parser.add_argument("--request-kb", type=float, default=0.1, help="of one request")
    parser.add_argument("--lanes-per-replica", type=int, default=2, help="of each edge")
    parser.add_argument("--max-lanes", type=int, default=0, help="of each edge; 0: as many as it takes for itself")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    for name in ("replicas", "sessions", "edges", "seconds", "batch_ms", "request_kb", "max_lanes"):
        if not 0 <= getattr(args, name) <= 1e6:
            parser.error(f"--{name.replace('_', '-')}: expected 0 … 1000000, got {getattr(args, name)}")
    for name in ("every_s", "max_batch", "lanes_per_replica"):
        if getattr(args, name) <= 0:
            parser.error(f"--{name.replace('_', '-')}: expected more than 0, got {getattr(args, name)}")
    if args.replicas:
        print(_HEAD)
        print(row(_shape(args, args.replicas, args.sessions or _PER_REPLICA * args.replicas, args.edges), args.seed))
        return 0
    print("\n".join(checked()))
    print("\nOne cluster: its edges share all replicas\n" + _HEAD)
    for count in (1, 4, 16, 64, 256, 1000):
        print(row(_shape(args, count, _PER_REPLICA * count, 0), args.seed), flush=True)
    print(f"\nThe same robots on clusters of {_CELL} replicas: one of them\n" + _HEAD)
    print(row(_shape(args, _CELL, _PER_REPLICA * _CELL, 0), args.seed))
    print("\n".join(["", *lanes(args.seed), "", *faults(args.seed), "", *balancer()]))
    return 0


_HEAD = (
    "replicas sessions edges asked/s group p50/ms p99/ms edge wire control hit worst\n"
    "-------- -------- ----- ------- ----- ------ ------ ---- ---- ------- --- -----"
)


def checked() -> Iterator[str]:
    """Real runs on one machine beside the same simulated: answers a second, and requests in a group."""
    yield "32 clients without a pause on one machine: real, simulated"
    yield "replicas  cores left  real/s  simulated/s  ratio  real group  simulated group"
    yield "--------  ----------  ------  -----------  -----  ----------  ---------------"
    for real in REAL:
        # They were measured while edges had two lanes for each replica, however many these were.
        run = Fleet(Shape(real.replicas, 32, 1, 0.0, 20.0, max_lanes=2 * real.replicas, cores=real.left), Costs()).run()
        rate, group = run.answered / 20.0, run.asked / run.calls
        seen = "-" if real.group is None else f"{real.group:.1f}"
        told = f"{rate:11.0f}  {rate / real.rate:5.2f}  {seen:>10}  {group:15.1f}"
        yield f"{real.replicas:8}  {real.left:10g}  {real.rate:6.0f}  {told}"


def row(shape: Shape, seed: int) -> str:
    """A run in whose middle a replica is killed. Times are of the answers before; hit: requests that it delays."""
    run = Fleet(shape, Costs(), seed)
    run.kill_replica(0, shape.seconds / 2)
    run.run()
    calm = run.took_s[: run.calm]
    busy = sum(edge.loop.busy_s for edge in run.edges) / len(run.edges) / shape.seconds
    wire, control = run.up.busy_s / shape.seconds, control_share(shape.replicas, shape.edges, Costs())
    times = f"{1e3 * quantile(calm, 0.5):6.0f} {1e3 * quantile(calm, 0.99):6.0f}"
    counts = f"{shape.replicas:8} {shape.sessions:8} {shape.edges:5} {run.asked / shape.seconds:7.0f}"
    hit = f"{len(run.hit_s):3} {max(run.hit_s, default=0.0):4.1f}s"
    return f"{counts} {run.asked / run.calls:5.1f} {times} {busy:4.0%} {wire:4.0%} {control:7.0%} {hit}"


def lanes(seed: int) -> Iterator[str]:
    """What one edge gives its robots, by how many lanes it has: its own choice, and others."""
    yield f"One edge on {_CELL} replicas, by its lanes"
    yield "policy                 robots   lanes  answers/s  group  p50/ms  p99/ms  edge"
    yield "---------------------  ------  ------  ---------  -----  ------  ------  ----"
    for batch_ms, max_batch, sessions in ((20, 16, 600), (20, 16, 100), (100, 4, 300), (100, 1, 100)):
        told = f"{batch_ms:3} ms, batches of {max_batch}"
        for most in (None, 2 * _CELL, 8, 4, 2, 1):
            shape = Shape(_CELL, sessions, 1, 1.0, 20.0, batch_ms / 1e3, max_batch, max_lanes=most)
            run = Fleet(shape, Costs(), seed).run()
            last_s = run.clock.now
            times = f"{1e3 * quantile(run.took_s, 0.5):6.0f}  {1e3 * quantile(run.took_s, 0.99):6.0f}"
            made = f"{run.answered / last_s:9.0f}  {run.asked / run.calls:5.1f}  {times}"
            its = f"own {run.edges[0].room}" if most is None else str(most)
            yield f"{told:21}  {sessions:6}  {its:>6}  {made}  {run.edges[0].loop.busy_s / last_s:4.0%}"


def faults(seed: int) -> Iterator[str]:
    """What each fault costs a cluster of sixteen replicas and four edges' sessions."""
    yield f"A fault among {_CELL} replicas, 1600 sessions"
    yield "fault                  asked  answered  lost  hit  worst"
    yield "---------------------  -----  --------  ----  ---  -----"
    for told in ("a replica is killed", "a replica freezes", "an edge is killed"):
        shape = Shape(_CELL, _PER_REPLICA * _CELL, 16, 1.0, 8.0)
        run = Fleet(shape, Costs(), seed)
        {"a replica is killed": run.kill_replica, "a replica freezes": run.freeze_replica}.get(told, run.kill_edge)(
            0, 3.0
        )
        run.run()
        assert run.asked == run.answered + run.lost
        worst_s = max(run.hit_s, default=0.0)
        yield f"{told:21}  {run.asked:5}  {run.answered:8}  {run.lost:4}  {len(run.hit_s):3}  {worst_s:4.1f}s"


def balancer() -> Iterator[str]:
    """How many robots one balancer's network card, and one edge, are enough for."""
    yield f"One balancer of {Costs().balancer_gbit:g} Gbit/s, and one edge that is busy to {_BUSY:.0%}: requests/s"
    yield "request                      size  balancer   edge  edges that fill the balancer"
    yield "-------------------------  ------  --------  -----  ----------------------------"
    for name, size in (("four numbers", 100), ("two cameras of 224 x 224", 301_000), ("three of 480 x 640", 2_765_000)):
        most = requests_at_balancer(size, Costs())
        edge = requests_of_edge(Shape(_CELL, 1, request_bytes=size), Costs(), _BUSY)
        yield f"{name:25}  {size / 1000:4.4g}kB  {most:8.0f}  {edge:5.0f}  {most / edge:28.0f}"


def _shape(args: argparse.Namespace, replicas: int, sessions: int, edges: int) -> Shape:
    shape = Shape(
        replicas, sessions, edges, args.every_s, args.seconds, args.batch_ms / 1e3, args.max_batch,
        int(1000 * args.request_kb), args.lanes_per_replica, args.max_lanes or None,
    )  # fmt: skip
    seconds = args.seconds or min(max(_MOST_REQUESTS * args.every_s / sessions, 1.0), 20.0)
    return replace(shape, edges=edges or edges_for(shape, Costs(), _BUSY), seconds=seconds)


if __name__ == "__main__":
    sys.exit(main())
