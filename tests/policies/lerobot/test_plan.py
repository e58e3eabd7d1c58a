"""Flags against a checkpoint's files, and the spec that comes of both."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from policyserve.core.errors import ConfigError
from policyserve.core.spec import PolicySpec
from policyserve.policies.lerobot.loading import assembled
from policyserve.policies.lerobot.options import LeRobotFlags
from policyserve.policies.lerobot.plan import Plan, make_plan, read_folder
from policyserve.policies.lerobot.processors import BEFORE
from tests.policies.lerobot.cases import CASES, copied, folder
from tests.policies.lerobot.test_policy import SummingModel

SNAPSHOT = Path(__file__).with_name("specs.json")


def plan(case: str | Path, **flags: Any) -> tuple[Plan, LeRobotFlags]:
    given = LeRobotFlags(**flags)
    return make_plan(read_folder(str(folder(case) if isinstance(case, str) else case)), given), given


def spec(case: str | Path, **flags: Any) -> PolicySpec:
    return assembled(*plan(case, **flags), SummingModel(), 8, (1,)).spec


def refusal(case: str | Path, **flags: Any) -> str:
    with pytest.raises(ConfigError) as refused:
        plan(case, **flags)
    return str(refused.value)


def test_the_spec_of_every_case_is_as_it_was() -> None:
    """Delete the file to write it anew, and read what changed."""
    found = {case: {**spec(case).describe(), "metadata": spec(case).metadata} for case in CASES}
    if not SNAPSHOT.exists():
        SNAPSHOT.write_text(json.dumps(found, indent=1) + "\n")
    assert json.loads(json.dumps(found)) == json.loads(SNAPSHOT.read_text())


def test_a_policy_of_one_frame_is_served_in_chunks_and_one_that_remembers_in_steps() -> None:
    assert (spec("act_state").horizon, spec("act_state", mode="step").horizon) == (5, None)
    assert (spec("act_ensemble").horizon, spec("act_ensemble", mode="chunk").horizon) == (None, 1)
    assert (spec("diffusion_state_ddim").horizon, spec("diffusion_state_ddim", mode="chunk").horizon) == (None, 4)


def test_more_or_fewer_actions_of_a_chunk_are_sent_as_asked() -> None:
    assert [spec("act_state", horizon=one).horizon for one in ("all", "1", "8")] == [8, 1, 8]
    assert spec("diffusion_state_ddim", mode="chunk", horizon="all").horizon == 7
    assert "--horizon: expected at most 8" in refusal("act_state", horizon="9")
    assert "--horizon: expected none in mode step" in refusal("act_ensemble", horizon="all")
    with pytest.raises(ConfigError, match="horizon: expected none with --mode step"):
        LeRobotFlags(mode="step", horizon="all")


def test_history_is_for_chunks_of_policies_that_look_back() -> None:
    wanted = spec("diffusion_image_ddpm", mode="chunk", history=True)
    shapes = {name: leaf.describe()["shape"] for name, leaf in wanted.leaves.items()}
    assert shapes == {"observation.state": [2, 2], "observation.image": [2, 48, 48, 3]}
    assert "expected a policy that looks at several frames" in refusal("act_state", history=True)
    assert "--history: expected none in mode step" in refusal("diffusion_state_ddim", history=True)
    with pytest.raises(ConfigError, match="no history of a client's"):
        LeRobotFlags(mode="step", history=True)


def test_clients_names_come_from_the_flag_or_the_checkpoint(tmp_path: Path) -> None:
    target = copied("act_state", tmp_path)
    values = json.loads((target / BEFORE).read_text())
    values["steps"][0]["config"]["rename_map"] = {"arm": "observation.state", "elsewhere": "observation.other"}
    (target / BEFORE).write_text(json.dumps(values))
    assert list(spec(target).leaves) == ["arm", "observation.environment_state"]
    assert spec(target).aliases["observation.state"] == "arm"
    assert next(iter(spec(target, rename="state=observation.state").leaves)) == "state"
    assert "expected one of the policy's inputs" in refusal(target, rename="state=observation.stat")


def test_names_of_joints_come_from_the_datasets_info(tmp_path: Path) -> None:
    info = tmp_path / "info.json"
    names = [f"joint{index}" for index in range(6)]
    info.write_text(json.dumps({"features": {"action": {"names": {"motors": names}}, "observation.state": {}}}))
    with pytest.raises(ConfigError, match="names is missing"):
        plan("act_state", dataset_info=str(info))
    info.write_text(json.dumps({"features": {"action": {"names": {"motors": names}}}}))
    action = spec("act_state", dataset_info=str(info)).action
    assert len(spec("act_state", dataset_info=str(info)).metadata["action_names"]) == 6
    assert "action_names" not in spec("act_state").metadata
    assert action is not None
    assert action.doc == "action as recorded: units of the dataset: joint0, joint1, joint2, joint3, joint4, joint5"
    info.write_text(json.dumps({"features": {"action": {"names": names[:5]}}}))
    assert "action: expected 6 names, as the policy has it, got 5" in refusal("act_state", dataset_info=str(info))
    assert "got nothing there" in refusal("act_state", dataset_info=f"{tmp_path}/none.json")


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (["pan.pos", "lift.pos", "elbow.pos", "wrist.pos", "roll.pos", "gripper.pos"], "position"),
        (["x.vel", "y.vel", "theta.vel", "a.vel", "b.vel", "c.vel"], "velocity"),
        (["pan.pos", "lift.pos", "elbow.pos", "wrist.pos", "roll.pos", "x.vel"], None),
        (["joint0", "joint1", "joint2", "joint3", "joint4", "joint5"], None),
    ],
)
def test_what_an_action_is_is_told_where_all_names_say_it(tmp_path: Path, names: list[str], kind: str | None) -> None:
    info = tmp_path / "info.json"
    info.write_text(json.dumps({"features": {"action": {"names": names}}}))
    assert spec("act_state", dataset_info=str(info)).metadata.get("action_kind") == kind
    assert "action_kind" not in spec("act_state").metadata


def test_an_adapter_of_another_model_is_refused(tmp_path: Path) -> None:
    target = copied("act_state", tmp_path)
    (target / "adapter_config.json").write_text("{}")
    with pytest.raises(ConfigError, match="the weights are an adapter of another model's"):
        read_folder(str(target))


def test_a_small_network_takes_one_thread_unless_told() -> None:
    assert (plan("act_state")[0].threads, plan("act_state", threads=3)[0].threads) == (1, 3)
    assert plan("act_two_cameras")[0].threads is None
