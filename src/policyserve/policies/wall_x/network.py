"""The whole network: image tower, decoder and action head, and its loading from a directory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from policyserve.core.errors import ConfigError
from policyserve.policies.files import reading
from policyserve.policies.wall_x.action_head import ActionHead
from policyserve.policies.wall_x.architecture import Architecture, read_architecture
from policyserve.policies.wall_x.checkpoint import OnStage, fill, read_headers
from policyserve.policies.wall_x.decoder import Decoder
from policyserve.policies.wall_x.names import EMBEDDING, HEAD, places
from policyserve.policies.wall_x.vision import VisionTower


class Network(nn.Module):
    """Three towers of parameters. What runs through them in which order is in flow.py and generate.py."""

    def __init__(self, architecture: Architecture, vocabulary: int, *, has_own_head: bool) -> None:
        super().__init__()
        self.architecture = architecture
        self.vision = VisionTower(architecture.vision)
        self.decoder = Decoder(architecture, vocabulary, has_own_head=has_own_head)
        self.action_head = ActionHead(architecture)

    @property
    def device(self) -> torch.device:
        return self.decoder.embed_tokens.device

    @property
    def dtype(self) -> torch.dtype:
        """Of activations and of the cache; norms and the action head are float32 always."""
        return self.decoder.embed_tokens.dtype


def load_network(
    directory: str | Path,
    train_config: Mapping[str, Any] | None,
    device: torch.device,
    dtype: torch.dtype,
    on_stage: OnStage,
    token_ids: Mapping[str, int] | None = None,
) -> Network:
    """Build the network that config.json describes and fill it. Raises ConfigError."""
    on_stage("reading config.json")
    architecture = read_architecture(directory, train_config, token_ids=token_ids)
    stored = read_headers(directory)
    there = stored[EMBEDDING].shape if EMBEDDING in stored else ()
    shape = there or (1, architecture.hidden)
    has_own_head = HEAD in stored
    with reading(Path(directory) / "config.json", "sizes of a network that can be built"):
        network = Network(architecture, shape[0], has_own_head=has_own_head)
    wanted = places(architecture, has_own_head=has_own_head)
    fill(network, wanted, stored, device=device, dtype=dtype, on_stage=on_stage)
    special = {"<|propri|>": architecture.state_id, "<|action|>": architecture.action_id}
    special.update({"image_token_id": architecture.image_id, "eos_token_id": architecture.eos_id})
    for name, index in special.items():
        if index >= shape[0]:
            raise ConfigError(f"{directory}: {EMBEDDING}: expected a row for {name} = {index}, got {shape[0]} rows")
    return network.eval()
