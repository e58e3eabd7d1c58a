"""What each input and output of a model is taken for, by names and shapes, and what is said where nobody can tell."""

from __future__ import annotations

import pytest

from policyserve.core.errors import ConfigError
from policyserve.policies.onnx.roles import Roles, Tensor, find_roles


def f32(name: str, *shape: int | str | None) -> Tensor:
    return Tensor(name, "float32", shape)


OBS, ACTIONS = f32("obs", 1, 10), f32("actions", 1, 4)


def refusal(inputs: list[Tensor], outputs: list[Tensor], **flags: str) -> str:
    with pytest.raises(ConfigError) as refused:
        find_roles(inputs, outputs, **flags)
    return str(refused.value)


def told(roles: Roles) -> dict[str, str]:
    return {pair.into.name: pair.out.name for pair in roles.pairs}


@pytest.mark.parametrize(
    ("into", "out"), [("h_in", "h_out"), ("past_keys", "present_keys"), ("hidden_state_in", "hidden_state_out")]
)
def test_a_state_is_known_by_its_names(into: str, out: str) -> None:
    roles = find_roles([OBS, f32(into, 2, 1, 16)], [ACTIONS, f32(out, 2, 1, 16)])
    assert told(roles) == {into: out}
    assert roles.pairs[0].row_shape == (2, 1, 16)
    assert roles.remembers


def test_names_alone_make_no_state() -> None:
    for out in (f32("h_out", 2, 16), Tensor("h_out", "float16", (2, 1, 16)), f32("h", 2, 1, 16)):
        roles = find_roles([OBS, f32("h_in", 1, 2, 16)], [ACTIONS, out])
        assert [one.name for one in roles.inputs] == ["obs", "h_in"]
        assert not roles.remembers


def test_a_flag_says_which_are_states() -> None:
    inputs, outputs = [OBS, f32("memory", 1, 8), f32("h_in", 1, 8)], [ACTIONS, f32("new", 1, 8), f32("h_out", 1, 8)]
    assert told(find_roles(inputs, outputs, state="memory=new")) == {"memory": "new"}
    assert told(find_roles(inputs, outputs, state=" memory = new , h_in=h_out")) == {"memory": "new", "h_in": "h_out"}
    assert told(find_roles(inputs, outputs, state="none")) == {}
    for state, said in {
        "memory": "--state: expected in=out, by commas, or none, got 'memory'",
        "": "--state: expected in=out, by commas, or none, got 'nothing'",
        "memroy=new": "--state: expected an input of the model, obs float32 (1, 10), memory float32 (1, 8), h_in ",
        "memory=nothing": "--state: expected an output of the model, actions float32 (1, 4), new",
        "memory=new,memory=h_out": "--state: memory or h_out is there twice",
    }.items():
        assert refusal(inputs, outputs, state=state).startswith(said)
    lone = [f32("h_in", 1, 8)]
    assert refusal(lone, [ACTIONS, f32("h_out", 1, 8)]).startswith("every input is a state, and none an observation")
    assert "a pair of one dtype" in refusal(inputs, [ACTIONS, f32("new", 8)], state="memory=new")


def test_the_action_is_known_by_its_name_or_is_the_only_output_that_is_no_state() -> None:
    for name in ("actions", "action", "action_chunk"):
        assert find_roles([OBS], [f32("value", 1, 1), f32(name, 1, 4)]).action.name == name
    assert find_roles([OBS, f32("h_in", 1, 8)], [f32("mean", 1, 4), f32("h_out", 1, 8)]).action.name == "mean"
    outputs = [f32("left_arm", 1, 2), f32("right_arm", 1, 2)]
    said = "outputs left_arm float32 (1, 2), right_arm float32 (1, 2): say which with --action"
    assert refusal([OBS], outputs).startswith(said)
    roles = find_roles([OBS], outputs, action="right_arm")
    assert (roles.action.name, [one.name for one in roles.extras]) == ("right_arm", ["left_arm"])
    assert "got 'rigth_arm' (did you mean right_arm?)" in refusal([OBS], outputs, action="rigth_arm")


def test_a_free_first_axis_is_the_batch() -> None:
    assert find_roles([f32("obs", "N", 10)], [f32("actions", "N", 4)]).batching == "stacked"
    assert find_roles([f32("obs", None, 10)], [f32("actions", None, 4)]).batching == "stacked"
    assert find_roles([OBS], [ACTIONS]).batching == "one"
    assert find_roles([f32("obs", "N", 10), f32("image", 1, 3)], [ACTIONS]).batching == "one"
    assert find_roles([f32("obs", 10)], [f32("actions", 4)]).batching == "bare"
    assert "a batch of 4 that is fixed; export it" in refusal([f32("obs", 4, 10)], [f32("actions", 4, 2)])


def test_a_state_has_the_batch_on_the_axis_of_the_same_size_or_runs_row_by_row() -> None:
    obs, actions = f32("obs", "N", 10), f32("actions", "N", 4)
    roles = find_roles([obs, f32("h_in", 2, "N", 16)], [actions, f32("h_out", 2, "N", 16)])
    assert (roles.batching, roles.pairs[0].axis, roles.pairs[0].row_shape) == ("stacked", 1, (2, 1, 16))
    roles = find_roles([obs, f32("h_in", 2, 1, 16)], [actions, f32("h_out", 2, 1, 16)])
    assert (roles.batching, roles.pairs[0].axis) == ("one", None)
    growing = refusal([obs, f32("past_k", "N", "length", 8)], [actions, f32("present_k", "N", "length", 8)])
    assert growing.startswith("past_k float32 (*, *, 8): a state whose size is free")


def test_the_step_is_counted_where_it_is_one_number_beside_an_observation() -> None:
    step = f32("time_step", 1, 1)
    roles = find_roles([OBS, step], [ACTIONS])
    assert (roles.counter, [one.name for one in roles.inputs]) == (step, ["obs"])
    assert find_roles([OBS, f32("time_step", 1, 3)], [ACTIONS]).counter is None
    assert [one.name for one in find_roles([step], [ACTIONS]).inputs] == ["time_step"]


def test_what_takes_or_gives_nothing_or_more_than_memory_is_refused() -> None:
    assert "a model without one of them" in refusal([], [ACTIONS])
    assert "a model without one of them" in refusal([OBS], [])
    assert "expected at most" in refusal([f32("obs", 1, 1 << 40)], [ACTIONS])
    assert refusal([OBS, f32("h_in", 1, 2)], [f32("h_out", 1, 2)]).startswith("every output is a state")
