"""The live page in a real browser: what a person sees while robots connect, ask, err and go."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import pytest

import policyserve
from policyserve.core.arrays import Array
from policyserve.core.policy import FunctionPolicy
from policyserve.core.spec import ArraySpec, ImageSpec, PolicySpec, TextSpec
from tests.integration.chromium import Browser, chromium
from tests.server.live import DEADLINE_S, Live, serving

KEY = "a-key-of-many-letters"
HTML = "<img src=x onerror='window.injected = 1'><b>bold</b>"
SPEC = PolicySpec(
    f"arm {HTML}",
    {
        "camera": ImageSpec(64, 96),
        "state": ArraySpec((2,), doc=f"elbow rad {HTML}, gripper 0 … 1"),
        "prompt": TextSpec(default=""),
    },
    ArraySpec((2,), doc="elbow rad, gripper 0 … 1"),
    horizon=5,
    metadata={"checkpoint": HTML},
)
RED, GREEN = (200, 30, 40), (20, 160, 60)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as one:
        yield one


def arm() -> Any:
    return FunctionPolicy(lambda seen: seen["state"] * np.arange(1, 6, dtype=np.float32)[:, None], SPEC)


def seen(colour: tuple[int, int, int], prompt: str = "go") -> dict[str, Any]:
    return {"camera": np.full((64, 96, 3), colour, np.uint8), "state": np.array([1, 2], np.float32), "prompt": prompt}


def page(live: Live, credentials: str = "") -> str:
    return f"http://{credentials}127.0.0.1:{live.port}/"


@contextmanager
def asking(live: Live, colour: tuple[int, int, int], dialect: str = "openpi", **options: Any) -> Iterator[None]:
    """A client that asks some fifty times a second until the block ends."""
    stop = threading.Event()
    sent = seen(colour)
    if dialect == "vibe_rl":
        del sent["prompt"]  # this wire has arrays alone

    def ask() -> None:
        with policyserve.Client(live.url(f"/{dialect}"), dialect=dialect, **options) as client:
            while not stop.wait(0.02):
                client.infer(sent)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(DEADLINE_S)


def colour_of_picture(browser: Browser) -> tuple[float, ...] | None:
    """The mean of the first picture that is drawn."""
    pixels = browser.run(
        "const drawn = document.querySelector('#pictures canvas');"
        "if (!drawn?.dataset.drawn) return null;"
        "const copy = new OffscreenCanvas(drawn.width, drawn.height);"
        "const context = copy.getContext('2d', {willReadFrequently: true});"
        "context.drawImage(drawn, 0, 0);"
        "return [...context.getImageData(0, 0, copy.width, copy.height).data]"
    )
    return None if pixels is None else tuple(np.reshape(pixels, (-1, 4))[:, :3].mean(axis=0))


def is_drawn(browser: Browser, colour: tuple[int, int, int]) -> bool:
    drawn: Array = np.array(colour_of_picture(browser) or (-1, -1, -1))
    return bool(np.abs(drawn - colour).max() < 6)


def test_sessions_come_and_go_and_the_very_frame_is_shown(browser: Browser) -> None:
    with serving(arm()) as live:
        browser.open(page(live))
        browser.until(lambda: browser.text("#ready") == "ready")
        assert browser.is_shown("#sessions-none")
        with asking(live, RED):
            browser.until(lambda: browser.count("#sessions tbody tr") == 1)
            assert "openpi" in browser.text("#sessions tbody")
            browser.until(lambda: is_drawn(browser, RED))
            with asking(live, GREEN, "vibe_rl"):
                browser.until(lambda: browser.count("#sessions tbody tr") == 2)
                assert is_drawn(browser, RED)  # the other one is not looked at
                browser.run("document.querySelectorAll('#sessions button')[1].click()")
                browser.until(lambda: is_drawn(browser, GREEN))
                assert browser.text("#sessions tr.chosen td:nth-child(3)") == "vibe_rl"
            browser.until(lambda: browser.count("#sessions tbody tr") == 1)
            browser.until(lambda: is_drawn(browser, RED))
        browser.until(lambda: browser.is_shown("#sessions-none"))
        assert browser.complaints() == []


def test_charts_move(browser: Browser) -> None:
    with serving(arm()) as live, asking(live, RED):
        browser.open(page(live))
        charts = ("#spark-answers", "#spark-ms", "#spark-busy", "#spark-sessions", "#stack")

        def drawn() -> list[str]:
            return [browser.run("return document.querySelector(arguments[0]).innerHTML", chart) for chart in charts]

        browser.until(lambda: all(drawn()))
        before = drawn()
        browser.until(lambda: all(now != then for now, then in zip(drawn(), before, strict=True)))
        assert float(browser.text("#answers_per_s")) > 0
        assert float(browser.text("#p50_ms")) <= float(browser.text("#p99_ms"))
        assert browser.count("#stack path") == 4
        assert browser.count("#batches > div") >= 1
        browser.until(lambda: browser.count("#actions .line path") == 2)
        assert browser.text("#actions .line") == "elbow rad1"
        assert browser.text("#state dd") == "1"
        assert browser.complaints() == []


def test_a_refusal_appears_with_path_expected_and_got(browser: Browser) -> None:
    with serving(arm()) as live:
        browser.open(page(live))
        browser.until(lambda: browser.is_shown("#refusals-none"))
        with policyserve.Client(live.url("/openpi")) as client, pytest.raises(policyserve.RemoteError):
            client.infer({**seen(RED), "camera": np.zeros((8, 8, 3), np.uint8)})
        browser.until(lambda: browser.count("#refusals li") == 1)
        told = browser.text("#refusals li")
        assert "bad_observation" in told
        assert "pathcamera" in told
        assert "expecteduint8 image HWC, 64 x 96" in told
        assert "gotuint8 (8, 8, 3)" in told
        assert browser.is_shown("#refused")
        assert "1 bad_observation" in browser.text("#refused")
        assert browser.complaints() == []


def test_texts_of_strangers_are_texts(browser: Browser) -> None:
    with serving(arm()) as live:
        with policyserve.Client(live.url("/openpi")) as client, suppress(policyserve.RemoteError):
            client.infer({HTML: 1})
        with policyserve.Client(live.url("/openpi")) as client:
            browser.open(page(live))
            browser.until(lambda: client.infer(seen(RED, HTML)) and browser.text("#texts blockquote") == HTML)
            browser.until(lambda: browser.count("#refusals li") == 1)
            assert browser.text("#policy") == f"arm {HTML}"
            assert HTML in browser.text("#facts")
            assert HTML in browser.text("#state dt")
            assert HTML in browser.text("#refusals")
            assert browser.count("main img, main b b, blockquote *") == 0
            assert browser.run("return window.injected") is None
            assert browser.complaints() == []


def test_a_restart_is_survived(browser: Browser) -> None:
    with serving(arm()) as live:
        browser.open(page(live))
        browser.until(lambda: browser.text("#ready") == "ready")
        port = live.port
    browser.until(lambda: browser.is_shown("#trouble"))
    assert "does not answer" in browser.text("#trouble")
    with serving(FunctionPolicy(lambda x: x, PolicySpec("the next one", None, None)), port=port):
        browser.until(lambda: browser.text("#policy") == "the next one")
        assert not browser.is_shown("#trouble")
        assert browser.complaints() == []


def test_the_browsers_own_question_for_the_key_lets_one_in(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLICYSERVE_API_KEY", KEY)
    with serving(arm()) as live, asking(live, RED, api_key=KEY):
        browser.open(page(live, f"anybody:{KEY}@"))
        browser.until(lambda: is_drawn(browser, RED))
        assert 'api_key="KEY"' in browser.text("#clients")
        assert browser.text("#clients").count("ws://") == 4  # Python, Wall-X, vibe_rl and the check
        assert "starvla" in browser.text("#other-clients")
        assert KEY not in browser.run("return document.documentElement.outerHTML")
        assert browser.complaints() == []


@pytest.mark.parametrize("width", [360, 768, 1280, 2200])
def test_nothing_is_wider_than_the_window(browser: Browser, width: int) -> None:
    with serving(arm()) as live, asking(live, RED), asking(live, GREEN, "wall_x"):
        browser.resize(width)
        browser.open(page(live))
        browser.until(lambda: browser.count("#actions .line path") == 2 and browser.count("#sessions tbody tr") == 2)
        assert browser.run("return document.documentElement.scrollWidth") <= width
        assert browser.complaints() == []
    browser.resize(1280)


def test_it_is_dark_where_that_is_preferred(browser: Browser) -> None:
    with serving(arm()) as live:
        grounds: list[int] = []
        for scheme in ("light", "dark"):
            browser.prefer(scheme)
            browser.open(page(live))
            colour = browser.run("return getComputedStyle(document.body).backgroundColor")
            grounds.append(int(colour.removeprefix("rgb(").split(",")[0]))
        assert grounds[0] > 200 > 60 > grounds[1]


def test_sessions_are_chosen_by_keyboard(browser: Browser) -> None:
    from selenium.webdriver.common.keys import Keys

    with serving(arm()) as live, asking(live, RED), asking(live, GREEN, "vibe_rl"):
        browser.open(page(live))
        browser.until(lambda: browser.count("#sessions tbody tr") == 2)
        browser.run("document.querySelector('#sessions button').focus()")
        browser.driver.switch_to.active_element.send_keys(Keys.ARROW_DOWN)
        browser.driver.switch_to.active_element.send_keys(Keys.ENTER)
        browser.until(lambda: browser.text("#sessions tr.chosen button") == "2")
        asked = int(browser.run("return document.body.dataset.asked"))
        browser.until(lambda: int(browser.run("return document.body.dataset.asked")) > asked + 1)
        assert browser.run("return document.activeElement.textContent") == "2"  # a new answer took no focus away
        assert browser.text("#sessions tr.chosen button") == "2"


def test_loading_is_shown_with_its_stage(browser: Browser) -> None:
    release = threading.Event()

    def load(on_stage: Any) -> Any:
        on_stage("weights: 12 % of 4 GB")
        release.wait(DEADLINE_S)
        return arm()

    with serving(load=load, isolate="thread") as live:
        try:
            browser.open(page(live))
            browser.until(lambda: browser.text("#stage-text") == "weights: 12 % of 4 GB")
            assert browser.run("return document.querySelector('#stage-bar').value") == 12
            assert browser.text("#ready") == "not ready"
        finally:
            release.set()
        browser.until(lambda: browser.text("#ready") == "ready")
        assert not browser.is_shown("#stage")


def test_a_closed_tab_lets_the_server_go(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("policyserve.server.live_data.WATCHED_S", 1.0)
    with serving(arm()) as live:
        browser.open(page(live))
        live.until(lambda server: server.live.watching is not None)
        browser.driver.get("about:blank")
        live.until(lambda server: server.live.watching is None)
        assert live.server.observers.request == ()
