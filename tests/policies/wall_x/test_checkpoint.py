"""Weights from files to their places."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.policies.frameworks import import_or_skip
from tests.policies.wall_x.cases import golden_case, golden_input
from tests.shared import shared_path

torch = import_or_skip("torch")
safetensors_torch = import_or_skip("safetensors.torch")

from policyserve.core.errors import ConfigError  # noqa: E402
from policyserve.policies.wall_x.architecture import (  # noqa: E402
    Architecture,
    Expert,
    VisionArchitecture,
    read_architecture,
)
from policyserve.policies.wall_x.checkpoint import expected_shape  # noqa: E402
from policyserve.policies.wall_x.model import load_model  # noqa: E402
from policyserve.policies.wall_x.names import places  # noqa: E402
from policyserve.policies.wall_x.network import Network  # noqa: E402
from tests.policies.wall_x.loaded import largest, loaded, tiny_input, write_tiny  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_torch_thread")

REAL = Architecture(
    hidden=2048,
    layers=36,
    heads=16,
    kv_heads=2,
    norm_epsilon=1e-6,
    rope_theta=1e6,
    rope_sections=(16, 24, 24),
    experts=(Expert(2048, 11008), Expert(2048, 2048)),
    has_attention_experts=False,
    has_norm_experts=False,
    is_action_attention_causal=False,
    action_dim=20,
    state_dim=20,
    action_hidden=2048,
    state_hidden=2048,
    eos_id=151645,
    image_id=151655,
    state_id=151665,
    action_id=151666,
    vision=VisionArchitecture(32, 1280, 3420, 16, (3, 2, 14, 14), 2, 4, (7, 15, 23, 31), 2048),
)
MOT = replace(
    REAL,
    experts=(Expert(2048, 11008), Expert(1024, 2048)),
    has_attention_experts=True,
    has_norm_experts=True,
    action_hidden=1024,
)


def write_tensors(directory: Path, change: Any, file: str = "model-00000.safetensors") -> None:
    """Rewrite a checkpoint's file with its dictionary of tensors changed."""
    tensors = safetensors_torch.load_file(directory / file)
    change(tensors)
    safetensors_torch.save_file(tensors, directory / file)


@pytest.mark.parametrize(("architecture", "keys"), [(REAL, "KEYS_flow_moe.txt"), (MOT, "KEYS_flow_mot_example.txt")])
def test_the_released_models_have_exactly_the_tensors_that_are_looked_for(
    architecture: Architecture, keys: str
) -> None:
    listed: dict[str, list[int]] = {}
    for line in shared_path("wall_x", keys).read_text().splitlines():
        match = re.match(r"(\S+)\s+(\[.*?\])(?:\s+x(\d+))?", line)
        if match and not line.startswith("#"):
            for index in range(int(match[3] or 1)):
                listed[match[1].replace("{i}", str(index))] = json.loads(match[2])
    parameters = dict(Network(architecture, 151667, has_own_head=True).named_parameters())
    found = places(architecture, has_own_head=True)
    ours = {name: list(expected_shape(place, parameters[place.parameter])) for name, place in found.items()}
    assert ours == listed


