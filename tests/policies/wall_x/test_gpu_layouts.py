"""The network with attention results laid out as GPUs lay them out: the same numbers as on a CPU.

And the whole path on a device that is not the CPU: `meta`, whose tensors have shapes, strides and types but no numbers.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from policyserve.policies.prefix import Prefix
from policyserve.policies.rtc import Method, Rtc
from tests.policies.frameworks import import_or_skip
from tests.policies.wall_x.cases import golden_case, golden_input

torch = import_or_skip("torch")
F = torch.nn.functional

from policyserve.policies.wall_x import flow  # noqa: E402
from policyserve.policies.wall_x.attention import AttentionMode  # noqa: E402
from policyserve.policies.wall_x.flow import FlowSampler  # noqa: E402
from policyserve.policies.wall_x.generate import Generator  # noqa: E402
from policyserve.policies.wall_x.inputs import ModelInput  # noqa: E402
from policyserve.policies.wall_x.model import load_model  # noqa: E402
from policyserve.policies.wall_x.network import Network  # noqa: E402
from tests.policies.wall_x.capture_lint import DeviceLint  # noqa: E402
from tests.policies.wall_x.gpu_attention import CARDS, Card, attention_of  # noqa: E402
from tests.policies.wall_x.loaded import largest, loaded, tiny_input, write_tiny  # noqa: E402
from tests.policies.wall_x.test_batching import MODES, run_plainly  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_torch_thread")

FLOW = [
    ("flow_libero_basic", "upstream_sdpa"),
    ("flow_libero_odd_sizes", "causal"),
    ("flow_aloha_basic", "bidir_island"),
]


@pytest.fixture(params=CARDS)
def card(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Card:
    """Every call of attention answers as this card does."""
    monkeypatch.setattr(F, "scaled_dot_product_attention", attention_of(request.param, F.scaled_dot_product_attention))
    return request.param


@pytest.mark.usefixtures("card")
@pytest.mark.parametrize(("name", "mode"), FLOW)
def test_actions_are_the_originals_in_every_layout(name: str, mode: AttentionMode) -> None:
    case = golden_case(name)
    (actions,) = loaded(case.directory).flow([golden_input(case)], attention=mode, num_steps=case.steps)
    assert largest(actions - case[f"{mode}/x"][-1]) < 1e-4


@pytest.mark.usefixtures("card")
def test_a_padded_batch_is_the_originals_in_every_layout() -> None:
    case = golden_case("flow_batch2_padding")
    items = [golden_input(case, sample) for sample in range(2)]
    answers = loaded(case.directory).flow(items, attention="upstream_sdpa")
    assert largest(np.stack(answers) - case["upstream_sdpa/action_norm"]) < 1e-4


@pytest.mark.usefixtures("card")
def test_tokens_are_the_originals_in_every_layout() -> None:
    case = golden_case("fast_libero_1")
    assert loaded(case.directory).generate([golden_input(case)]) == [case["fast/new_ids"].tolist()]


@pytest.mark.parametrize("card", CARDS)
@pytest.mark.parametrize("method", ["guided", "identity", "inpaint"])
def test_guided_steps_are_the_cpus_in_every_layout(
    method: Method, card: Card, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tiny(tmp_path)
    model = load_model(tmp_path)
    items = [with_known_rows(tiny_input(model, length, trailing=1, seed=length)) for length in (5, 9)]
    wanted = model.flow(items, attention="upstream_sdpa", how=Rtc(method))
    monkeypatch.setattr(F, "scaled_dot_product_attention", attention_of(card, F.scaled_dot_product_attention))
    got = model.flow(items, attention="upstream_sdpa", how=Rtc(method))
    assert largest(np.stack(got) - np.stack(wanted)) < 1e-5


def with_known_rows(item: ModelInput) -> ModelInput:
    return replace(item, prefix=Prefix(np.ones(item.dof_mask.shape, np.float32), 3, 1))


def view_of_stacked_rows(queries: Any, keys: Any, values: Any, bias: Any) -> Any:
    """grouped_attention as it must not be: its view holds for the layout of a CPU alone."""
    batch, heads, length, width = queries.shape
    stacked = queries.reshape(batch, keys.shape[1], -1, width)
    out = F.scaled_dot_product_attention(stacked, keys, values, attn_mask=bias)
    return out.view(batch, heads, length, width).transpose(1, 2).flatten(2)


def test_a_view_that_holds_on_a_cpu_alone_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "grouped_attention", view_of_stacked_rows)
    case = golden_case("flow_libero_basic")
    model, item = loaded(case.directory), golden_input(case)
    model.flow([item], attention="causal")
    monkeypatch.setattr(F, "scaled_dot_product_attention", attention_of("float32", F.scaled_dot_product_attention))
    with pytest.raises(RuntimeError, match="view size is not compatible"):
        model.flow([item], attention="causal")


def on_meta(name: str, card: Card) -> Network:
    """A golden checkpoint's network without its numbers."""
    dtype: Literal["float32", "bfloat16"] = "float32" if card == "float32" else "bfloat16"
    return copy.deepcopy(loaded(golden_case(name).directory, dtype).network).to("meta")


