"""What a policy takes: how an observation is checked; test_checked_actions.py has what it gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from policyserve.core.errors import BadObservation, ConfigError
from policyserve.core.spec import ArraySpec, ImageSpec, PolicySpec, TextListSpec, TextSpec

CARTPOLE = PolicySpec("cartpole", {"obs": ArraySpec((4,))}, ArraySpec((), "int32"), max_batch=8, max_client_batch=64)
FLAT = {"observation/image": ImageSpec(), "observation/state": ArraySpec((3,)), "prompt": TextSpec()}
NESTED = {
    "images": {"cam_high": ImageSpec(layouts=("CHW",)), "cam_low": ImageSpec(layouts=("CHW",))},
    "state": ArraySpec((3,)),
}


def spec_of(observation: Any, **rest: Any) -> PolicySpec:
    return PolicySpec("policy", observation, ArraySpec((2,)), **rest)


def image(*sizes: int) -> np.ndarray[Any, Any]:
    return np.full(sizes or (8, 8, 3), 7, np.uint8)


def refusal(spec: PolicySpec, observation: Any) -> BadObservation:
    with pytest.raises(BadObservation) as caught:
        spec.validate(observation)
    return caught.value


def test_a_specs_repr_is_what_one_would_write() -> None:
    assert eval(repr(CARTPOLE)) == CARTPOLE
    told = "PolicySpec('policy', observation={'x': ArraySpec((3,))}, action=ArraySpec((2,)), horizon=8)"
    assert repr(spec_of({"x": ArraySpec((3,))}, horizon=8)) == told


# Keys


def test_an_observation_that_meets_its_spec_comes_out_as_it_is() -> None:
    obs = np.ones(4, np.float32)
    valid = CARTPOLE.validate({"obs": obs})
    assert valid.observation == {"obs": obs}
    assert valid.observation["obs"] is obs
    assert valid.batch_size is None
    assert valid.unknown == ()


@pytest.mark.parametrize(
    "spec", [FLAT, {"observation": {"image": ImageSpec(), "state": ArraySpec((3,))}, "prompt": TextSpec()}]
)
@pytest.mark.parametrize("is_flat", [True, False])
def test_flat_and_nested_keys_both_meet_a_spec_and_the_policy_gets_the_specs_nesting(spec: Any, is_flat: bool) -> None:
    inner = {"image": image(), "state": np.zeros(3, np.float32)}
    sent = {f"observation/{key}": value for key, value in inner.items()} if is_flat else {"observation": inner}
    got = spec_of(spec).validate({**sent, "prompt": "pick"}).observation
    if spec is FLAT:
        assert set(got) == {"observation/image", "observation/state", "prompt"}
        assert got["observation/image"] is inner["image"]
    else:
        assert set(got) == {"observation", "prompt"}
        assert got["observation"]["state"] is inner["state"]


def test_a_key_may_be_flat_in_part_only() -> None:
    spec = spec_of({"a/b/c": ArraySpec(())})
    for sent in ({"a/b/c": 1.0}, {"a/b": {"c": 1.0}}, {"a": {"b/c": 1.0}}, {"a": {"b": {"c": 1.0}}}):
        assert spec.validate(sent).observation == {"a/b/c": 1.0}


@pytest.mark.parametrize(
    "twice",
    [
        {"a/b/c": 1.0, "a": {"b": {"c": 1.0}}},
        {"a/b": {"c": 1.0}, "a": {"b/c": 1.0}},
        {"a": {"b": {"c": 1.0}, "b/c": 1.0}},
    ],
)
def test_a_value_that_stands_there_twice_is_refused(twice: Any) -> None:
    error = refusal(spec_of({"a/b/c": ArraySpec(())}), twice)
    assert "two" in error.got


def test_a_missing_key_names_the_near_one() -> None:
    error = refusal(CARTPOLE, {"observation": np.zeros(4)})
    assert error.path == "obs"
    assert "float32 (4,)" in error.expected
    assert "observation" in error.got
    error = refusal(spec_of(FLAT), {"observation/imgae": image(), "observation/state": np.zeros(3), "prompt": ""})
    assert "observation/image" in error.hint
    assert "observation/imgae" in error.hint


def test_a_missing_key_that_a_client_has_in_a_place_of_its_own_is_told() -> None:
    error = refusal(spec_of({"image": ImageSpec()}), {"observation/image": image(), "prompt": "go"})
    assert "--map observation/image=image" in error.hint


def test_a_missing_key_with_nothing_near_gives_no_hint() -> None:
    error = refusal(CARTPOLE, {"qqqq": 1.0})
    assert error.hint == ""
    assert refusal(CARTPOLE, {}).got == "no keys"


def test_a_missing_key_among_sixteen_thousand_is_told_in_few_words() -> None:
    error = refusal(CARTPOLE, {f"key{number}": 1.0 for number in range(16_000)})
    assert len(str(error)) < 1_000


def test_keys_that_the_spec_does_not_know_are_dropped_and_named() -> None:
    valid = CARTPOLE.validate({"obs": np.zeros(4), "extra": 1, "deep": {"one": 1, "two": {}}})
    assert set(valid.observation) == {"obs"}
    assert set(valid.unknown) == {"extra", "deep/one", "deep/two"}


def test_unknown_keys_are_named_also_where_the_number_of_keys_happens_to_fit() -> None:
    sent = {"observation": {"image": image(), "state": np.zeros(3)}, "prompt": "", "junk": 1}
    assert spec_of(FLAT).validate(sent).unknown == ("junk",)


def test_an_alias_is_another_name_of_a_value_which_the_policy_gets_by_its_path() -> None:
    spec = spec_of({"arm/state": ArraySpec((2,)), "x": ArraySpec((1,))}, aliases={"obs": "arm/state", "old/state": "x"})
    for sent in ({"obs": [1, 2], "x": [3]}, {"arm": {"state": [1, 2]}, "old": {"state": [3]}}):
        valid = spec.validate(sent)
        assert {key: value.tolist() for key, value in valid.observation.items()} == {"arm/state": [1, 2], "x": [3]}
        assert valid.unknown == ()
    assert refusal(spec, {"obs": [1, 2], "arm/state": [1, 2], "x": [3]}).got.startswith("two: arm/state and obs")
    assert spec.describe()["aliases"] == {"obs": "arm/state", "old/state": "x"}
    assert "aliases" not in CARTPOLE.describe()


def test_without_a_spec_anything_passes_untouched() -> None:
    observation = {"a": [1, {"b": None}], "c": np.array([np.nan])}
    assert PolicySpec("open", None, None).validate(observation).observation is observation


def test_an_optional_key_may_be_absent_but_not_wrong() -> None:
    spec = spec_of({"obs": ArraySpec((2,)), "goal": ArraySpec((2,), optional=True)})
    assert set(spec.validate({"obs": np.zeros(2)}).observation) == {"obs"}
    assert refusal(spec, {"obs": np.zeros(2), "goal": np.zeros(3)}).path == "goal"


# Casts


@pytest.mark.parametrize(
    "dtype", ["bool", "int8", "uint8", "int32", "int64", "uint64", "float16", "float32", "float64"]
)
def test_any_number_is_cast_to_a_float_spec(dtype: str) -> None:
    got = CARTPOLE.validate({"obs": np.array([0, 1, 1, 0], dtype)}).observation["obs"]
    assert got.dtype == np.float32
    assert got.tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize(
    ("sent", "wanted", "is_read"),
    [
        ("uint8", "float32", True),
        ("float32", "float64", True),
        ("float16", "float32", True),
        ("uint8", "float64", False),
        ("float16", "float64", False),  # four times its bytes, and it may be a copy already
        ("bool", "float32", False),
    ],
)
def test_a_large_array_takes_four_times_its_bytes_at_most(sent: str, wanted: str, is_read: bool) -> None:
    spec = spec_of({"x": ArraySpec((None,), wanted)})
    large, small = np.zeros(1 << 20, sent), np.zeros(1 << 10, sent)
    assert spec.validate({"x": small}).observation["x"].dtype == wanted
    if is_read:
        assert spec.validate({"x": large}).observation["x"].dtype == wanted
    else:
        assert f"so many numbers have to be sent as {wanted}" in str(refusal(spec, {"x": large}))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_nan_inf_and_overflow_are_left_to_the_policy(value: float) -> None:
    got = CARTPOLE.validate({"obs": np.array([value, 0, 0, 0])}).observation["obs"]
    assert not np.isfinite(got[0])


def test_a_signalling_nan_is_a_nan_like_any_other() -> None:
    sent = np.frombuffer(bytes.fromhex("010000000000f47f") * 4, "<f8")
    assert np.isnan(CARTPOLE.validate({"obs": sent}).observation["obs"]).all()


def test_an_integer_spec_takes_integers_that_fit_and_no_floats() -> None:
    spec = spec_of({"index": ArraySpec((2,), "int32")})
    assert spec.validate({"index": np.array([1, -2], np.int64)}).observation["index"].dtype == np.int32
    assert "int64" in refusal(spec, {"index": np.array([1, 2**40])}).got
    assert "uint64" in refusal(spec, {"index": np.array([1, 2**64 - 1], np.uint64)}).got
    assert "float64" in refusal(spec, {"index": np.array([1.0, 2.0])}).got


@pytest.mark.parametrize("value", ["text", None, b"bytes", {"a": 1}, np.array(["a", "b", "c", "d"])])
def test_what_is_no_number_is_no_array(value: Any) -> None:
    error = refusal(CARTPOLE, {"obs": value})
    assert (error.path, error.expected) == ("obs", "float32 (4,)")


# Lists


@pytest.mark.parametrize("sent", [[0.5, 1, True, -2], (0.5, 1, 1, -2), [np.float64(0.5), 1, np.array(1), -2]])
def test_a_list_of_numbers_is_an_array(sent: Any) -> None:
    got = CARTPOLE.validate({"obs": sent}).observation["obs"]
    assert (got.dtype, got.tolist()) == (np.float32, [0.5, 1.0, 1.0, -2.0])
    assert got.flags.writeable


def test_nested_lists_are_arrays_of_more_axes() -> None:
    spec = spec_of({"pose": ArraySpec((2, 3)), "index": ArraySpec((2,), "int32")}, max_client_batch=4)
    got = spec.validate({"pose": [[1, 2, 3], (4.0, 5, 6)], "index": [7, 8]}).observation
    assert got["pose"].tolist() == [[1, 2, 3], [4, 5, 6]]
    assert got["index"].dtype == np.int32
    batch = spec.validate({"pose": [np.zeros((2, 3)), np.ones((2, 3))], "index": [[1, 2], [3, 4]]})
    assert batch.batch_size == 2
    assert spec_of({"none": ArraySpec((None,))}).validate({"none": []}).observation["none"].shape == (0,)


@pytest.mark.parametrize(
    ("sent", "path", "got"),
    [
        ([1, 2, 3], "obs", "float32 (3,)"),
        ([1, "two", 3, 4], "obs[1]", "str 'two'"),
        ([1, 2, 3, None], "obs[3]", "NoneType"),
        ([[1, 2], [3, [4, "x" * 100_000]]], "obs[1][1][1]", "str"),
        ([[1, 2], [3]], "obs[1]", "(1,)"),
        ([1, [2, 3]], "obs[1]", "(2,)"),
        ([np.zeros(2), np.zeros(3)], "obs[1]", "(3,)"),
        ([1, 2, 3, 2**64], "obs[3]", "int"),
        ([1, 2, 3, {"a": 4}], "obs[3]", "dict"),
    ],
)
def test_an_item_that_makes_a_list_no_array_is_named_by_its_path(sent: Any, path: str, got: str) -> None:
    error = refusal(CARTPOLE, {"obs": sent})
    assert error.path == path
    assert got.replace("float32", "int64") in error.got or got in error.got


def test_a_list_of_floats_is_no_array_of_integers() -> None:
    spec = spec_of({"index": ArraySpec((2,), "int32")})
    assert "float64" in refusal(spec, {"index": [1.0, 2]}).got


def test_a_list_of_pictures_is_stacked_and_one_of_numbers_is_no_picture() -> None:
    """Python's numbers have no dtype: 0 and 1 may be a float picture's, or a uint8 one's."""
    spec = spec_of({"view": ImageSpec()}, max_client_batch=4)
    got = spec.validate({"view": [image(), image()]})
    assert (got.batch_size, got.observation["view"].dtype) == (2, np.uint8)
    assert "int64" in refusal(spec, {"view": image().tolist()}).got


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("observation", ["x"], r"PolicySpec's observation: expected a map from paths to specs, or None, got \['x'\]"),
        (
            "observation",
            {"a": {"b": (3,)}},
            r"observation 'a/b': expected a spec such as ArraySpec\(\(7,\)\), .* got \(3,\)",
        ),
        ("observation", {"x": ArraySpec}, r"observation 'x': .* got <class .*ArraySpec'>"),
        ("action", (7,), r"action: expected a spec such as ArraySpec\(\(7,\)\), or None, got \(7,\)"),
        ("horizon", "50", "horizon: expected 1 or more actions, or None, got '50'"),
        ("horizon", 0, "horizon: .* got 0"),
        ("max_batch", 0, "max_batch: expected 1 or more, got 0"),
        ("max_batch", True, "max_batch: .* got True"),
        ("aliases", {"y": "z"}, "alias 'y': expected a new name for one of the observation's paths, got 'z'"),
        ("aliases", {"x": "x"}, "alias 'x': expected a new name for one of the observation's paths, got 'x'"),
        ("max_client_batch", -1, "max_client_batch: expected 0 or more, got -1"),
    ],
)
def test_a_spec_that_cannot_be_is_refused_when_it_is_made(field: str, value: Any, said: str) -> None:
    fields: dict[str, Any] = {"observation": {"x": ArraySpec((2,))}, "action": ArraySpec((2,)), field: value}
    with pytest.raises(ConfigError, match=said):
        PolicySpec("robot", **fields)


