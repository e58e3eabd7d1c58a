"""What torch.cuda says of GPUs, and its rules of recording a graph, for machines without a GPU."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.policies.frameworks import import_or_skip

torch = import_or_skip("torch")


def set_gpus(
    monkeypatch: pytest.MonkeyPatch, count: int, *, free: float = 70e9, total: float = 80e9, fails: str = ""
) -> None:
    """Have torch find so many GPUs, each with so many bytes. fails: what it says where it finds none."""

    def init() -> None:
        if fails:
            raise RuntimeError(fails)

    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.cuda, "init", init)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device=None: (free, total))


class FakeCuda:
    """In place of torch.cuda. launch: what work calls for a kernel; it may raise what a test puts into `fails`.

    launches: which kernels ran, plainly or in a replay. recording: the one that is under way, in whatever thread.
    """

    def __init__(self) -> None:
        self.launches: list[str] = []
        self.fails: list[BaseException] = []  # for the launches while recording, the next one first
        self.fails_at_end: list[BaseException] = []
        self.recording: FakeGraph | None = None
        self.pools: dict[int, int] = {}  # how many graphs each one has had
        self.modes: list[str] = []
        self._default = FakeStream("default")
        self._of_thread = threading.local()

    @property
    def current(self) -> FakeStream:
        return getattr(self._of_thread, "stream", self._default)

    @property
    def is_recording(self) -> bool:
        """Whether this thread's launches are recorded."""
        return self.recording is not None and self.recording.stream is self.current

    def launch(self, name: str) -> None:
        if not self.is_recording or self.recording is None:
            self.launches.append(name)
            return
        if self.fails:
            raise self.fails.pop(0)
        self.recording.kernels.append(name)

    # torch.cuda's

    def CUDAGraph(self) -> FakeGraph:
        return FakeGraph(self)

    def Stream(self) -> FakeStream:
        return FakeStream("side")

    def current_stream(self) -> FakeStream:
        return self.current

    @contextmanager
    def stream(self, stream: FakeStream) -> Iterator[None]:
        before, self._of_thread.stream = self.current, stream
        try:
            yield
        finally:
            self._of_thread.stream = before

    def synchronize(self) -> None:
        assert self.recording is None

    def graph_pool_handle(self) -> int:
        self.pools[len(self.pools)] = 0
        return len(self.pools) - 1


class FakeStream:
    def __init__(self, name: str) -> None:
        self.name = name

    def wait_stream(self, other: Any) -> None:
        assert isinstance(other, FakeStream)


class FakeGraph:
    """One recording. Only one is under way at a time, as in torch's allocator."""

    def __init__(self, cuda: FakeCuda) -> None:
        self._cuda = cuda
        self.kernels: list[str] = []
        self.stream: FakeStream | None = None

    def capture_begin(self, pool: int, capture_error_mode: str) -> None:
        assert self._cuda.recording is None, "a second recording"
        assert self._cuda.current.name != "default", "the default stream cannot be recorded"
        self._cuda.recording, self.stream = self, self._cuda.current
        self._cuda.pools[pool] += 1
        self._cuda.modes.append(capture_error_mode)

    def capture_end(self) -> None:
        assert self._cuda.recording is self
        self._cuda.recording = None
        if self._cuda.fails_at_end:
            raise self._cuda.fails_at_end.pop(0)
        if not self.kernels:
            warnings.warn("The CUDA Graph is empty. This usually means that ...", UserWarning, stacklevel=2)

    def replay(self) -> None:
        self._cuda.launches += self.kernels
