"""Modality configs: what a client is told of the parts that a policy takes and gives."""

from __future__ import annotations

import json

import numpy as np

from policyserve import ArraySpec, ImageSpec, PolicySpec, TextSpec
from policyserve.dialects.gr00t.modality import modality_config
from policyserve.dialects.gr00t.observations import fitted, read_parts
from tests.dialects.gr00t.golden import index

SPEC = PolicySpec(
    "p",
    {
        "images": {"front": ImageSpec(), "wrist": ImageSpec()},
        "video.scene": ArraySpec((3, 8, 8, 3), "uint8"),
        "state/arm": ArraySpec((5,)),
        "gripper": ArraySpec((1,)),
        "prompt": TextSpec(),
        "noise": ArraySpec((4,), optional=True),
    },
    ArraySpec((6,)),
    horizon=3,
    metadata={"modality": {"arm": 5, "gripper": 1}},
)


def test_each_kind_has_its_keys_and_its_steps() -> None:
    config = modality_config(SPEC, is_n15=False)
    assert {
        kind: (one["as_json"]["modality_keys"], one["as_json"]["delta_indices"]) for kind, one in config.items()
    } == {
        "video": (["front", "wrist", "scene"], [-2, -1, 0]),
        "state": (["arm", "gripper"], [0]),
        "language": (["annotation.human.task_description"], [0]),
        "action": (["arm", "gripper"], [0, 1, 2]),
    }


def test_both_markers_stand_at_each_and_nothing_but_the_fields_that_all_versions_have() -> None:
    for config in modality_config(SPEC, is_n15=False).values():
        assert set(config) == {"__ModalityConfig__", "__ModalityConfig_class__", "as_json"}
        assert list(config["as_json"]) == ["delta_indices", "modality_keys"]


def test_n15_gets_a_json_text_as_the_original_writes_it() -> None:
    golden = index("n15")["get_modality_config_reply"]
    config = modality_config(PolicySpec("p", {"video.x": ImageSpec(), "state.x": ArraySpec((1,))}, None), is_n15=True)
    assert {kind: config[kind] for kind in golden} == golden
    assert json.loads(config["action"]["as_json"])["modality_keys"] == ["action.action"]


def test_an_observation_under_the_names_that_are_told_meets_the_spec_again() -> None:
    leaves = {
        "images": {"front": ImageSpec(8, 8)},
        "wrist": ImageSpec(8, 8),
        "arm": ArraySpec((5,)),
        "prompt": TextSpec(),
    }
    spec = PolicySpec("p", leaves, ArraySpec((6,)))
    told = {kind: one["as_json"]["modality_keys"] for kind, one in modality_config(spec, is_n15=False).items()}
    parts, _ = read_parts(
        {
            "video": {name: np.zeros((1, 1, 8, 8, 3), np.uint8) for name in told["video"]},
            "state": {name: np.zeros((1, 1, 5), np.float32) for name in told["state"]},
            "language": {name: [["go"]] for name in told["language"]},
        },
        "data",
    )
    assert spec.validate(fitted(parts, spec, is_batched=True)).unknown == ()
