"""Guided Euler steps of Wall-X: plain where nothing is known, batches as singles, and prefixes that hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from policyserve.core.arrays import Array
from policyserve.policies.prefix import Prefix
from policyserve.policies.rtc import LEROBOT, Rtc, sample, target_of
from tests.policies.frameworks import import_or_skip
from tests.policies.wall_x.cases import golden_case, golden_input

torch = import_or_skip("torch")

from policyserve.policies.wall_x import flow  # noqa: E402
from policyserve.policies.wall_x.attention import AttentionMode  # noqa: E402
from policyserve.policies.wall_x.flow import FlowSampler  # noqa: E402
from policyserve.policies.wall_x.inputs import ModelInput  # noqa: E402
from policyserve.policies.wall_x.model import WallXModel, load_model  # noqa: E402
from policyserve.policies.wall_x.sequence import to_device  # noqa: E402
from tests.policies.wall_x.capture_lint import linted  # noqa: E402
from tests.policies.wall_x.loaded import largest, loaded, tiny_input, write_tiny  # noqa: E402
from tests.policies.wall_x.test_batching import run_plainly  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_torch_thread")

MODES: list[AttentionMode] = ["upstream_sdpa", "bidir_island", "causal"]
WAYS = [Rtc("guided"), Rtc("identity"), Rtc("inpaint"), LEROBOT]
ACTIONS, STEPS = 8, 10
LINTED = linted(FlowSampler, "answer")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> WallXModel:
    """A tiny random network whose velocity depends on where it is asked, and is not near 0."""
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny(folder)
    made = load_model(folder)
    head = made.network.action_head
    with torch.no_grad():
        head.action_proj_back.weight.mul_(6)
        head.w1.weight.mul_(6)
    return WallXModel(made.network)


def item(model: WallXModel, seed: int = 0, length: int = 5, trailing: int = 1) -> ModelInput:
    return tiny_input(model, length, actions=ACTIONS, trailing=trailing, seed=seed)


def with_prefix(one: ModelInput, known: int, delay: int, end: int | None = None, seed: int = 7) -> ModelInput:
    width = one.dof_mask.shape[1]
    rows = np.zeros((ACTIONS, width), np.float32)
    rows[:known] = np.random.default_rng(seed).standard_normal((known, width)) * 0.5
    return replace(one, prefix=Prefix(rows, known, delay, end))


def mixed(model: WallXModel) -> list[ModelInput]:
    """Plain ones, nothing known, and prefixes of several lengths and delays, after prompts of several lengths."""
    items = [item(model, seed, 4 + seed) for seed in range(6)]
    return [
        with_prefix(items[0], 6, 3),
        items[1],
        with_prefix(items[2], ACTIONS, 1, 5),
        with_prefix(items[3], 0, 0),
        with_prefix(items[4], 4, 4),
        with_prefix(items[5], 6, 0),
    ]


def test_the_velocity_is_no_small_one(model: WallXModel) -> None:
    one = item(model)
    assert one.noise is not None
    assert largest(model.flow([one], attention="causal")[0] - one.noise) > 0.3


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("how", WAYS, ids=str)
def test_a_mixed_batch_equals_its_singles_and_what_has_nothing_is_plain(
    model: WallXModel, how: Rtc, mode: AttentionMode
) -> None:
    items = mixed(model)
    together = model.flow(items, attention=mode, how=how)
    for place, one in enumerate(items):
        assert largest(together[place] - model.flow([one], attention=mode, how=how)[0]) < 1e-5, place
    for place in (1, 3):
        assert largest(together[place] - model.flow([items[place]], attention=mode)[0]) < 1e-6
    for place in (0, 2, 4):
        assert largest(together[place] - model.flow([items[place]], attention=mode)[0]) > 1e-3


@pytest.mark.parametrize("mode", MODES)
def test_guided_steps_without_a_weight_are_plain_ones(model: WallXModel, mode: AttentionMode) -> None:
    items = [replace(one, guided=np.zeros(20, np.float32)) for one in mixed(model)]
    plain = model.flow(items, attention=mode)
    for how in WAYS:
        assert largest(np.stack(model.flow(items, attention=mode, how=how)) - np.stack(plain)) < 1e-6


@pytest.mark.parametrize("how", WAYS, ids=str)
def test_the_rows_that_will_have_run_are_nearly_as_given(model: WallXModel, how: Rtc) -> None:
    items = [with_prefix(item(model, seed), 6, 3, seed=seed + 20) for seed in range(4)]
    rows = np.stack([one.prefix.rows[:3] for one in items if one.prefix is not None])
    answers, plain = (np.stack(model.flow(items, attention="upstream_sdpa", how=way))[:, :3] for way in (how, None))
    assert np.abs(answers - rows).mean() <= 0.1 * np.abs(plain - rows).mean()
    if how.method == "inpaint":
        np.testing.assert_array_equal(answers, rows)


def test_guided_is_the_rule_with_the_networks_own_derivative(model: WallXModel) -> None:
    """policies/rtc.py holds the rule to the originals; here its field is the network, differentiated numerically."""
    how, one = Rtc("guided"), with_prefix(item(model), 6, 3)
    sampler = FlowSampler(model.network)
    with torch.no_grad():
        state = sampler.prepare([one], "upstream_sdpa", STEPS)

    def velocity(x: Array, k: int) -> Array:
        with torch.no_grad():
            return sampler.velocity_at(state, torch.from_numpy(x.astype(np.float32)), k)[1].numpy().astype(np.float64)

    def field(x: Array, t: float) -> Any:
        k = round(t * STEPS)

        def pull(error: Array) -> Array:
            with torch.enable_grad():
                there = torch.from_numpy(x.astype(np.float32)).requires_grad_()
                torch_error = torch.from_numpy(np.asarray(error, np.float32))
                return torch.autograd.grad(sampler.velocity_at(state, there, k)[1], there, torch_error)[0].numpy()

        aside = np.random.default_rng(k).standard_normal(x.shape)
        slope = (velocity(x + 5e-3 * aside, k) - velocity(x - 5e-3 * aside, k)) / 1e-2
        np.testing.assert_allclose((pull(aside) * aside).sum(), (slope * aside).sum(), rtol=0.05, atol=0.05)
        return velocity(x, k), pull

    assert one.noise is not None
    wanted = sample(field, one.noise[None].astype(np.float64), STEPS, how, target_of([one.prefix], how, ACTIONS, 20))
    assert largest(model.flow([one], attention="upstream_sdpa", how=how)[0] - wanted[0]) < 1e-4


def test_numbers_that_are_not_guided_are_left_to_the_network(model: WallXModel) -> None:
    only = np.zeros(20, np.float32)
    only[:7] = 1
    one = replace(with_prefix(item(model), 6, 3), guided=only)
    assert one.prefix is not None
    answer, plain = (model.flow([one], attention="causal", how=way)[0] for way in (Rtc("inpaint"), None))
    np.testing.assert_array_equal(answer[:3, :7], one.prefix.rows[:3, :7])
    assert largest(answer[:3, 7:] - one.prefix.rows[:3, 7:]) > 0.1
    assert largest(answer[:3, 7:] - plain[:3, 7:]) > 0  # they see the others


@pytest.mark.parametrize("how", WAYS, ids=str)
def test_states_copied_to_where_graphs_work_give_the_same(model: WallXModel, how: Rtc) -> None:
    sampler = FlowSampler(model.network, slot_multiple=16, capture=run_plainly)
    batches: Sequence[Sequence[ModelInput]] = (mixed(model), mixed(model)[:1], [item(model)] * 3, mixed(model)[2:])
    for items in batches:
        with torch.no_grad():
            answers = sampler.sample(items, "upstream_sdpa", STEPS, how)
        assert largest(answers.numpy() - np.stack(model.flow(items, attention="upstream_sdpa", how=how))) < 1e-5


def test_plain_batches_keep_the_graphs_that_they_have_without(model: WallXModel) -> None:
    sampler = FlowSampler(model.network, slot_multiple=16)
    with torch.inference_mode():
        plain, asked = (sampler.prepare([item(model)], "causal", STEPS, how) for how in (None, Rtc()))
    assert plain.key == asked.key
    assert len(plain.tensors()) == len(asked.tensors())
    guided, identity = (sampler.prepare(mixed(model), "causal", STEPS, how) for how in WAYS[:2])
    assert len({plain.key, guided.key, identity.key}) == 3


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("how", WAYS[:3], ids=str)
@pytest.mark.parametrize("name", ["flow_libero_odd_sizes", "flow_mot_libero"])
def test_guided_steps_can_be_recorded(name: str, how: Rtc, dtype: Literal["float32", "bfloat16"]) -> None:
    case = golden_case(name)
    one = golden_input(case)
    rows = np.zeros_like(one.dof_mask)
    rows[:6] = 0.3
    items = [replace(one, prefix=Prefix(rows, 6, 3)), one]
    sampler = LINTED(loaded(case.directory, dtype).network, slot_multiple=64, capture=run_plainly)
    with torch.no_grad():
        actions = sampler.sample(items, "upstream_sdpa", 2, how)
    assert sampler.faults == []
    assert torch.isfinite(actions).all()


def test_bfloat16_guides_as_float32_does(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    answers = [
        load_model(tmp_path, dtype=dtype).flow(
            [with_prefix(item(load_model(tmp_path)), 6, 3)], attention="causal", how=Rtc()
        )[0]
        for dtype in ("float32", "bfloat16")
    ]
    assert answers[1].dtype == np.float32
    assert largest(answers[0] - answers[1]) < 0.1


def test_no_checkpoint_was_trained_with_it(model: WallXModel) -> None:
    with pytest.raises(ValueError, match="no Wall-X checkpoint was trained"):
        model.flow(mixed(model), attention="causal", how=Rtc("trained"))


def test_times_travel_to_the_device_once_and_serve_guided_steps_after_plain_ones(
    model: WallXModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[int, ...]] = []

    def note(values: Array, device: Any) -> Any:
        sent.append(values.shape)
        return to_device(values, device)

    monkeypatch.setattr(flow, "to_device", note)
    fresh, known = WallXModel(model.network), with_prefix(item(model), 6, 3)
    for how in (None, Rtc("guided"), None):
        fresh.flow([known], attention="causal", num_steps=STEPS, how=how)
    fresh.flow([known], attention="causal", num_steps=3)
    assert [shape for shape in sent if len(shape) == 1] == [(STEPS,), (3,)]
