"""Triton's kernels give what the plain functions give: in a process of its own, which test_kernels.py starts.

Triton looks at TRITON_INTERPRET when it is imported, so no test that ran before may have done that.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.policies.frameworks import import_or_skip

torch = import_or_skip("torch")
from policyserve.policies.wall_x import fused, kernels  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_torch_thread")

DTYPES = ["float32", "bfloat16"]


def numbers(*shape: int, dtype: str = "float32", seed: int = 0) -> Any:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator).to(getattr(torch, dtype))


def check_equal(got: Any, wanted: Any) -> None:
    """As the interpreter computes: it cuts off where a GPU rounds to 16 bits, and sums in another order."""
    assert got.shape == wanted.shape
    assert got.dtype == wanted.dtype
    allowed = 2e-6 if wanted.dtype == torch.float32 else 0.02
    torch.testing.assert_close(got, wanted, atol=allowed, rtol=allowed)


def check_both(got: Any, wanted: Any) -> None:
    for one, other in zip(got, wanted, strict=True):
        check_equal(one, other)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [64, 80, 48])
def test_norms_with_and_without_a_sum(dtype: str, width: int) -> None:
    x, added, weight = numbers(2, 5, width, dtype=dtype), numbers(2, 5, width, dtype=dtype, seed=1), numbers(width)
    check_equal(kernels.rms_norm(x, weight, 1e-6), fused.plain_rms_norm(x, weight, 1e-6))
    check_both(*(run(x, added, None, weight, 1e-6) for run in (kernels.add_rms_norm, fused.plain_add_rms_norm)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("last", [1, 4])
def test_a_norm_of_a_sum_that_comes_in_two_parts(dtype: str, last: int) -> None:
    x, weight = numbers(3, 5, 48, dtype=dtype), numbers(48)
    added, after = numbers(3, 5 - last, 48, dtype=dtype, seed=1), numbers(3, last, 48, dtype=dtype, seed=2)
    check_both(*(run(x, added, after, weight, 1e-6) for run in (kernels.add_rms_norm, fused.plain_add_rms_norm)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_norm_of_rows_that_do_not_lie_together(dtype: str) -> None:
    x, weight = numbers(3, 7, 64, dtype=dtype)[:, 2:5], numbers(64, dtype=dtype)
    check_equal(kernels.rms_norm(x, weight, 1e-6), fused.plain_rms_norm(x, weight, 1e-6))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("inner", [32, 1500])
def test_the_gated_product(dtype: str, inner: int) -> None:
    gate_up = numbers(2, 3, 2 * inner, dtype=dtype)
    check_equal(kernels.silu_mul(gate_up), fused.plain_silu_mul(gate_up))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("inners", [(32, 1500), (1500, 32), (16, 16)])
def test_two_gated_products_at_once(dtype: str, inners: tuple[int, int]) -> None:
    one, other = numbers(2, 3, 2 * inners[0], dtype=dtype), numbers(2, 1, 2 * inners[1], dtype=dtype, seed=1)
    check_both(kernels.silu_mul_both(one, other), fused.plain_silu_mul_both(one, other))


@pytest.mark.parametrize("dtype", DTYPES)
def test_turning_the_image_towers_heads(dtype: str) -> None:
    x, cos, sin = numbers(9, 3 * 2, 20, dtype=dtype)[:, :4], numbers(9, 1, 10), numbers(9, 1, 10, seed=1)
    check_equal(kernels.turn(x, cos, sin), fused.plain_turn(x, cos, sin))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("slots", [None, (3, 0)])
def test_turning_and_storing(dtype: str, slots: tuple[int, ...] | None) -> None:
    heads, kv_heads, width, length = 4, 2, 12, 1 if slots else 3
    qkv = numbers(2, length, heads + 2 * kv_heads, width, dtype=dtype)
    cos, sin = (numbers(2, length, 1, width // 2, dtype=dtype, seed=seed) for seed in (1, 2))
    caches = [numbers(4, 5, 2, kv_heads, 8, width, dtype=dtype)[:, 1] for _ in range(2)]
    places = None if slots is None else torch.tensor(slots)
    answers = [
        run(qkv, cos, sin, cache[0], cache[1], 4, places)
        for run, cache in zip((kernels.turn_and_store, fused.plain_turn_and_store), caches, strict=True)
    ]
    check_equal(*answers)
    check_equal(*caches)
    assert not torch.equal(caches[0], numbers(4, 5, 2, kv_heads, 8, width, dtype=dtype)[:, 1])


def test_every_operator_has_a_kernel() -> None:
    assert set(kernels.KERNELS) == {"rms_norm", "add_rms_norm", "silu_mul", "silu_mul_both", "turn", "turn_and_store"}
    assert fused.use_kernels(True)
    assert not fused.use_kernels(False)
