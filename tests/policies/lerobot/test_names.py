"""The weights' names: what a file lacks, has too much, or has in another shape is told from its header."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from policyserve.core.errors import ConfigError
from policyserve.policies.lerobot.config import ActConfig, read_config
from policyserve.policies.lerobot.layout import WEIGHTS
from policyserve.policies.lerobot.names import check_weights
from policyserve.policies.safetensors_files import StoredTensor, read_header
from tests.policies.lerobot.cases import CASES, folder


@pytest.mark.parametrize("case", CASES)
def test_every_name_and_shape_of_the_originals_is_known(case: str) -> None:
    config = read_config(folder(case))
    stored = read_header(folder(case) / WEIGHTS)
    wanted = check_weights(config, stored)
    assert all(stored[name].shape == shape for name, shape in wanted.items())


def refusal(stored: dict[str, StoredTensor]) -> str:
    with pytest.raises(ConfigError) as refused:
        check_weights(read_config(folder("act_state")), stored)
    return str(refused.value)


def test_what_does_not_fit_is_told_with_its_shapes() -> None:
    stored = read_header(folder("act_state") / WEIGHTS)
    head = "model.action_head.bias"
    missing = {name: tensor for name, tensor in stored.items() if name != head}
    assert f"1 tensors do not fit config.json's act: {head} (6,) is missing" in refusal(missing)
    strange = {**stored, "model.extra.weight": StoredTensor(Path("x"), "model.extra.weight", (3, 4), "F32")}
    assert "model.extra.weight (3, 4) is not expected" in refusal(strange)
    wide = {**stored, head: StoredTensor(Path("x"), head, (7,), "F32")}
    assert f"{head}: expected (6,), got (7,)" in refusal(wide)
    whole = {**stored, head: StoredTensor(Path("x"), head, (6,), "I64")}
    assert "expected F64, F32, F16, BF16, got I64" in refusal(whole)
    assert refusal({}).count("is missing") == 3, "the first three are named, and all are counted"


def test_what_training_alone_needs_may_be_there_or_not() -> None:
    stored = read_header(folder("act_state") / WEIGHTS)
    assert any(name.startswith("model.vae_encoder") for name in stored)
    bare = {name: tensor for name, tensor in stored.items() if not name.startswith("model.vae_encoder")}
    check_weights(read_config(folder("act_state")), bare)


@pytest.mark.parametrize("backbone", ["resnet34", "resnet50"])
def test_a_deeper_backbone_has_torchvisions_sizes(backbone: str) -> None:
    """The number of weights is the one that torchvision's documentation gives, less the last layer's."""
    config = read_config(folder("act_one_camera"))
    assert isinstance(config.network, ActConfig)
    deeper = dataclasses.replace(config, network=dataclasses.replace(config.network, backbone=backbone))
    with pytest.raises(ConfigError):
        check_weights(deeper, {})
    from policyserve.policies.lerobot import names

    shapes = dict(names.weights_of(deeper))
    kept = [shape for name, shape in shapes.items() if "backbone" in name and not name.endswith(("_mean", "_var"))]
    expected = {"resnet34": 21_797_672 - 513_000, "resnet50": 25_557_032 - 2_049_000}
    assert sum(int(np.prod(shape)) for shape in kept) == expected[backbone]
