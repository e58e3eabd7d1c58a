"""What is computed between answers, so that no request waits for the first of its shape."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from policyserve.core.errors import PolicyFailed
from policyserve.core.policy import ActionChunk, PolicyInput
from policyserve.engine.answering import run_batch
from policyserve.policies.prefix import Prefix
from policyserve.policies.wall_x.policy import WallXModelPolicy
from policyserve.policies.wall_x.warming import Warming
from tests.policies.frameworks import import_or_skip
from tests.policies.wall_x.cases import golden_case, golden_input
from tests.policies.wall_x.test_policy import Model, given, policy_around

for package in ("tokenizers", "PIL.Image", "yaml", "safetensors.numpy"):
    import_or_skip(package)


def by_length(item: Any) -> Any:
    return len(item.input_ids)


def serving(model: Model) -> WallXModelPolicy:
    """A policy that was warmed with zeros, in batches of 1, 2 and 4, and now has clients."""
    policy = policy_around(model, sizes=(1, 2, 4))
    for size in (1, 2, 4):
        policy.warm_up(size)
    policy.begin_service()
    assert model.is_serving
    model.batches.clear()
    return policy


def settled(policy: WallXModelPolicy, model: Model) -> list[int]:
    """The batches that are computed until nothing is left."""
    model.batches.clear()
    while policy.settle():
        pass
    return model.batches


def test_the_first_real_shape_is_computed_in_all_sizes_and_then_a_shorter_and_a_longer_one() -> None:
    model = Model()
    model.shapes = by_length
    policy = serving(model)
    assert settled(policy, model) == []  # nobody has sent anything
    run_batch(policy, [given(policy)])
    assert settled(policy, model) == [2, 4, *[1, 2, 4] * 2]
    run_batch(policy, [given(policy, prompt="something else and much longer than the first task")])
    assert settled(policy, model) == []  # clients decide on shapes: one is enough


def test_the_first_guided_observation_is_another_first_one() -> None:
    def shape_of(item: Any) -> Any:
        return "any length", item.prefix is not None

    shapes = Model()
    shapes.shapes = shape_of
    warming = Warming(shapes, (1, 2))
    plain = golden_input(golden_case("flow_libero_basic"))
    guided = replace(plain, prefix=Prefix(np.ones(plain.dof_mask.shape, np.float32), 3, 1))
    warming.begin()
    warming.note([plain, plain])
    assert warming.next() == (plain, 1)
    assert drained(warming) == [("any length", False)] * 2  # a shorter and a longer one, which are no other shape here
    warming.note([guided])
    assert drained(warming) == [("any length", True)] * 3
    warming.note([guided, plain])
    assert drained(warming) == []


def drained(warming: Warming) -> list[Any]:
    found = []
    while (planned := warming.next()) is not None:
        found.append(("any length", planned[0].prefix is not None))
    return found


def test_what_was_warmed_while_loading_is_not_computed_again() -> None:
    model = Model()
    model.shapes = lambda item: "the same for all"
    policy = serving(model)
    run_batch(policy, [given(policy)])
    assert settled(policy, model) == []


def test_where_nothing_depends_on_shapes_nothing_is_computed() -> None:
    model = Model()
    policy = serving(model)
    run_batch(policy, [given(policy)])
    assert settled(policy, model) == []


def test_one_shape_is_computed_at_a_time_so_that_a_request_waits_for_one_alone() -> None:
    model = Model()
    model.shapes = by_length
    policy = serving(model)
    run_batch(policy, [given(policy)])
    model.batches.clear()
    assert policy.settle()
    assert model.batches == [2]


def test_without_memory_for_a_shape_that_nobody_asked_for_it_ends() -> None:
    model = Model(fails=lambda size: MemoryError() if size == 4 and model.is_serving else None)
    model.shapes = by_length
    policy = serving(model)
    run_batch(policy, [given(policy)])
    assert settled(policy, model) == [2, 4]
    assert model.freed == 1
    assert isinstance(policy.infer([given(policy)])[0], ActionChunk)


@pytest.mark.parametrize(
    ("model", "told"),
    [
        (Model(fails=lambda size: RuntimeError("no CUDA graph could be recorded: why")), "RuntimeError: no CUDA graph"),
        (Model(fails=lambda size: MemoryError()), "MemoryError"),
    ],
)
def test_a_warm_up_that_fails_says_so(model: Model, told: str) -> None:
    with pytest.raises(PolicyFailed, match=f"warm-up with zeros failed in a batch of 2: {told}"):
        policy_around(model).warm_up(2)


def test_a_warm_up_that_gives_nan_fails() -> None:
    model = Model()
    model.flow = lambda inputs, **_: [np.full((32, 7), np.nan, np.float32) for _ in inputs]  # type: ignore[method-assign]
    with pytest.raises(PolicyFailed, match="warm-up with zeros failed in a batch of 1: BadAction"):
        policy_around(model).warm_up(1)


def test_zeros_need_not_make_tokens_that_are_actions() -> None:
    policy = policy_around(Model([1, 2, 3]), "fast_libero_1")
    policy.warm_up(2)
    assert isinstance(policy.infer([PolicyInput(given(policy, "fast_libero_1").observation)])[0], Exception)
