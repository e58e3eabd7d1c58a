"""What real-time execution can be told, and what it refuses."""

from __future__ import annotations

import math
from typing import Any

import pytest

from policyserve.core.errors import ConfigError
from policyserve.realtime.combining import ensemble
from policyserve.realtime.settings import RealtimeSettings, read_settings


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"control_hz": 0}, "control_hz: expected rows per second, more than 0 and at most 100000, got 0"),
        ({"control_hz": math.inf}, "control_hz: expected rows per second, .* got inf"),
        ({"control_hz": math.nan}, "control_hz: expected rows per second, .* got nan"),
        ({"control_hz": -50}, "control_hz: .* got -50"),
        ({"control_hz": "50"}, "control_hz: .* got '50'"),
        ({"control_hz": True}, "control_hz: .* got True"),
        ({"control_hz": None}, "control_hz: .* got None"),
        ({"action_kind": "pose"}, "action_kind: expected one of position"),
        ({"fallback": "stop"}, "fallback: expected rungs"),
        ({"execution_horizon": 0}, "execution_horizon: expected a whole number of rows, 1 or more, or None, got 0"),
        ({"execution_horizon": 2.5}, "execution_horizon: .* got 2.5"),
        ({"prefix_attention_horizon": 0}, "prefix_attention_horizon: .* got 0"),
        ({"inference_delay": -1}, "inference_delay: expected a whole number of rows, 0 or more, or None, got -1"),
        ({"blend_steps": -1}, "blend_steps: .* got -1"),
        ({"blend_steps": "no"}, "blend_steps: .* got 'no'"),
        ({"rtc": True}, "rtc: expected one of auto, require, off, got True"),
        ({"aggregate": "mean"}, r"aggregate: expected one of replace, weighted_average, .*ensemble\(m\), got 'mean'"),
        ({"aggregate": "average", "rtc": "require"}, "rtc: expected .*aggregate='average'.* got 'require'"),
        ({"aggregate": ensemble(), "blend_steps": 3}, "blend_steps: expected 0 or None with aggregate="),
        ({"max_action_age_s": 0}, "max_action_age_s: expected seconds, more than 0"),
        ({"request_timeout_s": math.nan}, "request_timeout_s: expected seconds"),
        ({"interpolate": "yes"}, "interpolate: expected True or False"),
        ({"interpolate_dims": [0]}, "interpolate_dims: expected interpolate=True with it"),
        ({"interpolate": True, "interpolate_dims": [-1]}, "interpolate_dims: expected numbers of an action's values"),
        ({"interpolate": True, "interpolate_dims": "01"}, "interpolate_dims: expected numbers"),
        ({"on_action": 5}, "on_action: expected a function, got 5"),
        ({"roll_state": "f"}, "roll_state: expected a function"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_by_its_name(given: Any, told: str) -> None:
    with pytest.raises(ConfigError, match=told) as caught:
        RealtimeSettings(**{"control_hz": 50, **given})
    assert "\n" not in str(caught.value)


def test_a_chunk_fades_in_over_fewer_rows_where_the_server_has_rtc() -> None:
    usual = RealtimeSettings(50)
    assert (usual.blend(True), usual.blend(False)) == (5, 10)
    assert RealtimeSettings(50, blend_steps=0).blend(False) == 0
    assert RealtimeSettings(50, aggregate="average").blend(False) == 0


@pytest.mark.parametrize("m", [math.nan, math.inf, 11, "1", True, None])
def test_an_ensemble_that_cannot_be_is_refused(m: Any) -> None:
    with pytest.raises(ConfigError, match="ensemble: expected m from -10 to 10"):
        ensemble(m)


def test_settings_are_read_by_name() -> None:
    assert read_settings("It", 50, {"blend_steps": 3}) == RealtimeSettings(50, blend_steps=3)
    with pytest.raises(ConfigError, match=r"^It has no setting 'blend_step' \(did you mean blend_steps\?\)$"):
        read_settings("It", 50, {"blend_step": 3})
    with pytest.raises(ConfigError, match=r"^It has no setting 'qwertz' \(those of RealtimeSettings are taken\)$"):
        read_settings("It", 50, {"qwertz": 3})
