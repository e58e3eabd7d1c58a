"""A batch of n equals n singles: prompts, images and states of any sizes together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.policies.frameworks import import_or_skip
from tests.policies.wall_x.cases import golden_case, golden_input

torch = import_or_skip("torch")

from benchmarks.wall_x_models.recompute import FullSampler  # noqa: E402
from policyserve.policies.wall_x.attention import AttentionMode  # noqa: E402
from policyserve.policies.wall_x.checks import MAX_LENGTH  # noqa: E402
from policyserve.policies.wall_x.flow import FlowSampler  # noqa: E402
from policyserve.policies.wall_x.generate import Generator  # noqa: E402
from policyserve.policies.wall_x.graphs import Work  # noqa: E402
from policyserve.policies.wall_x.inputs import ModelInput  # noqa: E402
from policyserve.policies.wall_x.model import WallXModel, load_model  # noqa: E402
from policyserve.policies.wall_x.sequence import with_other_lengths  # noqa: E402
from tests.policies.wall_x.loaded import largest, loaded, tiny_input, write_tiny  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_torch_thread")

MODES: list[AttentionMode] = ["upstream_sdpa", "bidir_island", "causal"]
LIBERO = ("flow_libero_basic", "flow_libero_odd_sizes", "flow_no_proprio", "flow_unknown_camera_unicode")


def check_equal(model: WallXModel, items: Sequence[ModelInput], mode: AttentionMode) -> None:
    together = model.flow(items, attention=mode)
    for index, item in enumerate(items):
        assert largest(together[index] - model.flow([item], attention=mode)[0]) < 1e-5, index


@pytest.mark.parametrize("mode", MODES)
def test_the_golden_batch_is_the_originals(mode: AttentionMode) -> None:
    case = golden_case("flow_batch2_padding")
    items = [golden_input(case, sample) for sample in range(2)]
    assert len(items[0].input_ids) != len(items[1].input_ids)
    answers = loaded(case.directory).flow(items, attention=mode)
    assert largest(np.stack(answers) - case[f"{mode}/action_norm"]) < 1e-4


@pytest.mark.parametrize("mode", MODES)
def test_different_prompts_images_and_states_in_one_batch_equal_singles(mode: AttentionMode) -> None:
    cases = [golden_case(name) for name in LIBERO]
    check_equal(loaded(cases[0].directory), [golden_input(case) for case in cases], mode)


def test_the_mot_variant_batches_too() -> None:
    item = golden_input(golden_case("flow_mot_libero"))
    model = loaded(golden_case("flow_mot_libero").directory)
    longer = np.insert(item.input_ids, 3, [7, 8, 9])
    other = replace(item, input_ids=longer, state=np.zeros_like(item.state))
    for mode in MODES:
        check_equal(model, [item, other], mode)


@pytest.mark.parametrize("mode", MODES)
def test_batches_of_any_size_equal_singles(tmp_path: Path, mode: AttentionMode) -> None:
    write_tiny(tmp_path, dim_inputs=[64, 32], action_hidden_size=48)
    model = load_model(tmp_path)
    items = [tiny_input(model, 3 + 5 * seed, trailing=2, seed=seed) for seed in range(9)]
    check_equal(model, items, mode)
    check_equal(model, items[:1] * 3, mode)


@pytest.mark.parametrize("mode", MODES)
def test_a_padded_batch_equals_recomputing_everything(tmp_path: Path, mode: AttentionMode) -> None:
    write_tiny(tmp_path)
    model = load_model(tmp_path)
    items = [tiny_input(model, length, trailing=1, seed=length) for length in (4, 9, 6)]
    sampler = FullSampler(model.network)
    with torch.inference_mode():
        state = sampler.prepare(items, mode, 10)
        sampler.run(state)
    answers = model.flow(items, attention=mode)
    assert largest(np.stack(answers) - state.flow.x.numpy()) < 1e-5


@pytest.mark.parametrize("mode", MODES)
def test_slots_of_the_cache_that_nobody_uses_change_nothing(tmp_path: Path, mode: AttentionMode) -> None:
    write_tiny(tmp_path)
    model = load_model(tmp_path)
    items = [tiny_input(model, length, trailing=1, seed=length) for length in (4, 9)]
    sampler = FlowSampler(model.network, slot_multiple=16)
    with torch.inference_mode():
        state = sampler.prepare(items, mode, 10)
        assert state.schedule.prefix == 16
        sampler.run(state)
    assert largest(state.x.numpy() - np.stack(model.flow(items, attention=mode))) < 1e-5


def test_biases_that_a_gpu_reads_are_whole_vectors_wide(tmp_path: Path) -> None:
    """What is no multiple of 8 numbers wide would be copied by every call of attention."""
    write_tiny(tmp_path)
    model = load_model(tmp_path)
    items = [tiny_input(model, length, trailing=1) for length in (4, 9)]
    with torch.inference_mode():
        state = FlowSampler(model.network, slot_multiple=16).prepare(items, "upstream_sdpa", 10)
    assert {rule: bias.shape[-1] for rule, bias in state.biases.items()} == {"causal": 24, "all": 24}
    assert state.cache.keys.shape[3] == 24
    assert model.sampler.prepare(items, "upstream_sdpa", 10).cache.keys.shape[3] == 9 + 4 + 1


def run_plainly(work: Work) -> Work:
    """What capturing is on a machine without a GPU: one run, as a graph's warm-up, and then the work itself."""
    work()
    return work


