"""What one value of an observation may be, leaf by leaf; tests/core/test_spec.py has whole observations."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from policyserve.core.errors import BadObservation, ConfigError
from policyserve.core.leaf_specs import (
    ArraySpec,
    ImageSpec,
    LeafSpec,
    TextListSpec,
    TextSpec,
    check_texts,
    layout_of,
    name_of,
    sizes_match,
)
from policyserve.core.limits import WireLimits

LEAVES: list[LeafSpec] = [
    ArraySpec((3, None), "float64", "numbers"),
    ArraySpec((), "int32"),
    ImageSpec(doc="a camera"),
    ImageSpec(8, 6, layouts=("CHW", "HWC"), dtypes=("float",)),
    TextSpec(default="stay"),
    TextListSpec(),
]


@pytest.mark.parametrize("leaf", LEAVES, ids=str)
def test_a_leafs_example_meets_it(leaf: LeafSpec) -> None:
    value, batch = leaf.read(leaf.example(), "x")
    assert batch is None
    assert type(value) is type(leaf.example())


@pytest.mark.parametrize("leaf", LEAVES[:4], ids=str)
def test_an_example_with_a_batch_axis_is_read_as_a_clients_batch(leaf: LeafSpec) -> None:
    assert leaf.read(leaf.example((5,)), "x")[1] == 5


@pytest.mark.parametrize("leaf", LEAVES, ids=str)
def test_a_leafs_description_can_be_told_to_clients(leaf: LeafSpec) -> None:
    told = json.loads(json.dumps(leaf.describe()))
    assert told["doc"] == leaf.doc
    assert told["kind"] in ("array", "image", "text", "text list")


@pytest.mark.parametrize("leaf", LEAVES, ids=str)
@pytest.mark.parametrize("value", [None, b"bytes", {"a": 1}, object()], ids=["None", "bytes", "map", "object"])
def test_anything_else_is_refused_with_its_path_and_what_it_is(leaf: LeafSpec, value: Any) -> None:
    with pytest.raises(BadObservation) as refused:
        leaf.read(value, "arm/x")
    assert (refused.value.path, refused.value.expected) == ("arm/x", str(leaf))
    assert type(value).__name__ in refused.value.got


@pytest.mark.parametrize(
    ("dtype", "value", "read"),
    [
        ("float32", np.array([1, 2], np.int64), [1.0, 2.0]),
        ("float32", np.array([0.5, 1e300]), [0.5, np.inf]),
        ("int32", np.array([1, 2], np.uint8), [1, 2]),
        ("float32", np.array([True, False]), [1.0, 0.0]),
    ],
)
def test_numbers_are_cast_where_they_stay_what_they_are(dtype: str, value: Any, read: list[float]) -> None:
    array, _ = ArraySpec((2,), dtype).read(value, "x")
    assert array.dtype == dtype
    assert array.tolist() == read


@pytest.mark.parametrize(("dtype", "value"), [("int32", [0.5, 1.0]), ("uint8", [-1, 0]), ("int8", [1, 300])])
def test_numbers_that_would_change_are_refused(dtype: str, value: list[float]) -> None:
    with pytest.raises(BadObservation):
        ArraySpec((2,), dtype).read(np.array(value), "x")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: ArraySpec(7), r"ArraySpec's shape: expected a tuple of sizes such as \(7,\), .*, got 7"),  # pyright: ignore
        (lambda: ArraySpec((7.0,)), r"shape: .* got \(7.0,\)"),  # pyright: ignore
        (lambda: ArraySpec((-1,)), r"shape: .* got \(-1,\)"),
        (lambda: ArraySpec((7,), "angles in rad"), r"dtype: expected numbers, .* doc=\), got 'angles in rad'"),
        (lambda: ArraySpec((2,), "x, y in m"), r"dtype: .* doc=\), got 'x, y in m'"),
        (lambda: ArraySpec((7,), "object"), "dtype: .* got 'object'"),
        (lambda: ImageSpec((224, 224)), r"ImageSpec's height: expected pixels, .* got \(224, 224\)"),  # pyright: ignore
        (lambda: ImageSpec(224, 0), "ImageSpec's width: expected pixels, .* got 0"),
        (lambda: ImageSpec(224, 224, "the camera"), r"layouts: .* doc=\), got 'the camera'"),  # pyright: ignore
        (lambda: ImageSpec(layouts=("HWD",)), r"layouts: .* got \('HWD',\)"),
        (lambda: ImageSpec(dtypes="uint8"), r"dtypes: expected a tuple .* got 'uint8'"),  # pyright: ignore
        (lambda: ImageSpec(dtypes=()), r"dtypes: .* got \(\)"),
    ],
)
def test_a_leaf_that_cannot_be_is_refused_when_it_is_made(make: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        make()


def test_a_dtype_may_be_numpys_own_and_is_then_known_by_its_name() -> None:
    for dtype in (np.uint8, np.dtype("uint8")):
        assert ArraySpec((2,), dtype) == ArraySpec((2,), "uint8")  # pyright: ignore


def test_an_image_is_never_cast_between_bytes_and_floats() -> None:
    with pytest.raises(BadObservation, match="uint8 image"):
        ImageSpec().read(np.zeros((4, 4, 3), np.float32), "image")
    with pytest.raises(BadObservation, match="float image"):
        ImageSpec(dtypes=("float",)).read(np.zeros((4, 4, 3), np.uint8), "image")


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((3, 8, 8), "looks like CHW"),
        ((8, 8, 4), "RGBA"),
        ((8, 8, 1), "1 channel"),
        ((8, 8), "gray"),
        ((0, 8, 3), "0 pixels"),
        ((2, 2, 2, 2, 2), "uint8"),
    ],
)
def test_a_refused_image_is_told_what_it_looks_like(shape: tuple[int, ...], words: str) -> None:
    image = np.zeros(shape, np.uint8)
    assert words in name_of(image) + layout_of(image)
    with pytest.raises(BadObservation, match=words):
        ImageSpec().read(image, "image")


def test_a_large_image_is_refused_by_its_side_and_by_its_pixels() -> None:
    limits = WireLimits(max_image_side=100, max_image_mpixels=0.005)
    leaf = ImageSpec()
    leaf.check_limits(np.zeros((50, 100, 3), np.uint8), None, "image", limits)
    leaf.check_limits(np.zeros((9, 50, 100, 3), np.uint8), 9, "image", limits)
    with pytest.raises(BadObservation, match="at most 100 pixels a side"):
        leaf.check_limits(np.zeros((2, 101, 3), np.uint8), None, "image", limits)
    with pytest.raises(BadObservation, match="million pixels"):
        leaf.check_limits(np.zeros((60, 100, 3), np.uint8), None, "image", limits)


def test_one_text_is_a_list_of_one() -> None:
    assert TextListSpec().read("lift", "prompt") == (["lift"], None)
    assert TextListSpec().read(("a", "b"), "prompt") == (["a", "b"], None)


def test_a_long_text_is_found_wherever_it_stands() -> None:
    limits = WireLimits(max_text=4)
    check_texts({"a": ["1234", {"b": "1234"}]}, "", limits)
    with pytest.raises(BadObservation, match=r"a\[1\]/b: expected a text of at most 4 characters, got 5"):
        check_texts({"a": ["1234", {"b": "12345"}]}, "", limits)


@pytest.mark.parametrize(
    ("sizes", "shape", "fits"),
    [((2, 3), (2, 3), True), ((2, 3), (None, 3), True), ((2, 3), (2,), False), ((2, 3), (3, 3), False), ((), (), True)],
)
def test_sizes_match_where_the_spec_leaves_them_free(sizes: tuple[int, ...], shape: Any, fits: bool) -> None:
    assert sizes_match(sizes, shape) is fits


def test_a_value_is_named_by_its_kind_and_a_short_text_by_itself() -> None:
    assert name_of(np.zeros((2, 3), np.float32)) == "float32 (2, 3)"
    assert name_of("lift") == "str 'lift'"
    assert len(name_of("x" * 1000)) < 60
    assert name_of([1]) == "list"


@pytest.mark.parametrize("leaf", LEAVES, ids=str)
def test_a_leafs_repr_makes_the_same_again(leaf: LeafSpec) -> None:
    assert eval(repr(leaf)) == leaf


def test_a_repr_leaves_out_what_has_its_default() -> None:
    assert repr(ArraySpec((3, None), doc="in m")) == "ArraySpec((3, None), doc='in m')"
    assert repr(ImageSpec(64, 48)) == "ImageSpec(height=64, width=48)"
    assert repr(TextListSpec()) == "TextListSpec()"
