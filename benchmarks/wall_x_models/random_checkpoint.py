"""A checkpoint directory of any size with random weights: for measuring and for tests, never for a robot.

It holds config.json, added_tokens.json and safetensors shards, which is all that the network needs: no tokenizer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from policyserve.policies.wall_x.architecture import read_architecture
from policyserve.policies.wall_x.checkpoint import expected_shape
from policyserve.policies.wall_x.names import places, stays_float32
from policyserve.policies.wall_x.network import Network

_DEVIATION = 0.02
_IDS = {"eos_token_id": 1, "image_token_id": 2}
_TOKENS = {"<|propri|>": 3, "<|action|>": 4}


@dataclass(frozen=True)
class RandomSize:
    """The sizes that matter; the others follow from them as in the released model."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    text_inner: int
    action_inner: int
    vision_width: int
    vision_depth: int
    vision_heads: int
    vision_inner: int
    vocabulary: int
    action_dim: int = 20


SIZES: Mapping[str, RandomSize] = {
    "tiny": RandomSize(64, 2, 4, 2, 96, 32, 32, 2, 2, 48, 300),
    "mid": RandomSize(512, 8, 8, 2, 2752, 512, 320, 8, 4, 856, 8000),
    "real": RandomSize(2048, 36, 16, 2, 11008, 2048, 1280, 32, 16, 3420, 151667),
}


def random_config(size: RandomSize) -> dict[str, Any]:
    """A config.json as the released checkpoints have it."""
    half = size.hidden // size.heads // 2
    return {
        **_IDS,
        "hidden_size": size.hidden,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": size.kv_heads,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e6,
        "rope_scaling": {"type": "mrope", "mrope_section": [half - 2 * (3 * half // 8), 3 * half // 8, 3 * half // 8]},
        "experts": [
            {"hidden_size": size.hidden, "intermediate_size": inner} for inner in (size.text_inner, size.action_inner)
        ],
        "dim_inputs": [size.hidden, size.hidden],
        "dof_config": {"all": size.action_dim},
        "agent_pos_config": {"all": size.action_dim},
        "vision_config": {
            "depth": size.vision_depth,
            "hidden_size": size.vision_width,
            "intermediate_size": size.vision_inner,
            "num_heads": size.vision_heads,
            "out_hidden_size": size.hidden,
            "patch_size": 14,
            "temporal_patch_size": 2,
            "spatial_merge_size": 2,
            "window_size": 112,
            "fullatt_block_indexes": list(range(max(size.vision_depth // 4 - 1, 1), size.vision_depth, 8)),
        },
    }


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Write what says how a network is made, without its weights."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    (folder / "added_tokens.json").write_text(json.dumps(_TOKENS), encoding="utf-8")


def write_random_checkpoint(
    directory: str | Path, config: Mapping[str, Any], vocabulary: int, *, shard_bytes: int = 1 << 30, seed: int = 0
) -> int:
    """Write the directory, in bfloat16 and float32 as the released ones are. Returns the weights' bytes."""
    folder = Path(directory)
    write_config(folder, config)
    architecture = read_architecture(folder)
    parameters = dict(Network(architecture, vocabulary, has_own_head=False).named_parameters())
    generator = torch.Generator().manual_seed(seed)
    shard: dict[str, Tensor] = {}
    written, number, size = 0, 0, 0
    for name, place in places(architecture, has_own_head=False).items():
        shape = expected_shape(place, parameters[place.parameter])
        dtype = torch.float32 if stays_float32(name) else torch.bfloat16
        is_norm = len(shape) == 1 and name.endswith("weight")
        values = torch.ones(shape) if is_norm else torch.randn(shape, generator=generator) * _DEVIATION
        shard[name] = values.to(dtype)
        size += shard[name].nbytes
        if size >= shard_bytes:
            save_file(shard, folder / f"model-{number:05}.safetensors")
            written, number, size, shard = written + size, number + 1, 0, {}
    if shard:
        save_file(shard, folder / f"model-{number:05}.safetensors")
    return written + size
