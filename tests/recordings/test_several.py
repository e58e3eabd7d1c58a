"""A recording of several policies says which one each session was with, and reads each by its own spec."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from policyserve import ArraySpec, Client, FunctionPolicy, PolicySpec
from policyserve.core.policy import Policy
from policyserve.recordings.reading import open_recording
from policyserve.server.splits import Split
from tests.policies.frameworks import import_or_skip
from tests.server.live import always, none_open, running
from tests.server.test_offers import make

import_or_skip("mcap")


def giving(number: float, key: str) -> Policy:
    spec = PolicySpec("mine", {key: ArraySpec((1,))}, ArraySpec((1,)), metadata={"number": number, "robot": "arm"})
    return FunctionPolicy(lambda observation: np.full(1, number, np.float32), spec)


def test_each_session_has_its_policy_in_the_recording(tmp_path: Path) -> None:
    offers = {"pick": always(giving(1, "x")), "place": always(giving(2, "y"))}
    with running(make(offers, record=str(tmp_path))) as live:
        live.ready()
        for name, key in (("pick", "x"), ("place", "y"), ("place", "y")):
            with Client(live.url(f"/{name}")) as client:
                client.infer({key: np.zeros(1, np.float32)})
        none_open(live)
    (path,) = tmp_path.glob("*.mcap")
    recording = open_recording(path)
    assert [session.policy for session in recording.sessions] == ["pick", "place", "place"]
    specs = [recording.spec_of(session) for session in recording.sessions]
    assert [list(spec.leaves) for spec in specs if spec is not None] == [["x"], ["y"], ["y"]]
    assert (recording.facts.policy, recording.facts.spec) == ("pick, place", None)
    for session, key in zip(recording.sessions, "xyy", strict=True):
        (exchange,) = recording.exchanges(session.number)
        assert list(exchange.observation) == [key]


def test_who_was_drawn_is_in_the_recording_and_in_the_metrics_and_not_in_a_blind_greeting(tmp_path: Path) -> None:
    offers = {"v1": always(giving(1, "x")), "v2": always(giving(2, "x"))}
    routes = {"/blind": Split({"v1": 1, "v2": 1}, seed=5), "/told": Split({"v1": 1, "v2": 1}, 5, is_blind=False)}
    answered: dict[str, list[str]] = {}
    with running(make(offers, routes, record=str(tmp_path))) as live:
        live.ready()
        for route in routes:
            answered[route] = []
            for _ in range(12):
                with Client(live.url(route)) as client:
                    (number,) = client.infer({"x": np.zeros(1, np.float32)}).actions
                    answered[route].append(f"v{number:.0f}")
                    assert client.metadata["robot"] == "arm"
                    assert client.metadata.get("policy") == (f"v{number:.0f}" if route == "/told" else None)
                    assert ("number" in client.metadata) == (route == "/told")
        page = live.http("GET", "/metrics")[1].decode()
        counts = Counter([*answered["/blind"], *answered["/told"]])
        for name, count in counts.items():
            told = f'policyserve_requests_total{{dialect="openpi",outcome="answered",policy="{name}"}} {count}.0'
            assert told in page
        none_open(live)
    assert answered["/blind"] == answered["/told"]  # of one seed
    assert set(counts) == {"v1", "v2"}
    (path,) = tmp_path.glob("*.mcap")
    recorded = [session.policy for session in open_recording(path).sessions]
    assert recorded == [*answered["/blind"], *answered["/told"]]
