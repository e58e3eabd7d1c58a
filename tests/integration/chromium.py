"""A real browser, Debian's chromium without a window, driven by selenium."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import pytest

T = TypeVar("T")

DEADLINE_S = 60.0  # generous: only a bug reaches it
_OF_A_STOPPED_SERVER = re.compile(r"net::ERR_(CONNECTION_REFUSED|CONNECTION_RESET|EMPTY_RESPONSE|CONNECTION_CLOSED)")


def program_or_skip(name: str, package: str) -> str:
    """A program; where it is missing the test skips, and under CI=true it fails."""
    path = shutil.which(name)
    if path is None:
        told = f"{name} is not there: apt-get install {package}"
        pytest.fail(told) if os.environ.get("CI") == "true" else pytest.skip(told)
    return path


class Browser:
    """One window. driver: selenium's."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, url: str) -> None:
        """Load a page; what the console says from now on is that page's."""
        self.driver.get("about:blank")
        self.driver.get_log("browser")
        self.driver.get(url)

    def run(self, script: str, *arguments: Any) -> Any:
        """What a piece of JavaScript returns."""
        return self.driver.execute_script(script, *arguments)

    def text(self, selector: str) -> str:
        """An element's text, shown or not."""
        return self.run("return document.querySelector(arguments[0])?.textContent ?? ''", selector)

    def count(self, selector: str) -> int:
        return self.run("return document.querySelectorAll(arguments[0]).length", selector)

    def is_shown(self, selector: str) -> bool:
        return self.run("return !!document.querySelector(arguments[0])?.checkVisibility()", selector)

    def until(self, what: Callable[[], T]) -> T:
        """What the function gives, once that is true of it."""
        ends_at = time.monotonic() + DEADLINE_S
        while not (found := what()):
            assert time.monotonic() < ends_at, f"never came true; the page says: {self.text('body')[:2000]}"
            time.sleep(0.05)
        return found

    def resize(self, width: int, height: int = 800) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def prefer(self, scheme: str) -> None:
        """Have the page be dark or light."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def complaints(self) -> list[str]:
        """Errors and warnings of the console since the page was opened, but for those of a server that is not there."""
        said = [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
        return [line for line in said if not _OF_A_STOPPED_SERVER.search(line)]


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser until the block ends."""
    program = program_or_skip("chromium", "chromium")
    service_program = program_or_skip("chromedriver", "chromium-driver")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = program
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--lang=en"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(service_program))
    try:
        driver.set_page_load_timeout(DEADLINE_S)
        yield Browser(driver)
    finally:
        driver.quit()
