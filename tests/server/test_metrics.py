"""/metrics: read as Prometheus reads it."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from websockets.exceptions import ConnectionClosedError

from policyserve import dialects
from policyserve.core.policy import FunctionPolicy, Policy
from policyserve.core.spec import PolicySpec
from policyserve.core.version import VERSION
from policyserve.server.metrics import LoopLag
from tests.server.live import DEADLINE_S, Live, ask, frame, none_open, packed, serving

Labels = dict[str, str]
AWKWARD = 'a "policy"\nof\\two lines'
KEY = "a-key-of-many-letters"


def scrape(live: Live) -> str:
    status, body, headers = live.http("GET", "/metrics")
    assert status == 200
    assert headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return body.decode()


def samples(text: str) -> list[tuple[str, Labels, float]]:
    """Name, labels and value of each line."""
    return [
        (sample.name, sample.labels, sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    ]


def value(text: str, name: str, **labels: str) -> float:
    """The one value of this name whose labels are these, and perhaps the policy."""
    (found,) = (number for known, own, number in samples(text) if known == name and labels.items() <= own.items())
    return found


def requests(text: str) -> dict[tuple[str, str], float]:
    """By dialect and outcome, but for those of which there are none."""
    found = (one for one in samples(text) if one[0] == "policyserve_requests_total" and one[2])
    return {(labels["dialect"], labels["outcome"]): number for _, labels, number in found}


def named(name: str, **facts: Any) -> Policy:
    return FunctionPolicy(lambda x: np.zeros(1, np.float32), PolicySpec(name, None, None, **facts))


def test_a_small_scrape_is_this_text_word_for_word() -> None:
    with serving(named("arm", metadata={"checkpoint": "step_7"})) as live:
        own = scrape(live).partition("# HELP process_")[0]
    own = re.sub(r"(\npolicyserve_loop_lag_seconds) .*", r"\1 0.0", own)  # a measured one
    own = own.replace(f'version="{VERSION}"', 'version="V"')
    spoken = [f'policyserve_sessions{{dialect="{name}",policy="arm"}} 0.0\n' for name in ("auto", *dialects.names())]
    assert "".join(sorted(spoken)) in own
    for line in spoken:
        own = own.replace(line, "")  # which dialects there are is no business of this text
    assert own == (Path(__file__).parent / "metrics.txt").read_text()


def test_requests_are_counted_by_dialect_and_outcome() -> None:
    with serving() as live, live.websocket() as peer:
        for number in range(3):
            ask(peer, number)
        peer.send(b"\xc1")
        with pytest.raises(ConnectionClosedError):
            peer.recv(timeout=DEADLINE_S)
        text = scrape(live)
        assert requests(text) == {("vibe_rl", "answered"): 3, ("vibe_rl", "bad_frame"): 1}
        assert value(text, "policyserve_request_seconds_count") == 3
        assert value(text, "policyserve_infer_seconds_count") == 3
        assert value(text, "policyserve_busy_seconds_total") > 0
        assert value(text, "policyserve_batch_size_sum") == 3
        assert value(text, "policyserve_received_bytes_total") > 3 * len(frame([0.0]))
        assert value(text, "policyserve_sent_bytes_total") > 0


def test_an_inline_policys_calls_are_counted_too() -> None:
    with serving(named("quick", inline=True)) as live, live.websocket() as peer:
        for number in range(3):
            peer.send(frame([number]))
            peer.recv(timeout=DEADLINE_S)
        text = scrape(live)
        assert value(text, "policyserve_batch_size_count") == 3
        assert value(text, "policyserve_busy_seconds_total") > 0


def test_sessions_stand_under_the_dialect_that_they_were_recognised_by() -> None:
    with serving(hello_grace_ms=60_000.0) as live, live.websocket("/") as peer:
        live.until(lambda server: server.counters.sessions_open == 1)
        assert value(scrape(live), "policyserve_sessions", dialect="auto") == 1
        ask(peer, 1.0)
        text = scrape(live)
        assert value(text, "policyserve_sessions", dialect="auto") == 0
        assert value(text, "policyserve_sessions", dialect="vibe_rl") == 1
        assert requests(text) == {("vibe_rl", "answered"): 1}


def test_what_was_counted_stays_when_its_session_closes() -> None:
    with serving() as live:
        for _ in range(2):
            with live.websocket() as peer:
                ask(peer, 1.0)
            none_open(live)
        text = scrape(live)
        assert requests(text) == {("vibe_rl", "answered"): 2}
        assert value(text, "policyserve_sessions", dialect="vibe_rl") == 0
        assert value(text, "policyserve_sessions_opened_total") == 2


def test_replicas_are_one_sum() -> None:
    with serving(load=lambda _: named("arm"), replicas=2) as live:
        live.ready()
        for _ in range(2):
            with live.websocket() as one, live.websocket() as other:
                for peer in (one, other):
                    peer.send(frame([1.0]))
                for peer in (one, other):
                    peer.recv(timeout=DEADLINE_S)
        text = scrape(live)
        assert requests(text) == {("vibe_rl", "answered"): 4}
        assert value(text, "policyserve_batch_size_sum") == 4


def test_a_policys_texts_may_hold_quotes_and_line_ends() -> None:
    with serving(named(AWKWARD, metadata={"checkpoint": AWKWARD})) as live, live.websocket() as peer:
        peer.send(frame([1.0]))
        peer.recv(timeout=DEADLINE_S)
        found, *_ = (labels for name, labels, _ in samples(scrape(live)) if name == "policyserve_requests_total")
        name = AWKWARD.replace("\n", "\\n")  # a spec keeps its name on one line
        assert found["policy"] == name
        build = {"version": VERSION, "policy": name, "checkpoint": AWKWARD}
        assert value(scrape(live), "policyserve_build_info", **build) == 1


def test_a_key_is_needed_where_the_server_has_keys(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"lab: {KEY}\n")
    keys.chmod(0o600)
    with serving(api_key_file=str(keys)) as live:
        assert live.http("GET", "/metrics")[0] == 401
        assert live.http("GET", "/metrics", headers={"Authorization": f"Bearer {KEY}"})[0] == 200


def test_nothing_of_a_peer_or_a_request_is_told(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"name-of-the-key: {KEY}\n")
    keys.chmod(0o600)
    by_key = {"Authorization": f"Bearer {KEY}"}
    with (
        serving(named("arm"), api_key_file=str(keys)) as live,
        live.websocket("/openpi", additional_headers=by_key) as peer,
    ):
        peer.recv(timeout=DEADLINE_S)  # the greeting
        peer.send(packed({"prompt": "pick up the secret"}))
        peer.recv(timeout=DEADLINE_S)
        port = peer.socket.getsockname()[1]
        text = live.http("GET", "/metrics", headers=by_key)[1].decode()
    assert requests(text) == {("openpi", "answered"): 1}
    labels = {shown for _, own, _ in samples(text) for shown in own.values()}
    assert not [told for told in ("127.0.0.1", str(port), "secret", "name-of-the-key", KEY) if told in " ".join(labels)]


def test_without_metrics_there_is_no_page() -> None:
    with serving(metrics=False) as live:
        assert live.http("GET", "/metrics")[0] == 404
        assert live.answers()


def test_a_server_that_loads_is_not_ready_and_has_the_page() -> None:
    release = threading.Event()

    def load(on_stage: Callable[[str], None]) -> Policy:
        assert release.wait(DEADLINE_S)
        return named("arm")

    with serving(load=load) as live:
        assert value(scrape(live), "policyserve_ready") == 0
        release.set()
        live.ready()
        assert value(scrape(live), "policyserve_ready") == 1


def test_what_waits_is_seen_while_it_waits() -> None:
    started, release = threading.Event(), threading.Event()

    def block(x: Any) -> Any:
        started.set()
        assert release.wait(DEADLINE_S)
        return x

    with serving(block) as live, live.websocket() as peer:
        peer.send(frame([1.0]))
        assert started.wait(DEADLINE_S)
        text = scrape(live)
        assert value(text, "policyserve_queue_length") == 1
        assert value(text, "policyserve_buffered_bytes") > 0
        release.set()
        peer.recv(timeout=DEADLINE_S)
        text = scrape(live)
        assert value(text, "policyserve_queue_length") == 0
        assert value(text, "policyserve_buffered_bytes") == 0


def test_a_policy_that_hung_was_replaced_for_that() -> None:
    release = threading.Event()

    def hang(x: Any) -> Any:
        assert release.wait(DEADLINE_S)
        return x

    with serving(load=lambda _: FunctionPolicy(hang, PolicySpec("arm", None, None)), request_timeout_s=0.2) as live:
        live.ready()
        with live.websocket() as peer:
            peer.send(frame([1.0]))
            live.until(lambda server: bool(server.engine.stage))
            text = scrape(live)
            assert value(text, "policyserve_policy_replacements_total", reason="hung") == 1
            assert value(text, "policyserve_policy_replacements_total", reason="broke") == 0
            assert value(text, "policyserve_ready") == 0
            release.set()


@pytest.mark.parametrize("name", ["process_resident_memory_bytes", "process_open_fds", "process_cpu_seconds_total"])
def test_the_process_is_told_of_too(name: str) -> None:
    if not Path("/proc/self/stat").exists():
        pytest.skip("the library reads /proc, which is Linux's")
    with serving() as live:
        assert value(scrape(live), name) > 0


def test_two_servers_of_one_process_count_for_themselves() -> None:
    with serving() as one, serving() as other:
        assert one.answers()
        assert requests(scrape(one)) == {("vibe_rl", "answered"): 1}
        assert requests(scrape(other)) == {}


def test_the_event_loops_lag_is_the_worst_of_the_last_looks() -> None:
    lag = LoopLag()
    assert lag.seconds == 0
    for late in (0.5, *[0.0] * 14):
        lag.note(late)
    assert lag.seconds == 0.5
    lag.note(-1e-9)  # a clock's rounding
    assert lag.seconds == 0
