"""The small operations between two matrix products, each as one operator: one kernel on a GPU, plain torch elsewhere.

On a GPU a kernel costs some two microseconds however little it does, and a layer of the decoder had 22 such beside its
four matrix products. The kernels are Triton's (kernels.py), which CUDA's torch for Linux brings along; where it is
missing, or `use_kernels` was told not to, the plain functions here run on a GPU as well. They say what is computed, and
they are what a derivative is taken of (guided steps).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_SIGNATURES = {
    "rms_norm": "(Tensor x, Tensor weight, float epsilon) -> Tensor",
    "add_rms_norm": "(Tensor x, Tensor added, Tensor? after, Tensor weight, float epsilon) -> (Tensor, Tensor)",
    "silu_mul": "(Tensor gate_up) -> Tensor",
    "silu_mul_both": "(Tensor one, Tensor other) -> (Tensor, Tensor)",
    "turn": "(Tensor x, Tensor cos, Tensor sin) -> Tensor",
    "turn_and_store": (
        "(Tensor qkv, Tensor cos, Tensor sin, Tensor(a!) keys, Tensor(b!) values, int start, Tensor? slots) -> Tensor"
    ),
}


def plain_rms_norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """Give x / rms(x) · weight over the last axis, all in float32, then back to x's dtype."""
    return F.rms_norm(x.float(), weight.shape, weight.float(), epsilon).to(x.dtype)


def plain_add_rms_norm(
    x: Tensor, added: Tensor, after: Tensor | None, weight: Tensor, epsilon: float
) -> tuple[Tensor, Tensor]:
    """Give x + added, and its norm as plain_rms_norm has it.

    x: (…, C). after: what is added to the last tokens, where x is (B, S, C) and added only (B, S - n, C): (B, n, C).
    """
    total = x + (added if after is None else torch.cat((added, after), dim=1))
    return total, plain_rms_norm(total, weight, epsilon)


def plain_silu_mul(gate_up: Tensor) -> Tensor:
    """silu(gate) · up. gate_up: (…, 2 · inner). Returns (…, inner)."""
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate).mul_(up)


