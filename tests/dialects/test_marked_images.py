"""Encoded pictures on the wire: vla-eval's spelling, to the byte, in requests alone."""

from __future__ import annotations

from typing import Any

import msgpack
import numpy as np
import pytest

from policyserve.core.encoded_images import EncodedImage
from policyserve.core.errors import WireError
from policyserve.core.limits import WireLimits
from policyserve.dialects import by_name
from policyserve.dialects.marked_images import read_image
from tests.jpegs import picture, saved
from tests.shared import shared_path

GOOD = saved(picture(200, 300))
greeting_dialects = pytest.mark.parametrize("name", ["openpi", "wall_x"])


def packed(value: Any) -> bytes:
    made = msgpack.packb(value)
    assert isinstance(made, bytes)
    return made


def marked(**changes: Any) -> dict[str, Any]:
    return {"__image__": True, "format": "jpeg", "data": GOOD, "shape": [200, 300, 3], **changes}


@greeting_dialects
def test_a_picture_is_written_in_vla_evals_spelling(name: str) -> None:
    image = EncodedImage(GOOD).check("x")
    written = by_name(name).write_request({"cam": {"left": image}})
    assert isinstance(written, bytes)
    assert written == packed({"cam": {"left": marked()}})
    read = by_name(name).read_request(memoryview(bytearray(written))).observation["cam"]["left"]
    assert isinstance(read, EncodedImage)
    assert isinstance(read.data, memoryview)  # of the message: nothing was copied
    assert bytes(read.data) == GOOD


def test_the_original_encoders_picture_is_read() -> None:
    frame = shared_path("design/golden_more/vla_eval/observation_png.bin").read_bytes()
    decoded = msgpack.unpackb(frame)
    images = decoded["payload"]["images"]
    assert [list(value) for value in images.values()] == [["__image__", "format", "data", "shape"]] * len(images)
    assert {read_image(value).format for value in images.values()} == {"png"}  # type: ignore[union-attr]


@greeting_dialects
def test_keys_may_be_bins_and_the_shape_is_a_hint(name: str) -> None:
    spelled = {key.encode(): value for key, value in marked(shape="nonsense").items()}
    image = by_name(name).read_request(packed({"cam": spelled})).observation["cam"]
    assert image.check("cam").shape == (200, 300, 3)


@greeting_dialects
@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"data": None}, "no data"),
        ({"data": "text"}, "data that are no bin"),
        ({"format": None}, "no format"),
        ({"format": 3}, "a format that is no text"),
    ],
)
def test_a_mark_that_lacks_a_part_is_refused_by_its_path(name: str, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(WireError) as caught:
        by_name(name).read_request(packed({"cam": {"left": marked(**changes)}}))
    assert str(caught.value) == f"cam/left: expected an image with format and data, got {told}"


@greeting_dialects
def test_pictures_count_as_eight_arrays_since_their_headers_are_read_too(name: str) -> None:
    limits = WireLimits(max_arrays=16)
    fine = {"a": marked(), "b": marked()}
    assert len(by_name(name).read_request(packed(fine), limits).observation) == 2
    with pytest.raises(WireError, match="at most 16 arrays"):
        by_name(name).read_request(packed({**fine, "c": marked()}), limits)


@greeting_dialects
def test_a_servers_message_has_no_pictures(name: str) -> None:
    message = {"actions": [[1.0]], "seen": marked()}
    assert by_name(name).read_reply(packed(message))["seen"]["data"] == GOOD


def test_vibe_rls_wire_carries_none() -> None:
    with pytest.raises(WireError, match="obs: expected an array of numbers"):
        by_name("vibe_rl").write_request({"obs": EncodedImage(GOOD)})


@greeting_dialects
def test_a_map_that_says_something_else_by_that_key_is_a_map(name: str) -> None:
    written = by_name(name).write_request({"a": {"__image__": 1, "x": np.zeros(2)}})
    assert by_name(name).read_request(written).observation["a"]["__image__"] == 1
