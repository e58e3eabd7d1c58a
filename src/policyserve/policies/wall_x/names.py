"""Where each tensor of a checkpoint belongs in our network: its parameter, and which rows of it.

Matrices that are applied to the same input lie stacked in one parameter: queries, keys and values; gate and up.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from policyserve.policies.wall_x.architecture import Architecture

EMBEDDING = "model.embed_tokens.weight"
HEAD = "lm_head.weight"
IGNORED_PREFIX = "action_preprocessor.normalizer"  # statistics, which lie in files of their own too

# Newer exports nest both towers under one more name.
_RENAMED = (("model.visual.", "visual."), ("model.language_model.", "model."))
# Names that wrappers of a module put into the path; no network has them of its own.
_WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
# What stays float32 whatever the network computes in, by a part of its name.
_FLOAT32 = ("input_layernorm", "post_attention_layernorm", "model.norm", "action_preprocessor")


@dataclass(frozen=True)
class Place:
    """Rows [start, start + rows) of a parameter; rows None: all of it."""

    parameter: str
    start: int = 0
    rows: int | None = None


def legacy_name(name: str) -> str:
    """A tensor's name as the first checkpoints have it, without the names of wrappers (torch.compile, FSDP)."""
    name = ".".join(part for part in name.split(".") if part not in _WRAPPERS)
    for new, old in _RENAMED:
        if name.startswith(new):
            return old + name[len(new) :]
    return name


def prefixes(name: str) -> list[str]:
    """What of a tensor's name stands before the embedding's; none for any other tensor."""
    starts = [0, *(index + 1 for index, letter in enumerate(name) if letter == ".")]
    return [name[:start] for start in starts if legacy_name(name[start:]) == EMBEDDING]


def stays_float32(name: str) -> bool:
    """Whether a tensor (by its legacy name) keeps full precision in a network of 16 bits."""
    return any(part in name for part in _FLOAT32)


def places(architecture: Architecture, *, has_own_head: bool) -> dict[str, Place]:
    """Every tensor that a checkpoint must hold, by its legacy name, and where it goes."""
    found = {EMBEDDING: Place("decoder.embed_tokens")}
    if has_own_head:
        found[HEAD] = Place("decoder.lm_head")
    found.update(_vision(architecture))
    for index in range(architecture.layers):
        found.update(_layer(architecture, index))
    found.update(_norms(architecture, "model.norm", "decoder.norm"))
    for name in ("propri_proj", "w1", "w2", "w3", "action_proj_back"):
        found[f"action_preprocessor.{name}.weight"] = Place(f"action_head.{name}.weight")
    return found


def _vision(a: Architecture) -> Iterator[tuple[str, Place]]:
    yield "visual.patch_embed.proj.weight", Place("vision.patch_embed")
    for index in range(a.vision.depth):
        theirs, ours = f"visual.blocks.{index}", f"vision.blocks.{index}"
        for name in ("norm1", "norm2"):
            yield f"{theirs}.{name}.weight", Place(f"{ours}.{name}.weight")
        for kind in ("weight", "bias"):
            for name in ("qkv", "proj"):
                yield f"{theirs}.attn.{name}.{kind}", Place(f"{ours}.{name}.{kind}")
            yield from _gated(f"{theirs}.mlp", f"{ours}.mlp", a.vision.inner, kind)
    yield "visual.merger.ln_q.weight", Place("vision.norm.weight")
    for theirs, ours in (("mlp.0", "merge_in"), ("mlp.2", "merge_out")):
        for kind in ("weight", "bias"):
            yield f"visual.merger.{theirs}.{kind}", Place(f"vision.{ours}.{kind}")


def _layer(a: Architecture, index: int) -> Iterator[tuple[str, Place]]:
    theirs, ours = f"model.layers.{index}", f"decoder.layers.{index}"
    yield from _norms(a, f"{theirs}.input_layernorm", f"{ours}.input_norm")
    yield from _norms(a, f"{theirs}.post_attention_layernorm", f"{ours}.post_norm")
    queries, keys = a.heads * a.head_dim, a.kv_heads * a.head_dim
    stacked = (("q", 0, queries), ("k", queries, keys), ("v", queries + keys, keys))
    for expert in range(2 if a.has_attention_experts else 1):
        suffix = f"_experts.{expert}" if a.has_attention_experts else ""
        for letter, start, rows in stacked:
            for kind in ("weight", "bias"):
                name = f"{theirs}.self_attn.{letter}_proj{suffix}.{kind}"
                yield name, Place(f"{ours}.qkv.of.{expert}.{kind}", start, rows)
        yield f"{theirs}.self_attn.o_proj{suffix}.weight", Place(f"{ours}.out.of.{expert}.weight")
    for number, expert in enumerate(a.experts):
        yield from _gated(f"{theirs}.moe.experts.{number}", f"{ours}.mlp.of.{number}", expert.inner, "weight")


def _gated(theirs: str, ours: str, inner: int, kind: str) -> Iterator[tuple[str, Place]]:
    yield f"{theirs}.gate_proj.{kind}", Place(f"{ours}.gate_up.{kind}", 0, inner)
    yield f"{theirs}.up_proj.{kind}", Place(f"{ours}.gate_up.{kind}", inner, inner)
    yield f"{theirs}.down_proj.{kind}", Place(f"{ours}.down.{kind}")


def _norms(a: Architecture, theirs: str, ours: str) -> Iterator[tuple[str, Place]]:
    if not a.has_norm_experts:
        yield f"{theirs}.weight", Place(f"{ours}.of.0.weight")
        return
    for number in range(len(a.experts)):
        yield f"{theirs}s.{number}.weight", Place(f"{ours}.of.{number}.weight")
