"""What the parts of an observation become: names, axes, texts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from policyserve import ArraySpec, ImageSpec, PolicySpec, TextSpec
from policyserve.core.errors import BadObservation
from policyserve.core.policy import open_spec
from policyserve.core.spec import TextListSpec, look_up, paths_in
from policyserve.dialects.gr00t.observations import fitted, has_batch, is_several, read_parts

ANY = open_spec("any")
FRONT = np.zeros((1, 1, 4, 5, 3), np.uint8)
ARM = np.arange(5, dtype=np.float32).reshape(1, 1, 5)


def spec_of(**leaves: Any) -> PolicySpec:
    return PolicySpec("p", {key.replace("__", "/"): leaf for key, leaf in leaves.items()}, ArraySpec((1,)))


def fit(data: dict[str, Any], spec: PolicySpec = ANY, is_batched: bool = True) -> dict[str, Any]:
    parts, _ = read_parts(data, "data/observation")
    found = fitted(parts, spec, is_batched)
    return {path: look_up(found, path) for path in paths_in(found)}


def nested(language: Any = ((("go",),)), **states: Any) -> dict[str, Any]:
    return {"video": {"front": FRONT}, "state": {"arm": ARM, **states}, "language": {"annotation.human.task": language}}


def test_parts_get_names_that_say_what_they_are() -> None:
    found = fit(nested())
    assert {key: getattr(value, "shape", value) for key, value in found.items()} == {
        "images/front": (4, 5, 3),
        "state/arm": (5,),
        "prompt": "go",
    }


def test_flat_keys_are_the_same_parts() -> None:
    flat = {"video.front": FRONT, "state.arm": ARM, "annotation.human.task": ["go"]}
    found = fit(flat)
    assert list(found) == ["images/front", "state/arm", "prompt"]
    assert found["prompt"] == "go"


def test_what_is_no_part_stays_under_its_own_name() -> None:
    parts, rest = read_parts({"video": {}, "seed": 3, "videos.x": 1, "state.": 2, "task": "go"}, "data")
    assert [part.name for part in parts] == ["task"]
    assert rest == {"seed": 3, "videos.x": 1, "state.": 2}


@pytest.mark.parametrize("name", ["video.front", "video/front", "images/front", "front"])
def test_a_spec_that_has_one_of_the_clients_names_gets_the_part_under_it(name: str) -> None:
    spec = PolicySpec("p", {name: ImageSpec()}, ArraySpec((1,)))
    observation = fit({"video": {"front": FRONT}}, spec)
    assert list(observation) == [name]
    assert spec.validate(observation).observation[name].shape == (4, 5, 3)


@pytest.mark.parametrize("name", ["state.arm", "state/arm", "arm"])
def test_so_does_a_state(name: str) -> None:
    spec = PolicySpec("p", {name: ArraySpec((5,))}, ArraySpec((1,)))
    assert list(fit({"state": {"arm": ARM}}, spec)) == [name]


def test_an_alias_of_the_spec_is_such_a_name_too() -> None:
    spec = PolicySpec("p", {"image": ImageSpec()}, ArraySpec((1,)), aliases={"video.front": "image"})
    observation = fit({"video": {"front": FRONT}}, spec)
    assert spec.validate(observation).observation["image"].shape == (4, 5, 3)


@pytest.mark.parametrize("name", ["annotation.human.task", "prompt", "language.annotation.human.task"])
def test_so_does_a_text(name: str) -> None:
    assert fit(nested(), PolicySpec("p", {name: TextSpec()}, ArraySpec((1,))))[name] == "go"


def test_of_several_texts_the_first_is_the_prompt() -> None:
    found = fit({"language": {"annotation.a": [["go"]], "annotation.b": [["now"]]}})
    assert found == {"prompt": "go", "annotation.b": "now"}


@pytest.mark.parametrize("value", ["go", ["go"], [["go"]], (("go",),), [["go"], ["go"]]])
def test_a_text_comes_in_several_forms(value: Any) -> None:
    assert fit({"task": value}) == {"prompt": "go"}


@pytest.mark.parametrize("value", [[], [[]], [3], 3, None, [["go"], 3], {"a": "go"}, ["go"] * 5000])
def test_anything_else_is_no_text(value: Any) -> None:
    with pytest.raises(BadObservation, match=r"data/observation/task: expected a list of texts"):
        fit({"task": value})


def test_texts_that_differ_within_a_batch_are_no_one_prompt() -> None:
    with pytest.raises(BadObservation, match="the same text in each row"):
        fit({"task": [["go"], ["stop"]]})
    listed = PolicySpec("p", {"task": TextListSpec()}, ArraySpec((1,)))
    assert fit({"task": [["go"], ["stop"]]}, listed) == {"task": ["go", "stop"]}


def test_a_batch_of_several_keeps_its_axis_and_loses_that_of_time() -> None:
    found = fit({"video": {"front": np.zeros((3, 1, 4, 5, 3), np.uint8)}, "state": {"arm": np.zeros((3, 1, 5))}})
    assert [value.shape for value in found.values()] == [(3, 4, 5, 3), (3, 5)]


def test_a_time_axis_stays_where_the_spec_has_one() -> None:
    spec = PolicySpec("p", {"video/front": ArraySpec((2, 4, 5, 3), "uint8"), "state/arm": ArraySpec((1, 5))}, None)
    found = fit({"video": {"front": np.zeros((1, 2, 4, 5, 3), np.uint8)}, "state": {"arm": ARM}}, spec)
    assert [value.shape for value in found.values()] == [(2, 4, 5, 3), (1, 5)]
    layouts = PolicySpec("p", {"video/front": ImageSpec(layouts=("1HWC",))}, None)
    assert fit({"video": {"front": FRONT}}, layouts)["video/front"].shape == (1, 4, 5, 3)


def test_several_steps_in_time_are_refused_where_the_spec_has_one_and_kept_where_there_is_no_spec() -> None:
    data = {"state": {"arm": np.zeros((1, 2, 5))}}
    with pytest.raises(BadObservation, match=r"data/observation/state/arm: expected one step in time, got 2"):
        fit(data, spec_of(state__arm=ArraySpec((5,))))
    assert fit(data)["state/arm"].shape == (2, 5)


@pytest.mark.parametrize("is_batched", [True, False])
@pytest.mark.parametrize("value", [np.zeros((2, 1, 1, 1, 3, 3, 3)), np.float32(3), "text", 3, None, [1, 2]])
def test_what_has_not_the_axes_of_a_state_is_refused(value: Any, is_batched: bool) -> None:
    with pytest.raises(BadObservation, match=r"data/observation/state/arm: expected an array \("):
        fit({"state": {"arm": value}}, is_batched=is_batched)


def test_of_a_batched_observation_no_part_is_without_the_axes() -> None:
    with pytest.raises(BadObservation, match=r"expected an array \(B, T, H, W, 3\)"):
        fit({"video": {"front": FRONT[0]}})


def test_a_part_comes_once() -> None:
    with pytest.raises(BadObservation, match="two for front"):
        fit({"video": {"front": FRONT}, "video.front": FRONT})


def test_the_states_tell_whether_a_flat_observation_has_a_batch_and_else_the_pictures() -> None:
    def batched(**data: Any) -> bool:
        return has_batch(read_parts({key.replace("_", ".", 1): value for key, value in data.items()}, "data")[0])

    assert batched(state_a=np.zeros((1, 1, 5)), video_b=np.zeros((1, 2, 2, 3)))
    assert not batched(state_a=np.zeros((1, 5)), state_b=np.zeros((1, 1, 5)), video_b=np.zeros((1, 1, 2, 2, 3)))
    assert batched(video_b=np.zeros((1, 1, 2, 2, 3)))
    assert not batched(video_b=np.zeros((1, 2, 2, 3)))
    assert not batched(seed=3)


def test_a_batch_is_of_several_where_any_part_says_so() -> None:
    assert not is_several(read_parts(nested(), "data")[0])
    assert is_several(read_parts(nested(hand=np.zeros((2, 1, 1))), "data")[0])
