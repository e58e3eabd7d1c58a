"""The simulation of a cluster gives what can be reckoned and loses nothing by the way; its program prints tables."""

from __future__ import annotations

import sys
from dataclasses import fields, replace
from random import Random

import pytest

from benchmarks.measuring.processor_time import kind_of
from benchmarks.simulated.costs import Costs
from benchmarks.simulated.events import Clock, Cores, Station
from benchmarks.simulated.fleet import Fleet
from benchmarks.simulated.limits import (
    control_share,
    edge_s,
    edges_for,
    quantile,
    requests_at_balancer,
    requests_of_edge,
)
from benchmarks.simulated.parts import Shape
from tests.cli.serving import run

# Nothing takes any time, except what a test says.
FREE = replace(
    Costs(), **{one.name: 0.0 for one in fields(Costs) if one.name.endswith("_s") and one.name != "controller_pause_s"}
)


def test_what_is_planned_for_one_time_happens_in_the_order_of_its_planning() -> None:
    clock, seen = Clock(), []
    for when, name in ((2.0, "c"), (1.0, "a"), (1.0, "b")):
        clock.at(when, seen.append, name)
    clock.run(until=1.5)
    assert (seen, clock.now) == (["a", "b"], 1.0)
    clock.run()
    assert seen == ["a", "b", "c"]


@pytest.mark.parametrize("share", [0.3, 0.5, 0.8])
def test_a_station_with_random_arrivals_lets_wait_as_long_as_queueing_theory_says(share: float) -> None:
    random, station, now, waits = Random(7), Station(), 0.0, []
    for _ in range(60_000):
        now += random.expovariate(share)
        waits.append(station.take(now, 1.0) - now - 1.0)
    assert sum(waits) / len(waits) == pytest.approx(share / (2 * (1 - share)), rel=0.06)  # M/D/1
    assert station.busy_s == 60_000


def test_cores_are_shared_and_a_station_uses_one_at_a_time() -> None:
    cores, one, other = Cores(2.0), Station(), Station()
    assert [cores.take(0.0, station, 1.0) for station in (one, other, one)] == [1.0, 1.0, 2.0]
    assert Cores(0.5).take(0.0, Station(), 1.0) == 2.0


@pytest.mark.parametrize(
    ("replicas", "sessions", "max_batch", "rate"), [(1, 1, 16, 50), (1, 8, 1, 50), (3, 60, 1, 150), (1, 400, 16, 800)]
)
def test_sessions_without_a_pause_get_what_the_policys_batches_give(
    replicas: int, sessions: int, max_batch: int, rate: int
) -> None:
    shape = Shape(replicas, sessions, every_s=0.0, seconds=20.0, max_batch=max_batch)
    found = Fleet(shape, replace(FREE, edge_request_s=1e-6)).run()
    took_s = found.clock.now
    assert rate * 0.9 <= found.answered / took_s <= rate * 1.001


def test_an_edge_that_is_busy_gives_what_its_work_for_each_request_lets_it() -> None:
    costs = replace(FREE, edge_call_s=4e-3, edge_request_s=1e-3)
    shape = Shape(100, 50, every_s=0.0, seconds=20.0, batch_s=0.0, max_lanes=200)
    found = Fleet(shape, costs).run()
    assert found.asked / found.calls == 1.0  # more lanes than sessions
    assert found.answered / 20.0 == pytest.approx(1 / edge_s(shape, costs, 1.0), rel=0.02)


def test_fewer_lanes_make_larger_groups_and_an_edge_gives_more() -> None:
    costs = replace(FREE, edge_call_s=4e-3)
    wide, narrow = (Fleet(Shape(8, 64, every_s=0.0, seconds=5.0, max_lanes=most), costs).run() for most in (64, 2))
    assert narrow.asked / narrow.calls > 2 * wide.asked / wide.calls
    assert narrow.answered > 1.5 * wide.answered


@pytest.mark.parametrize("replicas", [1, 2, 5])
@pytest.mark.parametrize("fault", ["nothing", "a killed replica", "a frozen one", "a killed edge", "all"])
def test_whatever_happens_each_request_is_answered_or_lost_and_only_an_edge_loses_any(
    replicas: int, fault: str
) -> None:
    shape = Shape(replicas, 40 * replicas, 3, 0.2, 8.0, max_lanes=2 * replicas)
    fleet = Fleet(shape, replace(Costs(), silent_s=3.0), seed=3)
    if fault in ("a killed replica", "all"):
        fleet.kill_replica(0, 2.0)
    if fault in ("a frozen one", "all") and (fault != "all" or replicas > 1):
        fleet.freeze_replica(replicas - 1, 3.0)
    if fault in ("a killed edge", "all"):
        fleet.kill_edge(0, 4.0)
    fleet.run()
    assert fleet.asked == fleet.answered + fleet.lost > 100 * replicas
    assert (fleet.lost > 0) == (fault in ("a killed edge", "all"))
    assert (len(fleet.hit_s) > 0) == (fault not in ("nothing", "a killed edge"))


