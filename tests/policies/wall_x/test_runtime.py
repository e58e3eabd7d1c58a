"""Devices that are not there or not free, by what torch says of them; and how many observations fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from policyserve.core.errors import ConfigError
from policyserve.policies.wall_x import ModelConfig
from policyserve.policies.wall_x.adapter import WallXAdapter, WallXFlags
from policyserve.policies.wall_x.runtime import batch_that_fits, check_device
from tests.policies.frameworks import import_or_skip
from tests.policies.wall_x.fake_cuda import set_gpus

torch = import_or_skip("torch")
for package in ("tokenizers", "PIL.Image", "yaml", "safetensors.numpy"):
    import_or_skip(package)

from benchmarks.wall_x_models.random_checkpoint import SIZES, random_config, write_random_checkpoint  # noqa: E402
from policyserve.policies.wall_x.architecture import read_architecture  # noqa: E402
from policyserve.policies.wall_x.checkpoint import torch as checkpoints_torch  # noqa: E402
from policyserve.policies.wall_x.model import load_model  # noqa: E402
from tests.policies.wall_x.loaded import write_tiny  # noqa: E402

TOO_OLD = (
    "The NVIDIA driver on your system is too old (found version 11040). Please update your GPU driver by downloading "
    "and installing a new version from the URL: http://www.nvidia.com/Download/index.aspx Alternatively, go to: ..."
)
CPU_HINT = r"; choose the CPU \(--model-config.device cpu --model-config.dtype float32\)$"


def test_a_gpu_that_is_not_there_is_told_with_those_that_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    set_gpus(monkeypatch, 2)
    check_device("cuda:1")
    with pytest.raises(
        ConfigError, match="device: cuda:7 is not there: torch finds 2 CUDA devices here, cuda:0 to cuda:1;"
    ):
        check_device("cuda:7")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    set_gpus(monkeypatch, 1)
    with pytest.raises(ConfigError, match=r"finds 1 CUDA devices here, cuda:0 \(CUDA_VISIBLE_DEVICES=3\);"):
        check_device("cuda:1")


@pytest.mark.parametrize(
    ("fails", "told"),
    [
        (TOO_OLD, r"torch finds no CUDA device here: The NVIDIA driver .* is too old \(found version 11040\)"),
        (
            "Found no NVIDIA driver on your system. Please check that you have ...",
            "Found no NVIDIA driver on your system",
        ),
        ("No CUDA GPUs are available", "torch finds no CUDA device here: No CUDA GPUs are available"),
        ("", "torch finds no CUDA device here"),
    ],
)
def test_why_torch_finds_no_gpu_is_told_in_one_line(fails: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    set_gpus(monkeypatch, 0, fails=fails)
    with pytest.raises(ConfigError, match=f"^device: cuda is not there: .*{told}{CPU_HINT}"):
        check_device("cuda")


def test_a_torch_without_cuda_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    set_gpus(monkeypatch, 0)
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(ConfigError, match=rf"torch \S+ is built without CUDA{CPU_HINT}"):
        check_device("cuda")


def test_the_command_line_names_the_flag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_gpus(monkeypatch, 1)
    paths = dict.fromkeys(("model_path", "action_tokenizer_path", "train_config_path"), str(tmp_path))
    flags = WallXFlags(model_config=ModelConfig(**paths, device="cuda:7"))
    with pytest.raises(ConfigError, match=r"^--model-config\.device: cuda:7 is not there: "):
        WallXAdapter("wall-x").source(flags)


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:-1", "cuda:one", "mps", ""])
def test_what_is_no_device_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="device: expected cpu, cuda or cuda:N, got"):
        ModelConfig(device=name)


def out_of_memory(*args: Any, **more: Any) -> Any:
    raise RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported ...")


@pytest.mark.parametrize("tells", [True, False])
def test_a_device_that_others_fill_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tells: bool) -> None:
    write_tiny(tmp_path)
    set_gpus(monkeypatch, 1, free=1e9)
    if not tells:  # it cannot even make its context
        monkeypatch.setattr(torch.cuda, "mem_get_info", out_of_memory)
    monkeypatch.setattr(checkpoints_torch, "empty", full_gpu(torch.empty))
    free = r", \S+ GB of \S+ GB are free" if tells else ""
    told = rf"^device: the weights do not fit on cuda: they need about \S+ [kMG]B{free}; end what else uses it"
    with pytest.raises(ConfigError, match=told) as error:
        load_model(tmp_path, device="cuda")
    assert "\n" not in str(error.value)


def full_gpu(empty: Any) -> Any:
    def allocate(*shape: Any, **more: Any) -> Any:
        is_there = str(more.get("device", "cpu")).startswith("cuda")
        return out_of_memory() if is_there else empty(*shape, **more)

    return allocate


def test_graphs_take_their_part_before_batches_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_random_checkpoint(tmp_path, config := random_config(SIZES["tiny"]), SIZES["tiny"].vocabulary)
    assert config
    architecture = read_architecture(tmp_path)
    on_gpu = ModelConfig(device="cuda")
    set_gpus(monkeypatch, 1, free=80e9, total=80e9)
    assert batch_that_fits(on_gpu, architecture) == 16
    set_gpus(monkeypatch, 1, free=3e9, total=24e9)  # 2.4 GB for the graphs
    assert batch_that_fits(on_gpu, architecture) == 1
    assert batch_that_fits(on_gpu, architecture, cuda_graphs=False) > 1