def plain_silu_mul_both(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """plain_silu_mul of two, which may be of any two sizes."""
    return plain_silu_mul(one), plain_silu_mul(other)


def plain_turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the heads in x's last axis, channel j of its first half with channel j of its second.

    x: (…, heads, D); cos, sin: (…, 1, D/2). dtype as the wider of x's and the table's, then x's.
    """
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).to(x.dtype)


def plain_turn_and_store(
    qkv: Tensor, cos: Tensor, sin: Tensor, keys: Tensor, values: Tensor, start: int, slots: Tensor | None
) -> Tensor:
    """Turn queries and keys; keys and values go to their slots of one layer's cache.

    qkv: (B, S, heads + 2 · kv_heads, D); cos, sin: (B, S, 1, D/2); keys, values: (B, kv_heads, capacity, D). They go to
    start … start + S; with slots (B,), S being 1, each row's to its own. Returns the queries (B, heads, S, D).
    """
    queries, new_keys, new_values = parts_turned(qkv, cos, sin, keys.shape[1])
    length = qkv.shape[1]
    if slots is None:
        keys[:, :, start : start + length] = new_keys
        values[:, :, start : start + length] = new_values
    else:
        rows = torch.arange(len(slots), device=qkv.device)
        keys[rows, :, slots] = new_keys[:, :, 0]
        values[rows, :, slots] = new_values[:, :, 0]
    return queries.contiguous()


def parts_turned(qkv: Tensor, cos: Tensor, sin: Tensor, kv_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries (B, heads, S, D), keys and values (B, kv_heads, S, D) of qkv; queries and keys are turned."""
    turned = plain_turn(qkv[:, :, :-kv_heads], cos, sin).transpose(1, 2)  # (B, heads + kv_heads, S, D)
    return turned[:, :-kv_heads], turned[:, -kv_heads:], qkv[:, :, -kv_heads:].transpose(1, 2)


_PLAIN: dict[str, Callable[..., Any]] = {
    "rms_norm": plain_rms_norm,
    "add_rms_norm": plain_add_rms_norm,
    "silu_mul": plain_silu_mul,
    "silu_mul_both": plain_silu_mul_both,
    "turn": plain_turn,
    "turn_and_store": plain_turn_and_store,
}
_on_gpu: dict[str, Callable[..., Any]] = {}  # what runs there; filled at the first call on a GPU
_library = torch.library.Library("policyserve_wall_x", "DEF")


def use_kernels(wanted: bool) -> bool:
    """Say whether Triton's kernels run on GPUs from now on. Returns whether they will: Triton may not be there."""
    _on_gpu.clear()
    _on_gpu.update(_PLAIN)
    if not wanted or find_spec("triton") is None:
        return False
    _on_gpu.update(import_module("policyserve.policies.wall_x.kernels").KERNELS)
    return True


def adopt_kernels(device: torch.device, kernels: Mapping[str, Callable[..., Any]] | None = None) -> str | None:
    """Compile every kernel, run it beside its plain function, and use none of them if one fails or differs.

    kernels: those of kernels.py. Returns why they are not used, in one line; None: they are. For the thread that loads.
    """
    if kernels is None and not use_kernels(True):
        return "Triton is not installed"
    found = _on_gpu if kernels is None else kernels
    try:
        wrong = [name for name in _PLAIN if not _are_equal(found[name], _PLAIN[name], _sample_of(name, device))]
    except Exception as error:  # Triton needs a C compiler and a driver that it knows, and fails in ways of its own
        lines = str(error).strip().splitlines() or [""]
        wrong, why = ["?"], f"{type(error).__name__}: {lines[0]}"
    else:
        why = f"other numbers than torch's from {', '.join(wrong)}"
    if not wrong:
        return None
    use_kernels(False)
    return why


def _sample_of(name: str, device: torch.device) -> tuple[Any, ...]:
    """Arguments of an operator, in 16 bits."""
    generator = torch.Generator().manual_seed(0)

    def numbers(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device, torch.bfloat16)

    x, weight = numbers(3, 5, 64), numbers(64).float()
    cos, sin = numbers(3, 5, 1, 8), numbers(3, 5, 1, 8)
    return {
        "rms_norm": (x, weight, 1e-6),
        "add_rms_norm": (x, numbers(3, 3, 64), numbers(3, 2, 64), weight, 1e-6),
        "silu_mul": (x,),
        "silu_mul_both": (x, numbers(3, 2, 32)),
        "turn": (numbers(15, 4, 16), cos.flatten(0, 1), sin.flatten(0, 1)),
        "turn_and_store": (numbers(3, 5, 8, 16), cos, sin, numbers(3, 2, 9, 16), numbers(3, 2, 9, 16), 4, None),
    }[name]


def _are_equal(one: Callable[..., Any], other: Callable[..., Any], arguments: tuple[Any, ...]) -> bool:
    """Whether both give the same, and change their arguments to the same, up to 16 bits' rounding."""
    sides: list[list[Tensor]] = []
    for function in (one, other):
        given = [argument.clone() if isinstance(argument, Tensor) else argument for argument in arguments]
        result = function(*given)
        results = result if isinstance(result, tuple) else (result,)
        sides.append([part.float() for part in (*results, *given) if isinstance(part, Tensor)])
    return all(torch.allclose(a, b, rtol=0.02, atol=0.02) for a, b in zip(*sides, strict=True))


def _register(name: str, plain: Callable[..., Any]) -> Any:
    def on_gpu(*args: Any) -> Any:
        if not _on_gpu:
            use_kernels(True)
        return _on_gpu[name](*args)

    _library.define(name + _SIGNATURES[name])
    _library.impl(name, plain, "CompositeExplicitAutograd")  # a CPU, and devices that only know shapes
    _library.impl(name, on_gpu, "CUDA")
    return getattr(torch.ops.policyserve_wall_x, name).default


_operators = {name: _register(name, plain) for name, plain in _PLAIN.items()}


def _run(name: str, x: Tensor, *more: Any) -> Any:
    """Run an operator; of what a derivative is taken the plain function, since operators and kernels have none."""
    has_derivative = any(isinstance(given, Tensor) and given.requires_grad for given in (x, *more))
    return (_PLAIN if has_derivative else _operators)[name](x, *more)


def rms_norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """See plain_rms_norm."""
    return _run("rms_norm", x, weight, epsilon)


def add_rms_norm(
    x: Tensor, added: Tensor, weight: Tensor, epsilon: float, *, after: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """See plain_add_rms_norm."""
    return _run("add_rms_norm", x, added, after, weight, epsilon)


def silu_mul(gate_up: Tensor) -> Tensor:
    """See plain_silu_mul."""
    return _run("silu_mul", gate_up)


def silu_mul_both(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """See plain_silu_mul_both."""
    return _run("silu_mul_both", one, other)


def turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """See plain_turn."""
    return _run("turn", x, cos, sin)


def turn_and_store(
    qkv: Tensor, cos: Tensor, sin: Tensor, keys: Tensor, values: Tensor, start: int = 0, slots: Tensor | None = None
) -> Tensor:
    """See plain_turn_and_store."""
    return _run("turn_and_store", qkv, cos, sin, keys, values, start, slots)
