"""docs/balancer.md as it stands: two servers behind HAProxy, and one of them is taken out."""

from __future__ import annotations

import re
import time
from collections import Counter
from pathlib import Path

import numpy as np

from policyserve.client.sync import Client
from policyserve.core.errors import ConnectionLost, Unavailable
from tests.haproxy import haproxy
from tests.server.live import DEADLINE_S, serving

DOC = Path(__file__).parents[2] / "docs" / "balancer.md"
BEHIND = {"proxy_protocol": True, "trusted_proxies": ("127.0.0.1",)}


def configuration(*ports: int) -> str:
    (found,) = re.findall(r"```haproxy\n(.*?)```", DOC.read_text(), re.DOTALL)
    return found.replace("inter 2s", "inter 100ms").replace("8001", str(ports[0])).replace("8002", str(ports[1]))


def test_robots_go_on_when_one_of_two_servers_is_taken_out(tmp_path: Path) -> None:
    told: Counter[str] = Counter()
    with (
        serving(lambda x: x["x"] + 100, **BEHIND) as one,
        serving(lambda x: x["x"] + 200, **BEHIND) as two,
        haproxy(tmp_path, configuration(one.port, two.port)) as port,
    ):
        for live in (one, two):
            live.ready()
        robots = [Client(f"ws://127.0.0.1:{port}", dialect="openpi", timeout_s=DEADLINE_S) for _ in range(4)]

        def ask(robot: Client, value: float) -> int:
            """Which server answered; what a client is told meanwhile is counted."""
            deadline = time.monotonic() + DEADLINE_S
            while time.monotonic() < deadline:
                try:
                    (answer,) = robot.infer({"x": np.array([value], np.float32)}).actions
                except (ConnectionLost, Unavailable) as error:
                    told[error.code] += 1
                    continue
                server, rest = divmod(int(answer), 100)
                assert rest == value
                return server
            raise AssertionError(f"no answer: {told}")

        def knows_both() -> bool:
            """Whether two connections at a time go to two servers; both are closed again."""
            with robots[0], robots[1]:
                return ask(robots[0], 1) != ask(robots[1], 1)

        try:
            # At its start the balancer may still take a server that loads for one that is down.
            deadline = time.monotonic() + DEADLINE_S
            while not knows_both():
                assert time.monotonic() < deadline, "the balancer knows one server alone"
            served = [ask(robot, number) for number, robot in enumerate(robots)]
            assert set(served) == {1, 2}
            one.stop()
            one.join()
            assert [ask(robot, 7) for robot in robots] == [2] * 4
            assert told.total() <= 8
        finally:
            for robot in robots:
                robot.close()
