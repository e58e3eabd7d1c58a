"""The tables of `bench`: 80 columns, true grammar, and what takes longest stands out."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from policyserve.bench import report
from policyserve.bench.load import Load
from policyserve.bench.machine import Machine, this_machine
from policyserve.bench.measures import Quantiles
from policyserve.bench.payloads import Payload
from policyserve.bench.run import Comparison, Result, Server, Settings, Step
from policyserve.bench.tally import Tally

LONG_URL = "ws://robot-pc-in-the-third-lab.example.org:8000/openpi"
CHEAP = Quantiles(0.01, 0.01, 0.01, 0.01)
CAMERA = {"cam": np.zeros((480, 640, 3), np.uint8), "state": np.zeros(8, np.float32)}
SETTINGS = Settings(duration_s=2.0)
MACHINE = replace(this_machine(), load=7.1)


def tally(answers: int = 100, infer_ms: float = 17.0, queue_ms: float = 2.0) -> Tally:
    """A hundred round trips of 30 ms in 2 s."""
    timing = {"total_ms": infer_ms + queue_ms + 1, "queue_ms": queue_ms, "infer_ms": infer_ms}
    return Tally(trips_s=[0.03] * answers, late_s=[0.0] * answers, timings=[timing] * answers, seconds=2.0, cpu_s=1.0)


def result(name: str = "m:policy", observation: object = None, told: Tally | None = None, clients: int = 1) -> Result:
    seen = {"obs": np.zeros(4, np.float32)} if observation is None else observation
    assert isinstance(seen, dict)
    server = Server(name, Load("ws://x:1", "openpi", seen, clients), Payload("auto", seen), 1, CHEAP, CHEAP)
    return Result(server, tally() if told is None else told)


def failing() -> Tally:
    text = "state: expected float32 (8,), got float64 (9,), which is one number more than the policy was trained with"
    answered = tally()
    answered.errors, answered.examples = Counter(deadline_exceeded_here=3), {"deadline_exceeded_here": text}
    answered.unsent = 1
    return answered


def test_no_line_is_wider_than_a_terminal() -> None:
    one = result(LONG_URL, CAMERA, failing(), clients=1024)
    paced = replace(one.server, load=replace(one.server.load, rate_hz=50.0))
    comparison = Comparison((Result(paced, failing()), one), [(failing(), failing())])
    told = report.comparison_text(comparison, SETTINGS) + "\n" + report.sweep_heading(paced, Settings(rate_hz=50))
    assert max(map(len, told.splitlines())) <= 80
    for words in ("network", "the way there and back, waiting in sockets included", "1 request was due", LONG_URL):
        assert words in told


def test_a_heading_that_fits_is_one_line() -> None:
    assert (
        report.text(result(), SETTINGS).splitlines()[0] == "m:policy   openpi, auto (16 bytes), 1 client, closed loop"
    )
    assert "2 clients, closed loop" in report.heading(result(clients=2))


def test_explanations_stand_below_the_figures_and_only_those_of_its_rows() -> None:
    table, explained = report.text(result(), SETTINGS).split("\n\n")
    assert explained.splitlines()[-1] == "infer             the policy"
    assert "server + infer" not in explained
    assert [line.split()[0] for line in table.splitlines()[1:8]] == [
        "ms", "round", "client", "network", "server", "queue", "infer",
    ]  # fmt: skip


@pytest.mark.parametrize(("infer_ms", "queue_ms", "longest"), [(17.0, 2.0, "infer"), (2.0, 17.0, "queue")])
def test_the_part_that_takes_longest_is_highlighted(infer_ms: float, queue_ms: float, longest: str) -> None:
    marked: list[str] = []

    def highlight(row: str) -> str:
        marked.append(row)
        return f"<{row}>"

    told = report.text(result(told=tally(100, infer_ms, queue_ms)), SETTINGS, highlight)
    (row,) = marked
    assert row.split()[0] == longest
    assert f"\n<{row}>\n" in told


def test_pictures_take_bits_of_the_network_and_numbers_do_not() -> None:
    # 921,600 bytes fifty times a second
    assert "images            368.6 Mbit/s (1 in a request, 922 kB)" in report.text(
        result(observation=CAMERA), SETTINGS
    )
    assert "Mbit/s" not in report.text(result(), SETTINGS)


def test_a_server_that_answered_nothing_has_a_table_without_figures() -> None:
    told = report.text(result(told=Tally(seconds=2.0)), SETTINGS)
    assert "p50" not in told
    assert "answers           0 per second" in told


def step(clients: int = 1, p99_ms: float | None = 352.0, errors: int = 0, holds: bool = False, unsent: int = 0) -> Step:
    return Step(clients, p99_ms, 10.0, errors, holds, unsent)


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        ([step(2), step()], "no number of clients holds 50 Hz: one client alone has p99 352 ms"),
        ([step()], "one client alone has p99 352 ms (load of this machine: 7)"),
        ([step(p99_ms=0.5, unsent=3)], "one client alone has p99 0.50 ms, and 3 were never sent (load"),
        ([step(p99_ms=None, errors=1)], "one client alone gets no answer and 1 error (load"),
        ([step(errors=2)], "one client alone has 2 errors (load"),
        ([step(4)], "stopped before it was known how many clients hold 50 Hz: 4 are too many (load"),
        ([], "stopped before any number of clients was tried at 50 Hz"),
        ([step(1, 12, holds=True), step(2)], "1 client holds 50 Hz: p99 within 20 ms, no errors"),
        ([step(8, 12, holds=True)], "8 clients hold 50 Hz: p99 within 20 ms, no errors (more than 8 were not tried)"),
        ([step(2, 12, holds=True)], "2 clients hold 50 Hz: p99 within 20 ms, no errors (more than 2 were not tried)"),
        ([step(2, 12, holds=True), step(8)], "within 20 ms, no errors (stopped: 3 … 7 were not tried)"),
    ],
)  # fmt: skip
def test_a_sweep_ends_with_a_true_sentence(steps: list[Step], told: str) -> None:
    said = report.sweep_text(steps, Settings(rate_hz=50), 8, MACHINE)
    assert told in " ".join(said.split())
    assert max(map(len, said.splitlines())) <= 80


def test_a_machine_without_a_load_average_tells_none() -> None:
    said = report.sweep_text([step()], Settings(rate_hz=50), 8, replace(MACHINE, load=None))
    assert " ".join(said.split()).endswith("one client alone has p99 352 ms")


@pytest.mark.parametrize(("clients", "words"), [(1, "    1 client    p99"), (2, "    2 clients   p99")])
def test_a_step_counts_its_clients(clients: int, words: str) -> None:
    assert report.step_text(step(clients)).startswith(words)
    assert report.step_text(step(clients, errors=1)).endswith(", 1 error   does not hold")


def test_the_figures_say_where_they_were_made() -> None:
    document = report.as_json([result()], SETTINGS, None, MACHINE)
    assert document["machine"]["host"] == MACHINE.host
    assert document["machine"]["load"] == 7.1
    assert document["servers"][0]["image_mbit_per_second"] == 0


def test_a_machine_is_told_in_one_line() -> None:
    machine = Machine("lab-3", "2026-11-29 01:38", "0.1.0", "3.10.13", "2.2.6", 1, None)
    assert str(machine) == "lab-3, 1 core · policyserve 0.1.0, Python 3.10.13, NumPy 2.2.6 · 2026-11-29 01:38"
