"""Loading a checkpoint: what is missing or does not fit is one line that says so."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserve.core.errors import ConfigError, MissingDependency, PolicyFailed
from policyserve.core.policy import ActionChunk, PolicyInput
from policyserve.policies.wall_x import ModelConfig, Options, check_model, conventions_named, load_policy, loading
from policyserve.policies.wall_x.assembly import build_answering, build_processor, make_plan
from policyserve.policies.wall_x.policy import FastAnswering, FlowAnswering
from tests.policies.frameworks import import_or_skip
from tests.policies.wall_x.fake_cuda import set_gpus
from tests.policies.wall_x.golden import golden, model_config, observation, options, tensors

torch = import_or_skip("torch")
for package in ("tokenizers", "PIL.Image", "yaml", "safetensors.numpy"):
    import_or_skip(package)

from tests.policies.wall_x.test_policy import Model  # noqa: E402


def copy_of(checkpoint: str, tmp_path: Path) -> Path:
    """A checkpoint's files, to be broken."""
    target = tmp_path / checkpoint
    shutil.copytree(golden(checkpoint), target, copy_function=shutil.copyfile)
    target.chmod(0o755)
    return target


def of_copy(name: str, directory: Path, **changes: Any) -> ModelConfig:
    paths = {"model_path": str(directory), "train_config_path": str(directory / "config.yml")}
    return model_config(name, **{**paths, **changes})


@pytest.mark.parametrize("module", ["torch", "safetensors", "tokenizers", "PIL", "yaml"])
def test_a_missing_package_names_the_command_that_installs_it(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependency, match=r"is not installed; run: pip install 'policyserve\[wall-x\]'"):
        load_policy(model_config("flow_libero_basic"))


def test_cuda_where_there_is_none_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    set_gpus(monkeypatch, 0)
    for refuse in (load_policy, check_model):
        with pytest.raises(
            ConfigError, match="device: cuda is not there: torch finds no CUDA device here; choose"
        ) as told:
            refuse(model_config("flow_libero_basic", device="cuda"))
        assert "\n" not in str(told.value)


def with_model(monkeypatch: pytest.MonkeyPatch, model: Model, **changes: Any) -> Any:
    """A policy around this model on a GPU, as far as its loading can tell."""
    set_gpus(monkeypatch, 1)
    monkeypatch.setattr(loading, "_load_model", lambda plan, stage: model)
    return load_policy(
        model_config("flow_libero_basic", device="cuda"), options=options("flow_libero_basic", **changes)
    )


