"""Requests and their answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from websockets.sync.server import ServerConnection

from policyserve import dialects
from policyserve.bench.measures import Quantiles
from policyserve.bench.payloads import Payload
from policyserve.core.policy import FunctionPolicy
from policyserve.core.spec import ArraySpec, PolicySpec
from policyserve.doctor import asking
from policyserve.doctor.asking import images, round_trips
from policyserve.doctor.examination import Brought
from tests.doctor.sick import examined, of, stand_in, take_any_time, worst
from tests.plain_servers import plain_server
from tests.server.live import serving

STATE = Brought({"obs": np.zeros(4, np.float32)}, "seen.npz")
NAN = np.array([[0.0, np.nan], [np.inf, 1.0]], np.float32)


def same(value: float) -> Quantiles:
    return Quantiles(value, value, value, value)


@pytest.mark.parametrize("family", ["openpi", "wall_x", "vibe_rl"])
def test_nan_actions_of_any_familys_server_are_told(family: str) -> None:
    with stand_in(family, NAN) as url:
        found = worst(examined(url, STATE))
    assert found.found == "float32 (2, 2), of which 2 of 4 numbers are NaN or Inf"
    assert "another checkpoint" in found.cure


def fails_unless_zero(observation: Any) -> Any:
    """NaN, but for the zeros that a policy is warmed up with."""
    return observation["obs"] * (np.nan if observation["obs"].any() else 1)


def test_nan_actions_that_ours_refuses_are_told() -> None:
    spec = PolicySpec("sick", {"obs": ArraySpec((4,))}, ArraySpec((4,)))
    with serving(FunctionPolicy(fails_unless_zero, spec)) as live:
        found = worst(examined(f"ws://127.0.0.1:{live.port}"))
    assert found.found.startswith("refused: bad_action: ")
    assert found.figures["code"] == "bad_action"
    assert "another checkpoint" in found.cure


@pytest.mark.parametrize("family", ["openpi", "wall_x", "vibe_rl"])
def test_a_sound_answer_is_measured_in_the_parts_that_the_server_tells(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_any_time(monkeypatch)
    with stand_in(family, np.zeros((2, 7), np.float32)) as url:
        findings = examined(url, STATE)
    assert of(findings, "answer").found == "float32 (2, 7), all finite"
    parts = of(findings, "round trip").figures
    assert parts["round trip"]["max_ms"] >= parts["round trip"]["p50_ms"] > 0
    assert ("server + infer" if family == "vibe_rl" else "infer") in parts
    assert {finding.verdict for finding in findings} <= {"ok", "warning"}


def test_twenty_round_trips_are_made() -> None:
    count = 0

    def infer(observation: Any) -> Any:
        nonlocal count
        count += 1
        return observation["obs"]

    spec = PolicySpec("counts", {"obs": ArraySpec((4,))}, ArraySpec((4,)))
    with serving(FunctionPolicy(infer, spec), isolate="thread") as live:
        warm = count
        found = of(examined(f"ws://127.0.0.1:{live.port}", timeout_s=30), "round trip")
    assert count - warm == asking.TRIPS + 1
    assert "(median of 20)" in found.found


def test_a_server_that_never_answers_a_request_is_told() -> None:
    openpi = dialects.by_name("openpi")

    def handle(connection: ServerConnection) -> None:
        connection.send(openpi.greeting({}))  # type: ignore[arg-type]
        for _ in connection:
            pass

    with plain_server(handle, compression=None) as port:
        found = worst(examined(f"ws://127.0.0.1:{port}", STATE, timeout_s=0.5))
    assert found.found == "no answer within 0.5 s"
    assert "--timeout-s" in found.cure


def test_actions_of_another_size_than_the_server_says_are_told() -> None:
    with stand_in("wall_x", np.zeros((2, 6), np.float32), {"predict_mode": "fast", "action_dim": 7}) as url:
        assert worst(examined(url, STATE)).found == "float32 (2, 6), expected 7 numbers in each action"
    spec = PolicySpec("arm", {"obs": ArraySpec((4,))}, ArraySpec((7,)), horizon=2)
    with stand_in("openpi", np.zeros((3, 7), np.float32), {"policyserve": "1", "spec": spec.describe()}) as url:
        assert worst(examined(url)).found == "float32 (3, 7), expected float32 (2, 7)"


def test_a_dialect_of_one_action_is_right_with_one_row_of_a_chunk() -> None:
    spec = PolicySpec("arm", {"obs": ArraySpec((4,))}, ArraySpec((7,)), horizon=2)
    with serving(FunctionPolicy(lambda observation: np.zeros((2, 7), np.float32), spec)) as live:
        findings = examined(live.url("/vla_eval"))
    assert of(findings, "answer").found == "float32 (7,), all finite"


def test_an_example_that_the_server_refuses_is_told_with_the_servers_words() -> None:
    spec = PolicySpec("arm", {"state": ArraySpec((4,))}, ArraySpec((4,)))
    with serving(FunctionPolicy(lambda observation: observation["state"], spec)) as live:
        found = worst(examined(f"ws://127.0.0.1:{live.port}", STATE))
    assert found.found.startswith("refused: bad_observation: state: expected float32 (4,)")
    assert "--frame" in found.cure


def test_a_server_that_tells_a_traceback_is_told_by_its_last_line() -> None:
    openpi = dialects.by_name("openpi")

    def handle(connection: ServerConnection) -> None:
        connection.send(openpi.greeting({}))  # type: ignore[arg-type]
        connection.recv()
        connection.send("Traceback (most recent call last):\n  File x\nKeyError: 'observation/image'")
        connection.close(1011)

    with plain_server(handle, compression=None) as port:
        found = worst(examined(f"ws://127.0.0.1:{port}", STATE))
    assert found.found == "refused: KeyError: 'observation/image'"


@pytest.mark.parametrize(
    ("parts", "verdict", "told"),
    [
        ({"network": 1, "server": 0, "queue": 0, "infer": 9}, "ok", "network 1.0, server 0.0, queue 0.0, infer 9.0"),
        ({"network": 60, "server": 0, "queue": 0, "infer": 9}, "warning", "most of the time goes to the network"),
        ({"network": 1, "server": 0, "queue": 80, "infer": 9}, "warning", "requests wait longer than the policy works"),
        ({"network + server": 50}, "ok", "network + server 50.0"),
    ],
)
def test_what_takes_the_time_is_told(parts: dict[str, float], verdict: str, told: str) -> None:
    measured = {"round trip": same(sum(parts.values())), **{name: same(value) for name, value in parts.items()}}
    found = round_trips(20, measured)
    assert found.verdict == verdict
    assert told in found.found


def test_pictures_are_told_with_what_the_network_carries() -> None:
    payload = Payload("seen", {"image": np.zeros((480, 640, 3), np.uint8)})
    found = images(payload, {"round trip": same(9), "network": same(8.3728)}, 1.0)
    assert (found.verdict, found.found) == ("ok", "1 picture, 922 kB: 7.4 ms on the way, 1,000 Mbit/s")
    slow = images(payload, {"round trip": same(900), "network": same(800)}, None)
    assert slow.verdict == "warning"
    assert "at most 1.2 each second" in slow.found
