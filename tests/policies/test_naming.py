"""What clients call a policy's inputs: --rename, the single array, and the names that the file has."""

from __future__ import annotations

import pytest

from policyserve.core.errors import ConfigError
from policyserve.policies.naming import client_names, read_renames


def test_renames_are_read_as_client_to_policy() -> None:
    assert read_renames(None) == {}
    assert read_renames(" observation/image = camera ,state=obs") == {"observation/image": "camera", "state": "obs"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "rename: expected client=policy, by commas, got 'nothing'"),
        ("camera", "rename: expected client=policy, by commas, got 'camera'"),
        ("a=", "rename: expected client=policy, by commas, got 'a='"),
        ("a=b,,", "rename: expected client=policy, by commas, got 'nothing'"),
        ("a=b,a=c", "rename: 'a' is there twice"),
    ],
)
def test_what_is_no_list_of_renames_is_refused(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read_renames(text)
    assert str(refused.value) == said


def test_the_only_array_is_called_obs_and_its_own_name_is_an_alias() -> None:
    names = client_names(["policy"], {})
    assert (names.client, names.aliases) == ({"policy": "obs"}, {"policy": "obs"})
    assert client_names(["obs"], {}).aliases == {}


def test_of_several_each_keeps_its_own_name() -> None:
    names = client_names(["image", "state"], {})
    assert (names.client, names.aliases) == ({"image": "image", "state": "state"}, {})


def test_a_renamed_input_is_also_taken_by_its_own_name() -> None:
    names = client_names(["image", "state"], {"observation/image": "image"}, others=["task"], also={"prompt": "task"})
    assert names.client == {"image": "observation/image", "state": "state", "task": "task"}
    assert names.aliases == {"image": "observation/image", "prompt": "task"}


def test_two_inputs_can_swap_their_names_and_then_have_no_aliases() -> None:
    names = client_names(["left", "right"], {"left": "right", "right": "left"})
    assert (names.client, names.aliases) == ({"left": "right", "right": "left"}, {})


def test_a_renamed_only_array_is_still_taken_alone() -> None:
    names = client_names(["policy"], {"state": "policy"})
    assert (names.client, names.aliases) == ({"policy": "state"}, {"policy": "state", "obs": "state"})


def test_a_rename_of_what_is_not_there_names_the_nearest() -> None:
    with pytest.raises(
        ConfigError, match=r"^--rename: expected one of the policy's inputs, image, state, got 'imag' \(did"
    ):
        client_names(["image", "state"], {"camera": "imag"})
    with pytest.raises(ConfigError, match="two of the policy's inputs are called 'state'"):
        client_names(["image", "state"], {"state": "image"})
