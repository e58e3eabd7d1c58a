"""What one call of a policy takes, without a server: for one session, and for several in one call.

    python benchmarks/calls.py onnx:policy.onnx sb3:model.zip [--obs 45] [--sessions 8] [--calls 2000]

Each policy is loaded as `policyserve serve` loads it, and asked for its spec's example; one that remembers gets the
state back that its session had. Medians in µs, and how long it took to load.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from typing import Any

from policyserve import ActionChunk, Policy, PolicyInput, load_policy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("policies", nargs="+", help="as `policyserve serve` takes them")
    parser.add_argument("--obs", help="of TorchScript: the sizes of an observation")
    parser.add_argument("--sessions", type=int, default=8, help="sessions in one call")
    parser.add_argument("--calls", type=int, default=2000, help="calls of each kind")
    flags = parser.parse_args()
    told = f"{flags.sessions} sessions, µs"
    print(f"{'policy':50}  {'load, ms':>9}  {'1 session, µs':>14}  {told:>14}")
    for target in flags.policies:
        given = {"obs": flags.obs} if flags.obs and target.startswith("torch:") else {}
        began = time.perf_counter()
        policy = load_policy(target, **given)
        load_ms = (time.perf_counter() - began) * 1e3
        one, several = (call_us(policy, count, flags.calls) for count in (1, flags.sessions))
        print(f"{target[-50:]:50}  {load_ms:9.1f}  {one:14.1f}  {several:14.1f}", flush=True)
        policy.close()


def call_us(policy: Policy, sessions: int, calls: int) -> float:
    """The median of some calls, after a tenth of them."""
    batch = [PolicyInput(policy.spec.example()) for _ in range(sessions)]
    took: list[float] = []
    for _ in range(calls + calls // 10):
        began = time.perf_counter()
        answers = policy.infer(batch)
        took.append(time.perf_counter() - began)
        batch = next_batch(batch, answers)
    return statistics.median(took[-calls:]) * 1e6


def next_batch(batch: Sequence[PolicyInput], answers: Sequence[Any]) -> list[PolicyInput]:
    """The same observations, with what each session remembers now."""
    states = [answer.state for answer in answers if isinstance(answer, ActionChunk)]
    assert len(states) == len(batch), answers
    return [PolicyInput(one.observation, state=state) for one, state in zip(batch, states, strict=True)]


if __name__ == "__main__":
    main()
