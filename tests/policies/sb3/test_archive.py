"""A zip that is damaged, changed or made to do harm is refused in one line, and runs nothing."""

from __future__ import annotations

import base64
import json
import tracemalloc
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policyserve.core.errors import ConfigError
from policyserve.policies.sb3.archive import algorithm_of, read_archive
from policyserve.policies.sb3.policy import load_sb3
from tests.policies.sb3.cases import CARTPOLE, MADE, MARK, changed, changed_pickle, path_of, pickle_with_code
from tests.shared import shared_path

SMALL = MADE / "ppo_linear" / "model.zip"
CONTENT = SMALL.read_bytes()
DATA = json.loads(zipfile.ZipFile(SMALL).read("data"))
WITH_CODE = {":serialized:": base64.b64encode(pickle_with_code()).decode(), ":type:": "<class 'x'>"}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def with_data(**values: Any) -> Callable[[bytes], bytes]:
    """What changes a zip's data."""
    return lambda content: json.dumps({**json.loads(content), **values}).encode()


def refused(path: Path, told: str) -> str:
    """The one line that a zip is refused with."""
    with pytest.raises(ConfigError) as caught:
        load_sb3(path)
    line = str(caught.value)
    assert told in line
    assert "\n" not in line
    return line


@pytest.mark.parametrize("key", ["observation_space", "action_space"])
def test_a_space_that_is_a_program_is_refused_and_not_run(
    key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = changed(SMALL, tmp_path / "m.zip", data=with_data(**{key: WITH_CODE}))
    line = refused(path, f"m.zip: {key}: expected a pickle of known parts, got 'posix.mkdir', which is not built here")
    assert line.startswith(str(path))
    assert not (tmp_path / MARK).exists()


def test_a_program_where_nothing_is_read_stays_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    policy_class = {**WITH_CODE, "__module__": "stable_baselines3.common.policies"}
    change = with_data(policy_class=policy_class, lr_schedule=WITH_CODE, clip_range=WITH_CODE)
    load_sb3(changed(SMALL, tmp_path / "m.zip", data=change))
    assert not (tmp_path / MARK).exists()


def test_weights_that_are_a_program_are_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    change = changed_pickle(lambda _: pickle_with_code(2))
    refused(changed(SMALL, tmp_path / "m.zip", policy__pth=change), "policy.pth: data.pkl: expected a pickle of known")
    assert not (tmp_path / MARK).exists()


@pytest.mark.parametrize("kind", ["onnx", "torch"])
def test_files_of_other_kinds_are_refused_and_not_run(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for path in sorted(shared_path("any_policy", kind, "refuse").iterdir()):
        refused(path, str(path))
    assert not (tmp_path / MARK).exists()


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"policy_class": {"__module__": "my.policies"}}, "got a policy of my.policies: export it to ONNX"),
        ({"policy_class": {"__module__": "sb3_contrib.common.maskable.policies"}}, "got MaskablePPO"),
        ({"policy_class": {"__module__": "sb3_contrib.ars.policies"}}, "got ARS"),
        ({"policy_class": 3}, "policy_class: expected a class and its __module__, got int"),
        ({"policy_kwargs": 3}, "policy_kwargs: expected a map, got int"),
        ({"policy_kwargs": {"new_thing": 1}}, "policy_kwargs: new_thing: expected settings that are known here"),
        (
            {"policy_kwargs": {"activation_fn": "<class 'torch.nn.modules.activation.Softplus'>"}},
            "activation_fn: expected one of ReLU, Tanh, ELU, LeakyReLU, GELU, SiLU, got",
        ),
        ({"policy_kwargs": {"activation_fn": "<class '__main__.Tanh'>"}}, "got \"<class '__main__.Tanh'>\""),
        (
            {"policy_kwargs": {"features_extractor_class": "<class '__main__.NatureCNN'>"}},
            "features_extractor_class: expected one of FlattenExtractor, NatureCNN, CombinedExtractor, got",
        ),
        ({"observation_space": None}, "observation_space: expected a space with its pickle in ':serialized:'"),
        ({"observation_space": {":serialized:": "=?"}}, "observation_space: expected base64"),
        ({"observation_space": DATA["action_space"]}, "action_net.weight: expected the shape (any, 3), got (3, 5)"),
        ({"action_space": DATA["observation_space"]}, "action_net: expected 5 outputs for MultiBinary(5,), got 3"),
    ],
)
def test_what_is_not_served_is_said(values: dict[str, Any], told: str, tmp_path: Path) -> None:
    refused(changed(SMALL, tmp_path / "m.zip", data=with_data(**values)), told)


