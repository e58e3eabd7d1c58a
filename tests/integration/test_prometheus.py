"""docs/metrics.md in use: a real Prometheus scrapes a server under load and answers the dashboard's queries."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from policyserve.core.version import VERSION
from tests.cli.serving import POLICYSERVE, ROOT, serving
from tests.integration.prometheus import DEADLINE_S, Prometheus, program_or_skip, prometheus

PAGE = (ROOT / "docs" / "metrics.md").read_text()
DASHBOARD = json.loads((ROOT / "docs" / "grafana" / "policyserve.json").read_text())
KEY = "key-of-the-test-of-metrics"
CLIENTS = 4

Series = list[tuple[dict[str, str], float]]


class Panel(NamedTuple):
    """One query of the dashboard."""

    title: str
    legend: str
    expression: str


def block(name: str) -> str:
    """The YAML of the page behind this mark."""
    found = re.search(rf"<!-- {name} -->\n```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert found, name
    return found.group(1)


def panels() -> list[Panel]:
    """All queries, as Grafana would send them where the interval is 5 s."""
    return [
        Panel(panel["title"], target["legendFormat"], as_sent(target["expr"]))
        for panel in DASHBOARD["panels"]
        for target in panel.get("targets", ())
    ]


def as_sent(expression: str) -> str:
    return expression.replace("$job", "policyserve").replace("$__rate_interval", "5s")


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A Prometheus that scrapes, as the page says, a server that bench loads and a bad client disturbs."""
    folder = tmp_path_factory.mktemp("prometheus")
    program_or_skip("prometheus")
    (folder / "alerts.yml").write_text(block("alerts"))
    keys = folder / "keys"
    keys.write_text(f"lab: {KEY}\n")
    keys.chmod(0o600)
    flags = ("--host", "127.0.0.1", "--port", "0", "--api-key-file", str(keys))
    with (
        serving((*POLICYSERVE, "serve", "cartpole_ppo", *flags)) as server,
        prometheus(config(server.url, folder), folder) as watching,
        loading(server.url),
    ):
        # Two outcomes are on their way up, and the interval of 5 s lies within the load.
        watching.until(f"({refusals()}) > 0 and on () ({answers()}) > 0")
        watching.until("count_over_time(policyserve_ready[6s]) >= 20")
        yield watching


def answers() -> str:
    return 'sum(rate(policyserve_requests_total{outcome="answered"}[5s]))'


def refusals() -> str:
    return 'sum(rate(policyserve_requests_total{outcome!="answered"}[5s]))'


def config(url: str, folder: Path) -> str:
    """The page's own, but for the place, the key's file and the interval."""
    (folder / "key").write_text(KEY)
    changes = {
        "lab-gpu:8000": url.partition("://")[2],
        "/etc/prometheus/policyserve.key": str(folder / "key"),
        "scrape_interval: 15s": "scrape_interval: 250ms",
    }
    scrape = block("scrape")
    for old, new in changes.items():
        assert old in scrape
        scrape = scrape.replace(old, new)
    return f"global:\n  evaluation_interval: 500ms\nrule_files: [alerts.yml]\n{scrape}"


