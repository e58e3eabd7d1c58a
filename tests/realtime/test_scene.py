"""The scene of shared/realtime/simulation.py through our client, a real dialect and the policy's spec (R5 to R9).

Virtual time, base latencies (lognormal, median 110 ms, spikes, one stall of a second, one answer in a hundred lost).
"""

from __future__ import annotations

import importlib.util
import math
from functools import lru_cache
from typing import Any

import numpy as np
import pytest

from policyserve.core.messages import Timing
from policyserve.core.policy import ActionChunk
from policyserve.core.spec import ArraySpec, PolicySpec
from policyserve.dialects import by_name
from policyserve.realtime.machine import Realtime
from policyserve.realtime.settings import RealtimeSettings
from policyserve.realtime.values import Ask
from tests.realtime.virtual import Virtual
from tests.shared import shared_path

SECONDS, SEEDS = 30, range(4)
H, HZ = 50, 50
OPENPI = by_name("openpi")
LEAVES = {"step": ArraySpec((), "int32", "of the scene"), "position": ArraySpec((2,), "float64", "of the robot")}
RTC_LEAVES = {
    "rtc/prev_chunk": ArraySpec((H, 2), "float32", "rows", optional=True),
    "rtc/prev_length": ArraySpec((), "int32", "known", optional=True),
    "rtc/inference_delay": ArraySpec((), "int32", "delay", optional=True),
}


