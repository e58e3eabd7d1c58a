"""What a request may hold: at the bound it passes, one beyond is refused by the bound's name and value."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from policyserve.core.errors import BadObservation, ConfigError
from policyserve.core.limits import DEFAULT_LIMITS, WireLimits
from policyserve.core.spec import ImageSpec, PolicySpec, TextListSpec, TextSpec

OPEN = PolicySpec("open", None, None)
TEXTS = PolicySpec("texts", {"a": {"prompt": TextSpec()}}, None)
LISTS = PolicySpec("lists", {"names": TextListSpec()}, None)


def camera(*layouts: str, max_client_batch: int = 0) -> PolicySpec:
    return PolicySpec("camera", {"view": ImageSpec(layouts=layouts)}, None, max_client_batch=max_client_batch)


def view(*shape: int) -> dict[str, Any]:
    return {"view": np.broadcast_to(np.uint8(0), shape)}


def refusal(spec: PolicySpec, observation: dict[str, Any], limits: WireLimits) -> str:
    with pytest.raises(BadObservation) as refused:
        spec.validate(observation, limits)
    return str(refused.value)


@pytest.mark.parametrize(
    ("field", "value", "bound"),
    [
        ("max_depth", 2, "3 … 64"),
        ("max_depth", 65, "3 … 64"),
        ("max_items", 0, "1 or more"),
        ("max_arrays", 0, "1 or more"),
        ("max_key", 15, "16 or more"),
        ("max_image_side", 0, "1 or more"),
        ("max_image_mpixels", 0.0, "more than 0"),
        ("max_image_mpixels", float("nan"), "a finite number"),
        ("max_text", 0, "1 or more"),
    ],
)
def test_a_limit_that_makes_no_sense_is_named(field: str, value: Any, bound: str) -> None:
    with pytest.raises(ConfigError) as refused:
        replace(DEFAULT_LIMITS, **{field: value})
    assert str(refused.value) == f"{field}: expected {bound}, got {value!r}"


@pytest.mark.parametrize("side", [100, DEFAULT_LIMITS.max_image_side])
@pytest.mark.parametrize("layout", ["HWC", "CHW", "1HWC", "HW"])
def test_an_images_side_is_bounded(layout: str, side: int) -> None:
    limits = replace(DEFAULT_LIMITS, max_image_side=side)
    sizes = {"H": 1, "W": side, "C": 3, "1": 1}
    camera(layout).validate(view(*(sizes[axis] for axis in layout)), limits)
    sizes["W"] += 1
    shape = tuple(sizes[axis] for axis in layout)
    expected = f"view: expected an image of at most {side} pixels a side, got uint8 {shape}"
    assert refusal(camera(layout), view(*shape), limits) == expected


@pytest.mark.parametrize("layout", ["HWC", "CHW", "1HWC", "HW"])
@pytest.mark.parametrize(("mpixels", "height"), [(0.01, 10), (DEFAULT_LIMITS.max_image_mpixels, 4_000)])
def test_an_images_pixels_are_bounded(layout: str, mpixels: float, height: int) -> None:
    limits = replace(DEFAULT_LIMITS, max_image_mpixels=mpixels)
    sizes = {"H": height, "W": int(mpixels * 1e6) // height, "C": 3, "1": 1}
    camera(layout).validate(view(*(sizes[axis] for axis in layout)), limits)
    sizes["H"] += 1
    shape = tuple(sizes[axis] for axis in layout)
    expected = f"view: expected an image of at most {mpixels:g} million pixels, got uint8 {shape}"
    assert refusal(camera(layout), view(*shape), limits) == expected


def test_each_image_of_a_batch_is_measured_alone() -> None:
    spec = camera("HWC", max_client_batch=64)
    limits = replace(DEFAULT_LIMITS, max_image_side=20, max_image_mpixels=200e-6)
    assert spec.validate(view(64, 10, 20, 3), limits).batch_size == 64
    assert "at most 0.0002 million pixels" in refusal(spec, view(2, 11, 20, 3), limits)
    assert "at most 20 pixels a side" in refusal(spec, view(2, 1, 21, 3), limits)


@pytest.mark.parametrize("most", [5, DEFAULT_LIMITS.max_text])
@pytest.mark.parametrize(
    ("spec", "path"), [(TEXTS, "a/prompt"), (LISTS, "names[1]"), (OPEN, "prompt"), (OPEN, "a/b[1]/c")]
)
def test_a_text_is_bounded_wherever_it_stands(spec: PolicySpec, path: str, most: int) -> None:
    limits = replace(DEFAULT_LIMITS, max_text=most)

    def sent(text: str) -> dict[str, Any]:
        return {
            "a/prompt": {"a": {"prompt": text}},
            "names[1]": {"names": ["x", text]},
            "prompt": {"prompt": text},
            "a/b[1]/c": {"a": {"b": [1, {"c": text}]}},
        }[path]

    spec.validate(sent("é" * most), limits)
    expected = f"{path}: expected a text of at most {most} characters, got {most + 1}"
    assert refusal(spec, sent("é" * (most + 1)), limits) == expected
