"""A zip's policy answers what Stable-Baselines3 predicts with it: alone, in a batch, and side by side with another."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserve import Client, load_policy
from policyserve.core.errors import BadObservation, ConfigError, RemoteError
from policyserve.core.policy import ActionChunk, Policy, PolicyInput
from policyserve.policies.sb3.policy import load_sb3
from tests.policies.golden_episodes import founding_actions
from tests.policies.sb3.cases import CARTPOLE, MADE, NAMES, as_input, golden_of, path_of
from tests.server.live import serving

TOLERANCE = 1e-5  # of single precision; the issue asks for 1e-4


def answers(policy: Policy, inputs: list[PolicyInput]) -> list[ActionChunk]:
    found = policy.infer(inputs)
    assert all(isinstance(one, ActionChunk) for one in found), found
    return [one for one in found if isinstance(one, ActionChunk)]


@pytest.mark.parametrize("name", NAMES)
def test_each_session_alone_gets_what_the_original_predicts(name: str) -> None:
    policy, golden = load_sb3(path_of(name)), golden_of(name)
    for number, session in enumerate(golden.sessions):
        state = None
        for step, observation in enumerate(session):
            state = None if number == 0 and step in golden.begins else state
            (chunk,) = answers(policy, [as_input(policy, observation, state)])
            actions = policy.spec.check_actions(chunk.actions)
            np.testing.assert_allclose(actions, golden.actions[number, step], atol=TOLERANCE)
            state = chunk.state
    policy.close()


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_of_sessions_gets_what_each_gets_alone(name: str) -> None:
    policy, golden = load_sb3(path_of(name)), golden_of(name)
    states: list[Any] = [None] * len(golden.sessions)
    for step in range(len(golden.sessions[0])):
        if step in golden.begins:
            states[0] = None
        inputs = [
            as_input(policy, session[step], state) for session, state in zip(golden.sessions, states, strict=True)
        ]
        chunks = answers(policy, inputs)
        np.testing.assert_allclose(
            np.stack([chunk.actions for chunk in chunks]), golden.actions[:, step], atol=TOLERANCE
        )
        states = [chunk.state for chunk in chunks]


def test_a_state_is_the_sessions_own_and_nobody_writes_into_it() -> None:
    policy, golden = load_sb3(path_of("recurrent_dict")), golden_of("recurrent_dict")
    (first,) = answers(policy, [as_input(policy, golden.sessions[0][0])])
    kept = [part.copy() for part in first.state]
    with pytest.raises(ValueError, match="read-only"):
        first.state[0][:] = 1
    answers(policy, [as_input(policy, golden.sessions[0][1], first.state)])
    np.testing.assert_array_equal(first.state, kept)


@pytest.mark.parametrize("name", ["ppo_box", "recurrent_ppo"])
def test_clients_of_vibe_rl_side_by_side_get_what_the_original_predicts_with_each(name: str) -> None:
    """Another vanishes in mid-episode; the first of the two begins anew where the original did."""
    golden = golden_of(name)
    with serving(load_sb3(path_of(name))) as server:
        with Client(server.url("/vibe_rl"), dialect="vibe_rl") as gone:
            gone.infer(golden.sessions[0][0])
        with (
            Client(server.url("/vibe_rl"), dialect="vibe_rl") as first,
            Client(server.url("/vibe_rl"), dialect="vibe_rl") as second,
        ):
            for step in range(len(golden.sessions[0])):
                if step in golden.begins:
                    first.reset()
                for number, client in enumerate((first, second)):
                    reply = client.infer(golden.sessions[number][step])
                    np.testing.assert_allclose(reply.actions, golden.actions[number, step], atol=TOLERANCE)


@pytest.mark.parametrize("name", ["ppo_box", "ppo_vecnormalize", "dqn_discrete", "ppo_cnn", "sac_box"])
def test_the_founding_client_unmodified_gets_what_the_original_predicts(name: str, tmp_path: Path) -> None:
    golden = golden_of(name)
    rows = np.stack([session[0]["obs"] for session in golden.sessions])
    with serving(load_sb3(path_of(name))) as server:
        found = founding_actions(server.port, rows, tmp_path)
    np.testing.assert_allclose(found, golden.actions[:, 0], atol=TOLERANCE)


def test_a_client_of_openpi_sends_a_dict_of_pictures_and_numbers() -> None:
    golden = golden_of("ppo_robot")
    with serving(load_sb3(path_of("ppo_robot"))) as server, Client(server.url("/openpi"), dialect="openpi") as client:
        for session, actions in zip(golden.sessions, golden.actions, strict=True):
            np.testing.assert_allclose(client.infer(session[0]).actions, actions[0], atol=TOLERANCE)


@pytest.mark.parametrize("name", ["ppo_cnn", "ppo_robot"])
def test_a_picture_may_have_its_channels_first_or_last(name: str) -> None:
    policy, golden = load_sb3(path_of(name)), golden_of(name)
    turned = [
        {key: np.moveaxis(value, 0, -1) if np.ndim(value) == 3 else value for key, value in session[0].items()}
        for session in golden.sessions
    ]
    mixed = [as_input(policy, golden.sessions[0][0]), *(as_input(policy, one) for one in turned)]
    chunks = answers(policy, mixed)
    np.testing.assert_allclose(chunks[0].actions, chunks[1].actions, atol=TOLERANCE)
    np.testing.assert_allclose(np.stack([one.actions for one in chunks[1:]]), golden.actions[:, 0], atol=TOLERANCE)


@pytest.mark.parametrize(
    ("name", "key", "wrong"),
    [("a2c_choices", "obs", 7), ("trpo_counts", "obs", [0, 5, 0]), ("recurrent_dict", "mode", -1)],
)
def test_a_choice_that_does_not_exist_fails_its_own_row_alone(name: str, key: str, wrong: Any) -> None:
    policy, golden = load_sb3(path_of(name)), golden_of(name)
    good = as_input(policy, golden.sessions[0][0])
    bad = as_input(policy, {**golden.sessions[0][0], key: np.array(wrong)})
    before, refused, after = policy.infer([good, bad, good])
    assert isinstance(refused, BadObservation)
    assert str(refused).startswith(f"{key}: expected whole numbers from 0 to ")
    for chunk in (before, after):
        assert isinstance(chunk, ActionChunk)
        np.testing.assert_allclose(chunk.actions, golden.actions[0, 0], atol=TOLERANCE)
    assert isinstance(policy.infer([bad])[0], BadObservation)


def test_a_client_that_sends_a_wrong_choice_is_told_and_another_is_answered() -> None:
    golden = golden_of("a2c_choices")
    with serving(load_sb3(path_of("a2c_choices"))) as server:
        url = server.url("/openpi")
        with Client(url, dialect="openpi") as client, pytest.raises(RemoteError, match="whole numbers from 0 to 6"):
            client.infer({"obs": np.array(9)})
        client = Client(url, dialect="openpi")
        np.testing.assert_array_equal(client.infer(golden.sessions[0][0]).actions, golden.actions[0, 0])
        client.close()


def test_a_clients_own_batch_is_answered_row_by_row() -> None:
    policy, golden = load_sb3(path_of("ppo_box")), golden_of("ppo_box")
    rows = np.stack([session[0]["obs"] for session in golden.sessions])
    found = policy.spec.validate({"obs": rows})
    (chunk,) = answers(policy, [PolicyInput(found.observation, found.batch_size)])
    np.testing.assert_allclose(chunk.actions, golden.actions[:, 0], atol=TOLERANCE)


def test_a_policy_with_memory_takes_no_batches_of_a_client() -> None:
    assert load_sb3(path_of("recurrent_dict")).spec.max_client_batch == 0


def test_an_observation_that_overflows_is_answered_as_a_number_overflows() -> None:
    policy = load_sb3(path_of("ppo_box"))
    (chunk,) = answers(policy, [as_input(policy, {"obs": np.full(7, 3e38, np.float32)})])
    low, high = np.array([-2.5, -0.1, 0.0], np.float32), np.array([1.5, 0.1, 3.25], np.float32)
    assert np.isnan(chunk.actions).any() or ((chunk.actions >= low) & (chunk.actions <= high)).all()


def test_the_spec_says_what_the_spaces_are() -> None:
    spec = load_sb3(path_of("ppo_robot")).spec
    told = {key: str(leaf) for key, leaf in spec.leaves.items()}
    assert told == {
        "camera": "uint8 image CHW|HWC, 36 x 36",
        "joints": "float32 (4,)",
        "mode": "int64 ()",
        "pads": "int8 (2,)",
    }
    assert (str(spec.action), spec.action and spec.action.doc) == ("float32 (3,)", "-2 … (1.5, 0.1, 3.25)")
    assert spec.metadata == {"algorithm": "PPO", "stable_baselines3": "2.9.2", "normalised_by": "vecnormalize.pkl"}
    assert spec.horizon is None


@pytest.mark.parametrize(
    ("name", "algorithm"),
    [
        ("dqn_discrete", "DQN"), ("ppo_box", "PPO"), ("recurrent_ppo", "RecurrentPPO"), ("sac_box", "SAC"),
        ("td3_box", "TD3"), ("a2c_choices", "A2C"), ("trpo_counts", "TRPO"), ("tqc_sde", "TQC"),
        ("ddpg_leaky", "DDPG"), ("qrdqn", "QRDQN"),
    ],
)  # fmt: skip
def test_the_algorithm_is_told_by_its_settings(name: str, algorithm: str) -> None:
    assert load_sb3(path_of(name)).spec.metadata["algorithm"] == algorithm


def test_keys_are_renamed_for_clients_and_stay_known_by_their_own_names() -> None:
    policy, golden = load_sb3(path_of("ppo_robot"), renames={"observation/image": "camera"}), golden_of("ppo_robot")
    observation = golden.sessions[0][0]
    renamed = {"observation": {"image": observation["camera"]}, **observation}
    renamed.pop("camera")
    for sent in (renamed, observation):
        (chunk,) = answers(policy, [as_input(policy, sent)])
        np.testing.assert_allclose(chunk.actions, golden.actions[0, 0], atol=TOLERANCE)


def test_a_zip_is_found_without_its_ending_as_the_original_does() -> None:
    assert load_sb3(CARTPOLE / "model").spec.name == "PPO model"


def test_it_is_said_which_statistics_are_used(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    load_sb3(MADE / "ppo_robot" / "model.zip")
    assert "model.zip: observations are normalised by" in caplog.text
    assert "vecnormalize.pkl" in caplog.text


def test_without_statistics_the_spec_says_that_observations_are_raw() -> None:
    (leaf,) = load_sb3(path_of("ppo_vecnormalize"), vecnormalize="none").spec.leaves.values()
    assert leaf.doc == "raw: no VecNormalize file was found, or none was wanted"
    (leaf,) = load_sb3(path_of("ppo_vecnormalize")).spec.leaves.values()
    assert leaf.doc == ""


def test_load_policy_takes_a_zip_with_its_flags_and_without_its_scheme() -> None:
    policy = load_policy(f"sb3:{path_of('ppo_robot')}", max_batch=3, vecnormalize="none")
    assert (policy.spec.max_batch, policy.spec.metadata["normalised_by"]) == (3, "")
    assert load_policy(str(path_of("ppo_robot"))).spec.name == "PPO model"
    with pytest.raises(ConfigError, match="did you mean vecnormalize"):
        load_policy(f"sb3:{path_of('ppo_robot')}", vec_normalize="none")


def test_nothing_of_the_original_is_imported() -> None:
    program = (
        "import sys; from policyserve import load_policy; "
        f"load_policy('sb3:{CARTPOLE / 'model.zip'}'); "
        "print({name.split('.')[0] for name in sys.modules} & "
        "{'torch', 'gymnasium', 'gym', 'stable_baselines3', 'pickle5', 'cloudpickle', 'jax'})"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_quick_networks_run_in_the_event_loop_and_pictures_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    for is_quick in (True, False):
        monkeypatch.setattr("policyserve.policies.sb3.policy.is_quick", lambda _policy, quick=is_quick: quick)
        assert load_sb3(path_of("ppo_linear")).spec.inline is is_quick


def test_a_missing_file_a_folder_and_an_lfs_pointer_are_told(tmp_path: Path) -> None:
    pointer = tmp_path / "pointer.zip"
    pointer.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    for path, told in ((tmp_path / "no.zip", "no such file"), (tmp_path, "a folder"), (pointer, "git lfs pull")):
        with pytest.raises(ConfigError, match=told):
            load_sb3(path)
