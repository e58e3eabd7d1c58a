"""The sizes and switches of a Wall-X network, read from a checkpoint's config.json and the train config over it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from policyserve.core.errors import ConfigError
from policyserve.policies.fields import LARGEST, Fields, as_json, read_object
from policyserve.policies.files import reading

TEXT, ACTION = 0, 1  # token types: what an expert is chosen by

_MOST_LAYERS = 10_000  # beyond, a number is a mistake, and a network of it is never built

# The train config may say otherwise than config.json, and it wins.
_OVERRIDES = ("dof_config", "agent_pos_config", "causal_action_attention_mask")
# Variants that exist upstream, are off in every published configuration, and would silently change the numbers.
_UNSUPPORTED = {
    "use_adarms": False,
    "use_x_pred": False,
    "use_state_string_representation": False,
    "proj_with_mask": True,
    "mlp_moe": True,
}


@dataclass(frozen=True)
class VisionArchitecture:
    """The image tower. window_cells: side of an attention window in merged cells."""

    depth: int
    width: int
    inner: int
    heads: int
    patch_shape: tuple[int, int, int, int]  # (channels, time, height, width)
    merge: int
    window_cells: int
    full_blocks: tuple[int, ...]
    out_width: int


@dataclass(frozen=True)
class Expert:
    """The feed-forward part of one token type: it reads and writes the first `width` channels alone."""

    width: int
    inner: int


@dataclass(frozen=True)
class Architecture:
    """Everything about the network but its weights. Ids of special tokens come from the tokenizer's files."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    norm_epsilon: float
    rope_theta: float
    rope_sections: tuple[int, int, int]
    experts: tuple[Expert, Expert]
    has_attention_experts: bool
    has_norm_experts: bool
    is_action_attention_causal: bool
    action_dim: int
    state_dim: int
    action_hidden: int
    state_hidden: int
    eos_id: int
    image_id: int
    state_id: int
    action_id: int
    vision: VisionArchitecture

    @property
    def head_dim(self) -> int:
        return self.hidden // self.heads


