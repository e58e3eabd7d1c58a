"""Options of the whole suite."""

from __future__ import annotations

import os
import signal

import pytest
from hypothesis import settings


def pytest_addoption(parser: pytest.Parser) -> None:
    whose = "the servers of tests/server/live.py"
    parser.addoption("--loop", choices=["asyncio", "uvloop"], help=f"what {whose} run on")
    parser.addoption("--runner", choices=["thread", "process"], help=f"where {whose} run their policies")


def pytest_configure(config: pytest.Config) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a script's background job ignores it; tests interrupt
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for option in ("loop", "runner"):
        chosen = config.getoption(option)
        if chosen:
            os.environ[f"_POLICYSERVE_TEST_{option.upper()}"] = chosen
    settings.register_profile("policyserve", settings.default, deadline=None)  # no test is timed, on no machine
    settings.load_profile("policyserve")