@lru_cache(maxsize=1)
def simulation() -> Any:
    spec = importlib.util.spec_from_file_location("simulation", shared_path("realtime", "simulation.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Served:
    """The simulation's policy behind openpi's wire and its spec; guided where the server has RTC."""

    def __init__(self, policy: Any, has_rtc: bool) -> None:
        self.policy, self.has_rtc = policy, has_rtc
        self.spec = PolicySpec("scene", {**LEAVES, **(RTC_LEAVES if has_rtc else {})}, None, horizon=H)
        self.how = simulation().How("ours", "switch", kind="guided", beta=10.0) if has_rtc else None

    @property
    def greeting(self) -> Any:
        told = {"spec": self.spec.describe(), "action_kind": "position"}
        return OPENPI.read_greeting(OPENPI.greeting(told) or b"")

    def __call__(self, ask: Ask) -> Any:
        sent = OPENPI.write_request(ask.observation)
        observation: Any = self.spec.validate(OPENPI.read_request(sent).observation).observation
        step, position = int(observation["step"]), observation["position"]
        prefix, delay = None, 0
        if self.has_rtc and "rtc/prev_chunk" in observation:
            known = int(observation["rtc/prev_length"])
            prefix = observation["rtc/prev_chunk"][:known].astype(float) if known else None
            delay = int(observation["rtc/inference_delay"])
        chunk = self.policy.sample(step, position, prefix, delay, self.how)
        return OPENPI.read_reply(OPENPI.write_reply(ActionChunk(chunk), Timing(0, 0, 1))).actions


def episode(seed: int, has_rtc: bool, shape: str = "base", seconds: float = SECONDS, **settings: Any) -> dict[str, Any]:
    """One robot's minute: its jumps, ages and errors."""
    sim = simulation()
    steps = round(seconds * HZ)
    scene = sim.Scene(np.random.default_rng((seed, 1)), steps)
    policy = sim.Policy(scene, np.random.default_rng((seed, 2)))
    stall = (20.0, 21.0) if shape == "base" else (1e9, 1e9)
    link = sim.Link(np.random.default_rng((seed, 3)), "base", 1.2 if has_rtc else 1.0, stall)
    served = Served(policy, has_rtc)
    latencies = _Latencies(link, shape)
    realtime = Realtime(RealtimeSettings(HZ, fallback=[("hold", 60)], **settings), random=lambda: 0.5)
    told = {"rtc": {"method": "guided"}} if has_rtc else None
    robot = _Robot(realtime, served, latencies, greeting=served.greeting, fields=told, gives_up_after_s=0.7)
    position = np.array([0.0, 0.5]) + scene.drift[0]
    got: dict[str, Any] = {"seam": [], "age": [], "error": [], "hit": [], "action": [], "natural": policy.natural}
    number = 0

    def look() -> dict[str, Any]:
        """What the robot sees when it is asked: between two steps, what the next one is for."""
        return {"step": np.int32(number), "position": position}

    while number < steps:
        tick = robot.tick(look)
        number += 1
        if tick.action.values is None:
            continue
        action = tick.action.values
        if got["action"] and tick.has_merged:
            got["seam"].append(np.abs(action - got["action"][-1]).max())
        if tick.action.source in ("chunk", "blend"):
            got["age"].append(tick.action.age_s)
        got["action"].append(action)
        position = position + 0.6 * (action - position)
        got["error"].append(scene.error(number - 1, position))
        got["hit"].append(scene.hits(number - 1, position))
    got["starved"] = realtime.status(seconds).starved_steps
    got["latency"] = [took for took in robot.took if took is not None]
    return got


class _Robot(Virtual):
    """One whose latencies depend on when it asks."""

    def work(self, now: float) -> None:
        self.latencies.now = now  # type: ignore[attr-defined]
        super().work(now)


class _Latencies:
    def __init__(self, link: Any, shape: str) -> None:
        self.now, self._link, self._shape = 0.0, link, shape

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> float | None:
        while True:
            at = self._link.answer_at(self.now)
            if at is not None or self._shape == "base":
                return None if at is None else at - self.now


@lru_cache(maxsize=2)
def measured(has_rtc: bool) -> dict[str, float]:
    """Over all seeds, in units of the p99 step within chunks where it says so."""
    runs = [episode(seed, has_rtc) for seed in SEEDS]
    natural = np.concatenate([np.concatenate(run["natural"]) for run in runs])
    pace = np.quantile(natural, 0.99)
    seam = np.concatenate([run["seam"] for run in runs]) / pace
    bends = np.concatenate([np.diff(run["action"], 2, axis=0).ravel() ** 2 for run in runs])
    found = {
        "seam p95": float(np.quantile(seam, 0.95)),
        "seam max": float(seam.max()),
        "bend": math.sqrt(bends.mean()) / natural.mean(),
        "age / latency": float(np.mean(np.concatenate([run["age"] for run in runs])))
        / float(np.mean(np.concatenate([run["latency"] for run in runs]))),
        "track": math.sqrt(np.mean(np.concatenate([run["error"] for run in runs]) ** 2)),
    }
    print({name: round(value, 3) for name, value in found.items()})
    return found


@pytest.mark.parametrize(
    ("has_rtc", "p95", "most", "bend"), [(False, 1.1, 3.5, 0.6), (True, 1.0, 2.5, 0.35)], ids=["any server", "rtc"]
)
def test_seams_are_no_larger_than_the_policys_own_steps(has_rtc: bool, p95: float, most: float, bend: float) -> None:
    found = measured(has_rtc)
    assert found["seam p95"] <= p95
    assert found["seam max"] <= most
    assert found["bend"] <= bend


@pytest.mark.parametrize(("has_rtc", "most"), [(False, 0.75), (True, 0.85)], ids=["any server", "rtc"])
def test_it_tracks_better_than_a_broker_that_waits(has_rtc: bool, most: float) -> None:
    sim = simulation()
    waits = next(way for way in sim.WAYS if way.merge == "sync")
    errors = np.concatenate([sim.run(waits, seed, SECONDS, "base")[0]["track"] for seed in SEEDS])
    assert measured(has_rtc)["track"] <= most * math.sqrt((errors**2).mean())


def test_without_stall_and_loss_no_step_starves_and_actions_are_young() -> None:
    runs = [episode(seed, False, "calm", 60) for seed in SEEDS]
    assert [run["starved"] for run in runs] == [0, 0, 0, 0]
    ages, latencies = (np.concatenate([run[name] for run in runs]) for name in ("age", "latency"))
    print(f"age / latency {ages.mean() / latencies.mean():.3f}")
    assert ages.mean() <= 1.8 * latencies.mean()


def test_it_meets_the_obstacle_hardly_more_often_than_hard_switches_do() -> None:
    """Blending alone averages two ways around it; RTC does not."""
    kinds: tuple[tuple[str, bool, dict[str, Any]], ...] = (
        ("switches", False, {"blend_steps": 0}), ("rtc", True, {}), ("blend", False, {}),
    )  # fmt: skip
    shares = {
        name: float(np.mean(np.concatenate([episode(seed, has_rtc, seconds=60, **how)["hit"] for seed in range(8)])))
        for name, has_rtc, how in kinds
    }
    print({name: round(share, 4) for name, share in shares.items()})
    assert shares["rtc"] <= 1.3 * shares["switches"] < shares["blend"]
