"""`serve demo_flow`: its flags, and what they make."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from policyserve import Client
from policyserve.core.errors import ConfigError
from policyserve.policies.demo_flow import Scene
from policyserve.policies.demo_flow.adapter import FlowDemoAdapter, FlowDemoFlags
from policyserve.policies.loading import load_policy
from tests.cli.serving import POLICYSERVE, serving

PORT_0 = ("--host", "127.0.0.1", "--port", "0")


@pytest.mark.parametrize("isolate", ["thread", "process"])
def test_it_is_served_with_its_flags(isolate: str) -> None:
    flags = ["--rtc", "lerobot", "--latency-ms", "1", "--seed", "7", "--isolate", isolate]
    with serving([*POLICYSERVE, "serve", "demo_flow", *flags, *PORT_0]) as server, Client(server.url) as client:
        scene = Scene(10)
        assert client.infer(dict(scene.observation(0, scene.start))).actions.shape == (50, 2)
        assert client.metadata["rtc"]["methods"] == ["identity"]


def test_a_seed_makes_the_same_chunks() -> None:
    adapter, chunks = FlowDemoAdapter("demo_flow"), []
    for seed in (7, 7, 8):
        policy = adapter.source(FlowDemoFlags(seed=seed)).recipe(print)
        (answer,) = policy.infer([_example(policy)])
        chunks.append(answer.actions)  # type: ignore[union-attr]
    np.testing.assert_array_equal(chunks[0], chunks[1])
    assert not np.allclose(chunks[0], chunks[2])


def _example(policy: Any) -> Any:
    from policyserve.core.policy import PolicyInput

    return PolicyInput(policy.spec.example())


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"latency_ms": -1}, "latency_ms: expected 0 to 60000, got -1"),
        ({"latency_ms": float("nan")}, "latency_ms: expected a finite number, got nan"),
        ({"seed": -1}, "seed: expected 0 or more, got -1"),
        ({"max_batch": 0}, "max_batch: expected 1 or more, got 0"),
        ({"rtc": "paper"}, "rtc: expected guided or identity or inpaint or lerobot or trained or off, got 'paper'"),
    ],
)
def test_a_flag_out_of_its_range_is_refused(flags: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        FlowDemoFlags(**flags)
    assert str(refused.value) == said


def test_a_program_loads_it_by_its_name() -> None:
    assert load_policy("demo_flow", rtc="off").spec.metadata.get("rtc") is None
    assert load_policy("demo_flow").spec.metadata["rtc"]["methods"] == ["guided"]
