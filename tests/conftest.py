"""Options of the whole suite."""

from __future__ import annotations

import os

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--loop", choices=["asyncio", "uvloop"], help="what the servers of tests/server/live.py run on")


def pytest_configure(config: pytest.Config) -> None:
    loop = config.getoption("--loop")
    if loop:
        os.environ["POLICYSERVE_TEST_LOOP"] = loop
