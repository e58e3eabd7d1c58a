"""The fuzzers' bodies, each on some hundred inputs; run.py is the same for as long as one likes, guided by coverage."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("check", TARGETS.values(), ids=TARGETS.keys())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(data=st.binary(max_size=300))
def test_any_input_is_survived(check: Callable[[bytes], None], data: bytes) -> None:
    check(data)
