"""Recording work as CUDA graphs, by the rules that torch.cuda has."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable

import pytest

from policyserve.core.errors import of_policy
from policyserve.engine.answering import is_fatal
from tests.policies.frameworks import import_or_skip
from tests.policies.wall_x.fake_cuda import FakeCuda

torch = import_or_skip("torch")

from policyserve.policies.wall_x.capture import CaptureFailed, CudaCapture  # noqa: E402

REFUSED = "CUDA error: operation not permitted when stream is capturing\nCUDA kernel errors might be ..."


def test_work_runs_once_plainly_and_then_by_replays() -> None:
    cuda = FakeCuda()
    replay = CudaCapture(cuda)(lambda: cuda.launch("step"))
    assert cuda.launches == ["step"]
    replay()
    replay()
    assert cuda.launches == ["step"] * 3
    assert cuda.modes == ["thread_local"]
    assert cuda.current.name == "default"


def test_what_cannot_be_recorded_is_named_with_the_line_and_the_stream_is_left() -> None:
    cuda = FakeCuda()
    cuda.fails = [RuntimeError(REFUSED)]
    cuda.fails_at_end = [RuntimeError("CUDA error: operation failed due to a previous error during capture")]
    with pytest.raises(CaptureFailed) as told:
        CudaCapture(cuda)(lambda: cuda.launch("item"))
    assert "operation not permitted when stream is capturing at fake_cuda.py:" in str(told.value)
    assert "raise self.fails.pop(0)" in str(told.value)
    assert "--no-cuda-graphs" in str(told.value)
    assert "\n" not in str(told.value)
    assert cuda.current.name == "default"
    assert cuda.recording is None


def test_a_recording_that_fails_at_its_end_fails() -> None:
    cuda = FakeCuda()
    cuda.fails_at_end = [RuntimeError("CUDA error: operation failed due to a previous error during capture")]
    with pytest.raises(CaptureFailed, match=r"a previous error during capture at fake_cuda\.py"):
        CudaCapture(cuda)(lambda: cuda.launch("step"))
    assert cuda.current.name == "default"


def test_the_server_takes_a_failed_recording_for_a_lost_gpu() -> None:
    cuda = FakeCuda()
    cuda.fails = [RuntimeError(REFUSED)]
    with pytest.raises(CaptureFailed) as told:
        CudaCapture(cuda)(lambda: cuda.launch("item"))
    assert is_fatal(of_policy(told.value, "wall_x raised"))


@pytest.mark.parametrize("at_end", [False, True])
def test_out_of_memory_while_recording_stays_out_of_memory(at_end: bool) -> None:
    cuda = FakeCuda()
    (cuda.fails_at_end if at_end else cuda.fails).append(torch.OutOfMemoryError("CUDA out of memory. Tried ..."))
    with pytest.raises(torch.OutOfMemoryError):
        CudaCapture(cuda)(lambda: cuda.launch("step"))
    assert cuda.recording is None


def test_what_the_plain_run_raises_is_raised_on() -> None:
    def work() -> None:
        raise ValueError("noise: expected (4, 20), got None")

    with pytest.raises(ValueError, match="noise"):
        CudaCapture(FakeCuda())(work)


def test_an_empty_graph_is_an_error_and_no_answer() -> None:
    with pytest.raises(CaptureFailed, match="nothing was launched on this device"):
        CudaCapture(FakeCuda())(lambda: None)


def test_other_warnings_of_a_recording_are_told() -> None:
    cuda = FakeCuda()

    def work() -> None:
        cuda.launch("step")
        if cuda.is_recording:
            warnings.warn("slow kernel", UserWarning, stacklevel=1)

    with pytest.warns(UserWarning, match="slow kernel"):
        CudaCapture(cuda)(work)


def test_graphs_share_a_pool_as_long_as_one_of_them_lives() -> None:
    cuda = FakeCuda()
    capture = CudaCapture(cuda)
    kept = [capture(lambda: cuda.launch("a")), capture(lambda: cuda.launch("b"))]
    assert cuda.pools == {0: 2}
    kept.clear()
    kept.append(capture(lambda: cuda.launch("c")))
    assert cuda.pools == {0: 2, 1: 1}


def test_two_threads_never_record_at_once() -> None:
    cuda = FakeCuda()  # which refuses a second recording
    first_records, second_records = threading.Event(), threading.Event()
    failures: list[BaseException] = []

    def first_work() -> None:
        if cuda.is_recording:
            first_records.set()
            assert not second_records.wait(0.1)
        cuda.launch("a")

    def second_work() -> None:
        if cuda.is_recording:
            second_records.set()
        cuda.launch("b")

    def record(work: Callable[[], None]) -> None:
        try:
            CudaCapture(cuda)(work)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=record, args=(work,)) for work in (first_work, second_work)]
    threads[0].start()
    assert first_records.wait(10)
    threads[1].start()
    for thread in threads:
        thread.join(10)
    assert failures == []
    assert second_records.is_set()
