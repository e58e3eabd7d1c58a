"""What a client of /act sends: the originals' bytes, what goes where, and what there is no place for."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from policyserve.core.encoded_images import EncodedImage
from policyserve.core.errors import RemoteError, WireError
from policyserve.dialects import http_names
from policyserve.dialects.rest.asking import raise_refusal, sort
from policyserve.dialects.rest.bodies import ReplyBody
from policyserve.dialects.rest.recognition import FAMILIES, family_of
from tests.dialects.rest.test_families import FOLDERS, PICTURE, golden

STATE = {"arm": np.zeros(2), "gripper": np.ones(1)}
ROBOT = {"images": {"front": PICTURE, "wrist": PICTURE}, "state": STATE, "prompt": "go"}
ONE = {**ROBOT, "images": {"front": PICTURE}}


@pytest.mark.parametrize("name", FOLDERS)
def test_a_body_is_the_originals_to_the_byte(name: str) -> None:
    family, theirs = FAMILIES[name], golden(FOLDERS[name], "act")
    assert family.write_request(family.read_request(theirs).observation) == theirs


@pytest.mark.parametrize("name", http_names())
def test_a_body_shows_whose_it_is(name: str) -> None:
    written = FAMILIES[name].write_request(ONE)
    assert family_of(json.loads(written)) == name
    assert FAMILIES[name].read_request(written).observation["prompt"] == "go"


def test_an_observation_is_sorted_by_what_its_values_are() -> None:
    flat = {
        "observation/image": PICTURE,
        "left/image": PICTURE,
        "observation/state": np.zeros(2),
        "prompt": "go",
        "k": 3,
    }
    found = sort(flat)
    assert list(found.pictures) == ["image", "left_image"]
    assert found.state["state"].tolist() == [0, 0]
    assert (found.prompt, found.rest) == ("go", {"k": 3})
    assert sort(ROBOT).state["state"].tolist() == [0, 0, 1]
    assert sort({"obs": np.zeros(2)}).state == {}


def test_a_familys_names_are_given_to_pictures_that_have_others() -> None:
    assert list(json.loads(FAMILIES["openvla_oft"].write_request(ROBOT)))[:2] == ["full_image", "wrist"]
    assert list(json.loads(FAMILIES["molmoact2"].write_request(ROBOT)))[:2] == ["front_cam", "wrist_cam"]
    body = json.loads(FAMILIES["gr00t_http"].write_request(ROBOT))["observation"]
    assert [key for key in body if key.startswith(("video.", "state."))] == [
        *("video.front", "video.wrist", "state.arm", "state.gripper"),
    ]


def test_a_plain_body_has_its_own_keys_numbers_as_lists_and_pictures_as_base64() -> None:
    jpeg = EncodedImage(b"\xff\xd8\xff" + bytes(60))
    written = json.loads(FAMILIES["json"].write_request({"a": {"b": np.ones(2)}, "image": jpeg, "n": np.int64(3)}))
    assert (written["a"], written["n"]) == ({"b": [1.0, 1.0]}, 3)
    assert written["image"].startswith("/9j/")
    image = FAMILIES["json"].read_request(FAMILIES["json"].write_request({"image": PICTURE})).observation["image"]
    np.testing.assert_array_equal(image, PICTURE)


def test_an_encoded_picture_is_what_x_vlas_clients_make_of_it() -> None:
    jpeg = EncodedImage(b"\xff\xd8\xff" + bytes(60))
    read = FAMILIES["xvla"].read_request(FAMILIES["xvla"].write_request({"images": {"0": jpeg}}))
    assert bytes(read.observation["images"]["0"].data) == bytes(jpeg.data)


@pytest.mark.parametrize(
    ("name", "observation", "told"),
    [
        *((name, {}, "a map of arrays, texts and numbers") for name in http_names()),
        ("openvla", {"state": np.zeros(2)}, "image: expected one picture, got none"),
        ("openvla", ROBOT, "image: expected one picture, got 2 pictures"),
        (
            "xvla",
            {f"images/{place}": PICTURE for place in range(4)},
            "image0: expected one picture to 3, got 4 pictures",
        ),
        ("json", {"a": object()}, "arrays, texts and finite numbers, got a object"),
        ("json", {"a": np.array([np.nan])}, "finite numbers"),
        ("molmoact2", {"x": EncodedImage(b"\xff\xd8\xff" + bytes(60))}, "an? EncodedImage"),
    ],
)
def test_what_has_no_place_is_named(name: str, observation: dict[str, Any], told: str) -> None:
    with pytest.raises(WireError, match=told):
        FAMILIES[name].write_request(observation)


def test_a_refusal_is_told_by_its_header_else_by_its_status() -> None:
    headers = (("x-error", "bad_observation: state: expected a lot"),)
    with pytest.raises(RemoteError, match=r"^bad_observation: state: expected a lot$") as caught:
        FAMILIES["openvla"].read_reply(ReplyBody.of('"error"', 200, headers))
    assert caught.value.code == "bad_observation"
    with pytest.raises(RemoteError, match=r"^HTTP 500: bad_observation: boom,$") as caught:
        raise_refusal(ReplyBody.of("bad_observation: boom, \n", 500))
    assert caught.value.code == "remote"
    with pytest.raises(RemoteError, match=r"^HTTP 404$"):
        raise_refusal(ReplyBody.of("", 404))
    raise_refusal(ReplyBody.of("[]"))
    raise_refusal(b"[]")
