"""What a server tells vla-eval's harness of its policy."""

from __future__ import annotations

from typing import Any

import pytest

from policyserve.core.spec import ArraySpec, ImageSpec, PolicySpec, TextSpec
from policyserve.dialects.vla_eval_hello import answer_to_hello, hello

LANGUAGE = {"language": {"name": "language", "dims": 0, "format": "language"}}
RGB = {"name": "image", "dims": 0, "format": "rgb_hwc_uint8"}


def told(observation: Any, **more: Any) -> dict[str, Any]:
    spec = PolicySpec("told", observation, ArraySpec((7,)), **more)
    return answer_to_hello({**spec.metadata, "spec": spec.describe(), "policyserve": "0.1"})


def test_the_harness_is_asked_for_what_the_policy_takes() -> None:
    answer = told(
        {"images": {"agentview": ImageSpec(), "wrist": ImageSpec()}, "state": ArraySpec((8,)), "prompt": TextSpec()}
    )
    assert answer["observation_params"] == {"send_wrist_image": True, "send_state": True}
    assert answer["observation_spec"] == {"agentview": RGB, "wrist": RGB, **LANGUAGE}
    assert "action_spec" not in answer
    assert list(answer)[:4] == ["harness_version", "protocol_version", "model_server", "capabilities"]
    assert {key: answer[key] for key in hello()} == hello()


def test_what_the_policy_can_do_without_is_asked_for_only_if_it_is_a_camera() -> None:
    leaves = {"image": ImageSpec(), "wrist_image": ImageSpec(optional=True), "rtc": {"n": ArraySpec((), optional=True)}}
    answer = told(leaves)
    assert answer["observation_params"] == {"send_wrist_image": True}
    assert "observation_spec" not in answer


def test_an_alias_names_a_camera() -> None:
    answer = told({"front": ImageSpec()}, aliases={"images/agentview": "front"})
    assert answer["observation_spec"] == {"agentview": RGB}


@pytest.mark.parametrize("observation", [None, {"x": ArraySpec((2,), optional=True)}])
def test_a_policy_that_needs_nothing_of_these_asks_for_nothing(observation: Any) -> None:
    answer = told(observation)
    assert "observation_params" not in answer
    assert "observation_spec" not in answer


def test_what_the_policy_declares_goes_before_its_spec() -> None:
    action_spec = {"gripper": {"name": "gripper", "dims": 1, "format": "raw"}}
    declared = {"model_server": "Mine", "observation_params": {}, "action_spec": action_spec}
    answer = told({"state": ArraySpec((8,)), "prompt": TextSpec()}, metadata={"vla_eval": declared})
    assert answer["model_server"] == "Mine"
    assert "observation_params" not in answer
    assert answer["action_spec"] == action_spec
    assert answer["observation_spec"] == LANGUAGE


def test_clients_of_this_package_find_the_spec_and_whose_server_it_is() -> None:
    answer = told({"state": ArraySpec((8,))})
    assert answer["policyserve"] == "0.1"
    assert answer["spec"]["observation"]["state"]["shape"] == [8]
    assert set(answer_to_hello({})) == {"harness_version", "protocol_version", "model_server", "capabilities"}
