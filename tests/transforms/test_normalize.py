"""norm_stats.json, and the arithmetic that goes with it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from policyserve.core.errors import ConfigError
from policyserve.transforms import NormalizeInput, RescaleOutput, UnnormalizeOutput, read_norm_stats

ENTRY = {"mean": [1.0, 2.0], "std": [0.5, 4.0], "q01": [0.0, 0.0], "q99": [3.0, 9.0]}


def test_statistics_are_read_as_float32() -> None:
    stats = read_norm_stats({"obs": ENTRY, "action": ENTRY}, "norm_stats.json")
    assert list(stats) == ["obs", "action"]
    assert stats["obs"].mean.dtype == stats["obs"].q99.dtype == np.float32
    np.testing.assert_array_equal(stats["obs"].std, [0.5, 4.0])


def test_a_number_alone_stands_for_all_features() -> None:
    stats = read_norm_stats({"obs": {"mean": 1, "std": 2.5, "q01": 0, "q99": 4}}, "norm_stats.json")["obs"]
    assert stats.mean.shape == ()
    np.testing.assert_array_equal(NormalizeInput(stats.mean, stats.std)(np.full(3, 6.0)), np.full(3, 2.0))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "n.json: expected a map from keys to statistics, got list"),
        ({"obs": 3}, "n.json: obs: expected a map with mean, std, q01, q99, got int"),
        ({"obs": {"mean": 0, "std": 1}}, "n.json: obs: expected mean, std, q01, q99, got mean, std: q01, q99 missing"),
        ({"obs": {}}, "got none of them"),
        ({"obs": {**ENTRY, "std": "1"}}, "n.json: obs/std: expected a number or a flat list of numbers, got '1'"),
        ({"obs": {**ENTRY, "std": [[1, 2]]}}, "obs/std: expected a number or a flat list"),
        ({"obs": {**ENTRY, "std": [1, True]}}, "obs/std: expected a number or a flat list"),
        ({"obs": {**ENTRY, "std": [1, None]}}, "obs/std: expected a number or a flat list"),
        ({"obs": {**ENTRY, "mean": [1.0, float("nan")]}}, "obs/mean: expected finite float32 numbers"),
        ({"obs": {**ENTRY, "mean": 1e39}}, "obs/mean: expected finite float32 numbers"),
        ({"obs": {**ENTRY, "mean": int("9" * 400)}}, "obs/mean: expected finite float32 numbers"),
    ],
)
def test_malformed_statistics_are_refused_by_key(values: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_norm_stats(json.loads(json.dumps(values)), "n.json")
    assert message in str(caught.value)


def test_normalizing_takes_any_number_dtype_and_gives_float32() -> None:
    normalize = NormalizeInput([1.0, 2.0], [0.5, 4.0])
    for dtype in ("float64", "int32", "uint8", "float16", "bool"):
        result = normalize(np.ones((5, 2), dtype))
        assert result.dtype == np.float32
        np.testing.assert_array_equal(result, np.tile(np.array([0, -0.25], np.float32), (5, 1)))


def test_a_feature_that_never_varied_does_not_blow_up_beyond_one_over_eps() -> None:
    assert NormalizeInput(0.0, 0.0)(np.array([1e-8], np.float32)) == pytest.approx(1.0)
    assert UnnormalizeOutput(5.0, 0.0)(np.array([1.0], np.float32)) == np.float32(5.0)


def test_unnormalizing_undoes_normalizing() -> None:
    mean, std = np.array([1, -2, 3], np.float32), np.array([0.1, 2, 30], np.float32)
    values = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
    np.testing.assert_allclose(UnnormalizeOutput(mean, std)(NormalizeInput(mean, std)(values)), values, atol=1e-5)


def test_rescaling_stretches_minus_one_to_one() -> None:
    rescaled = RescaleOutput(-2.0, 6.0)(np.array([-1, -0.5, 0, 1], np.float32))
    assert rescaled.dtype == np.float32
    np.testing.assert_array_equal(rescaled, [-2, 0, 2, 6])
