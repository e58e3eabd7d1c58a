"""Recording work as a CUDA graph, and what becomes of a recording that fails.

One recording runs at a time in a process, since the allocator has one state for all of them; other threads may go on
computing meanwhile ("thread_local").
"""

from __future__ import annotations

import threading
import traceback
import warnings
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from policyserve.policies.wall_x.graphs import Work
from policyserve.policies.wall_x.memory import is_out_of_memory

_one_at_a_time = threading.Lock()
_MARK = "CUDA Graph is empty"  # torch's warning after a recording that nothing was launched into


class CaptureFailed(RuntimeError):
    """Work could not be recorded. After that neither the allocator's state nor the stream's can be relied on.

    A server knows it by its words (engine/answering.py): while it loads it ends with them, in service the policy is
    replaced.
    """


class CudaCapture:
    """Records work on one device, as a graphs.Capture. All its graphs share one pool of memory and one stream.

    That is safe since they run one after the other, and what they work on lies outside of the pool.
    cuda: the part of torch that is used, torch.cuda.
    """

    def __init__(self, cuda: Any = torch.cuda) -> None:
        self._cuda = cuda
        self._stream: Any = None
        self._pool: Any = None
        self._graphs: weakref.WeakSet[Any] = weakref.WeakSet()

    def __call__(self, work: Work) -> Work:
        """Run work once plainly, then record it. Returns what replays it.

        Raises CaptureFailed, and what the plain run raised; running out of memory is raised on as it is.
        """
        if self._stream is None:
            self._stream = self._cuda.Stream()
        self._run_plainly(work)
        with _one_at_a_time:
            return self._record(work).replay

    def _run_plainly(self, work: Work) -> None:
        """On the recording's stream, so that libraries make their workspaces there."""
        self._stream.wait_stream(self._cuda.current_stream())
        with self._cuda.stream(self._stream):
            work()
        self._cuda.current_stream().wait_stream(self._stream)

    def _record(self, work: Work) -> Any:
        graph = self._cuda.CUDAGraph()
        if not self._graphs:
            self._pool = self._cuda.graph_pool_handle()  # torch gives up a pool with the last of its graphs
        self._cuda.synchronize()
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            try:
                self._run_recorded(graph, work)
            except RuntimeError as error:
                if is_out_of_memory(error):
                    raise
                raise CaptureFailed(_told(f"{str(error).splitlines()[0]} at {_place_of(error)}")) from error
        for one in told:
            if _MARK in str(one.message):
                raise CaptureFailed(_told("nothing was launched on this device and stream"))
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
        self._graphs.add(graph)
        return graph

    def _run_recorded(self, graph: Any, work: Work) -> None:
        with self._cuda.stream(self._stream):
            graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
            try:
                work()
            except BaseException:
                with suppress(RuntimeError):  # that the recording failed is known
                    graph.capture_end()
                raise
            graph.capture_end()


def release_memory(cuda: Any = torch.cuda) -> None:
    """Give the device's memory that nobody uses back to it. Not while anything is recorded: torch would abort that."""
    with _one_at_a_time:
        cuda.empty_cache()


def _told(why: str) -> str:
    return f"no CUDA graph could be recorded: {why}; --no-cuda-graphs does without them, and is slower"


def _place_of(error: BaseException) -> str:
    """Which line raised it: the operation that cannot be recorded."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{Path(frame.filename).name}:{frame.lineno}, {frame.line}"