def test_a_python_number_meets_a_scalar_spec() -> None:
    spec = spec_of({"gain": ArraySpec(())})
    for value in (1, 1.0, True, np.float32(1), np.array(1)):
        assert spec.validate({"gain": value}).observation["gain"] == 1.0
    assert refusal(spec, {"gain": 2**70}).path == "gain"


@pytest.mark.parametrize("shape", [(3,), (5,), (), (1, 1, 4), (4, 1), (2, 3)])
def test_a_wrong_shape_is_refused_with_path_expected_got(shape: tuple[int, ...]) -> None:
    error = refusal(CARTPOLE, {"obs": np.zeros(shape, np.float32)})
    assert (error.path, error.expected) == ("obs", "float32 (4,)")
    assert error.got.startswith("float32 (")


def test_a_free_size_takes_any_size() -> None:
    spec = spec_of({"obs": ArraySpec((None, 2))})
    for rows in (0, 1, 100):
        assert spec.validate({"obs": np.zeros((rows, 2))}).observation["obs"].shape == (rows, 2)
    assert "(*, 2)" in refusal(spec, {"obs": np.zeros((2, 3))}).expected


# Images and texts


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "uint16", "bool"])
def test_an_image_is_never_cast(dtype: str) -> None:
    error = refusal(spec_of({"image": ImageSpec(8, 8)}), {"image": np.zeros((8, 8, 3), dtype)})
    assert error.path == "image"
    assert "uint8 image HWC, 8 x 8" in error.expected
    assert dtype in error.got
    assert error.hint == "send uint8 0 … 255"


