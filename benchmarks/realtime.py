"""Run a robot's loop on real sockets against a policy that takes its time, and print whether it ever lacked an action.

    python benchmarks/realtime.py [--seconds 60] [--hz 50] [--latency-ms 50 300] [--loop-hz 500] [--frames-hz 10]

The server is a process of its own; its policy waits a random time of --latency-ms for each request and answers 50 rows.
First table: at --hz, for --seconds, RealtimeClient beside a loop that asks, waits and executes half a chunk. starved:
periods without a row, waiting for the first chunk left out. age: of the executed rows' observations.
Second table: what act(out=…) takes at --loop-hz, beside a thread that sends 2.77 MB of camera frames --frames-hz times
a second, and the same loop when nothing is sent; medians of --rounds rounds.
Below the first: the server is killed, another one that is loaded listens at its port --away-s later.
"""

from __future__ import annotations

import argparse
import gc
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from policyserve import Client, RealtimeClient, start
from policyserve.core.policy import FunctionPolicy
from policyserve.core.spec import ArraySpec, PolicySpec

ROWS, WIDTH = 50, 14
CAMERAS = {f"camera{number}": np.zeros((480, 640, 3), np.uint8) for number in range(3)}
STATE = {"state": np.zeros(WIDTH, np.float32)}


def serve(flags: argparse.Namespace) -> None:
    """Serve the policy, print the URL, and end when the parent closes our input."""
    dice = np.random.default_rng(0)
    least, most = (one / 1e3 for one in flags.latency_ms)

    def act(observation: Any) -> Any:
        time.sleep(dice.uniform(least, most))
        phase = np.asarray(observation["state"])[:1] + np.arange(ROWS)[:, None] / 50
        return np.sin(phase + np.arange(WIDTH)).astype(np.float32)

    leaves: dict[str, Any] = {"state": ArraySpec((WIDTH,))}
    if flags.cameras:
        leaves |= {name: ArraySpec((480, 640, 3), "uint8") for name in CAMERAS}
    spec = PolicySpec("waits", leaves, ArraySpec((WIDTH,)), horizon=ROWS, metadata={"action_kind": "position"})
    if flags.waits:
        sys.stdin.readline()
    with start(FunctionPolicy(act, spec), port=flags.port) as running:
        print(running.url, flush=True)
        sys.stdin.read()


