"""Nothing that is recorded as a CUDA graph does what a recording refuses or freezes; and the lint that says so."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pytest

from tests.policies.frameworks import import_or_skip
from tests.policies.wall_x.cases import golden_case, golden_input

torch = import_or_skip("torch")

from policyserve.policies.wall_x.attention import AttentionMode  # noqa: E402
from policyserve.policies.wall_x.encoder import ImageEncoder  # noqa: E402
from policyserve.policies.wall_x.flow import FlowSampler  # noqa: E402
from policyserve.policies.wall_x.generate import Generator  # noqa: E402
from policyserve.policies.wall_x.vision import plan_packing  # noqa: E402
from tests.policies.wall_x.capture_lint import faults_of, linted  # noqa: E402
from tests.policies.wall_x.loaded import largest, loaded  # noqa: E402
from tests.policies.wall_x.test_batching import run_plainly  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_torch_thread")

# Each sampler with the method that it has recorded. Add others here.
LINTED_FLOW = linted(FlowSampler, "answer")
LINTED_GENERATOR = linted(Generator, "step")
LINTED_ENCODER = linted(ImageEncoder, "encode")

MODES: list[AttentionMode] = ["upstream_sdpa", "bidir_island", "causal"]
DTYPES = ["float32", "bfloat16"]
FLOW = ["flow_libero_odd_sizes", "flow_mot_libero", "flow_pad20_aloha"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", FLOW)
def test_prefill_and_euler_steps_can_be_recorded(
    name: str, mode: AttentionMode, dtype: Literal["float32", "bfloat16"]
) -> None:
    case = golden_case(name)
    sampler = LINTED_FLOW(loaded(case.directory, dtype).network, slot_multiple=64, capture=run_plainly)
    with torch.inference_mode():
        actions = sampler.sample([golden_input(case)], mode, 2)
        plain = FlowSampler(sampler.network, slot_multiple=64).sample([golden_input(case)], mode, 2)
    assert sampler.faults == []
    assert largest(actions.numpy() - plain.numpy()) == 0


@pytest.mark.parametrize("dtype", DTYPES)
def test_decoding_a_token_can_be_recorded(dtype: Literal["float32", "bfloat16"]) -> None:
    case = golden_case("fast_libero_1")
    generator = LINTED_GENERATOR(loaded(case.directory, dtype).network, slot_multiple=64, capture=run_plainly)
    with torch.inference_mode():
        made = generator.run([golden_input(case)] * 2, 5)
    assert generator.faults == []
    assert made == [case["fast/new_ids"][:5].tolist()] * 2


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FLOW)
def test_the_vision_tower_can_be_recorded(name: str, dtype: Literal["float32", "bfloat16"]) -> None:
    item, network = golden_input(golden_case(name)), loaded(golden_case(name).directory, dtype).network
    encoder = LINTED_ENCODER(network, run_plainly)
    with torch.inference_mode():
        embeddings = encoder([item] * 2)
        plain = network.vision(torch.from_numpy(np.concatenate([item.patches] * 2)), item.grids * 2)
    assert encoder.faults == []
    assert largest((embeddings - plain).float().numpy()) == 0


class WithAPlanOfItsOwn(ImageEncoder):
    """Makes anew what its graph reads, so that nothing keeps it where it is."""

    def encode(self, state: Any) -> None:
        plan = plan_packing.__wrapped__(state.grids * len(state.patches), state.architecture, state.patches.device)
        state.embeddings.copy_(self.network.vision.packed(state.patches.flatten(0, 1), plan).view_as(state.embeddings))


def test_a_plan_that_nobody_keeps_is_noticed() -> None:
    case = golden_case("flow_libero_basic")
    encoder = linted(WithAPlanOfItsOwn, "encode")(loaded(case.directory).network, run_plainly)
    with torch.inference_mode():
        encoder([golden_input(case)])
    assert any("that nothing keeps where it is" in fault for fault in encoder.faults)


class WithANumber(FlowSampler):
    """Asks for a number in each step."""

    def step(self, state: Any, k: int) -> Any:
        assert float(state.x.sum()) < 1e9
        return super().step(state, k)


class WithATensor(FlowSampler):
    """Reads a tensor that only the first step's frame holds."""

    def step(self, state: Any, k: int) -> Any:
        state.x.add_(torch.tensor([0.0]))
        return super().step(state, k)


