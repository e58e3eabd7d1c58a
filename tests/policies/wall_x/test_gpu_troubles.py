"""On an NVIDIA GPU: what goes wrong there, forced, and what is answered after it. Skipped without one."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from policyserve.core.errors import Overloaded, of_policy
from policyserve.core.policy import ActionChunk, PolicyInput
from policyserve.engine.answering import is_fatal
from policyserve.policies.wall_x import load_policy
from tests.policies.frameworks import import_or_skip
from tests.policies.wall_x.golden import model_config, observation, options

torch = import_or_skip("torch")
for package in ("tokenizers", "PIL.Image", "yaml", "safetensors.numpy"):
    import_or_skip(package)

from policyserve.policies.wall_x.capture import CaptureFailed, CudaCapture  # noqa: E402
from policyserve.policies.wall_x.model import load_model  # noqa: E402
from tests.policies.wall_x.loaded import largest, tiny_input, write_tiny  # noqa: E402

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU"),
]
NAME = "flow_libero_basic"


@pytest.fixture
def policy() -> Iterator[Any]:
    loaded = load_policy(model_config(NAME, device="cuda"), options=options(NAME, max_batch=4))
    yield loaded
    loaded.close()


def given(policy: Any) -> PolicyInput:
    return PolicyInput(policy.spec.validate(observation(NAME)).observation)


def fill(hoard: list[Any], size: int) -> None:
    with suppress(torch.OutOfMemoryError):
        while True:
            hoard.append(torch.empty(size, dtype=torch.uint8, device="cuda"))


def test_a_request_for_which_memory_runs_out_is_refused_and_the_next_one_answered(policy: Any) -> None:
    (before,) = policy.infer([given(policy)])
    assert isinstance(before, ActionChunk)
    hoard: list[Any] = []
    total = torch.cuda.mem_get_info()[1]
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + (8 << 20)) / total)
    try:
        for size in (1 << 20, 1 << 10):  # bytes: until not even small blocks are left
            fill(hoard, size)
        answers = policy.infer([given(policy)] * 4)
        assert [type(answer) for answer in answers] == [Overloaded] * 4
    finally:
        hoard.clear()
        torch.cuda.set_per_process_memory_fraction(1.0)
    (after,) = policy.infer([given(policy)])
    assert isinstance(after, ActionChunk)
    assert largest(after.actions - before.actions) < 1e-4


def test_a_step_that_asks_for_a_number_cannot_be_recorded_and_is_named() -> None:
    x = torch.ones(4, device="cuda")
    before = torch.cuda.current_stream()
    with pytest.raises(CaptureFailed) as told:
        CudaCapture()(lambda: x.sum().item())
    assert "test_gpu_troubles.py" in str(told.value)
    assert torch.cuda.current_stream() == before
    assert is_fatal(of_policy(told.value, "wall_x raised"))
    assert float((x + 1).sum()) == 8


def test_work_that_launches_nothing_is_an_error() -> None:
    with pytest.raises(CaptureFailed, match="nothing was launched on this device"):
        CudaCapture()(lambda: None)


def test_a_graph_replays_on_what_its_state_holds_now() -> None:
    x = torch.zeros(4, device="cuda")
    replay = CudaCapture()(lambda: x.add_(1))
    x.zero_()
    replay()
    replay()
    assert x.tolist() == [2.0] * 4


def test_graphs_are_dropped_and_their_memory_given_back(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    model = load_model(tmp_path, device="cuda")
    items = [tiny_input(model, 100, seed=seed) for seed in range(4)]
    wanted = model.flow(items, attention="causal")
    reserved = torch.cuda.memory_reserved()
    model.free()
    assert torch.cuda.memory_reserved() < reserved
    assert largest(model.flow(items, attention="causal")[0] - wanted[0]) == 0  # recorded again, in a new pool


def test_a_warmed_gpu_records_nothing_while_a_client_waits(policy: Any, caplog: pytest.LogCaptureFixture) -> None:
    policy.infer([given(policy)])
    while policy.settle():
        pass
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        for size in (1, 2, 3, 4):
            policy.infer([given(policy)] * size)
    assert "recorded a CUDA graph" not in caplog.text