def test_the_death_of_the_only_replica_is_waited_for_and_that_of_one_of_many_is_not() -> None:
    worst = {}
    for replicas in (1, 8):
        fleet = Fleet(Shape(replicas, 20, every_s=0.1, seconds=6.0), Costs())
        fleet.kill_replica(0, 2.0)
        worst[replicas] = max(fleet.run().took_s)
    assert worst[1] == pytest.approx(Costs().restart_s + Costs().load_s, abs=0.5)
    assert worst[8] < 1.0


def test_the_same_seed_is_the_same_run() -> None:
    one, same, other = (Fleet(Shape(3, 50, 2, seconds=3.0), Costs(), seed).run().took_s for seed in (1, 1, 2))
    assert one == same != other


@pytest.mark.parametrize("batch_ms", [20, 100])
def test_an_edge_is_no_busier_than_can_be_reckoned(batch_ms: int) -> None:
    shape = Shape(16, 0, seconds=10.0, batch_s=batch_ms / 1e3)
    asked_s = requests_of_edge(shape, Costs(), 0.6)
    found = Fleet(replace(shape, sessions=round(asked_s)), Costs()).run()
    assert 0.4 < found.edges[0].loop.busy_s / found.clock.now < 0.65  # groups wait for batches, so they are fewer


def test_edges_are_enough_for_their_sessions_and_one_fewer_would_be_busier() -> None:
    for sessions in (1_600, 16_000):
        shape = Shape(16, sessions)
        most = requests_of_edge(shape, Costs(), 0.7)
        assert sessions / edges_for(shape, Costs(), 0.7) <= most < sessions / (edges_for(shape, Costs(), 0.7) - 1)


@pytest.mark.parametrize(("batch_ms", "max_batch", "robots"), [(20, 16, 600), (100, 4, 300), (100, 1, 100)])
def test_an_edges_own_lanes_serve_it_and_its_replicas(batch_ms: int, max_batch: int, robots: int) -> None:
    own, narrow, wide = (
        Fleet(Shape(16, robots, 1, 1.0, 10.0, batch_ms / 1e3, max_batch, max_lanes=most), Costs()).run()
        for most in (None, 4, 32)
    )
    best_s = min(quantile(run.took_s, 0.5) for run in (narrow, wide))
    assert quantile(own.took_s, 0.5) < 1.3 * best_s


def test_the_controllers_work_is_what_the_simulation_finds() -> None:
    found = Fleet(Shape(64, 64, 8, seconds=30.0), Costs()).run()
    assert found.controller.busy_s / 30.0 == pytest.approx(control_share(64, 8, Costs()), rel=0.1)
    assert control_share(1000, 1000, Costs()) > 1


def test_a_balancer_is_filled_by_the_larger_of_request_and_answer() -> None:
    costs = replace(Costs(), balancer_gbit=8.0, answer_bytes=1000)
    assert (requests_at_balancer(10, costs), requests_at_balancer(10_000, costs)) == (1e6, 1e5)


def test_quantiles_are_values_that_were_there() -> None:
    assert [quantile([3.0, 1.0, 2.0], share) for share in (0.0, 0.5, 1.0)] == [1.0, 2.0, 3.0]
    assert quantile([], 0.5) == 0.0


def test_processes_are_known_by_their_command_lines() -> None:
    assert [kind_of(one) for one in ("ray::ServeReplica:still:Replica", "python -m policyserve.cli serve x", "sh")] == [
        "replicas", "edge", "rest of Ray",
    ]  # fmt: skip


def test_the_program_prints_a_row_of_ones_own_in_eighty_columns() -> None:
    done = run(sys.executable, "benchmarks/cluster_sim.py", "--replicas", "4", "--seconds", "2", "--edges", "2")
    assert done.returncode == 0, done.stderr
    head, _, row = done.stdout.splitlines()
    assert head.split()[:3] == ["replicas", "sessions", "edges"]
    assert row.split()[:3] == ["4", "400", "2"]
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_the_program_refuses_what_is_no_cluster() -> None:
    done = run(sys.executable, "benchmarks/cluster_sim.py", "--every-s", "0")
    assert done.returncode == 2
    assert "--every-s: expected more than 0, got 0.0" in done.stderr
