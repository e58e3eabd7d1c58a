"""norm_stats.json, and the arithmetic that goes with it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from policyserve.core.errors import ConfigError
from policyserve.transforms import NormalizeInput, RescaleOutput, UnnormalizeOutput, read_norm_stats
from policyserve.transforms.normalize import is_openpi

ENTRY = {"mean": [1.0, 2.0], "std": [0.5, 4.0], "q01": [0.0, 0.0], "q99": [3.0, 9.0]}


def test_statistics_are_read_as_float32() -> None:
    stats = read_norm_stats({"obs": ENTRY, "action": ENTRY}, "norm_stats.json")
    assert list(stats) == ["obs", "action"]
    assert stats["obs"].q99 is not None
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
        ({"obs": 3}, "n.json: obs: expected a map with mean, std, got int"),
        ({"obs": {"mean": 0, "q01": 1}}, "n.json: obs: expected mean, std, got mean, q01: std missing"),
        ({"obs": {"mean": 0, "std": None}}, "n.json: obs: expected mean, std, got mean: std missing"),
        ({"obs": {}}, "got none of them"),
        ({"obs": {**ENTRY, "q01": ["a"]}}, "obs/q01: expected a number or a flat list of numbers, got ['a']"),
        ({"obs": {**ENTRY, "std": [0.5, -4.0]}}, "n.json: obs/std: expected 0 or more, got [0.5, -4.0]"),
        ({"obs": {**ENTRY, "std": -1}}, "obs/std: expected 0 or more, got -1"),
        ({"obs": {**ENTRY, "std": float("inf")}}, "obs/std: expected finite float32 numbers"),
        ({"norm_stats": []}, "n.json: norm_stats: expected a map with mean, std, got list"),
        (
            {"norm_stats": {"state": {"q01": 0, "q99": 1}}},
            "norm_stats: state: expected mean, std, got q01, q99: mean, std",
        ),
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


def test_percentiles_may_be_missing_because_nothing_here_needs_them() -> None:
    for entry in ({"mean": 1, "std": 2}, {"mean": 1, "std": 2, "q01": None, "q99": None}):
        stats = read_norm_stats({"obs": entry}, "norm_stats.json")["obs"]
        assert (stats.mean, stats.std, stats.q01, stats.q99) == (1, 2, None, None)


def test_openpis_wrapper_is_taken_off() -> None:
    assert is_openpi({"norm_stats": {"state": ENTRY}})
    assert not is_openpi({"obs": ENTRY})
    stats = read_norm_stats({"norm_stats": {"state": ENTRY, "actions": {**ENTRY, "q01": None}}}, "norm_stats.json")
    assert list(stats) == ["state", "actions"]
    np.testing.assert_array_equal(stats["state"].std, [0.5, 4.0])
    assert stats["actions"].q01 is None


@pytest.mark.parametrize("transform", [NormalizeInput, UnnormalizeOutput])
@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        (0, [1, -2.0], "std: expected 0 or more, got -2.0"),
        (0, float("nan"), "std: expected finite float32 numbers, got nan"),
        ([0, 1e39], 1, "mean: expected finite float32 numbers, got inf"),
    ],
)
def test_transforms_refuse_statistics_that_no_data_has(transform: Any, mean: Any, std: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        transform(mean, std)


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
