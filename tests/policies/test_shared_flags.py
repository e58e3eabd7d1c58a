"""The flags that kinds of policies share: their ranges, and that one kind can have several."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from policyserve.cli.arguments.flags import flags_of
from policyserve.core.errors import ConfigError
from policyserve.policies.rtc import LEROBOT, Rtc
from policyserve.policies.shared_flags import (
    DeviceFlag,
    DtypeFlag,
    HorizonFlag,
    MaxBatchFlag,
    RenameFlag,
    RtcFlags,
    SeedFlag,
    ThreadsFlag,
)


@dataclass(frozen=True, kw_only=True)
class All(DeviceFlag, DtypeFlag, ThreadsFlag, MaxBatchFlag, RenameFlag, HorizonFlag, SeedFlag, RtcFlags):
    """A kind of policy that has them all."""

    action: str | None = None
    """Its own."""


def test_a_kind_of_policy_has_each_with_its_help() -> None:
    found = {flag.name: flag.help for flag in flags_of(All, All())}
    shared = ["--device", "--dtype", "--threads", "--max-batch", "--rename", "--horizon", "--seed"]
    rtc = ["--rtc", "--rtc-schedule", "--rtc-max-guidance-weight"]
    assert {*shared, *rtc, "--action"} == set(found)
    assert all(found.values())


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"device": "gpu"}, "device: expected auto, cpu, cuda or cuda:N, got 'gpu'"),
        ({"device": "cuda:"}, "device: expected auto, cpu, cuda or cuda:N, got 'cuda:'"),
        ({"dtype": "int8"}, "dtype: expected float32 or float16 or bfloat16, got 'int8'"),
        ({"threads": 0}, "threads: expected 1 or more, got 0"),
        ({"max_batch": 0}, "max_batch: expected 1 or more, got 0"),
        ({"rename": "x"}, "rename: expected client=policy, by commas, got 'x'"),
        ({"horizon": "0"}, "horizon: expected 1 or more actions, or all, got '0'"),
        ({"horizon": "some"}, "horizon: expected 1 or more actions, or all, got 'some'"),
        ({"seed": -1}, "seed: expected 0 or more, got -1"),
        ({"rtc_max_guidance_weight": 0}, "rtc_max_guidance_weight: expected more than 0, got 0"),
        ({"rtc": "off", "rtc_schedule": "exp"}, "rtc_schedule: expected none with --rtc off, got 'exp'"),
        (
            {"rtc": "inpaint", "rtc_max_guidance_weight": 5},
            "rtc_max_guidance_weight: expected none with --rtc inpaint, got 5",
        ),
    ],
)
def test_a_value_out_of_its_range_is_refused(flags: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        All(**flags)
    assert str(refused.value) == said


def test_a_chunk_is_cut_as_the_flag_says_and_else_as_is_usual() -> None:
    assert All().steps(8, 16) == 8
    assert All(horizon="all").steps(8, 16) == 16
    assert All(horizon="3").steps(8, 16) == 3
    with pytest.raises(ConfigError, match="--horizon: expected at most 16, which are all actions of a chunk, got 17"):
        All(horizon="17").steps(8, 16)


def test_the_flags_of_real_time_chunking_stand_for_a_way_to_do_it() -> None:
    assert All().how() == Rtc("guided", "exp", None)
    assert All(rtc="lerobot").how() == LEROBOT
    assert All(rtc="lerobot", rtc_schedule="exp", rtc_max_guidance_weight=5).how() == Rtc("identity", "exp", 5, 10)
    assert All(rtc="inpaint").how() == Rtc("inpaint")
    assert All(rtc="off").how() is None