def test_a_uint8_image_is_refused_where_a_float_one_is_due() -> None:
    error = refusal(spec_of({"image": ImageSpec(8, 8, dtypes=("float32",))}), {"image": image(8, 8, 3)})
    assert "float32" in error.expected
    assert "uint8" in error.got
    assert error.hint == ""


def test_an_image_in_the_other_layout_is_told_so() -> None:
    assert "CHW" in refusal(spec_of({"image": ImageSpec()}), {"image": image(3, 8, 8)}).got
    assert "HWC" in refusal(spec_of({"image": ImageSpec(layouts=("CHW",))}), {"image": image(8, 8, 3)}).got


def test_an_image_passes_in_each_layout_of_its_spec_as_it_is() -> None:
    spec = spec_of({"image": ImageSpec(layouts=("HWC", "CHW"))})
    for sent in (image(8, 9, 3), image(3, 8, 9)):
        assert spec.validate({"image": sent}).observation["image"] is sent


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 4), (8, 8, 1), (0, 8, 3), (8, 0, 3), (9, 8, 3), (1, 1, 8, 8, 3)])
def test_what_is_no_image_of_the_spec_is_refused(shape: tuple[int, ...]) -> None:
    assert refusal(spec_of({"image": ImageSpec(8, 8)}), {"image": np.zeros(shape, np.uint8)}).path == "image"


