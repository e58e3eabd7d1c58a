"""The device that is current while the network runs, and which attention torch may choose then."""

from __future__ import annotations

import threading
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from tests.policies.frameworks import import_or_skip

torch = import_or_skip("torch")
F = torch.nn.functional

from policyserve.policies.wall_x.model import load_model  # noqa: E402
from policyserve.policies.wall_x.placement import running_on  # noqa: E402
from tests.policies.wall_x.loaded import tiny_input, write_tiny  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_torch_thread")
CPU = torch.device("cpu")


def cudnn_is_on() -> bool:
    return torch.backends.cuda.cudnn_sdp_enabled()


def test_no_attention_of_the_network_is_cudnns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tiny(tmp_path)
    model = load_model(tmp_path)
    attend, seen = F.scaled_dot_product_attention, set[bool]()

    def note(*args: Any, **more: Any) -> Any:
        seen.add(cudnn_is_on())
        return attend(*args, **more)

    monkeypatch.setattr(F, "scaled_dot_product_attention", note)
    before = cudnn_is_on()
    model.flow([tiny_input(model, 5)], attention="upstream_sdpa", num_steps=2)
    assert seen == {False}
    seen.clear()
    model.generate([tiny_input(model, 5, actions=0)], max_new_tokens=2)
    assert seen == {False}
    assert cudnn_is_on() is before


def test_the_last_of_several_threads_turns_cudnn_back() -> None:
    before = cudnn_is_on()
    inside, leave = threading.Event(), threading.Event()

    def run() -> None:
        with running_on(CPU):
            inside.set()
            leave.wait(10)

    other = threading.Thread(target=run)
    other.start()
    with running_on(CPU):
        assert inside.wait(10)
    assert not cudnn_is_on()
    leave.set()
    other.join(10)
    assert cudnn_is_on() is before


def test_an_error_turns_cudnn_back_too() -> None:
    before = cudnn_is_on()
    with pytest.raises(ValueError, match="wrong"), running_on(CPU):
        raise ValueError("wrong")
    assert cudnn_is_on() is before


def test_a_second_gpu_is_the_current_one_while_the_network_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []

    def device(place: Any) -> Any:
        made.append(place)
        return nullcontext()

    monkeypatch.setattr(torch.cuda, "device", device)
    with running_on(torch.device("cuda:1")):
        assert made == [torch.device("cuda:1")]
    with running_on(CPU):
        assert len(made) == 1
