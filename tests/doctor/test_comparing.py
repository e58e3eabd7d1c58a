"""What a spec dislikes of an observation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from policyserve.core.spec import ArraySpec, ImageSpec, PolicySpec, TextSpec
from policyserve.doctor.comparing import Fault, faults

IMAGE, STATE = np.zeros((224, 200, 3), np.uint8), np.zeros(8, np.float32)
SPEC = PolicySpec(
    "arm",
    {
        "observation/image": ImageSpec(224, 200),
        "observation/state": ArraySpec((8,)),
        "prompt": TextSpec(default="go"),
        "gripper": ArraySpec((1,), "int64", optional=True),
    },
    ArraySpec((7,)),
)
GOOD = {"observation/image": IMAGE, "observation/state": STATE}


def found(**changed: Any) -> list[Fault]:
    """The faults of a good observation with other values; None takes one out. `__` stands for a slash."""
    observation = {**GOOD, **{key.replace("__", "/"): value for key, value in changed.items()}}
    return faults(SPEC, {key: value for key, value in observation.items() if value is not None})


def only(**changed: Any) -> Fault:
    (fault,) = found(**changed)
    return fault


def test_what_the_spec_takes_has_no_faults() -> None:
    assert found(prompt="pick", gripper=np.zeros(1, np.int64)) == []
    assert faults(SPEC, {"observation": {"image": IMAGE, "state": STATE}}) == []


def test_a_key_by_another_of_its_names_has_no_fault() -> None:
    spec = PolicySpec("arm", {"state": ArraySpec((8,))}, None, aliases={"obs": "state"})
    assert faults(spec, {"obs": STATE}) == []


def test_a_wrong_camera_name_is_told_with_the_key_that_was_meant() -> None:
    fault = only(observation__image=None, observation__img=IMAGE)
    assert fault.path == "observation/image"
    assert fault.got == "no such key, but observation/img"
    assert fault.cure == "rename observation/img to observation/image"


def test_a_name_that_is_like_no_other_is_found_by_what_it_holds() -> None:
    assert only(observation__image=None, kamera_3=IMAGE).got == "no such key, but kamera_3"


def test_the_one_other_picture_is_meant_whatever_its_form() -> None:
    name, form = found(observation__image=None, kamera_3=IMAGE.transpose(2, 0, 1))
    assert (name.cure, form.cure) == ("rename kamera_3 to observation/image", "turn its axes: image.transpose(1, 2, 0)")


def test_a_value_under_a_wrong_name_is_looked_at_too() -> None:
    name, form = found(observation__image=None, observation__img=IMAGE.transpose(2, 0, 1))
    assert (name.path, form.path) == ("observation/image", "observation/image")
    assert form.cure == "turn its axes: image.transpose(1, 2, 0)"


def test_a_key_that_nothing_resembles_is_missing() -> None:
    fault = only(observation__state=None)
    assert (fault.expected, fault.got) == ("float32 (8,)", "no such key")


@pytest.mark.parametrize(
    ("image", "cure"),
    [
        (IMAGE.transpose(2, 0, 1), "turn its axes: image.transpose(1, 2, 0)"),
        (IMAGE.astype(np.float32), "send uint8: (image * 255).astype(np.uint8)"),
        (IMAGE.astype(np.float32) + 200, "send uint8: image.astype(np.uint8)"),
        (np.zeros((480, 640, 3), np.uint8), "resize it to 224 x 200 (height x width)"),
        (np.zeros((224, 200, 4), np.uint8), "send three channels: image[..., :3]"),
        (np.zeros((224, 200), np.uint8), "send it as HWC"),
        (np.full((3, 224, 200), 0.5), "turn its axes: image.transpose(1, 2, 0) and send uint8: (image * 255)"),
        (np.full((224, 200, 3), np.nan, np.float32), "send uint8"),
        ("a picture", "send a NumPy array of numbers"),
        (np.zeros((200, 224, 3), np.uint8), "resize it to 224 x 200"),
    ],
)
def test_a_picture_of_another_form_is_told_what_to_do_with_it(image: Any, cure: str) -> None:
    fault = only(observation__image=image)
    assert fault.path == "observation/image"
    assert fault.expected == "uint8 image HWC, 224 x 200"
    assert fault.cure.startswith(cure)
    assert not fault.is_harmless


@pytest.mark.parametrize(
    ("state", "cure"),
    [
        (np.zeros((2, 4), np.float32), "give it the shape: array.reshape(8,)"),
        (np.zeros(7, np.float32), "send so many numbers as the policy was trained with"),
        (np.zeros((2, 2, 2), np.complex64), "send a NumPy array of numbers"),
        ("text", "send a NumPy array of numbers"),
    ],
)
def test_numbers_of_another_form_are_told_what_to_do_with_them(state: Any, cure: str) -> None:
    assert only(observation__state=state).cure == cure


def test_numbers_that_lose_by_a_cast_are_told_their_dtype() -> None:
    assert only(gripper=np.array([0.5])).cure == "send it as int64: array.astype('int64')"


def test_a_key_that_the_server_drops_is_harmless() -> None:
    fault = only(extra=np.zeros(2))
    assert (fault.path, fault.got, fault.is_harmless) == ("extra", "float64 (2,), which the server drops", True)


def test_a_text_has_to_be_one() -> None:
    assert only(prompt=7).cure == "send a str"


def test_a_value_that_stands_twice_is_told() -> None:
    assert found(observation={"image": IMAGE})[0].cure == "send one of them"


def test_a_batch_is_told() -> None:
    one, other = found(observation__image=IMAGE[None], observation__state=STATE[None])
    assert one.is_harmless
    assert other.got == "float32 (1, 8), a batch of 1"


def test_not_all_of_a_thousand_keys_are_told() -> None:
    assert len(faults(SPEC, {**GOOD, **{f"key{number}": 1 for number in range(1000)}})) == 20