def test_a_text_is_a_text_and_may_have_a_default() -> None:
    spec = spec_of({"prompt": TextSpec(default="go")})
    assert spec.validate({}).observation == {"prompt": "go"}
    assert spec.validate({"prompt": "stop"}).observation == {"prompt": "stop"}
    assert refusal(spec, {"prompt": np.zeros(3)}).path == "prompt"
    assert refusal(spec_of({"prompt": TextSpec()}), {}).path == "prompt"


def test_a_list_of_texts_may_be_one_text() -> None:
    spec = spec_of({"names": TextListSpec()})
    assert spec.validate({"names": "one"}).observation == {"names": ["one"]}
    assert spec.validate({"names": ("one", "two")}).observation == {"names": ["one", "two"]}
    for value, path in (([1], "names[0]"), (1, "names"), (None, "names"), (["one", None], "names[1]")):
        assert refusal(spec, {"names": value}).path == path


# The client's own batch


@pytest.mark.parametrize("batch_size", [0, 1, 5, 64])
def test_one_axis_more_is_the_clients_batch(batch_size: int) -> None:
    valid = CARTPOLE.validate({"obs": np.zeros((batch_size, 4))})
    assert valid.batch_size == batch_size
    assert valid.observation["obs"].shape == (batch_size, 4)