@pytest.mark.parametrize(
    ("faulty", "told"),
    [
        (WithANumber, "_local_scalar_dense needs a number on the host, at "),
        (WithATensor, "lift_fresh: a tensor is made on the host, at "),
    ],
)
def test_a_sampler_that_asks_the_host_is_noticed(faulty: type[FlowSampler], told: str) -> None:
    case = golden_case("flow_libero_basic")
    sampler = linted(faulty, "answer")(loaded(case.directory).network, slot_multiple=64, capture=run_plainly)
    with torch.inference_mode():
        sampler.sample([golden_input(case)], "causal", 2)
    assert sum(fault.startswith(told) for fault in sampler.faults) >= 2


X = torch.linspace(-1, 1, 12).reshape(3, 4)
INDEX, COUNTS = torch.tensor([0, 2]), torch.tensor([1, 0, 2])
ELSEWHERE = torch.ones(4)
CALLS: list[int] = []


def other_shapes() -> Any:
    CALLS.append(1)
    return X[: len(CALLS) % 3]


def more_operations() -> Any:
    CALLS.append(1)
    return [X.neg() for _ in CALLS]


@pytest.mark.parametrize(
    ("work", "fault"),
    [
        (lambda: X.sum().item(), "needs a number on the host"),
        (lambda: X if X.sum() > 100 else None, "needs a number on the host"),
        (lambda: X.nonzero(), "nonzero needs a number on the host"),
        (lambda: X[X > 0], "by a mask"),
        (lambda: X.masked_select(X > 0), "masked_select needs a number"),
        (lambda: torch.unique(X), "needs a number on the host"),
        (lambda: X.repeat_interleave(COUNTS, dim=0), "repeat_interleave needs a number"),
        (lambda: X + torch.tensor(1.0), "made on the host"),
        (lambda: X[:, [0, 2]], "made on the host"),
        (lambda: torch.rand(3), "draws random numbers"),
        (lambda: X + torch.randn_like(X), "draws random numbers"),
        (lambda: torch.nn.functional.dropout(X, 0.5), "draws random numbers"),
        (lambda: X + ELSEWHERE, r"add reads a tensor \(4,\) that nothing keeps where it is, at test_capture_lint\.py"),
        (lambda: X.to("meta") + X.new_zeros(()), "add of tensors on cpu, meta"),
        (other_shapes, "two runs differ"),
        (more_operations, r"two runs differ: \d+ operations and then \d+"),
    ],
)
def test_the_lint_sees_it(work: Callable[[], object], fault: str) -> None:
    with torch.inference_mode():
        assert any(re.search(fault, found) for found in faults_of(work, [X, INDEX, COUNTS]))


@pytest.mark.parametrize(
    "work",
    [
        lambda: (X @ X.T).softmax(-1),
        lambda: X[INDEX],
        lambda: X.index_copy(0, INDEX, X.new_zeros(2, 4)),
        lambda: torch.arange(4) <= X.argmax(-1, keepdim=True),
        lambda: X.clone().masked_fill_(X > 0, float("-inf")),
        lambda: torch.nn.functional.scaled_dot_product_attention(X[None], X[None], X[None]),
        lambda: X.repeat_interleave(2, dim=0),
    ],
)
def test_what_can_be_recorded_has_no_faults(work: Callable[[], object]) -> None:
    with torch.inference_mode():
        assert faults_of(work, [X, INDEX, COUNTS]) == []
