"""The benchmark's arithmetic against the published figures of the real network (SPEC, "Cost at real size")."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.policies.frameworks import import_or_skip

import_or_skip("torch")
import_or_skip("safetensors.torch")

from benchmarks.wall_x_models.costs import Cost, Costs  # noqa: E402
from benchmarks.wall_x_models.random_checkpoint import SIZES, random_config, write_config  # noqa: E402
from policyserve.policies.wall_x.architecture import read_architecture  # noqa: E402

TERA, GIGA = 1e12, 1e9
LIBERO = ((18, 18),) * 2


@pytest.fixture
def real(tmp_path: Path) -> Costs:
    write_config(tmp_path, random_config(SIZES["real"]))
    return Costs(read_architecture(tmp_path), SIZES["real"].vocabulary, item=2)


def test_the_real_networks_stages_cost_what_was_published(real: Costs) -> None:
    assert real.vision(LIBERO).flops / TERA == pytest.approx(0.84, abs=0.005)
    assert real.vision(LIBERO).bytes / GIGA == pytest.approx(1.34, abs=0.005)
    assert real.prefill(237).flops / TERA == pytest.approx(1.32, abs=0.005)
    assert real.prefill(237).bytes / GIGA == pytest.approx(5.55, abs=0.01)
    assert real.prefill(600).flops / TERA == pytest.approx(3.38, abs=0.005)
    assert real.flow_step(237, 32).flops / TERA == pytest.approx(0.053, abs=0.001)
    assert real.flow_step(237, 32, trailing=2).flops / TERA == pytest.approx(0.065, abs=0.001)
    assert real.flow_step(237, 32).bytes / GIGA == pytest.approx(1.6, abs=0.02)
    assert real.fast_token(237).bytes / GIGA == pytest.approx(6.18, abs=0.01)
    assert real.fast_token(237).flops / GIGA == pytest.approx(6.3, abs=0.1)


def test_tokens_after_the_actions_read_the_texts_expert_at_every_step_but_the_first(real: Costs) -> None:
    without = real.flow_steps("causal", 10, 237, 32, trailing=2)
    assert without.bytes == 10 * real.flow_step(237, 32).bytes
    upstream = real.flow_steps("upstream_sdpa", 10, 237, 32, trailing=2)
    assert (upstream.bytes - without.bytes) / GIGA == pytest.approx(43.8, abs=0.1)


def test_a_batch_reads_the_weights_once(real: Costs) -> None:
    one, eight = real.prefill(237), real.prefill(237, batch=8)
    assert eight.flops == 8 * one.flops
    assert eight.bytes < 1.02 * one.bytes
    assert real.vision(LIBERO * 8).bytes == real.vision(LIBERO).bytes


def test_the_limit_is_the_slower_of_reading_and_computing() -> None:
    assert Cost(flops=100, bytes=10).seconds(bandwidth=10, matmul=10) == 10
    assert Cost(flops=10, bytes=100).seconds(bandwidth=10, matmul=10) == 10