@pytest.fixture
def device_lint(monkeypatch: pytest.MonkeyPatch) -> DeviceLint:
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)  # which needs a GPU
    return DeviceLint()


@pytest.mark.parametrize("captured", [False, True])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["flow_libero_odd_sizes", "flow_mot_libero", "flow_pad20_aloha"])
def test_flow_runs_on_a_device_that_is_not_the_cpu(
    name: str, mode: AttentionMode, captured: bool, card: Card, device_lint: DeviceLint
) -> None:
    item = golden_input(golden_case(name))
    network = on_meta(name, card)
    with torch.inference_mode(), device_lint:
        sampler = FlowSampler(network, slot_multiple=64, capture=run_plainly if captured else None)
        actions = sampler.sample([item, item, item], mode, 2)
    assert item.noise is not None
    assert (actions.device.type, actions.dtype, tuple(actions.shape)) == ("meta", torch.float32, (3, *item.noise.shape))


@pytest.mark.parametrize("method", ["guided", "identity", "inpaint"])
def test_guided_steps_run_on_a_device_that_is_not_the_cpu(
    method: Method, card: Card, device_lint: DeviceLint, tmp_path: Path
) -> None:
    write_tiny(tmp_path)
    item = with_known_rows(tiny_input(load_model(tmp_path), 5, trailing=1))
    network = load_model(tmp_path, dtype="float32" if card == "float32" else "bfloat16").network.to("meta")
    with torch.no_grad(), device_lint:
        sampler = FlowSampler(network, slot_multiple=64, capture=run_plainly)
        assert sampler.sample([item, item], "upstream_sdpa", 2, Rtc(method)).device.type == "meta"


@pytest.mark.parametrize("captured", [False, True])
def test_fast_runs_on_a_device_that_is_not_the_cpu(captured: bool, card: Card, device_lint: DeviceLint) -> None:
    item = golden_input(golden_case("fast_libero_1"))
    network = on_meta("fast_libero_1", card)
    with torch.inference_mode(), device_lint:
        generator = Generator(network, slot_multiple=64, capture=run_plainly if captured else None)
        state, first = generator.prepare([item, item], 100)
        second = generator.step(state, state.cache.keys.shape[3])
    for logits in (first, second):
        assert (logits.device.type, logits.shape[0]) == ("meta", 2)


class WithAHostTensor(FlowSampler):
    """Adds to the noise what it has left on the host."""

    def run(self, state: Any) -> None:
        state.x.add_(torch.ones(state.x.shape[-1]))
        super().run(state)


def test_a_tensor_that_was_left_on_the_host_is_noticed(device_lint: DeviceLint) -> None:
    item = golden_input(golden_case("flow_libero_basic"))
    sampler = WithAHostTensor(on_meta("flow_libero_basic", "float32"))
    with pytest.raises(AssertionError, match=r"add_ of tensors on cpu, meta, at test_gpu_layouts\.py"), device_lint:
        sampler.sample([item], "causal", 2)


def test_a_view_is_noticed_without_numbers_too(device_lint: DeviceLint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(F, "scaled_dot_product_attention", attention_of("float32", F.scaled_dot_product_attention))
    monkeypatch.setattr(flow, "grouped_attention", view_of_stacked_rows)
    item = golden_input(golden_case("flow_libero_basic"))
    sampler = FlowSampler(on_meta("flow_libero_basic", "float32"))
    with pytest.raises(RuntimeError, match="view size is not compatible"), device_lint:
        sampler.sample([item], "causal", 2)
