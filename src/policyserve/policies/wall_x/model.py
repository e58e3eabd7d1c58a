"""A loaded Wall-X network and the two things it does: sample actions, and make FAST's tokens."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch

from policyserve.core.arrays import Array
from policyserve.core.errors import ConfigError
from policyserve.core.log import Log
from policyserve.policies.rtc import Rtc
from policyserve.policies.wall_x.architecture import Architecture
from policyserve.policies.wall_x.attention import ATTENTION_MODES, AttentionMode
from policyserve.policies.wall_x.capture import CudaCapture, release_memory
from policyserve.policies.wall_x.flow import FlowSampler
from policyserve.policies.wall_x.fused import adopt_kernels
from policyserve.policies.wall_x.generate import Generator
from policyserve.policies.wall_x.graphs import Graphs
from policyserve.policies.wall_x.guidance import guidance_of
from policyserve.policies.wall_x.inputs import ModelInput
from policyserve.policies.wall_x.memory import IMAGES_SHARE, graph_bytes
from policyserve.policies.wall_x.network import Network, load_network
from policyserve.policies.wall_x.placement import running_on
from policyserve.policies.wall_x.runtime import check_device
from policyserve.policies.wall_x.sequence import layout_of, with_other_lengths

log = Log(__name__)

NEW_TOKENS = 100  # that FAST makes, at most
_GPU_SLOTS = 64  # of the cache, or a multiple: few shapes, few graphs

DType = Literal["bfloat16", "float16", "float32"]
_DTYPES: Mapping[str, torch.dtype] = {
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float32": torch.float32,
}


class WallXModel:
    """A network on its device. Called by one thread at a time; answers are finished NumPy arrays.

    cuda_graphs: whether work is recorded as CUDA graphs where the device is a GPU. In 16 bits an answer depends in its
    last bits on how many others are computed with it: matrix products of other sizes round otherwise.
    """

    def __init__(self, network: Network, *, cuda_graphs: bool = True) -> None:
        self.network = network
        slots, capture = 1, None
        if network.device.type == "cuda":
            slots, capture = _GPU_SLOTS, CudaCapture() if cuda_graphs else None
        self.sampler = FlowSampler(network, slot_multiple=slots, capture=capture)
        self.generator = Generator(network, slot_multiple=slots, capture=capture)
        self._graphs: list[Graphs[Any]] = []
        if capture is not None:
            most = graph_bytes(torch.cuda.mem_get_info(network.device)[1])
            for one in (self.sampler, self.generator):  # a policy uses one of them
                self._keep(one.images.graphs, most * IMAGES_SHARE)
                self._keep(one.graphs, most * (1 - IMAGES_SHARE))

    @property
    def architecture(self) -> Architecture:
        return self.network.architecture

    def flow(
        self, inputs: Sequence[ModelInput], *, attention: AttentionMode, num_steps: int = 10, how: Rtc | None = None
    ) -> list[Array]:
        """Sample action chunks from each input's noise. Returns (H, A) float32 each, still normalised.

        attention: see attention.py; upstream_sdpa is causal where the checkpoint's config asks for that. how: how
        chunks agree with the prefixes of inputs that have one; None: these are not looked at. Raises ValueError for
        inputs that do not fit the network or each other.
        """
        if attention not in ATTENTION_MODES:
            raise ValueError(f"attention: expected one of {', '.join(ATTENTION_MODES)}, got {attention!r}")
        if num_steps < 1:
            raise ValueError(f"num_steps: expected 1 or more, got {num_steps}")
        if not inputs:
            return []
        guidance = guidance_of(inputs, how, num_steps)
        mode = differentiable if guidance is not None and guidance.differentiates else torch.inference_mode
        with mode(), running_on(self.network.device):
            return list(self.sampler.sample(inputs, attention, num_steps, how).cpu().numpy())

    def _keep(self, graphs: Graphs[Any] | None, most: float) -> None:
        if graphs is not None:
            graphs.max_bytes = int(most)
            self._graphs.append(graphs)

    def begin_service(self) -> None:
        """From now on somebody waits for what is computed: a graph that has to be recorded is told as a warning."""
        for graphs in self._graphs:
            graphs.is_serving = True

    def free(self) -> None:
        """Give back what is kept for speed alone, where memory has run out: the graphs with their caches."""
        for graphs in self._graphs:
            graphs.forget()
        if self.network.device.type == "cuda":
            with running_on(self.network.device):
                release_memory()

    def shape_of(self, item: ModelInput) -> Hashable | None:
        """What is equal for inputs that the same graphs serve; None: nothing depends on shapes here."""
        if not self._graphs:
            return None
        layout = layout_of(item, self.architecture)
        filled = layout.prefix + (0 if layout.actions else NEW_TOKENS)
        is_guided = item.prefix is not None and item.prefix.known > 0
        return tuple(item.grids), -(-filled // _GPU_SLOTS), is_guided

    def neighbours(self, item: ModelInput) -> list[ModelInput]:
        """The input with as many words more, and fewer, that the next graphs serve it."""
        return with_other_lengths(item, self.architecture, _GPU_SLOTS)

    @torch.inference_mode()
    def generate(self, inputs: Sequence[ModelInput], *, max_new_tokens: int = NEW_TOKENS) -> list[list[int]]:
        """Continue each prompt greedily. Returns the new ids, with the end token unless the limit came first."""
        if not inputs:
            return []
        with running_on(self.network.device):
            return self.generator.run(inputs, max_new_tokens)


def load_model(
    directory: str | Path,
    *,
    device: str = "cpu",
    dtype: DType = "float32",
    train_config: Mapping[str, Any] | None = None,
    token_ids: Mapping[str, int] | None = None,
    cuda_graphs: bool = True,
    on_stage: Callable[[str], None] = lambda text: None,
) -> WallXModel:
    """Load a checkpoint directory.

    train_config: the training run's YAML as a mapping, which overrides config.json. token_ids: those of the special
    tokens, where the tokenizer's files are not in the directory. cuda_graphs: see WallXModel. on_stage: told what
    happens, a line at a time. Raises ConfigError: a missing device, file or field, tensors that do not fit.
    """
    if dtype not in _DTYPES:
        raise ConfigError(f"dtype: expected one of {', '.join(_DTYPES)}, got {dtype!r}")
    place = _find_device(device)
    with differentiable():
        network = load_network(directory, train_config, place, _DTYPES[dtype], on_stage, token_ids)
        if place.type == "cuda":
            on_stage("compiling kernels")
            with running_on(place):
                why = adopt_kernels(place)
            if why is not None:
                log.warning("small operations are not fused, and answers take longer: %s", why)
        return WallXModel(network, cuda_graphs=cuda_graphs)


@contextmanager
def differentiable() -> Iterator[None]:
    """No graph is built unless asked for, but one can be: inference_mode()'s tensors take no part in a derivative."""
    with torch.inference_mode(False), torch.no_grad():
        yield


def _find_device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device: expected cpu, cuda or cuda:N, got {name!r}") from error
    check_device(name)
    return device