@pytest.mark.parametrize("mode", MODES)
def test_states_copied_to_where_graphs_work_give_the_same(tmp_path: Path, mode: AttentionMode) -> None:
    write_tiny(tmp_path)
    model = load_model(tmp_path)
    sampler = FlowSampler(model.network, slot_multiple=16, capture=run_plainly)
    for lengths in ((4, 9, 6), (12,), (5, 5, 5, 5), (3, 8), (9, 4, 4)):
        items = [tiny_input(model, length, trailing=1, seed=length) for length in lengths]
        with torch.inference_mode():
            answers = sampler.sample(items, mode, 10)
        assert largest(answers.numpy() - np.stack(model.flow(items, attention=mode))) < 1e-5


def test_tokens_from_states_copied_to_where_graphs_work_are_the_same() -> None:
    cases = [golden_case(name) for name in ("fast_bad_length", "fast_libero_h10_textprefix", "fast_no_eos_100")]
    generator = Generator(loaded(cases[0].directory).network, slot_multiple=64, capture=run_plainly)
    items = [golden_input(case) for case in cases]
    wanted = [case["fast/new_ids"].tolist() for case in cases]
    with torch.inference_mode():
        assert generator.run(items, 100) == wanted
        assert generator.run(items[::-1], 100) == wanted[::-1]
        assert generator.run(items[:1], 100) == wanted[:1]


def test_an_input_can_be_made_longer_and_shorter_by_words_and_still_runs() -> None:
    case = golden_case("flow_libero_basic")
    model, item = loaded(case.directory), golden_input(case)
    longer, shorter = with_other_lengths(item, model.architecture, 64)
    assert [len(one.input_ids) - len(item.input_ids) for one in (longer, shorter)] == [64, -64]
    assert len(model.flow([item, longer, shorter], attention="causal", num_steps=1)) == 3


def test_an_input_is_not_made_shorter_than_its_words_nor_longer_than_the_model_takes(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    model = load_model(tmp_path)
    assert [len(one.input_ids) for one in with_other_lengths(tiny_input(model, 5), model.architecture, 4)] == [13]
    assert len(with_other_lengths(tiny_input(model, MAX_LENGTH), model.architecture, 64)) == 1


def test_on_a_cpu_nothing_depends_on_shapes_and_nothing_is_kept_for_them(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    model = load_model(tmp_path)
    assert model.shape_of(tiny_input(model, 5)) is None
    model.begin_service()
    model.free()


def test_horizons_cannot_be_mixed(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    model = load_model(tmp_path)
    with pytest.raises(ValueError, match="equally many actions"):
        model.flow([tiny_input(model, 5), tiny_input(model, 5, actions=3)], attention="causal")