@pytest.mark.parametrize("content", [b"", b"[]", b"nonsense", b"[" * 100_000, b'{"n": ' + b"9" * 10_000 + b"}"])
def test_data_that_is_no_json_map_is_refused(content: bytes, tmp_path: Path) -> None:
    refused(changed(SMALL, tmp_path / "m.zip", data=lambda _: content), "m.zip: ")


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (b"action_net.weight", b"action_xxx.weight", "expected action_net.weight in policy.pth, got"),
        (b"log_std", b"own_std", "got own_std: a network of your own: export it to ONNX"),
        (b"FloatStorage", b"WhatsStorage", "got 'torch.WhatsStorage', which is not built here"),
        (b"_rebuild_tensor_v2", b"_rebuild_tensor_v9", "got 'torch._utils._rebuild_tensor_v9'"),
    ],
)
def test_weights_that_do_not_fit_are_named(old: bytes, new: bytes, told: str, tmp_path: Path) -> None:
    change = changed_pickle(lambda content: content.replace(old, new))
    refused(changed(SMALL, tmp_path / "m.zip", policy__pth=change), told)


@pytest.mark.parametrize(
    ("name", "old", "new", "told"),
    [
        ("ppo_cnn", b"pi_features_extractor.cnn.2.", b"pi_features_extractor.cnn.9.", "expected pi_features_extractor"),
        ("ppo_box", b"mlp_extractor.policy_net.2.", b"mlp_extractor.policy_net.3.", "expected layers at 0, 2, 4"),
        ("recurrent_ppo", b"lstm_actor.weight_hh_l0", b"lstm_actor.weight_hr_l0", "expected lstm_actor.weight_hh_l0"),
        ("sac_box", b"actor.latent_pi.0.", b"actor.latent_xx.0.", "latent_pi.2.: expected layers at 0, 2, 4"),
    ],
)
def test_a_network_of_another_shape_is_refused(name: str, old: bytes, new: bytes, told: str, tmp_path: Path) -> None:
    change = changed_pickle(lambda content: content.replace(old, new))
    line = refused(changed(path_of(name), tmp_path / "m.zip", policy__pth=change), "m.zip: ")
    assert told.split(":")[-1] in line


def test_a_zip_without_its_parts_says_what_it_has(tmp_path: Path) -> None:
    path = tmp_path / "m.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("weights.bin", b"1")
    refused(path, "expected a zip of Stable-Baselines3 with data and policy.pth in it, got weights.bin")


def test_an_entry_that_grows_without_end_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "m.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data", b" " * 200_000_000)
        archive.writestr("policy.pth", b"")
    size = path.stat().st_size
    tracemalloc.start()
    refused(path, "data: expected entries that grow to 64 times the archive's")
    assert tracemalloc.get_traced_memory()[1] < 8 * size + 1_000_000
    tracemalloc.stop()


def test_a_zip_cut_short_anywhere_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.zip"
    for end in range(0, len(CONTENT), 997):
        path.write_bytes(CONTENT[:end])
        refused(path, str(path))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_bytes_changed_anywhere_give_a_policy_or_a_config_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = bytearray(CONTENT)
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "mutated.zip"
    path.write_bytes(content)
    with suppress(ConfigError):
        load_sb3(path)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_pickle_changed_anywhere_gives_a_policy_or_a_config_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """The checksum of a zip finds most changes; these are made below it."""

    def mutated(content: bytes) -> bytes:
        mutable = bytearray(content)
        for _ in range(data.draw(st.integers(1, 3))):
            mutable[data.draw(st.integers(0, len(mutable) - 1))] = data.draw(st.integers(0, 255))
        return bytes(mutable)

    def mutated_space(content: bytes) -> bytes:
        values = json.loads(content)
        space = values[data.draw(st.sampled_from(["observation_space", "action_space"]))]
        space[":serialized:"] = base64.b64encode(mutated(base64.b64decode(space[":serialized:"]))).decode()
        return json.dumps(values).encode()

    base = tmp_path_factory.getbasetemp()
    with suppress(ConfigError):
        load_sb3(changed(SMALL, base / "weights.zip", policy__pth=changed_pickle(mutated)))
    with suppress(ConfigError):
        load_sb3(changed(SMALL, base / "space.zip", data=mutated_space))


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["policy_class", "policy_kwargs", "observation_space", "action_space", "policy_delay"]), JSON)
def test_json_of_another_kind_gives_a_policy_or_a_config_error(
    tmp_path_factory: pytest.TempPathFactory, key: str, value: Any
) -> None:
    path = changed(SMALL, tmp_path_factory.getbasetemp() / "json.zip", data=with_data(**{key: value}))
    with suppress(ConfigError):
        load_sb3(path)


def test_reading_a_zip_takes_memory_by_its_size() -> None:
    size = path_of("ppo_cnn").stat().st_size
    tracemalloc.start()
    read_archive(path_of("ppo_cnn"))
    assert tracemalloc.get_traced_memory()[1] < 6 * size
    tracemalloc.stop()


def test_the_policy_learned_by_the_script_is_small() -> None:
    assert (CARTPOLE / "model.zip").stat().st_size < 200_000


def test_settings_of_no_known_algorithm_tell_none() -> None:
    assert algorithm_of({}) == ""
