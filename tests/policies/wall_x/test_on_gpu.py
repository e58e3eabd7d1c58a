"""On an NVIDIA GPU: the golden cases, graphs against launching anew, batches against singles. Skipped without one."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

from tests.policies.frameworks import import_or_skip
from tests.policies.wall_x.cases import golden_case, golden_input
from tests.policies.wall_x.golden import FAST_CASES, FLOW_CASES, modes

torch = import_or_skip("torch")

from policyserve.policies.wall_x.attention import AttentionMode  # noqa: E402
from policyserve.policies.wall_x.capture import CudaCapture  # noqa: E402
from policyserve.policies.wall_x.encoder import ImageEncoder  # noqa: E402
from policyserve.policies.wall_x.flow import FlowSampler  # noqa: E402
from policyserve.policies.wall_x.graphs import Work  # noqa: E402
from policyserve.policies.wall_x.model import DType, WallXModel, load_model  # noqa: E402
from tests.policies.wall_x.loaded import largest, loaded, tiny_input, write_tiny  # noqa: E402
from tests.policies.wall_x.test_encoder import seen  # noqa: E402

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU"),
]

CASES_AND_MODES = [(name, mode) for name in FLOW_CASES for mode in ("upstream_sdpa", "bidir_island", "causal")]


@lru_cache(maxsize=8)
def on_gpu(directory: Path, dtype: DType = "float32") -> WallXModel:
    return load_model(directory, device="cuda", dtype=dtype)


@pytest.mark.parametrize(("name", "mode"), CASES_AND_MODES)
def test_a_golden_case_is_the_originals_on_the_gpu(name: str, mode: AttentionMode) -> None:
    if mode not in modes(name):
        return  # the original has no such answer
    case = golden_case(name)
    actions = on_gpu(case.directory).flow([golden_input(case)], attention=mode, num_steps=case.steps)[0]
    assert largest(actions - case[f"{mode}/x"][-1]) < 1e-4
    halves = on_gpu(case.directory, "bfloat16").flow([golden_input(case)], attention=mode, num_steps=case.steps)[0]
    assert largest(halves - actions) < 0.1


@pytest.mark.parametrize("name", FAST_CASES)
def test_the_tokens_are_the_originals_on_the_gpu(name: str) -> None:
    case = golden_case(name)
    assert on_gpu(case.directory).generate([golden_input(case)]) == [case["fast/new_ids"].tolist()]


@pytest.mark.parametrize("mode", ["upstream_sdpa", "bidir_island", "causal"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_graph_equals_launching_every_kernel_anew(mode: AttentionMode, dtype: DType) -> None:
    case = golden_case("flow_libero_basic")
    model, item = on_gpu(case.directory, dtype), golden_input(case)

    def run_at_once(work: Work) -> Work:
        return work

    anew = FlowSampler(model.network, slot_multiple=64, capture=run_at_once)
    with torch.inference_mode():
        for _ in range(3):
            wanted = anew.sample([item], mode, 10).cpu().numpy()
            assert largest(model.flow([item], attention=mode)[0] - wanted[0]) == 0


def test_images_through_a_graph_are_the_towers_on_the_gpu() -> None:
    network = on_gpu(golden_case("flow_libero_basic").directory).network
    encoder = ImageEncoder(network, CudaCapture())
    for seed in range(6):
        items = [seen("flow_libero_basic", seed + place) for place in range(1 + seed % 3)]
        with torch.inference_mode():
            found = encoder(items)
            assert found is not None
            alone = [network.vision(torch.from_numpy(item.patches).cuda(), item.grids) for item in items]
            assert largest((found - torch.cat(alone)).cpu().numpy()) < 1e-4


@pytest.mark.parametrize("mode", ["upstream_sdpa", "bidir_island", "causal"])
def test_random_batches_equal_singles_on_the_gpu(tmp_path: Path, mode: AttentionMode) -> None:
    write_tiny(tmp_path)
    model, random = load_model(tmp_path, device="cuda"), np.random.default_rng(0)
    for seed in range(70):
        lengths = random.integers(3, 150, random.integers(1, 6))
        items = [tiny_input(model, int(length), trailing=2, seed=seed + place) for place, length in enumerate(lengths)]
        together = model.flow(items, attention=mode)
        place = int(random.integers(len(items)))
        assert largest(together[place] - model.flow([items[place]], attention=mode)[0]) < 1e-4


def test_the_gpu_gives_what_the_cpu_gives() -> None:
    case = golden_case("flow_libero_odd_sizes")
    wanted = loaded(case.directory).flow([golden_input(case)] * 3, attention="causal")
    got = on_gpu(case.directory).flow([golden_input(case)] * 3, attention="causal")
    assert largest(np.stack(got) - np.stack(wanted)) < 1e-4
