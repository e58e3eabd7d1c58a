"""Photograph the live page under load, for docs/live_page.md: `python scripts/picture_live_page.py docs/live`.

A stand-in for an arm with two cameras is served, and clients of three dialects ask it at once; one more
sends pictures of a wrong size, and a stranger's web page tries to connect. Needs selenium, Pillow and chromium with its
driver.
"""

from __future__ import annotations

import argparse
import base64
import io
import shutil
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import websockets.sync.client

import policyserve
from policyserve.core.arrays import Array
from policyserve.core.errors import PolicyserveError
from policyserve.core.policy import ActionChunk, PolicyInput
from policyserve.core.spec import ArraySpec, ImageSpec, PolicySpec, TextSpec

_HEIGHT, _WIDTH, _STEPS = 180, 320, 50
_JOINTS = ", ".join(f"joint {number} rad" for number in range(1, 7))
_SPEC = PolicySpec(
    "kitchen_arm",
    {
        "cameras": {"front": ImageSpec(_HEIGHT, _WIDTH), "wrist": ImageSpec(_HEIGHT, _WIDTH)},
        "state": ArraySpec((7,), "float32", f"{_JOINTS}, gripper 0 … 1"),
        "prompt": TextSpec("what to do", default=""),
    },
    ArraySpec((7,), "float32", f"{_JOINTS}, gripper 0 … 1"),
    horizon=_STEPS,
    max_batch=8,
    metadata={"checkpoint": "runs/kitchen/step_30000", "device": "cpu"},
)
_LOADS = (  # dialect, clients, requests a second, prompt
    ("openpi", 2, 12, "put the red cup on the shelf"),
    ("wall_x", 2, 8, "wipe the table"),
    ("vibe_rl", 3, 25, ""),
)
_SIZES = {"wide": (1280, 800), "narrow": (360, 800)}
_MOST_BYTES = 300_000


class _Arm:
    """Answers smooth chunks that begin at the state, after as long as a small model would take."""

    spec = _SPEC

    def infer(self, batch: list[PolicyInput]) -> list[ActionChunk]:
        time.sleep(0.008 + 0.0015 * len(batch))
        return [ActionChunk(_chunk(one.observation["state"])) for one in batch]

    def close(self) -> None: ...


def _chunk(state: Array) -> Array:
    """(50, 7): each joint goes its own way, the gripper closes."""
    at = np.linspace(0, 1, _STEPS, dtype=np.float32)[:, None]
    waves = 0.3 * np.sin(at * np.arange(2, 9) + state) - 0.3 * np.sin(state)
    actions = state + waves * at
    actions[:, 6] = 1 / (1 + np.exp(12 * (at[:, 0] - 0.6)))
    return actions.astype(np.float32)


def _picture(moment: float, is_wrist: bool) -> Array:
    """A table, a wall, and a red cup that moves: (180, 320, 3) uint8."""
    rows, columns = np.mgrid[0:_HEIGHT, 0:_WIDTH].astype(np.float32)
    wall, table = np.array((196, 206, 214)), np.array((150, 114, 82))
    horizon = 50 if is_wrist else 92
    picture = np.where((rows > horizon)[..., None], table * (1 - 0.1 * np.sin(rows / 7))[..., None], wall)
    across, down = 160 + 90 * np.sin(moment), 118 + 14 * np.cos(moment)
    size = 44 if is_wrist else 25
    cup = (np.abs(columns - across) < size * (1 - (rows - down) / size / 6)) & (np.abs(rows - down) < size)
    picture[cup] = (206, 58, 46)
    plate = ((columns - 84) / 60) ** 2 + ((rows - 140) / 20) ** 2 < 1
    picture[plate & ~cup] = (232, 232, 226)
    return np.clip(picture, 0, 255).astype(np.uint8)


def _observation(moment: float, prompt: str) -> dict[str, Any]:
    state = np.sin(moment * np.linspace(0.4, 1.2, 7)).astype(np.float32)
    state[6] = 1.0
    cameras = {"cameras/front": _picture(moment, False), "cameras/wrist": _picture(moment, True)}
    return {**cameras, "state": state, **({"prompt": prompt} if prompt else {})}


def _ask(url: str, dialect: str, per_s: float, prompt: str, stop: threading.Event) -> None:
    with policyserve.Client(url, dialect=dialect) as client:
        while not stop.wait(1 / per_s):
            client.infer(_observation(time.monotonic(), prompt))


def _err(url: str, stop: threading.Event) -> None:
    """Send what is refused, now and then."""
    while not stop.wait(1.5):
        observation = _observation(0.0, "")
        observation["cameras/front"] = observation["cameras/front"][::2, ::2]
        with suppress(PolicyserveError), policyserve.Client(url) as client:
            client.infer(observation)
        with suppress(Exception):  # it is refused, and that is what is wanted
            websockets.sync.client.connect(url, origin="https://elsewhere.example")  # pyright: ignore[reportArgumentType]


def _photograph(url: str, folder: Path) -> None:
    from PIL import Image

    for theme in ("light", "dark"):
        browser = _browser()
        try:
            scheme = {"features": [{"name": "prefers-color-scheme", "value": theme}]}
            browser.execute_cdp_cmd("Emulation.setEmulatedMedia", scheme)
            for name, (width, height) in _SIZES.items():
                _resize(browser, width, height)
                browser.get(url)
                time.sleep(5)
                whole = browser.execute_script("return document.documentElement.scrollHeight")
                _resize(browser, width, whole)
                time.sleep(1)
                shot = browser.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})["data"]
                image = Image.open(io.BytesIO(base64.b64decode(shot))).convert("RGB")
                path = folder / f"live_{theme}_{name}.png"
                colours = image.quantize(256, Image.Quantize.MEDIANCUT, kmeans=4, dither=Image.Dither.NONE)
                colours.save(path, optimize=True)
                size = path.stat().st_size
                print(f"{path}: {image.width} x {image.height}, {size / 1e3:.0f} kB")
                assert size < _MOST_BYTES, f"{path} is too large for a document"
        finally:
            browser.quit()


def _resize(browser: Any, width: int, height: int) -> None:
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def _browser() -> Any:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        sys.exit("chromium and chromedriver are needed: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--lang=en"):
        options.add_argument(argument)
    return webdriver.Chrome(options=options, service=Service(driver))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the pictures go")
    parser.add_argument("--load-s", type=float, default=40.0, help="how long there is load before the first picture")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    stop = threading.Event()
    with policyserve.start(_Arm(), stats_every_s=0) as server:
        loads = [
            threading.Thread(target=_ask, args=(server.url, dialect, per_s, prompt, stop), daemon=True)
            for dialect, count, per_s, prompt in _LOADS
            for _ in range(count)
        ]
        loads.append(threading.Thread(target=_err, args=(server.url, stop), daemon=True))
        for load in loads:
            load.start()
        page = server.url.replace("ws://", "http://") + "/"
        keeper = threading.Thread(target=_keep_watched, args=(page, stop), daemon=True)
        keeper.start()
        time.sleep(arguments.load_s)
        _photograph(page, arguments.folder)
        stop.set()
        for load in loads:
            load.join()


def _keep_watched(page: str, stop: threading.Event) -> None:
    """Have the server keep its two minutes between two pictures."""
    import urllib.request

    while not stop.wait(2.0):
        urllib.request.urlopen(f"{page}live.json").read()


if __name__ == "__main__":
    main()
