"""What a GPU's scaled_dot_product_attention answers, as far as a machine without one can tell: layouts, and refusals.

torch has several kernels, and each lays its result out in its own way; on a CPU there is one, which keeps the query's.
The choice among them is that of torch's sdp_utils.cpp, and the layouts are those of its attention.cu.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

from tests.policies.frameworks import import_or_skip

torch = import_or_skip("torch")

Attention = Callable[..., Any]
# float32: on every GPU; flash: 16 bits, where cuDNN's attention is not chosen; cudnn: 16 bits on Hopper and Blackwell
Card = Literal["float32", "flash", "cudnn"]
CARDS: tuple[Card, ...] = get_args(Card)


def attention_of(card: Card, compute: Attention) -> Attention:
    """`compute`, its results copied into the layout that this card's kernel gives; on meta they are empty."""

    def attend(
        query: Any, key: Any, value: Any, attn_mask: Any = None, is_causal: bool = False, enable_gqa: bool = False
    ) -> Any:
        masks = [] if attn_mask is None else [attn_mask]
        for tensor in (query, key, value, *masks):
            assert tensor.device == query.device
            assert tensor.dtype == query.dtype
        out = _empty_result(_kernel_of(card, query, key, attn_mask), query, value)
        if query.device.type != "meta":
            out.copy_(compute(query, key, value, attn_mask=attn_mask, is_causal=is_causal, enable_gqa=enable_gqa))
        return out

    return attend


def _kernel_of(card: Card, query: Any, key: Any, mask: Any) -> str:
    if card == "cudnn" or (card == "flash" and mask is None):
        return "as the query"
    return "efficient" if query.shape[1] == key.shape[1] else "math"  # the memory-efficient one wants equal heads


def _empty_result(kernel: str, query: Any, value: Any) -> Any:
    batch, heads, length, _ = query.shape
    width = value.shape[-1]
    if kernel == "as the query":
        return torch.empty_like(query)
    if kernel == "efficient":
        return query.new_empty(batch, length, heads, width).transpose(1, 2)
    return query.new_empty(batch, heads, length, width)