def read_architecture(
    directory: str | Path,
    train_config: Mapping[str, Any] | None = None,
    *,
    token_ids: Mapping[str, int] | None = None,
) -> Architecture:
    """Read config.json and the ids of the special tokens of a checkpoint directory.

    token_ids: those of `<|propri|>` and `<|action|>`, where the tokenizer is read elsewhere; None: from its files here.

    train_config: the training run's YAML as a mapping; its dof_config, agent_pos_config and
    causal_action_attention_mask take the place of config.json's. Raises ConfigError naming file and field.
    """
    path = Path(directory) / "config.json"
    values = _read_json(path)
    train = dict(train_config or {})
    data = train.get("data")
    if isinstance(data, Mapping):
        train = {**data, **train}
    values.update({name: train[name] for name in (*_OVERRIDES, *_UNSUPPORTED) if train.get(name) is not None})
    config = _Fields(values, str(path))
    for name, supported in _UNSUPPORTED.items():
        if config.flag(name, supported) is not supported:
            raise ConfigError(f"{path}: {name}: expected {as_json(supported)}, got {as_json(not supported)}")
    hidden, heads = config.count("hidden_size"), config.count("num_attention_heads")
    kv_heads = config.count("num_key_value_heads")
    config.check_divides("num_attention_heads", heads, "hidden_size", hidden)
    config.check_divides("num_key_value_heads", kv_heads, "num_attention_heads", heads)
    ids = token_ids or _read_token_ids(Path(directory))
    return Architecture(
        hidden=hidden,
        layers=config.count("num_hidden_layers", most=_MOST_LAYERS),
        heads=heads,
        kv_heads=kv_heads,
        norm_epsilon=config.number("rms_norm_eps", 1e-6),
        rope_theta=config.number("rope_theta", 1e6),
        rope_sections=_read_rope_sections(config, hidden // heads),
        experts=_read_experts(config, hidden),
        has_attention_experts=config.flag("attention_moe", False),
        has_norm_experts=config.flag("norm_moe", False),
        is_action_attention_causal=config.flag("causal_action_attention_mask", False),
        action_dim=config.total("dof_config"),
        state_dim=config.total("agent_pos_config"),
        action_hidden=config.width("action_hidden_size", hidden),
        state_hidden=config.width("state_hidden_size", hidden),
        eos_id=config.count("eos_token_id"),
        image_id=config.count("image_token_id"),
        state_id=ids["<|propri|>"],
        action_id=ids["<|action|>"],
        vision=_read_vision(config.section("vision_config"), hidden),
    )


class _Fields(Fields):
    """Fields of Wall-X's configuration."""

    def width(self, name: str, hidden: int) -> int:
        value = self.count(name, hidden)
        if value > hidden or value < 4 or value % 2:
            raise self.fail(name, f"an even number of at most hidden_size = {hidden}")
        return value

    def total(self, name: str) -> int:
        value = self.get(name)
        if not isinstance(value, Mapping) or not value or not all(type(n) is int and n > 0 for n in value.values()):
            raise self.fail(name, "names with their positive numbers of values")
        return sum(value.values())


def _read_experts(config: _Fields, hidden: int) -> tuple[Expert, Expert]:
    values = config.get("experts")
    if not isinstance(values, list) or len(values) != 2 or not all(isinstance(value, Mapping) for value in values):
        raise config.fail("experts", "two objects, for text and for actions")
    inner = [_Fields(value, f"experts.{index}").count("intermediate_size") for index, value in enumerate(values)]
    widths = config.counts("dim_inputs", length=2) if "dim_inputs" in config else (hidden, hidden)
    if not all(0 < width <= hidden for width in widths):
        raise config.fail("dim_inputs", f"two numbers of 1 … hidden_size = {hidden}")
    return Expert(widths[0], inner[0]), Expert(widths[1], inner[1])


def _read_rope_sections(config: _Fields, head_dim: int) -> tuple[int, int, int]:
    rope = config.section("rope_scaling")
    sections = rope.counts("mrope_section", length=3)
    if sum(sections) * 2 != head_dim:
        raise rope.fail("mrope_section", f"three numbers of sum {head_dim // 2}, half a head's width")
    return sections[0], sections[1], sections[2]


def _read_vision(config: _Fields, hidden: int) -> VisionArchitecture:
    patch, merge, window = config.count("patch_size"), config.count("spatial_merge_size"), config.count("window_size")
    width, heads = config.count("hidden_size"), config.count("num_heads")
    config.check_divides("num_heads", heads, "hidden_size", width)
    if width // heads % 4:
        raise config.fail("num_heads", f"heads whose width divides by 4 (hidden_size = {width})")
    if config.count("out_hidden_size") != hidden:
        raise config.fail("out_hidden_size", f"the decoder's hidden_size = {hidden}")
    config.check_divides("patch_size", patch * merge, "window_size", window)
    return VisionArchitecture(
        depth=config.count("depth", most=_MOST_LAYERS),
        width=width,
        inner=config.count("intermediate_size"),
        heads=heads,
        patch_shape=(config.count("in_chans", 3), config.count("temporal_patch_size"), patch, patch),
        merge=merge,
        window_cells=window // (patch * merge),
        full_blocks=config.counts("fullatt_block_indexes"),
        out_width=hidden,
    )


def _read_token_ids(directory: Path) -> dict[str, int]:
    """Ids of the tokens that the network treats specially, from whichever of the tokenizer's files is there."""
    found: dict[str, int] = {}
    names = ("added_tokens.json", "tokenizer.json")
    for name in names:
        if not (directory / name).is_file():
            continue
        values = _read_json(directory / name)
        added = values.get("added_tokens", []) if name == "tokenizer.json" else None
        with reading(directory / name, "tokens with their ids"):
            entries = values.items() if added is None else [(entry["content"], entry["id"]) for entry in added]
            found.update({text: index for text, index in entries if text not in found and _is_id(index)})
        if {"<|propri|>", "<|action|>"} <= found.keys():
            return found
    raise ConfigError(
        f"{directory}: expected the tokens <|propri|> and <|action|> in {' or '.join(names)}, got neither"
    )


def _is_id(value: Any) -> bool:
    return type(value) is int and 0 <= value < LARGEST


def _read_json(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise ConfigError(f"{path} does not exist; model_path must be a checkpoint directory")
    return read_object(path)
