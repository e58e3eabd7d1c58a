"""Triton's kernels for the operators of fused.py: the same numbers, rounded where the plain functions round.

Imported on a machine with a GPU, and by a test that runs them in Triton's interpreter (TRITON_INTERPRET=1).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl
except ImportError:  # nothing here is called then: fused.use_kernels has looked for it
    triton = tl = None

_BLOCK = 1024  # numbers that one program of silu_mul takes


def _jit(function: Callable[..., Any]) -> Any:
    return function if triton is None else triton.jit(function)


@_jit
def _norm_rows(
    x, added, after, weight, total, normed, width, length, first, epsilon,
    HAS_ADDED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One program for each row of `width` numbers; `added` has `first` of the `length` rows that lie together."""
    row = tl.program_id(0).to(tl.int64)
    begin = row * width
    columns = tl.arange(0, BLOCK)
    is_inside = columns < width
    numbers = tl.load(x + begin + columns, mask=is_inside, other=0.0)
    if HAS_ADDED:
        batch, place = row // length, row % length
        early, late = (batch * first + place) * width, (batch * (length - first) + place - first) * width
        early_width = tl.where(place < first, width, 0)  # one of the two has this row, of the other nothing is read
        late_width = width - early_width
        more = tl.load(added + early + columns, mask=columns < early_width, other=0.0).to(tl.float32)
        more += tl.load(after + late + columns, mask=columns < late_width, other=0.0).to(tl.float32)
        numbers = (numbers.to(tl.float32) + more).to(total.dtype.element_ty)
        tl.store(total + begin + columns, numbers, mask=is_inside)
    wide = numbers.to(tl.float32)
    scale = 1.0 / tl.sqrt(tl.sum(wide * wide, axis=0) / width + epsilon)
    weights = tl.load(weight + columns, mask=is_inside, other=0.0).to(tl.float32)
    tl.store(normed + begin + columns, (wide * scale * weights).to(normed.dtype.element_ty), mask=is_inside)


@_jit
def _silu_mul(gate_up, out, other_gate_up, other_out, inner, other_inner, rows, BLOCK: tl.constexpr):
    """One program for BLOCK numbers of one row; the rows from `rows` on are the other's."""
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    if row < rows:
        _gate(gate_up, out, row, columns, inner)
    else:
        _gate(other_gate_up, other_out, row - rows, columns, other_inner)


@_jit
def _gate(gate_up, out, row, columns, inner):
    """Some columns of one row."""
    is_inside = columns < inner
    gate = tl.load(gate_up + row * 2 * inner + columns, mask=is_inside, other=0.0).to(tl.float32)
    up = tl.load(gate_up + row * 2 * inner + inner + columns, mask=is_inside, other=0.0).to(tl.float32)
    silu = (gate / (1.0 + tl.exp(-gate))).to(out.dtype.element_ty).to(tl.float32)
    tl.store(out + row * inner + columns, (silu * up).to(out.dtype.element_ty), mask=is_inside)


@_jit
def _turned_halves(x, cos, sin, head, row, lanes, is_inside, half):
    """Both halves of one head after turning, in the table's dtype or x's, whichever is wider."""
    first = tl.load(x + head + lanes, mask=is_inside, other=0.0).to(tl.float32)
    second = tl.load(x + head + half + lanes, mask=is_inside, other=0.0).to(tl.float32)
    c = tl.load(cos + row * half + lanes, mask=is_inside, other=0.0).to(tl.float32)
    s = tl.load(sin + row * half + lanes, mask=is_inside, other=0.0).to(tl.float32)
    table = cos.dtype.element_ty  # products round to it: 16 bits in the decoder, float32 in the image tower
    a = (first * c).to(table).to(tl.float32) - (second * s).to(table).to(tl.float32)
    b = (second * c).to(table).to(tl.float32) + (first * s).to(table).to(tl.float32)
    return a, b


@_jit
def _turn(x, cos, sin, out, x_row, x_head, heads, half, BLOCK: tl.constexpr):
    """One program for each head of each row."""
    row, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    lanes = tl.arange(0, BLOCK)
    is_inside = lanes < half
    a, b = _turned_halves(x, cos, sin, row * x_row + head * x_head, row, lanes, is_inside, half)
    place = out + (row * heads + head) * 2 * half + lanes
    tl.store(place, a.to(out.dtype.element_ty), mask=is_inside)
    tl.store(place + half, b.to(out.dtype.element_ty), mask=is_inside)


