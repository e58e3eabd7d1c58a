"""Programs of every form: what they remember, how rows go in, and what is said of those that cannot act."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import policyserve
from policyserve import ActionChunk, ConfigError, Policy, PolicyInput
from tests.policies.frameworks import import_or_skip
from tests.policies.torch_files.cases import file_of

torch = import_or_skip("torch")
from tests.policies.torch_files import networks  # noqa: E402
from tests.policies.torch_files.networks import exported, scripted  # noqa: E402


def infer(policy: Policy, *batch: PolicyInput) -> list[ActionChunk]:
    return [chunk for chunk in policy.infer(batch) if isinstance(chunk, ActionChunk)]


def acted(policy: Policy, **observation: Any) -> list[float]:
    return infer(policy, PolicyInput({name: np.float32(value) for name, value in observation.items()}))[
        0
    ].actions.tolist()


@pytest.mark.parametrize(("module", "begins"), [(networks.Counting(), 11.0), (networks.Resetting(), 1.0)])
def test_a_buffer_is_each_sessions_and_begins_as_the_file_or_reset_leaves_it(
    module: Any, begins: float, tmp_path: Path
) -> None:
    policy = policyserve.load_policy(scripted(module, tmp_path / "policy.pt"), obs="2")
    one = {"obs": np.zeros(2, np.float32)}
    (first,) = infer(policy, PolicyInput(one))
    second, anew = infer(policy, PolicyInput(one, state=first.state), PolicyInput(one))
    (again,) = infer(policy, PolicyInput(one, state=first.state))  # a state that was used is as it was
    found = [chunk.actions[0] for chunk in (first, second, anew, again)]
    assert found == [begins, begins + 1, begins, begins + 1]


def test_a_buffer_that_is_replaced_is_the_sessions_too(tmp_path: Path) -> None:
    policy = policyserve.load_policy(scripted(networks.Replacing(), tmp_path / "policy.pt"), obs="2")
    (first,) = infer(policy, PolicyInput({"obs": np.ones(2, np.float32)}))
    (second,) = infer(policy, PolicyInput({"obs": np.ones(2, np.float32)}, state=first.state))
    (anew,) = infer(policy, PolicyInput({"obs": np.ones(2, np.float32)}))
    assert [first.actions[0], second.actions[0], anew.actions[0]] == [1.0, 3.0, 1.0]


def test_an_exported_program_that_changes_a_buffer_remembers_each_session(tmp_path: Path) -> None:
    path = exported(networks.Counting(), tmp_path / "policy.pt2", torch.zeros(1, 2))
    policy = policyserve.load_policy(path)
    one = {"obs": np.zeros(2, np.float32)}
    (first,) = infer(policy, PolicyInput(one))
    chunks = infer(policy, PolicyInput(one, state=first.state), PolicyInput(one))
    assert [chunk.actions[0] for chunk in (first, *chunks)] == [11.0, 12.0, 11.0]


def test_a_memory_that_is_no_buffer_is_refused(tmp_path: Path) -> None:
    path = scripted(networks.Hiding(), tmp_path / "policy.pt")
    with pytest.raises(ConfigError, match="it remembers something outside its buffers; have it use register_buffer"):
        policyserve.load_policy(path, obs="2")


def test_rows_that_a_program_would_mix_run_one_by_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    policy = policyserve.load_policy(scripted(networks.Mixing(), tmp_path / "policy.pt"), obs="2")
    rows = [PolicyInput({"obs": np.full(2, value, np.float32)}) for value in (1, 5)]
    assert [chunk.actions.tolist() for chunk in infer(policy, *rows)] == [[0, 0], [0, 0]]
    assert "answers otherwise in a batch than alone: its rows run one by one" in caplog.text


def test_inputs_have_forwards_names_and_a_picture_is_made_where_a_flag_says_how(tmp_path: Path) -> None:
    path = scripted(networks.Looking(), tmp_path / "policy.pt")
    policy = policyserve.load_policy(path, obs="state=3,image=3x4x5")
    assert acted(policy, image=np.ones((3, 4, 5)), state=[1, 2, 3]) == [2, 3, 4]
    policy = policyserve.load_policy(path, obs="state=3,image=3x4x5", image="image=uint8:HWC/255", rename="eye=image")
    assert str(policy.spec.leaves["eye"]) == "uint8 image HWC, 4 x 5"
    white = {"eye": np.full((4, 5, 3), 255, np.uint8), "state": np.zeros(3, np.float32)}
    np.testing.assert_allclose(infer(policy, PolicyInput(white))[0].actions, [1, 1, 1], rtol=1e-6)


def test_of_a_map_the_action_is_taken_by_its_name(tmp_path: Path) -> None:
    policy = policyserve.load_policy(scripted(networks.Mapping(), tmp_path / "policy.pt"), obs="2")
    assert acted(policy, obs=[1, 2]) == [1, 2]


def test_of_several_outputs_the_flag_says_which_is_the_action(tmp_path: Path) -> None:
    pair = scripted(networks.Pair(), tmp_path / "pair.pt")
    assert [acted(policyserve.load_policy(pair, obs="2", action=one), obs=[1, 2]) for one in "01"] == [[1, 2], [2, 4]]
    named = scripted(networks.Mapping(), tmp_path / "map.pt")
    assert acted(policyserve.load_policy(named, obs="2", action="value"), obs=[1, 2]) == 3
    with pytest.raises(ConfigError, match="--action: expected a value, got nothing"):
        policyserve.load_policy(pair, obs="2", action="")


def test_what_a_program_writes_into_is_no_clients_array(tmp_path: Path) -> None:
    policy = policyserve.load_policy(scripted(networks.Writing(), tmp_path / "policy.pt"), obs="2")
    sent = np.zeros(2, np.float32)
    assert infer(policy, PolicyInput({"obs": sent}))[0].actions.tolist() == [1, 1]
    assert sent.tolist() == [0, 0]


def test_nan_for_zeros_is_a_warning_and_nan_for_all_is_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    policy = policyserve.load_policy(scripted(networks.Dividing(), tmp_path / "policy.pt"), obs="2")
    assert acted(policy, obs=[1, 2]) == [1, 1]
    assert "answers NaN or Inf to zeros, and is not warmed up" in caplog.text
    with pytest.raises(ConfigError, match="it answers NaN or Inf whatever it is given"):
        policyserve.load_policy(scripted(networks.Nowhere(), tmp_path / "policy.pt"), obs="2")


@pytest.mark.parametrize(
    ("module", "flags", "said"),
    [
        (
            networks.Pair(),
            {},
            "expected one tensor, or a map with actions, action, action_chunk, got 0 (1, 2), 1 (1, 2): say which with",
        ),
        (networks.Pair(), {"action": "2"}, "--action: expected one of its outputs, 0 (1, 2), 1 (1, 2), got '2'"),
        (networks.Mapping(), {"action": "1"}, "--action: expected one of its outputs, value (1,), actions (1, 2), got"),
        (networks.Twice(), {"action": "actions"}, "--action: expected one of its outputs, 0 (1, 2), got 'actions'"),
        (networks.Squeezing(), {}, "expected an answer with a batch axis in front, (1, …), got the shape (2,)"),
        (networks.Twice(), {"horizon": "2"}, "--horizon: it answers one action (2,) and no chunk of several"),
        (networks.Twice(), {"rename": "x=camera"}, "--rename: expected one of the policy's inputs"),
        (networks.Twice(), {"image": "camera=uint8:HWC"}, "--image: expected one of the model's inputs, obs"),
        (networks.Twice(), {"device": "cuda:99"}, "--device cuda:99: torch "),
    ],
)
def test_what_cannot_act_is_refused_in_one_line(module: Any, flags: dict[str, str], said: str, tmp_path: Path) -> None:
    path = scripted(module, tmp_path / "policy.pt")
    with pytest.raises(ConfigError, match=f"^{re.escape(f'{path}: {said}')}"):
        policyserve.load_policy(path, obs="2", **flags)


def test_wrong_sizes_are_told_with_torchs_words() -> None:
    with pytest.raises(ConfigError) as raised:
        policyserve.load_policy(str(file_of("jit_isaaclab_mlp")), obs="7")
    told = "it cannot answer an observation of obs float32 (7,): RuntimeError: mat1 and mat2 shapes"
    assert told in str(raised.value)
    assert str(raised.value).endswith("is --obs what it was trained with?")


def test_an_exported_programs_range_bounds_its_batches(tmp_path: Path) -> None:
    rows = torch.export.Dim("rows", min=2, max=8)
    path = exported(networks.Twice(), tmp_path / "policy.pt2", torch.zeros(4, 3), sizes=({0: rows},))
    policy = policyserve.load_policy(path)
    assert policy.spec.max_batch == 8
    for count in (1, 2, 8, 11):  # a row alone is fewer than the program takes, and 11 are more
        batch = [PolicyInput({"obs": np.full(3, row, np.float32)}) for row in range(count)]
        assert [chunk.actions[0] for chunk in infer(policy, *batch)] == [2 * row for row in range(count)]
    with pytest.raises(ConfigError, match="--max-batch: expected at most 8, which the program was exported with"):
        policyserve.load_policy(path, max_batch=9)
    with pytest.raises(ConfigError, match=r"--obs is for TorchScript: a .pt2 has the sizes of its inputs"):
        policyserve.load_policy(path, obs="3")


def test_an_exported_program_takes_maps_and_keywords(tmp_path: Path) -> None:
    sides = {"left": torch.zeros(1, 2), "right": torch.zeros(1, 2)}
    path = exported(networks.FromMap(), tmp_path / "policy.pt2", sides, kwargs={"gain": torch.zeros(1, 2)})
    policy = policyserve.load_policy(path)
    assert list(policy.spec.leaves) == ["left", "right", "gain"]
    assert acted(policy, left=[1, 2], right=[10, 20], gain=[2, 2]) == [12, 24]


def test_an_exported_program_without_a_batch_is_called_with_one_observation(tmp_path: Path) -> None:
    policy = policyserve.load_policy(exported(networks.Twice(), tmp_path / "policy.pt2", torch.zeros(3)))
    rows = [PolicyInput({"obs": np.full(3, row, np.float32)}) for row in range(3)]
    assert [chunk.actions.tolist() for chunk in infer(policy, *rows)] == [[0] * 3, [2] * 3, [4] * 3]


def test_a_fixed_batch_is_refused(tmp_path: Path) -> None:
    path = exported(networks.Twice(), tmp_path / "policy.pt2", torch.zeros(4, 3))
    with pytest.raises(ConfigError, match="a batch of 4 that is fixed; export it with a batch of 1, or with a free"):
        policyserve.load_policy(path)


def test_the_unsafe_fallback_is_closed_while_torch_loads_and_the_environment_is_left_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[tuple[str | None, str | None]] = []
    load = torch.export.load

    def watched(*arguments: Any, **named: Any) -> Any:
        seen.append(
            (os.environ.get("TORCH_FORCE_WEIGHTS_ONLY_LOAD"), os.environ.get("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"))
        )
        return load(*arguments, **named)

    monkeypatch.setattr(torch.export, "load", watched)
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    policyserve.load_policy(str(file_of("export_mlp_static")))
    assert seen == [("1", None)]
    assert os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] == "1"
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ


def test_that_a_program_is_a_program_is_said(caplog: pytest.LogCaptureFixture) -> None:
    policyserve.load_policy(str(file_of("jit_isaaclab_mlp")), obs="45")
    assert (
        "it is a program, which runs on this computer with your rights: serve only files that you made" in caplog.text
    )
