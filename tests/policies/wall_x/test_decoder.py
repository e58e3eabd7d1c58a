"""The decoder and the action head, stage by stage."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from policyserve.core.arrays import Array
from tests.policies.frameworks import import_or_skip
from tests.policies.wall_x.cases import golden_case, golden_input
from tests.policies.wall_x.golden import FLOW_CASES
from tests.shared import shared_path

torch = import_or_skip("torch")
safetensors_numpy = import_or_skip("safetensors.numpy")

from benchmarks.wall_x_models.recompute import FullSampler  # noqa: E402
from policyserve.policies.wall_x.action_head import time_embedding  # noqa: E402
from policyserve.policies.wall_x.attention import needs_trailing, postfix_mask, postfix_rule  # noqa: E402
from policyserve.policies.wall_x.encoder import ImageEncoder  # noqa: E402
from policyserve.policies.wall_x.flow import FlowSampler  # noqa: E402
from policyserve.policies.wall_x.rope import prompt_positions  # noqa: E402
from policyserve.policies.wall_x.sequence import embed_prefix, layout_of  # noqa: E402
from tests.policies.wall_x.loaded import largest, loaded, told_by_layer  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_torch_thread")


def outputs_of_layers(network: Any, run: Any) -> list[Array]:
    outputs: list[Array] = []
    layers = [*network.decoder.layers, network.decoder.norm]
    hooks = [layer.register_forward_hook(lambda _m, _i, out: outputs.append(told_by_layer(out))) for layer in layers]
    with torch.inference_mode():
        run()
    for hook in hooks:
        hook.remove()
    return outputs


@pytest.mark.parametrize("name", FLOW_CASES)
def test_positions_are_the_originals(name: str) -> None:
    case = golden_case(name)
    item = golden_input(case)
    cells = [(rows // 2, columns // 2) for rows, columns in item.grids]
    ids = loaded(case.directory).architecture.image_id
    assert np.array_equal(prompt_positions(item.input_ids, ids, cells), case["pre/position_ids"][:, 0])


def test_image_tokens_that_do_not_fit_the_images_are_refused() -> None:
    with pytest.raises(ValueError, match="the prompt holds 3 image tokens, its images make 4"):
        prompt_positions(np.array([5, 2, 2, 2, 5]), 2, [(2, 2)])
    with pytest.raises(ValueError, match="the prompt holds 5 image tokens, its images make 4"):
        prompt_positions(np.array([2, 2, 2, 2, 5, 2]), 2, [(2, 2)])


@pytest.mark.parametrize("name", FLOW_CASES)
def test_embeddings_are_the_originals(name: str) -> None:
    case = golden_case(name)
    item, network = golden_input(case), loaded(case.directory).network
    layout = layout_of(item, network.architecture)
    with torch.inference_mode():
        prefix = embed_prefix(network, [item], [layout], ImageEncoder(network)([item]))
        head = network.action_head
        noise, mask = torch.from_numpy(item.noise)[None], torch.from_numpy(item.dof_mask)[None]
        of_masks, of_times = head.constants(mask, torch.zeros(1))
        actions = head.embed_actions(noise, head.fold(), of_masks + of_times[0])
    if "emb/inputs_step0" in case.tensors:
        assert largest(prefix.x.numpy() - case["emb/inputs_step0"][:, : layout.prefix]) < 1e-4
    if "emb/propri" in case.tensors:
        state = prefix.x[0, layout.state_at].numpy()
        assert largest(state - np.resize(case["emb/propri"], state.shape)) < 1e-4
    wanted = case["emb/action_embed_step0"]
    assert largest(actions.numpy()[..., : wanted.shape[-1]] - wanted) < 1e-4


def test_the_prefixes_keys_and_values_are_the_originals() -> None:
    case = golden_case("flow_libero_basic")
    sampler = FlowSampler(loaded(case.directory).network)
    with torch.inference_mode():
        cache = sampler.prepare([golden_input(case)], "causal", 10).cache
    for layer in range(3):
        for letter, ours in (("k", cache.keys), ("v", cache.values)):
            wanted = case[f"kv/prefix_{letter}_{layer}"]
            assert largest(ours[layer, :, :, : wanted.shape[2]].numpy() - wanted) < 1e-4, (letter, layer)


@pytest.mark.parametrize("name", FLOW_CASES)
def test_every_layer_of_the_first_step_is_the_originals(name: str) -> None:
    case = golden_case(name)
    item, network = golden_input(case), loaded(case.directory).network
    sampler = FullSampler(network)
    with torch.inference_mode():
        state = sampler.prepare([item], "upstream_sdpa", case.steps)
    *layers, normed = outputs_of_layers(network, lambda: sampler.step(state, 0))
    assert len(layers) == 3
    # The MoT case keeps its tensors sorted by type: the trailing text before the actions.
    prefix, actions = state.prefix.x.shape[1], len(item.dof_mask)
    by_type = [*range(prefix), *range(prefix + actions, len(item.input_ids)), *range(prefix, prefix + actions)]
    is_sorted = network.architecture.has_attention_experts
    for index, layer in enumerate(layers):
        rows = layer[0, by_type] if is_sorted else layer[0]
        assert largest(rows - case[f"upstream_sdpa/step0_layer_{index}"].reshape(rows.shape)) < 1e-4, index
    final = case["upstream_sdpa/step0_final_norm"].reshape(-1, layers[0].shape[-1])  # never sorted
    assert largest(normed[0] - final[prefix : prefix + actions]) < 1e-4


@pytest.mark.parametrize("name", FLOW_CASES)
def test_every_layer_of_the_second_step_is_the_originals(name: str) -> None:
    case = golden_case(name)
    item, network = golden_input(case), loaded(case.directory).network
    sampler = FlowSampler(network)
    with torch.inference_mode():
        state = sampler.prepare([item], "upstream_sdpa", case.steps)
        sampler.step(state, 0)
    layers = outputs_of_layers(network, lambda: sampler.step(state, 1))  # the norm comes with the last sum
    assert len(layers) == 3
    actions = len(item.dof_mask)
    shift = actions if network.architecture.has_attention_experts else 0
    for index, layer in enumerate(layers):
        rows = np.roll(layer[0], -shift, axis=0)
        assert largest(rows - case[f"upstream_sdpa/step1_layer_{index}"].reshape(rows.shape)) < 1e-4, index


def test_the_action_head_is_the_originals() -> None:
    path = shared_path("wall_x", "golden", "cases", "unit_normalizer_actionhead.safetensors")
    unit = {name: torch.from_numpy(array) for name, array in safetensors_numpy.load_file(path).items()}
    head = loaded(shared_path("wall_x", "golden", "checkpoint_flow")).network.action_head
    with torch.inference_mode():
        of_masks, of_times = head.constants(unit["step_mask"], unit["step_t"])
        actions = head.embed_actions(unit["step_noisy"], head.fold(), of_masks + of_times[:, None])
        states = head.embed_states(unit["propri_proj_in"], unit["propri_proj_mask"])
    assert largest(actions - unit["step_embed"]) < 1e-4
    assert largest(states - unit["propri_proj_out"]) < 1e-4
    for width in (128, 2048):
        assert largest(time_embedding(unit["time"], width) - unit[f"time_embed_{width}"]) < 1e-4


def test_the_three_semantics_differ_in_what_the_postfix_sees() -> None:
    rules = {
        (mode, moe): [postfix_rule(mode, step, has_attention_experts=moe) for step in range(3)]
        for mode in ("upstream_sdpa", "bidir_island", "causal")
        for moe in (False, True)
    }
    assert rules["upstream_sdpa", False] == ["causal", "all", "all"]
    assert rules["upstream_sdpa", True] == ["island", "all", "all"]
    assert rules["bidir_island", False] == rules["bidir_island", True] == ["island"] * 3
    assert rules["causal", False] == rules["causal", True] == ["causal"] * 3
    assert [needs_trailing(rule) for rule in ("causal", "island", "all")] == [False, False, True]
    assert postfix_mask("island", 2, 1).int().tolist() == [[1, 1, 0], [1, 1, 0], [1, 1, 1]]
    assert postfix_mask("causal", 2, 1).int().tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