@_jit
def _turn_and_store(
    qkv, cos, sin, queries, keys, values, slots, start, length, heads, kv_heads, half,
    keys_batch, keys_head, keys_slot, values_batch, values_head, values_slot,
    HAS_SLOTS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One program for each head (queries', keys', then values') of each token."""
    token, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    batch, place = token // length, token % length
    lanes = tl.arange(0, BLOCK)
    is_inside = lanes < half
    source = (token * (heads + 2 * kv_heads) + head) * 2 * half
    slot = start + place
    if HAS_SLOTS:
        slot = tl.load(slots + batch)
    if head < heads + kv_heads:
        a, b = _turned_halves(qkv, cos, sin, source, token, lanes, is_inside, half)
        target = queries + ((batch * heads + head) * length + place) * 2 * half + lanes
        if head >= heads:
            target = keys + batch * keys_batch + (head - heads) * keys_head + slot * keys_slot + lanes
        tl.store(target, a.to(queries.dtype.element_ty), mask=is_inside)
        tl.store(target + half, b.to(queries.dtype.element_ty), mask=is_inside)
    else:
        target = values + batch * values_batch + (head - heads - kv_heads) * values_head + slot * values_slot + lanes
        tl.store(target, tl.load(qkv + source + lanes, mask=is_inside, other=0.0), mask=is_inside)
        tl.store(target + half, tl.load(qkv + source + half + lanes, mask=is_inside, other=0.0), mask=is_inside)


def rms_norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """See fused.plain_rms_norm."""
    x = x.contiguous()
    normed = torch.empty_like(x)
    _run_norm(x, None, None, weight, x, normed, epsilon)
    return normed


def add_rms_norm(
    x: Tensor, added: Tensor, after: Tensor | None, weight: Tensor, epsilon: float
) -> tuple[Tensor, Tensor]:
    """See fused.plain_add_rms_norm."""
    x = x.contiguous()
    total, normed = torch.empty_like(x), torch.empty_like(x)
    _run_norm(x, added.contiguous(), None if after is None else after.contiguous(), weight, total, normed, epsilon)
    return total, normed


def _run_norm(
    x: Tensor, added: Tensor | None, after: Tensor | None, weight: Tensor, total: Tensor, normed: Tensor, epsilon: float
) -> None:
    width = x.shape[-1]
    more = x if added is None else added
    rows = x.numel() // width
    length, first = (rows, rows) if after is None else (x.shape[1], more.shape[1])
    block = triton.next_power_of_2(width)
    warps = 4 if block <= 2048 else 8
    _norm_rows[(rows,)](
        x, more, more if after is None else after, weight, total, normed, width, length, first, epsilon,
        HAS_ADDED=added is not None, BLOCK=block, num_warps=warps,
    )  # fmt: skip


def silu_mul(gate_up: Tensor) -> Tensor:
    """See fused.plain_silu_mul."""
    gate_up, inner = gate_up.contiguous(), gate_up.shape[-1] // 2
    out = gate_up.new_empty(*gate_up.shape[:-1], inner)
    rows = out.numel() // inner
    _silu_mul[(rows, triton.cdiv(inner, _BLOCK))](gate_up, out, gate_up, out, inner, inner, rows, BLOCK=_BLOCK)
    return out


def silu_mul_both(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """See fused.plain_silu_mul_both."""
    one, other = one.contiguous(), other.contiguous()
    inner, other_inner = one.shape[-1] // 2, other.shape[-1] // 2
    out, other_out = one.new_empty(*one.shape[:-1], inner), other.new_empty(*other.shape[:-1], other_inner)
    rows, other_rows = out.numel() // inner, other_out.numel() // other_inner
    _silu_mul[(rows + other_rows, triton.cdiv(max(inner, other_inner), _BLOCK))](
        one, out, other, other_out, inner, other_inner, rows, BLOCK=_BLOCK
    )
    return out, other_out


def turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """See fused.plain_turn."""
    rows, heads, width = x.shape
    x = x if x.stride(2) == 1 else x.contiguous()
    out = torch.empty((rows, heads, width), dtype=x.dtype, device=x.device)
    half = width // 2
    _turn[(rows, heads)](
        x, cos.contiguous(), sin.contiguous(), out, x.stride(0), x.stride(1), heads, half,
        BLOCK=triton.next_power_of_2(half), num_warps=1,
    )  # fmt: skip
    return out


def turn_and_store(
    qkv: Tensor, cos: Tensor, sin: Tensor, keys: Tensor, values: Tensor, start: int, slots: Tensor | None
) -> Tensor:
    """See fused.plain_turn_and_store."""
    batch, length, all_heads, width = qkv.shape
    kv_heads, half = keys.shape[1], width // 2
    heads = all_heads - 2 * kv_heads
    queries = qkv.new_empty(batch, heads, length, width)
    _turn_and_store[(batch * length, all_heads)](
        qkv.contiguous(), cos.contiguous(), sin.contiguous(), queries, keys, values,
        keys if slots is None else slots.contiguous(), start, length, heads, kv_heads, half,
        *keys.stride()[:3], *values.stride()[:3],
        HAS_SLOTS=slots is not None, BLOCK=triton.next_power_of_2(half), num_warps=1,
    )  # fmt: skip
    return queries


KERNELS: Mapping[str, Callable[..., Any]] = {
    "rms_norm": rms_norm,
    "add_rms_norm": add_rms_norm,
    "silu_mul": silu_mul,
    "silu_mul_both": silu_mul_both,
    "turn": turn,
    "turn_and_store": turn_and_store,
}
