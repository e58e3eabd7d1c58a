"""How many kernels a request launches on a GPU, counted on a CPU by the operators that torch dispatches.

BEFORE was counted in the same way at commit 11c7f47, before operations were fused: the same sampler, shapes and dtype.
See benchmarks/wall_x_models/launches.py for what counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from tests.policies.frameworks import import_or_skip

torch = import_or_skip("torch")
import_or_skip("safetensors.torch")

from benchmarks.wall_x_models.launches import count_launches  # noqa: E402
from benchmarks.wall_x_models.observed import TEXT, make_input  # noqa: E402
from benchmarks.wall_x_models.random_checkpoint import SIZES, random_config, write_random_checkpoint  # noqa: E402
from policyserve.policies.wall_x.attention import AttentionMode  # noqa: E402
from policyserve.policies.wall_x.flow import FlowSampler  # noqa: E402
from policyserve.policies.wall_x.generate import Generator  # noqa: E402
from policyserve.policies.wall_x.model import WallXModel, load_model  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_torch_thread")

DEPTH = replace(SIZES["tiny"], layers=36, vision_depth=32)  # as deep as the released model, and narrow
# Whole requests in bfloat16: two cameras, 75 tokens of text, ten steps, batch 1, prefixes in steps of 64.
BEFORE: Mapping[AttentionMode, int] = {"causal": 11_313, "bidir_island": 11_314, "upstream_sdpa": 12_951}
BEFORE_IN_ONE_STEP, BEFORE_FOR_ONE_TOKEN = 948, 895
MOST = 0.4  # of what it was


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> WallXModel:
    folder: Path = tmp_path_factory.mktemp("deep")
    write_random_checkpoint(folder, random_config(DEPTH), DEPTH.vocabulary)
    return load_model(folder, dtype="bfloat16")


def launches_of_a_request(model: WallXModel, mode: AttentionMode) -> Counter[str]:
    """Of the second request of its shape; what would replay a graph runs its work, whose kernels are counted."""
    sampler = FlowSampler(model.network, slot_multiple=64, capture=lambda work: work)
    item = make_input(model, TEXT, cameras=2, trailing=2 if mode == "upstream_sdpa" else 0)
    with torch.inference_mode():
        sampler.sample([item], mode, 10)
        return count_launches(lambda: sampler.sample([item], mode, 10))


def launches_of_a_step(model: WallXModel, mode: AttentionMode, *, trailing: int = 0) -> int:
    """Of the last of ten Euler steps."""
    sampler = FlowSampler(model.network, slot_multiple=64)
    with torch.inference_mode():
        state = sampler.prepare([make_input(model, TEXT, cameras=2, trailing=trailing)], mode, 10)
        return sum(count_launches(lambda: sampler.step(state, 9)).values())


@pytest.mark.parametrize("mode", BEFORE)
def test_a_request_launches_at_most_two_fifths_of_what_it_did(model: WallXModel, mode: AttentionMode) -> None:
    found = launches_of_a_request(model, mode)
    assert sum(found.values()) <= MOST * BEFORE[mode], found.most_common(30)


def test_one_of_fasts_tokens_launches_at_most_two_fifths_of_what_it_did(model: WallXModel) -> None:
    generator = Generator(model.network, slot_multiple=64)
    item = make_input(model, TEXT, cameras=2, actions=0)
    with torch.inference_mode():
        state, _ = generator.prepare([item], 16)
        found = count_launches(lambda: generator.step(state, state.cache.keys.shape[3]))
    assert sum(found.values()) <= MOST * BEFORE_FOR_ONE_TOKEN, found.most_common(30)


def test_tokens_after_the_actions_cost_two_products_a_layer(model: WallXModel) -> None:
    """Those of their own expert: the gates and the sums of both experts are one kernel each."""
    without, with_two = launches_of_a_step(model, "causal"), launches_of_a_step(model, "upstream_sdpa", trailing=2)
    assert 0 < with_two - without <= DEPTH.layers * 2 + 1


def test_a_layer_of_a_step_is_ten_kernels(model: WallXModel) -> None:
    """Four products, attention and what puts its heads together; two norms, rotation with storing, the gate."""
    found = launches_of_a_step(model, "causal")
    assert found <= DEPTH.layers * 10 + 12
    assert found <= MOST * BEFORE_IN_ONE_STEP


def test_views_launch_nothing_and_copies_do() -> None:
    x = torch.ones(4, 6)
    with torch.inference_mode():
        assert not count_launches(lambda: x.view(6, 4).transpose(0, 1)[1:].to(torch.float32))
        assert sum(count_launches(lambda: x.t().reshape(24)).values()) == 1
        assert sum(count_launches(lambda: x.to(torch.bfloat16)).values()) == 1
        assert sum(count_launches(lambda: x.add_(1)).values()) == 1
        assert not count_launches(lambda: torch.empty(3))
