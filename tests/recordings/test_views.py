"""Views: pictures of cameras as they are, numbers by their names, and nothing of what cannot be read."""

from __future__ import annotations

import json
from base64 import b64decode
from io import BytesIO
from typing import Any

import numpy as np
import pytest

from policyserve.core.encoded_images import EncodedImage
from policyserve.core.leaf_specs import ArraySpec
from policyserve.dialects import by_name
from policyserve.recordings.layout import PolicyFacts
from policyserve.recordings.views import View, Views, named, picture_of
from tests.jpegs import picture as smooth
from tests.jpegs import saved
from tests.policies.frameworks import import_or_skip

import_or_skip("mcap.writer")
image = import_or_skip("PIL.Image")

from tests.recordings.written import BEGIN, SECOND, SPEC, reply, request  # noqa: E402


def told_of(dialect: str = "openpi", policy: PolicyFacts | None = None) -> Views:
    views = Views()
    views.note("opened", 1, {"dialect": "auto"}, None)
    views.note("dialect", 1, {"dialect": dialect}, None)
    if policy is not None:
        views.note("policy", 0, {}, policy)
    return views


def by_topic(views: list[View]) -> dict[str, Any]:
    return {view.topic: json.loads(view.message) for view in views}


def test_a_camera_is_a_picture_of_foxgloves_schema_with_its_colours() -> None:
    views = told_of(policy=PolicyFacts.of(SPEC))
    sent = by_name("openpi").write_request(
        {"image": np.full((8, 6, 3), (250, 10, 10), np.uint8), "state": np.array([1.5, 2.0]), "prompt": "go on"}
    )
    assert isinstance(sent, bytes)
    made = views.of_request(1, sent, BEGIN + 5)
    assert [view.schema[0] for view in made] == ["foxglove.CompressedImage", "policyserve.Numbers"]
    found = by_topic(made)
    picture = found["/s1/image"]
    assert (picture["format"], picture["frame_id"]) == ("jpeg", "image")
    assert picture["timestamp"] == {"sec": BEGIN // SECOND, "nsec": 5}
    with image.open(BytesIO(b64decode(picture["data"]))) as opened:
        assert opened.size == (6, 8)
        red, green, blue = opened.getpixel((3, 4))
    assert red > 200 > 60 > max(green, blue)
    assert found["/s1/state"] == {"state": {"0": 1.5, "1": 2.0}, "prompt": "go on"}


def test_a_camera_that_is_sent_as_planes_has_its_colours_too() -> None:
    views = told_of()
    planes = np.zeros((3, 8, 6), np.uint8)
    planes[0], planes[1, :, 3:] = 250, 250  # red, and on the right yellow
    sent = by_name("openpi").write_request({"image": planes})
    assert isinstance(sent, bytes)
    data = by_topic(views.of_request(1, memoryview(sent), BEGIN))["/s1/image"]["data"]
    with image.open(BytesIO(b64decode(data))) as opened:
        assert opened.size == (6, 8)
        left, right = opened.getpixel((0, 4)), opened.getpixel((5, 4))
    assert left[0] > 200 > 80 > max(left[1:]), left
    assert min(right[:2]) > 200 > 80 > right[2], right


def test_actions_have_the_names_that_the_spec_tells() -> None:
    views = told_of(policy=PolicyFacts.of(SPEC))
    found = by_topic(views.of_reply(1, reply(1), BEGIN))
    assert found["/s1/action"] == {
        "action": {"x": 1.0, "y": 2.0, "grip": 3.0},
        "steps": 2,
        "chunk": [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]],
    }


def test_ten_pictures_a_second_are_enough_and_numbers_are_all_there() -> None:
    views = told_of()
    made = [by_topic(views.of_request(1, request(number), BEGIN + number * SECOND // 50)) for number in range(50)]
    assert sum("/s1/image" in one for one in made) == 10
    assert all("/s1/state" in one for one in made)


@pytest.mark.parametrize("dialect", ["openpi", "wall_x", "vibe_rl"])
def test_each_dialect_has_views(dialect: str) -> None:
    views = told_of(dialect)
    assert set(by_topic(views.of_request(1, request(3, dialect), BEGIN))) == {"/s1/image", "/s1/state"}
    assert set(by_topic(views.of_reply(1, reply(3, dialect), BEGIN))) == {"/s1/action"}


def test_what_cannot_be_read_has_no_view() -> None:
    views = told_of()
    assert views.of_request(1, b"\x00", BEGIN) == []
    assert views.of_reply(1, b"\x00", BEGIN) == []
    assert views.of_request(2, request(1), BEGIN) == []  # nobody knows its dialect
    views.note("policy", 0, {}, PolicyFacts("other", {"observation": {"x": 3}}))
    assert views.of_request(1, request(1), BEGIN)
    views.note("closed", 1, {}, None)
    assert views.of_request(1, request(1), BEGIN) == []


@pytest.mark.parametrize(
    ("shape", "dtype", "expected"),
    [
        ((8, 9, 3), "uint8", (8, 9, 3)),
        ((3, 8, 9), "uint8", (8, 9, 3)),
        ((1, 8, 9, 3), "uint8", (8, 9, 3)),
        ((8, 9), "uint8", (8, 9)),
        ((8, 9, 1), "uint8", (8, 9)),
        ((3, 8, 9), "float32", (8, 9, 3)),
        ((8, 9, 4), "uint8", None),
        ((5, 8, 9, 3), "uint8", None),
        ((7,), "float32", None),
        ((2, 3), "float32", None),
        ((8, 9, 3), "int64", None),
    ],
)
def test_what_is_a_picture(shape: tuple[int, ...], dtype: str, expected: tuple[int, ...] | None) -> None:
    found = picture_of(np.zeros(shape, dtype))
    assert (None if found is None else found.shape) == expected


def test_floats_of_one_scale_or_the_other_are_shown_as_bright_as_they_are() -> None:
    ramp = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    for scaled in (ramp, ramp * 2 - 1):
        found = picture_of(scaled)
        assert found is not None
        assert (found[0, 0], found[-1, -1]) == (0, 255)
    assert picture_of(ramp * 300) is None


def test_numbers_are_named_by_a_description_with_a_word_for_each() -> None:
    array = np.array([1.0, 2.0])
    assert named(array, ArraySpec((2,), doc="left, right")) == {"left": 1.0, "right": 2.0}
    assert named(array, ArraySpec((2,), doc="wheels")) == {"0": 1.0, "1": 2.0}
    assert named(array, ArraySpec((2,), doc="same, same")) == {"0": 1.0, "1": 2.0}
    assert named(array, None) == {"0": 1.0, "1": 2.0}


def test_a_jpeg_is_shown_as_it_came_and_a_broken_header_is_not() -> None:
    views = told_of()
    data = saved(smooth())
    sent = by_name("openpi").write_request({"cam": EncodedImage(data), "state": np.zeros(2)})
    assert isinstance(sent, bytes)
    found = by_topic(views.of_request(1, sent, BEGIN))
    assert b64decode(found["/s1/cam"]["data"]) == data
    assert found["/s1/state"] == {"state": {"0": 0.0, "1": 0.0}}
    png = by_name("openpi").write_request({"cam": EncodedImage(saved(smooth(), "PNG"))})
    assert isinstance(png, bytes)
    assert views.of_request(1, png, BEGIN + SECOND) == []