class Served:
    """The server's process."""

    def __init__(self, flags: argparse.Namespace, *more: str) -> None:
        low, high = (str(one) for one in flags.latency_ms)
        program = [sys.executable, __file__, "--serve", "--latency-ms", low, high, *more]
        self._process = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.url = "" if "--waits" in more else self._told()

    def listen(self) -> None:
        """Begin, for one that waits."""
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        self.url = self._told()

    def _told(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


def paced(hz: float, seconds: float, step: Callable[[int], None]) -> None:
    """Call step(number) at this rate."""
    began = time.monotonic()
    for number in range(round(hz * seconds)):
        time.sleep(max(0.0, began + number / hz - time.monotonic()))
        step(number)


def smooth(flags: argparse.Namespace, url: str) -> str:
    """One row: RealtimeClient at --hz."""
    ages, pauses, current, last = [], [0], 0, np.zeros(WIDTH)
    with RealtimeClient(url, control_hz=flags.hz) as client:
        client.observe(STATE)
        client.wait_until_ready()

        def step(number: int) -> None:
            nonlocal current, last
            action = client.act()
            client.observe({"state": np.full(WIDTH, number / flags.hz, np.float32)})
            is_row = action.source in ("chunk", "blend")
            current = 0 if is_row else current + 1
            pauses.append(current)
            if is_row:
                ages.append(action.age_s)

        paced(flags.hz, flags.seconds, step)
        status = client.status
    took = f"{status.latency_p50_s * 1e3:.0f} / {status.latency_p99_s * 1e3:.0f}"
    longest = max(pauses) / flags.hz * 1e3
    return row(
        "RealtimeClient", status.starved_steps, longest, np.mean(ages) * 1e3, took, status.chunks / flags.seconds
    )


def waiting(flags: argparse.Namespace, url: str) -> str:
    """One row: ask, wait, execute half a chunk."""
    starved, longest, ages, took, chunks = 0, 0.0, [], [], 0
    with Client(url) as client:
        began = time.monotonic()
        while time.monotonic() - began < flags.seconds:
            asked = time.monotonic()
            client.infer(STATE)
            took.append(time.monotonic() - asked)
            chunks += 1
            gone = round(took[-1] * flags.hz)
            starved, longest = starved + gone, max(longest, took[-1])
            paced(flags.hz, ROWS / 2 / flags.hz, lambda number, at=asked: ages.append(time.monotonic() - at))
    latencies = f"{np.median(took) * 1e3:.0f} / {np.quantile(took, 0.99) * 1e3:.0f}"
    return row("ask, wait, execute 25", starved, longest * 1e3, np.mean(ages) * 1e3, latencies, chunks / flags.seconds)


def row(name: str, starved: int, pause_ms: float, age_ms: Any, took: str, rate: float) -> str:
    return f"| {name:22s} | {starved:7d} | {pause_ms:16.0f} | {age_ms:11.0f} | {took:>20s} | {rate:8.1f} |"


def act_times(flags: argparse.Namespace, url: str) -> None:
    """What act() takes beside traffic and without."""
    print(f"\n| act() at {flags.loop_hz:.0f} Hz            | p50 µs | p99 µs | p99.9 µs |\n|---|---|---|---|")
    found: dict[str, list[Any]] = {"a copy of a row alone": [], "without traffic": [], "beside 2.77 MB frames": []}
    observation = {**STATE, **CAMERAS}
    for _ in range(flags.rounds):
        with RealtimeClient(url, control_hz=ROWS / 20) as client:  # a chunk lasts for 20 s
            client.observe(observation)
            client.wait_until_ready()
            time.sleep(0.5)
            for name in found:
                act = copy_alone if "alone" in name else client.act
                found[name].append(timed(flags, act, client, observation if "beside" in name else None))
    p99 = {}
    for name, rounds in found.items():
        p50, p99[name], worst = np.median(rounds, axis=0)
        print(f"| {name:24s} | {p50:6.1f} | {p99[name]:6.1f} | {worst:8.1f} |")
    print(f"\np99 beside traffic / without: {p99['beside 2.77 MB frames'] / p99['without traffic']:.2f}")


def copy_alone(out: Any) -> None:
    """The least that any loop with actions does."""
    np.copyto(out, STATE["state"])


def timed(flags: argparse.Namespace, act: Callable[[Any], Any], client: RealtimeClient, observation: Any) -> Any:
    """p50, p99 and p99.9 of act(), in microseconds."""
    out, times = np.zeros(WIDTH), []
    every = round(flags.loop_hz / flags.frames_hz)

    def step(number: int) -> None:
        if observation is not None and number % every == 0:
            client.observe(observation)
        began = time.perf_counter()
        act(out)
        times.append(time.perf_counter() - began)

    gc.collect()
    paced(flags.loop_hz, 5.0, step)
    return np.quantile(times, [0.5, 0.99, 0.999]) * 1e6


def killed(flags: argparse.Namespace, served: Served) -> Served:
    """Kill the server, have another one listen at its port, and say what the robot felt."""
    other = Served(flags, "--waits", "--port", served.url.rpartition(":")[2].partition("/")[0])
    got: list[Any] = []
    away: list[float] = []

    def replace() -> None:
        served.kill()
        began = time.monotonic()
        time.sleep(flags.away_s)
        other.listen()
        away.append(time.monotonic() - began)

    with RealtimeClient(served.url, control_hz=flags.hz) as client:
        client.observe(STATE)
        client.wait_until_ready()

        def step(_number: int) -> None:
            got.append(client.act().values)
            client.observe({"state": np.full(WIDTH, len(got) / flags.hz, np.float32)})

        paced(flags.hz, 3.0, step)
        before = client.status.starved_steps
        thread = threading.Thread(target=replace)
        thread.start()
        paced(flags.hz, 4.0, step)
        thread.join()
        status = client.status
    moved = np.abs(np.diff([one for one in got if one is not None], axis=0)).max() * flags.hz
    starved = status.starved_steps - before
    print(f"\nThe server was killed, and another listened {away[0]:.2f} s later: {starved} starved steps, ", end="")
    print(f"{status.sessions} sessions, quickest motion {moved:.2f} times the policy's own")
    return other


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--hz", type=float, default=50)
    parser.add_argument("--latency-ms", type=float, nargs=2, default=(50, 300))
    parser.add_argument("--loop-hz", type=float, default=500)
    parser.add_argument("--frames-hz", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--away-s", type=float, default=0.3)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--waits", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--cameras", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, default=0, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.serve:
        serve(flags)
        return
    print(f"{flags.hz:g} Hz, {flags.seconds:g} s, a policy of {flags.latency_ms[0]:g} to {flags.latency_ms[1]:g} ms")
    print("| way                    | starved | longest pause ms | mean age ms | latency p50 / p99 ms | chunks/s |")
    print("|---|---|---|---|---|---|")
    served = Served(flags)
    print(smooth(flags, served.url), flush=True)
    print(waiting(flags, served.url), flush=True)
    served = killed(flags, served)
    served.kill()
    served = Served(flags, "--cameras")
    act_times(flags, served.url)
    served.kill()


if __name__ == "__main__":
    main()
