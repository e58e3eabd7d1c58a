"""demo_flow on the command line."""

from __future__ import annotations

from dataclasses import dataclass

from policyserve.core.policy import Policy
from policyserve.core.recipe import OnStage, Recipe
from policyserve.policies.demo_flow.policy import FlowDemo
from policyserve.policies.registry import Source
from policyserve.policies.rtc import Rtc
from policyserve.policies.shared_flags import RtcFlags

_MOST_MS = 60_000
_ENV_ID = "policyserve.gym:DemoFlow-v0"


@dataclass(frozen=True, kw_only=True)
class FlowDemoFlags(RtcFlags):
    """Flags of demo_flow."""

    latency_ms: float = 0.0
    """What one call takes at least, as one of a large model would."""
    seed: int = 0
    """What its noise begins with."""
    max_batch: int = 16
    """Observations per call."""

    def check(self) -> None:
        """Raise ConfigError for a flag that is out of its range."""
        super().check()
        self.require("latency_ms", 0 <= self.latency_ms <= _MOST_MS, f"0 to {_MOST_MS}")
        self.require("seed", self.seed >= 0, "0 or more")
        self.require("max_batch", self.max_batch >= 1, "1 or more")


@dataclass(frozen=True)
class FlowDemoAdapter:
    """Serves the demo that makes chunks by flow matching."""

    target: str
    help = "a demo that moves a point by chunks of 50 actions, to try real-time execution with"
    rest = ""
    flags = FlowDemoFlags

    def defaults(self, given: FlowDemoFlags | None) -> FlowDemoFlags:
        return FlowDemoFlags()

    def source(self, flags: FlowDemoFlags) -> Source:
        """What these flags stand for."""
        arguments = {
            "how": flags.how(),
            "latency_s": flags.latency_ms / 1e3,
            "seed": flags.seed,
            "max_batch": flags.max_batch,
        }
        recipe = Recipe(f"{__name__}:load", arguments)
        return Source("demo_flow", "the policies that come with policyserve", recipe, env_id=_ENV_ID)


def load(how: Rtc | None, latency_s: float, seed: int, max_batch: int, on_stage: OnStage) -> Policy:
    """The policy that the flags describe."""
    return FlowDemo(how, latency_s=latency_s, seed=seed, max_batch=max_batch)