@contextmanager
def loading(url: str) -> Iterator[None]:
    """Have bench ask without a pause, and another client what is no request, until the block ends."""
    is_over = threading.Event()
    bench = (sys.executable, "-m", "policyserve.cli", "bench", url, "--clients", str(CLIENTS), "--duration-s", "300")
    environment = {**os.environ, "POLICYSERVE_API_KEY": KEY}
    process = subprocess.Popen(bench, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    bad = threading.Thread(target=ask_badly, args=(url, is_over))
    bad.start()
    try:
        yield
        assert process.poll() is None, "the load ended before the test"
    finally:
        is_over.set()
        bad.join(DEADLINE_S)
        process.kill()
        process.wait()


def ask_badly(url: str, is_over: threading.Event) -> None:
    """Some sessions a second whose first message is refused."""
    while not is_over.wait(0.1):
        with connect(f"{url}/vibe_rl", additional_headers={"Authorization": f"Bearer {KEY}"}, compression=None) as peer:
            peer.send(b"\xc1")
            with pytest.raises(ConnectionClosed):
                peer.recv(timeout=DEADLINE_S)


# What a query of each panel may say of this load, on a machine that is busy.
MOST_S = 10.0
PLAUSIBLE: dict[str, tuple[float, float]] = {
    "Up": (1, 1),
    "Ready": (1, 1),
    "What is served": (1, 1),
    "Policies replaced in an hour": (0, 0),
    "Policy at work (1: all the time, for each replica)": (1e-6, 1.5),
    "Sessions by dialect": (0, CLIENTS + 1),
    "Sessions opened a second": (0.1, 100),
    "Requests without an answer": (0, CLIENTS),
    "Requests in a call": (1, CLIENTS),
    "Bytes a second": (1e3, 1e9),
    "Memory": (0, 1e10),
    "Arrival to answer": (1e-6, MOST_S),
    "Wait for the policy": (1e-7, MOST_S),
    "The policy's call": (1e-7, MOST_S),
    "How late the event loop woke": (0, MOST_S),
    "Answers a second": (0, 1e6),
    "Refused or failed a second": (0, 100),
}


def test_every_panel_of_the_dashboard_is_held_to_plausible_values() -> None:
    assert {panel.title for panel in panels()} == set(PLAUSIBLE)


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: f"{panel.title}, {panel.legend}")
def test_a_real_prometheus_has_an_answer_for_each_panel(watched: Prometheus, panel: Panel) -> None:
    found = watched.query(panel.expression)
    assert found
    least, most = PLAUSIBLE[panel.title]
    assert all(least <= number <= most for _, number in found), found
    shown = set(re.findall(r"\{\{(\w+)\}\}", panel.legend))
    assert all(shown <= labels.keys() for labels, _ in found), found


def test_the_load_is_seen_as_what_it_is(watched: Prometheus) -> None:
    sessions = {labels["dialect"]: number for labels, number in watched.query("policyserve_sessions")}
    assert sum(sessions.values()) >= CLIENTS
    refused = by("outcome", watched.query(expression_of("Refused or failed a second")))
    assert refused["bad_frame"] > 0
    assert refused["bad_action"] == 0
    assert sum(number for _, number in watched.query(expression_of("Answers a second"))) > 10
    (served,) = watched.query(expression_of("What is served"))
    assert served[0]["version"] == VERSION
    assert served[0]["policy"] == "cartpole_ppo"
    assert served[0]["checkpoint"].isdigit()


def test_each_alert_can_be_evaluated_and_the_bad_client_is_noticed(watched: Prometheus) -> None:
    rules: list[Any] = watched.get("/api/v1/rules")["groups"][0]["rules"]
    assert [rule["name"] for rule in rules] == re.findall(r"alert: (\w+)", block("alerts"))
    watched.until('ALERTS{alertname="PolicyserveRefusesRobots"}')
    rules = watched.get("/api/v1/rules")["groups"][0]["rules"]
    assert {rule["name"]: rule["health"] for rule in rules} == {rule["name"]: "ok" for rule in rules}
    state = {rule["name"]: rule["state"] for rule in rules}
    assert state["PolicyserveRefusesRobots"] in ("pending", "firing")
    assert {state[f"Policyserve{name}"] for name in ("Down", "NotReady", "ReplacesItsPolicy", "Fails")} == {"inactive"}


@pytest.mark.parametrize("name", ["scrape", "alerts"])
def test_promtool_accepts_what_the_page_shows(name: str, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text(KEY)
    file = tmp_path / "shown.yml"
    file.write_text(block(name).replace("/etc/prometheus/policyserve.key", str(key)))
    what = "config" if name == "scrape" else "rules"
    done = subprocess.run(
        [program_or_skip("promtool"), "check", what, file], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SUCCESS" in done.stdout + done.stderr


def by(label: str, found: Series) -> dict[str, float]:
    """Values added up by a label."""
    added: dict[str, float] = {}
    for labels, number in found:
        added[labels[label]] = added.get(labels[label], 0.0) + number
    return added


def expression_of(title: str) -> str:
    return next(panel.expression for panel in panels() if panel.title == title)
