"""Which statistics belong to a zip, what they do to observations, and what is refused of them."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policyserve.core.errors import ConfigError
from policyserve.policies.sb3.archive import read_archive
from policyserve.policies.sb3.policy import load_sb3
from policyserve.policies.sb3.spaces import Box
from policyserve.policies.sb3.vecnormalize import find_statistics, read_statistics
from tests.policies.sb3.cases import MADE, MARK, pickle_with_code

ROBOT = MADE / "ppo_robot"
CONTENT = (ROBOT / "vecnormalize.pkl").read_bytes()
SPACE = read_archive(ROBOT / "model.zip").observation


def refusal(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_statistics(path, SPACE)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("archive", "beside", "found"),
    [
        ("model.zip", ["vecnormalize.pkl"], "vecnormalize.pkl"),
        ("model.zip", ["vec_normalize.pkl"], "vec_normalize.pkl"),
        ("model.zip", ["vec_normalize.pkl", "vecnormalize.pkl"], "vecnormalize.pkl"),
        ("rl_500_steps.zip", ["vecnormalize.pkl", "rl_vecnormalize_500_steps.pkl"], "rl_vecnormalize_500_steps.pkl"),
        ("rl_900_steps.zip", ["rl_vecnormalize_500_steps.pkl"], None),
        ("model.zip", ["other.pkl"], None),
    ],
)
def test_the_file_beside_a_zip_is_found_by_its_name(
    archive: str, beside: list[str], found: str | None, tmp_path: Path
) -> None:
    for name in beside:
        (tmp_path / name).touch()
    place = find_statistics(tmp_path / archive, None)
    assert place == (tmp_path / found if found else None)
    assert find_statistics(tmp_path / archive, "none") is None


def test_a_file_that_was_named_goes_before_and_has_to_be_there(tmp_path: Path) -> None:
    (tmp_path / "vecnormalize.pkl").touch()
    (tmp_path / "mine.pkl").touch()
    assert find_statistics(tmp_path / "m.zip", str(tmp_path / "mine.pkl")) == tmp_path / "mine.pkl"
    with pytest.raises(ConfigError, match=r"vecnormalize: expected a VecNormalize file, or none, got .*no\.pkl"):
        find_statistics(tmp_path / "m.zip", str(tmp_path / "no.pkl"))


def test_observations_become_bounded_scores_of_their_own_statistics() -> None:
    (scores,) = read_statistics(ROBOT / "vecnormalize.pkl", SPACE).values()
    far = scores(np.full((1, 4), 1e6, np.float32))
    np.testing.assert_array_equal(far, np.full((1, 4), 2.0, np.float32))  # clip_obs
    assert far.dtype == np.float32


def test_a_program_is_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "got 'posix.mkdir', which is not built here" in refusal(tmp_path / "v.pkl", pickle_with_code())
    assert not (tmp_path / MARK).exists()


def test_what_is_no_vecnormalize_is_told(tmp_path: Path) -> None:
    assert "expected a pickled VecNormalize, got list; --vecnormalize none" in refusal(
        tmp_path / "v.pkl", pickle.dumps([])
    )


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (b"obs_rms", b"obs_xxx", "obs_rms: expected a map, got None"),
        (b"\x8c\x08norm_obs\x94\x88", b"\x8c\x08norm_obs\x94K", "expected a pickle of known parts"),
        (b"\x8c\x08norm_obs\x94", b"\x8c\x08norm_xxx\x94", "norm_obs: expected true or false, got None"),
        (b"epsilon", b"epsilom", "epsilon: expected numbers, got None"),
        (b"\x8c\x03var\x94", b"\x8c\x03vat\x94", "joints: var: expected numbers, got None"),
    ],
)
def test_what_is_missing_is_named(old: bytes, new: bytes, told: str, tmp_path: Path) -> None:
    assert CONTENT.count(old) >= 1
    assert told in refusal(tmp_path / "v.pkl", CONTENT.replace(old, new))


def test_statistics_of_another_space_say_how_to_do_without_them() -> None:
    other = Box((3,), np.dtype(np.float32), np.zeros(3), np.ones(3))
    with pytest.raises(ConfigError, match="expected a RunningMeanStd, got dict; --vecnormalize none"):
        read_statistics(ROBOT / "vecnormalize.pkl", other)


def test_rewards_alone_leave_observations_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "v.pkl"
    path.write_bytes(CONTENT.replace(b"\x8c\x08norm_obs\x94\x88", b"\x8c\x08norm_obs\x94\x89"))
    assert read_statistics(path, SPACE) == {}
    policy = load_sb3(ROBOT / "model.zip", vecnormalize=str(path))
    assert policy.spec.metadata["normalised_by"] == ""


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(CONTENT) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_bytes_changed_anywhere_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]]
) -> None:
    content = bytearray(CONTENT)
    for place, value in changes:
        content[place] = value
    path = tmp_path_factory.getbasetemp() / "mutated.pkl"
    path.write_bytes(content)
    try:
        found = read_statistics(path, SPACE)
    except ConfigError:
        return
    assert set(found) <= {"camera", "joints", "mode", "pads"}