def test_a_gpu_is_warmed_in_all_sizes_before_clients_come(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model()
    policy = with_model(monkeypatch, model, max_batch=6)
    assert model.batches == [1, 2, 4, 6]
    assert model.is_serving
    assert list(policy.buckets) == []
    assert policy.spec.example()["front_view"].shape == (256, 256, 3)


def test_a_batch_that_does_not_fit_in_the_warm_up_makes_batches_smaller(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = Model(fails=lambda size: torch.OutOfMemoryError("CUDA out of memory") if size > 4 else None)
    policy = with_model(monkeypatch, model)
    assert policy.spec.max_batch == 4
    assert model.freed == 1
    assert "out of memory in the warm-up: batches of at most 4" in caplog.text
    with pytest.raises(ConfigError, match="max_batch: expected at most 4, which fit in the device's memory, got 8"):
        with_model(monkeypatch, model, max_batch=8)


def test_a_gpu_without_memory_for_one_observation_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model(fails=lambda size: torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(PolicyFailed, match="warm-up with zeros failed in a batch of 1: OutOfMemoryError: CUDA out of"):
        with_model(monkeypatch, model)


@pytest.mark.parametrize(
    ("warm_images", "told"),
    [
        ("480", "warm_images: expected height x width, such as 480x640, got '480'"),
        ("480x640,", "expected height x width"),
        ("0x640", "expected height x width"),
        ("48x64,48x64,48x64", "warm_images: expected one size, or one for each of 2 cameras, got 3"),
    ],
)
def test_sizes_to_warm_that_are_none_are_refused(warm_images: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        load_policy(model_config("flow_libero_basic"), options=options("flow_libero_basic", warm_images=warm_images))


def test_each_camera_can_be_warmed_with_a_size_of_its_own() -> None:
    chosen = options("flow_libero_basic", warm_images="480x640,120x160")
    example = load_policy(model_config("flow_libero_basic"), options=chosen).spec.example()
    assert [example[key].shape for key in ("front_view", "left_wrist_view")] == [(480, 640, 3), (120, 160, 3)]


@pytest.mark.parametrize("name", ["model_path", "train_config_path", "action_tokenizer_path"])
def test_a_path_that_does_not_exist_is_named(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name}: /nowhere does not exist"):
        load_policy(model_config("fast_libero_1", **{name: "/nowhere"}))


def test_sampling_needs_no_action_tokenizer() -> None:
    check_model(model_config("flow_libero_basic", action_tokenizer_path=ModelConfig.action_tokenizer_path))
    with pytest.raises(ConfigError, match="action_tokenizer_path"):
        check_model(model_config("fast_libero_1", action_tokenizer_path=ModelConfig.action_tokenizer_path))
    with pytest.raises(ConfigError, match="action_tokenizer_path: /nowhere"):
        check_model(model_config("flow_libero_basic", action_tokenizer_path="/nowhere"))
    check_model(ModelConfig(model_path="stand-in"))


def test_a_fast_tokenizer_of_another_vocabulary_is_refused(tmp_path: Path) -> None:
    shutil.copytree(golden("fast_tokenizer"), tmp_path / "fast", copy_function=shutil.copyfile)
    path = tmp_path / "fast" / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["model"]["vocab"].popitem()
    (tmp_path / "fast").chmod(0o755)
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ConfigError, match="action_tokenizer_path: expected 1024 tokens, as the model has, got 1023"):
        load_policy(model_config("fast_libero_1", action_tokenizer_path=str(tmp_path / "fast")))


def test_a_model_without_action_tokens_cannot_be_fast() -> None:
    with pytest.raises(ConfigError, match=r"which predict_mode fast needs; --model-config.predict-mode diffusion"):
        load_policy(model_config("flow_libero_basic", predict_mode="fast"))


def test_dimensions_that_are_not_the_checkpoints_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"action_dim 14: too large, .* actions 7"):
        load_policy(model_config("flow_libero_basic", action_dim=14))
    with pytest.raises(ConfigError, match="without padding they must be equal"):
        load_policy(model_config("flow_pad20_libero"), options=Options(conventions=conventions_named("upstream")))


def test_a_truncated_shard_is_named(tmp_path: Path) -> None:
    directory = copy_of("checkpoint_flow_libero_sharded", tmp_path)
    shard = directory / "model-00002-of-00002.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1000])
    with pytest.raises(ConfigError, match=r"model-00002-of-00002.safetensors"):
        load_policy(of_copy("flow_libero_basic", directory))


def test_without_pth_files_the_named_json_gives_the_statistics(tmp_path: Path) -> None:
    directory = copy_of("checkpoint_flow_libero", tmp_path)
    for name in ("action", "propri"):
        (directory / f"normalizer_{name}.pth").unlink()
    processor = build_processor(make_plan(of_copy("flow_libero_basic", directory), options("flow_libero_basic")))
    assert processor.normalizer.names == ("physical-intelligence/libero",)
    without = {key: value for key, value in observation("flow_libero_basic").items() if key != "dataset_names"}
    assert processor.prepare(without).dataset == "physical-intelligence/libero"


def test_the_tokenizer_may_be_where_the_train_config_says(tmp_path: Path) -> None:
    """The files of a plain processor, without the tokens that training added: those are added on loading."""
    directory = copy_of("checkpoint_flow_libero", tmp_path)
    processor = tmp_path / "processor"
    processor.mkdir()
    trained = json.loads((directory / "tokenizer.json").read_text())
    own = ("<|propri|>", "<|action|>")
    trained["added_tokens"] = [token for token in trained["added_tokens"] if token["content"] not in own]
    (processor / "tokenizer.json").write_text(json.dumps(trained))
    for name in ("tokenizer.json", "added_tokens.json"):
        (directory / name).unlink()
    config = (directory / "config.yml").read_text()
    (directory / "config.yml").write_text(config.replace("processor_path: .", "processor_path: ../processor"))
    case = "flow_libero_basic"
    policy = load_policy(of_copy(case, directory), options=options(case))
    observed = policy.spec.validate(observation(case)).observation
    (chunk,) = policy.infer([PolicyInput(observed)])
    assert isinstance(chunk, ActionChunk)
    np.testing.assert_allclose(chunk.actions, tensors(case)["e2e/predict_action"][0], atol=1e-4, rtol=0)


def test_lerobots_conventions_scale_with_mean_and_deviation() -> None:
    plan = make_plan(model_config("flow_pad20_libero"), Options(conventions=conventions_named("lerobot")))
    processor = build_processor(plan)
    sent = observation("flow_pad20_libero")
    prepared = processor.prepare(sent)
    path = golden("checkpoint_flow", "norm_stats.physical-intelligence__libero.json")
    stats = json.loads(path.read_text(encoding="utf-8"))["norm_stats"]["state"]
    assert prepared.state is not None
    wanted = (sent["state"] - np.array(stats["mean"])) / np.array(stats["std"])
    np.testing.assert_allclose(prepared.state[:8], wanted, rtol=1e-4)
    assert not prepared.state[8:].any()
    assert build_answering(plan, processor.tokens) == FlowAnswering("bidir_island", 10)


def test_a_checkpoint_that_asks_for_causal_attention_gets_it(tmp_path: Path) -> None:
    directory = copy_of("checkpoint_flow_libero", tmp_path)
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    (directory / "config.json").write_text(json.dumps({**config, "causal_action_attention_mask": True}))
    plan = make_plan(of_copy("flow_libero_basic", directory), Options())
    assert plan.conventions.attention == "causal"
    chosen = Options(conventions=conventions_named("upstream", attention="bidir_island"))
    assert make_plan(of_copy("flow_libero_basic", directory), chosen).conventions.attention == "bidir_island"


def test_a_directory_stands_for_the_config_yml_in_it() -> None:
    plan = make_plan(model_config("fast_libero_1", train_config_path=str(golden("checkpoint_fast"))), Options())
    assert plan.train_config.robot == "physical-intelligence/libero"
    assert isinstance(build_answering(plan, build_processor(plan).tokens), FastAnswering)


def test_loading_tells_its_stages_conventions_and_batch(caplog: pytest.LogCaptureFixture) -> None:
    stages: list[str] = []
    with caplog.at_level("INFO"):
        policy = load_policy(model_config("flow_libero_basic"), on_stage=stages.append, env="libero")
    assert stages[0] == "reading the tokenizer and the statistics"
    assert len(stages) > 1
    assert "conventions: attention upstream_sdpa, trailing_tokens True, state raw" in caplog.text
    assert "the checkpoint's widths allow --conventions upstream, trained" in caplog.text
    assert 1 <= policy.spec.max_batch <= 8
    assert load_policy(model_config("flow_libero_basic"), options=Options(max_batch=3)).spec.max_batch == 3
    policy.close()


def test_the_memory_that_is_there_bounds_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    from policyserve.policies.wall_x import runtime

    plan = make_plan(model_config("flow_libero_basic"), Options())
    for free, wanted in ((0, 1), (1e15, 8)):
        monkeypatch.setattr(runtime, "_memory", lambda device, free=free: (free, 1e15))
        assert runtime.batch_that_fits(plan.config, plan.architecture) == wanted