def test_several_files_are_one_checkpoint() -> None:
    case = golden_case("flow_libero_basic")
    single = loaded(case.directory)
    sharded = load_model(case.directory.with_name("checkpoint_flow_libero_sharded"))
    for ours, theirs in zip(single.network.parameters(), sharded.network.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_train_config_must_fit_the_weights() -> None:
    directory = shared_path("wall_x", "golden", "checkpoint_flow_libero")
    with pytest.raises(ConfigError, match=r"action_preprocessor.w1.weight: expected \(128, 28\), got \(128, 14\)"):
        load_model(directory, train_config={"dof_config": {"all": 14}})


def test_newer_exports_names_are_understood(tmp_path: Path) -> None:
    write_tiny(tmp_path / "old")
    write_tiny(tmp_path / "new")

    def rename(tensors: dict[str, Any]) -> None:
        for name in list(tensors):
            if name.startswith("model."):
                tensors["model.language_model." + name.removeprefix("model.")] = tensors.pop(name)
            if name.startswith("visual."):
                tensors["model." + name] = tensors.pop(name)

    write_tensors(tmp_path / "new", rename)
    old, new = load_model(tmp_path / "old"), load_model(tmp_path / "new")
    for ours, theirs in zip(old.network.parameters(), new.network.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_norms_and_the_action_head_stay_float32(dtype: Any) -> None:
    directory = shared_path("wall_x", "golden", "checkpoint_flow_mot")
    network = load_model(directory, dtype=dtype).network
    for name, parameter in network.named_parameters():
        is_exact = "action_head" in name or ("decoder" in name and "norm" in name)
        assert parameter.dtype == (torch.float32 if is_exact else getattr(torch, dtype)), name


def test_an_own_head_is_used_where_the_file_has_one(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    tied = load_model(tmp_path)

    def add_head(tensors: dict[str, Any]) -> None:
        tensors["lm_head.weight"] = -tensors["model.embed_tokens.weight"]

    write_tensors(tmp_path, add_head)
    own = load_model(tmp_path)
    hidden = torch.ones(1, 64)
    assert torch.equal(own.network.decoder.logits(hidden), -tied.network.decoder.logits(hidden))


def test_missing_and_misshaped_tensors_are_named_in_one_error(tmp_path: Path) -> None:
    write_tiny(tmp_path)

    def spoil(tensors: dict[str, Any]) -> None:
        del tensors["model.layers.1.self_attn.k_proj.bias"]
        tensors["action_preprocessor.w3.weight"] = torch.zeros(64, 63)

    write_tensors(tmp_path, spoil)
    with pytest.raises(ConfigError) as caught:
        load_model(tmp_path)
    assert "2 of" in str(caught.value)
    assert "model.layers.1.self_attn.k_proj.bias: expected (32,), missing" in str(caught.value)
    assert "action_preprocessor.w3.weight: expected (64, 64), got (64, 63)" in str(caught.value)


def test_many_missing_tensors_are_counted(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    write_tensors(tmp_path, lambda tensors: [tensors.pop(name) for name in list(tensors) if "visual" in name])
    with pytest.raises(ConfigError, match=r"; and \d+ more$"):
        load_model(tmp_path)


def test_surplus_tensors_are_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_tiny(tmp_path)

    def add(tensors: dict[str, Any]) -> None:
        tensors["action_preprocessor.normalizer_action.min.libero"] = torch.zeros(7)
        tensors["model.layers.9.extra"] = torch.zeros(1)
        tensors["another"] = torch.zeros(1)

    write_tensors(tmp_path, add)
    with caplog.at_level(logging.WARNING):
        load_model(tmp_path)
    assert [record.getMessage().split(": ", 1)[1] for record in caplog.records] == [
        "2 tensors are not used: another, model.layers.9.extra"
    ]


def renamed(change: Any) -> Any:
    """A change of a checkpoint's tensors that gives each another name."""

    def rename(tensors: dict[str, Any]) -> None:
        for name in list(tensors):
            tensors[change(name)] = tensors.pop(name)

    return rename


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.module.", "model.", "policy.net."])
def test_a_prefix_before_all_names_is_taken_off_with_one_warning(
    prefix: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_tiny(tmp_path)
    plain = load_model(tmp_path)
    write_tensors(tmp_path, renamed(lambda name: prefix + name))
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="policyserve"):
        wrapped = load_model(tmp_path)
    for ours, theirs in zip(plain.network.parameters(), wrapped.network.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path}: the tensors' names begin with {prefix!r}, which is taken off"
    ]


def test_a_prefix_before_the_names_of_newer_exports_is_taken_off(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    plain = load_model(tmp_path)

    def newer(name: str) -> str:
        name = re.sub("^model[.]", "model.language_model.", name)
        return "module." + re.sub("^visual[.]", "model.visual.", name)

    write_tensors(tmp_path, renamed(newer))
    for ours, theirs in zip(plain.network.parameters(), load_model(tmp_path).network.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("wrapper", ["_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"])
def test_names_of_wrappers_within_the_network_are_passed_over(wrapper: str, tmp_path: Path) -> None:
    write_tiny(tmp_path)
    plain = load_model(tmp_path)
    write_tensors(tmp_path, renamed(lambda name: re.sub(r"layers\.(\d+)", rf"layers.\1.{wrapper}", name)))
    for ours, theirs in zip(plain.network.parameters(), load_model(tmp_path).network.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_the_networks_own_names_come_before_prefixed_ones(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_tiny(tmp_path)
    plain = load_model(tmp_path)
    write_tensors(
        tmp_path, lambda tensors: tensors.update({f"ema.{name}": -tensor for name, tensor in [*tensors.items()]})
    )
    for ours, theirs in zip(plain.network.parameters(), load_model(tmp_path).network.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert "tensors are not used: ema." in caplog.text


def test_two_prefixes_are_refused_because_either_may_be_meant(tmp_path: Path) -> None:
    write_tiny(tmp_path)

    def double(tensors: dict[str, Any]) -> None:
        for name in list(tensors):
            tensors["student." + name] = tensors.pop(name)
            tensors["teacher." + name] = -tensors["student." + name]

    write_tensors(tmp_path, double)
    with pytest.raises(ConfigError, match=r"expected one network, got several: student\., teacher\.; keep"):
        load_model(tmp_path)


def test_names_that_fit_nowhere_are_shown_beside_those_that_are_missing(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    write_tensors(tmp_path, renamed(lambda name: name.replace("embed_tokens", "wte").replace("visual", "tower")))
    with pytest.raises(ConfigError) as caught:
        load_model(tmp_path)
    missing, there = str(caught.value).split("; not expected, but there: ")
    assert "model.embed_tokens.weight: expected (1, 64), missing" in missing
    assert there.startswith("model.wte.weight, tower.")
    assert re.search(r", and \d+ more$", there)


@pytest.mark.parametrize("stored", ["float64", "float16", "bfloat16"])
def test_weights_of_another_width_are_cast_and_the_log_says_so_once(
    stored: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_tiny(tmp_path)
    plain = load_model(tmp_path)

    def cast(tensors: dict[str, Any]) -> None:
        tensors.update({name: tensor.to(getattr(torch, stored)) for name, tensor in tensors.items()})

    write_tensors(tmp_path, cast)
    caplog.clear()
    with caplog.at_level(logging.INFO):
        loaded = load_model(tmp_path)
    for ours, theirs in zip(plain.network.parameters(), loaded.network.parameters(), strict=True):
        assert theirs.dtype == torch.float32
        torch.testing.assert_close(theirs, ours, rtol=1e-2, atol=1e-3)
    told = f"weights of another precision: {stored} read as float32"
    assert [record.getMessage().split(": ", 1)[1] for record in caplog.records] == [told]


def test_a_weight_too_large_for_float16_is_refused(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    write_tensors(tmp_path, lambda tensors: tensors["model.embed_tokens.weight"][3].fill_(70_000.0))
    load_model(tmp_path, dtype="bfloat16")
    with pytest.raises(ConfigError, match=r"embed_tokens\.weight: expected finite numbers that float16 can"):
        load_model(tmp_path, dtype="float16")


@pytest.mark.parametrize("stored", ["int8", "float8_e4m3fn"])
def test_quantised_weights_are_refused_because_their_scales_would_be_ignored(stored: str, tmp_path: Path) -> None:
    write_tiny(tmp_path)

    def quantise(tensors: dict[str, Any]) -> None:
        tensors["model.embed_tokens.weight"] = tensors["model.embed_tokens.weight"].to(getattr(torch, stored))

    write_tensors(tmp_path, quantise)
    with pytest.raises(ConfigError, match=r"embed_tokens\.weight: expected F64, F32, F16, BF16, got (I8|F8_E4M3)$"):
        load_model(tmp_path)


def test_a_tensor_in_two_files_is_refused(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    safetensors_torch.save_file({"model.norm.weight": torch.ones(64)}, tmp_path / "old.safetensors")
    with pytest.raises(ConfigError, match=r"old\.safetensors: model\.norm\.weight is in model-00000\.safetensors too"):
        load_model(tmp_path)


@pytest.mark.parametrize("keep", [0, 4, 1000, -10])
def test_a_truncated_file_is_one_line(tmp_path: Path, keep: int) -> None:
    write_tiny(tmp_path)
    file = tmp_path / "model-00000.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ConfigError, match=r"model-00000\.safetensors: not a whole safetensors file") as caught:
        load_model(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_directory_without_weights_is_refused(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    (tmp_path / "model-00000.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"expected \*\.safetensors files, got none"):
        load_model(tmp_path)


def test_a_token_without_a_row_in_the_embedding_is_refused(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    (tmp_path / "added_tokens.json").write_text('{"<|propri|>": 3, "<|action|>": 300}')
    with pytest.raises(ConfigError, match=re.escape("expected a row for <|action|> = 300, got 300 rows")):
        load_model(tmp_path)


def test_loading_tells_its_progress(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    stages: list[str] = []
    load_model(tmp_path, on_stage=stages.append)
    assert stages[0] == "reading config.json"
    assert re.fullmatch(r"weights: 100 % of ([1-9]\d* kB|[1-9]\d*\.\d MB)", stages[-1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"device": "abacus"}, "device: expected cpu, cuda or cuda:N, got 'abacus'"),
        ({"device": "cuda:99"}, "device: cuda:99 is not there"),
        ({"dtype": "int8"}, "dtype: expected one of bfloat16, float16, float32, got 'int8'"),
    ],
)
def test_what_cannot_run_here_is_one_line(tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    write_tiny(tmp_path)
    with pytest.raises(ConfigError, match=re.escape(message)):
        load_model(tmp_path, **arguments)


def test_the_files_may_be_overwritten_after_loading(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    model = load_model(tmp_path)
    item = tiny_input(model, 6)
    before = model.flow([item], attention="causal")[0]
    (tmp_path / "model-00000.safetensors").write_bytes(b"\0" * 100)
    assert largest(model.flow([item], attention="causal")[0] - before) == 0


def test_a_causal_checkpoint_is_causal_under_upstreams_semantics() -> None:
    case = golden_case("flow_libero_normstate_steps5_h10")
    model = load_model(case.directory, train_config={"causal_action_attention_mask": True})
    assert model.architecture.is_action_attention_causal
    assert read_architecture(case.directory).is_action_attention_causal is False
    answer = model.flow([golden_input(case)], attention="upstream_sdpa", num_steps=5)[0]
    assert largest(answer - case["causal/action_norm"][0]) < 1e-4
    assert answer.dtype == np.float32
