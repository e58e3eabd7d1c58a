"""The bundles of choices, and which checkpoint can be run with which."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest
import tyro

from policyserve.core.errors import ConfigError
from policyserve.policies.rtc import Rtc
from policyserve.policies.wall_x import CONVENTIONS, Conventions, OptionFlags, Options, conventions_named
from policyserve.policies.wall_x.conventions import bundles_that_fit, fit_conventions

LIBERO = {"state_dim": 8, "action_dim": 7}
NARROW, WIDE = {"state_width": 8, "action_width": 7}, {"state_width": 20, "action_width": 20}


def test_the_bundles_are_the_four_programs() -> None:
    assert list(CONVENTIONS) == ["upstream", "trained", "pad20", "lerobot"]
    assert [bundle.attention for bundle in CONVENTIONS.values()] == [
        "upstream_sdpa",
        "causal",
        "causal",
        "bidir_island",
    ]
    assert [bundle.trailing_tokens for bundle in CONVENTIONS.values()] == [True, False, False, False]
    assert [bundle.padding for bundle in CONVENTIONS.values()] == ["none", "checkpoint", "20", "20"]
    assert [bundle.long_side_256 for bundle in CONVENTIONS.values()] == [True, True, False, True]
    assert json.dumps(CONVENTIONS["lerobot"].describe())


def test_each_field_of_a_bundle_can_be_replaced() -> None:
    chosen = conventions_named("pad20", attention="bidir_island", long_side_256=True, state=None)
    assert (chosen.attention, chosen.long_side_256, chosen.state) == ("bidir_island", True, "raw")
    assert conventions_named("upstream") == Conventions()
    with pytest.raises(ConfigError, match=r"conventions: expected one of upstream, .*, got 'mine'"):
        conventions_named("mine")
    with pytest.raises(ConfigError, match="there is no field colour"):
        conventions_named("upstream", colour=True)
    with pytest.raises(ConfigError, match=r"attention: expected one of upstream_sdpa, .* got 'full'"):
        conventions_named("upstream", attention="full")


def test_without_a_choice_wider_checkpoints_are_padded_as_they_were_trained() -> None:
    assert fit_conventions(None, **LIBERO, **NARROW) == CONVENTIONS["upstream"]
    fitted = fit_conventions(None, **LIBERO, **WIDE)
    assert (fitted.padding, fitted.state_mask_end) == ("checkpoint", "state_dim")
    assert (fitted.attention, fitted.trailing_tokens) == ("upstream_sdpa", True)


@pytest.mark.parametrize(
    ("name", "dims", "widths", "reason"),
    [
        ("upstream", LIBERO, WIDE, "without padding they must be equal"),
        ("pad20", LIBERO, NARROW, "padding 20: the checkpoint's states are 8 wide and its actions 7"),
        ("trained", {"state_dim": 9, "action_dim": 7}, NARROW, "state_dim 9, action_dim 7: too large"),
        ("trained", {"state_dim": 8, "action_dim": 21}, WIDE, "too large"),
    ],
)
def test_what_a_checkpoint_cannot_do_is_refused(
    name: str, dims: dict[str, int], widths: dict[str, int], reason: str
) -> None:
    with pytest.raises(ConfigError, match=reason):
        fit_conventions(CONVENTIONS[name], **dims, **widths)


def test_a_checkpoints_widths_tell_which_bundles_fit() -> None:
    assert bundles_that_fit(**LIBERO, **NARROW) == ("upstream", "trained")
    assert bundles_that_fit(**LIBERO, **WIDE) == ("trained", "pad20", "lerobot")


@pytest.mark.parametrize(("field", "value"), [("num_steps", 0), ("max_batch", 0), ("seed", -1), ("num_steps", 10**6)])
def test_an_option_out_of_bounds_is_refused(field: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"{field}: expected .* got {value}"):
        Options(**{field: value})


def test_flags_name_a_bundle_and_replace_fields_of_it() -> None:
    assert OptionFlags().options() == Options()
    assert OptionFlags(rtc="guided", rtc_schedule="zeros").options().rtc == Rtc("guided", "zeros")
    assert OptionFlags(conventions="trained").options().conventions == CONVENTIONS["trained"]
    chosen = OptionFlags(attention="causal", seed=3, allow_missing_state=True).options()
    assert chosen.conventions == conventions_named("upstream", attention="causal")
    assert (chosen.seed, chosen.allow_missing_state) == (3, True)


def test_flags_can_be_given_on_a_command_line() -> None:
    read = partial(tyro.cli, OptionFlags)
    assert read(args=[]) == OptionFlags()
    words = "--conventions pad20 --long-side-256 True --padding checkpoint --on-undecodable zeros --max-batch 2"
    chosen = read(args=words.split()).options()
    assert chosen.conventions == conventions_named("pad20", long_side_256=True, padding="checkpoint")
    assert (chosen.on_undecodable, chosen.max_batch) == ("zeros", 2)
