"""What of another policy's spec a client would notice."""

from __future__ import annotations

from dataclasses import replace

from policyserve.core.leaf_specs import ArraySpec, ImageSpec, TextSpec
from policyserve.core.spec import PolicySpec
from policyserve.core.spec_changes import spec_changes

SPEC = PolicySpec(
    "arm",
    {"state": ArraySpec((8,), doc="joints"), "camera": ImageSpec(), "prompt": TextSpec()},
    ArraySpec((7,)),
    horizon=10,
    max_batch=8,
    max_client_batch=4,
)


def test_a_name_metadata_words_and_the_batch_are_the_policys_own() -> None:
    told = {**(SPEC.observation or {}), "state": ArraySpec((8,), doc="radians")}
    after = replace(SPEC, name="leg", observation=told, metadata={"step": 2}, max_batch=1, max_client_batch=9)
    assert spec_changes(SPEC, after) == []


def test_each_key_that_differs_is_told_with_what_it_was_and_is() -> None:
    observation = {"state": ArraySpec((9,)), "camera": ImageSpec(), "gripper": ArraySpec((1,), optional=True)}
    after = replace(SPEC, observation=observation, action=ArraySpec((6,)), horizon=None, max_client_batch=0)
    assert spec_changes(SPEC, after) == [
        "state: float32 (8,), now float32 (9,)",
        "prompt: a text (str), now not there",
        "gripper: not there, now float32 (1,) (optional)",
        "action: float32 (7,), now float32 (6,)",
        "horizon: 10, now none",
        "max_client_batch: 4, now 0",
    ]


def test_a_policy_that_takes_anything_is_another_one() -> None:
    after = replace(SPEC, observation=None)
    assert spec_changes(SPEC, after) == ["observation: 3 keys, now anything"]
    assert spec_changes(after, SPEC) == ["observation: anything, now 3 keys"]
    assert spec_changes(after, after) == []


def test_of_many_differences_some_are_told() -> None:
    after = replace(SPEC, observation={f"joint_{number}": ArraySpec(()) for number in range(20)})
    changes = spec_changes(SPEC, after)
    assert len(changes) == 11
    assert changes[-1] == "and 13 more"
