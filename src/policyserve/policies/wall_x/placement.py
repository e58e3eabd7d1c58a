"""What must hold while the network runs on its device: the device is the current one, cuDNN's attention is off."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch


@contextmanager
def running_on(device: torch.device) -> Iterator[None]:
    """Around every run of the network, in any thread.

    On a GPU the device is made the current one: a CUDA graph records what is launched on the current device, and one
    that was recorded on another is empty.
    """
    on_device = torch.cuda.device(device) if device.type == "cuda" else nullcontext()
    with on_device, _without_cudnn_attention:
        yield


class _WithoutCudnnAttention:
    """Keeps scaled_dot_product_attention from cuDNN, which on Hopper and Blackwell comes first in 16 bits.

    cuDNN makes a plan for each new shape and stride, half a second each, where prompts of every length are new shapes;
    FlashAttention and the memory-efficient kernel need none and are as fast. torch has one switch for the process, not
    one for each thread: the first of several threads turns it, and the last one turns it back.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._was_enabled = False

    def __enter__(self) -> None:
        with self._lock:
            if self._users == 0:
                self._was_enabled = torch.backends.cuda.cudnn_sdp_enabled()
                torch.backends.cuda.enable_cudnn_sdp(False)
            self._users += 1

    def __exit__(self, *_error: object) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                torch.backends.cuda.enable_cudnn_sdp(self._was_enabled)


_without_cudnn_attention = _WithoutCudnnAttention()