def test_a_batch_has_a_bound() -> None:
    error = refusal(CARTPOLE, {"obs": np.zeros((65, 4))})
    assert "64" in error.expected
    assert "65" in error.got


def test_a_policy_that_takes_one_at_a_time_refuses_a_batch() -> None:
    error = refusal(spec_of({"obs": ArraySpec((4,))}), {"obs": np.zeros((2, 4))})
    assert "one at a time" in error.hint


def test_the_batch_axis_is_the_same_on_every_array() -> None:
    spec = spec_of({"image": ImageSpec(), "state": ArraySpec((3,)), "prompt": TextSpec(default="")}, max_client_batch=8)
    assert spec.validate({"image": image(2, 8, 8, 3), "state": np.zeros((2, 3))}).batch_size == 2
    assert "image: 2" in refusal(spec, {"image": image(2, 8, 8, 3), "state": np.zeros((3, 3))}).got
    assert "state: none" in refusal(spec, {"image": image(2, 8, 8, 3), "state": np.zeros(3)}).got


# Examples


@pytest.mark.parametrize("spec", [CARTPOLE, spec_of(FLAT, max_client_batch=4), spec_of(NESTED, max_client_batch=4)])
@pytest.mark.parametrize("batch_size", [None, 3])
def test_an_example_meets_its_own_spec(spec: PolicySpec, batch_size: int | None) -> None:
    valid = spec.validate(spec.example(batch_size))
    assert valid.batch_size == batch_size
    assert valid.unknown == ()


def test_a_spec_describes_itself_in_json() -> None:
    import json

    described = json.loads(json.dumps(spec_of({**FLAT, "names": TextListSpec()}, horizon=5).describe()))
    assert set(described["observation"]) == {*FLAT, "names"}
    assert described["horizon"] == 5


# Anything


LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=5),
    st.lists(st.text(max_size=2), max_size=2),
    st.recursive(st.floats(), lambda inner: st.lists(inner, max_size=3), max_leaves=6),
    st.sampled_from([np.zeros(n, d) for n in (0, 3, (2, 3), (8, 8, 3), (2, 8, 8, 3)) for d in ("u1", "f4", "i8", "?")]),
)  # fmt: skip
KEYS = st.sampled_from(
    ["observation", "image", "state", "prompt", "observation/image", "observation/state", "junk", "", "/", "a/b"]
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # on a busy machine
@given(
    st.dictionaries(
        KEYS, st.recursive(LEAVES, lambda inner: st.dictionaries(KEYS, inner, max_size=4), max_leaves=8), max_size=6
    )
)
def test_any_observation_passes_or_is_refused(observation: Any) -> None:
    for spec in (spec_of(FLAT, max_client_batch=2), spec_of(NESTED), CARTPOLE):
        try:
            got = spec.validate(observation).observation
        except BadObservation:
            continue
        assert spec.validate(got).unknown == ()
