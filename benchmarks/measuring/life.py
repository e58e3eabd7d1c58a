"""The marks of a server's life: health while a policy works, a child process, starting up, memory of idle sessions."""

from __future__ import annotations

import http.client
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from statistics import median

import numpy as np

from policyserve import Client
from policyserve.bench.measures import quantiles
from policyserve.bench.raw import RawPeer

from .clients import observation_for
from .harness import Effort, Row, Serving, is_at_most, our_server, resident_kb, started, told
from .turns import Asker, difference_ms, in_turns, median_us

_STARTS = 5
_SESSIONS = 1000


def health_rows(effort: Effort) -> list[Row]:
    """/healthz while one call of the policy takes 30 s (2 s in a quick run)."""
    call_s = 2.0 if effort.is_quick else 30.0
    isolated = ("--isolate", "process")
    rows: list[Row] = []
    for what, policy, flags, most in (
        ("in a thread", "long_call", (), 5.0),
        ("in a thread, Python code", "long_call_in_python", (), 30.0),
        ("--isolate process, Python code", "long_call_in_python", isolated, 5.0),
    ):
        with started(our_server(f"measuring.policies:{policy}", *flags)) as serving:
            found = quantiles(_healths_ms(serving, call_s))
        name = f"/healthz p99 during a {call_s:g} s policy call {what}"
        rows.append(is_at_most(name, found.p99, most, "ms", f"max {found.max:.1f} ms"))
    return rows


def child_rows(effort: Effort) -> list[Row]:
    """What a child process adds to the round trip of a 1.8 MB observation."""
    servers = {
        "thread": our_server("measuring.policies:Camera"),
        "child": our_server("measuring.policies:Camera", "--isolate", "process"),
    }
    starts = in_turns(servers, {name: Asker(name, "camera") for name in servers}, effort)
    added = difference_ms(starts, "child", "thread")
    thread_ms, child_ms = (median_us(starts, name) / 1e3 for name in ("thread", "child"))
    measured = f"{told(added)} ms  ({thread_ms:.2f} to {child_ms:.2f})"
    return [Row("child process, 1.8 MB observation, added", "≤ 0.3 ms", measured, added.median <= 0.3)]


def start_rows(effort: Effort) -> list[Row]:
    """From the command to a server that is ready, and the import of the client beyond NumPy's."""
    times = 2 if effort.is_quick else _STARTS
    starts: list[float] = []
    for _ in range(times):
        with started(our_server("cartpole_ppo")) as serving:
            starts.append(serving.seconds)
    ours, numpy = (
        [_run_s(code) for _ in range(times)]
        for code in ("import numpy, policyserve; policyserve.Client", "import numpy")
    )
    return [
        is_at_most(
            "policyserve serve cartpole_ppo, start to ready", median(starts), 0.6, "s", f"best {min(starts):.2f}"
        ),
        is_at_most("import of the client beyond numpy's", median(ours) - median(numpy), 0.15, "s"),
    ]


def idle_rows(effort: Effort) -> list[Row]:
    """What an idle session holds in the server, before and after it sent a message of 2.77 MB."""
    sessions = _SESSIONS // 5 if effort.is_quick else _SESSIONS
    _raise_file_limit(sessions + 200)
    most = str(sessions + 100)
    server = our_server("measuring.policies:aloha_thread", "--max-sessions", most, "--max-sessions-per-address", most)
    with started(server) as serving, ExitStack() as stack:
        first = _open(serving.url, stack)
        frame = first.frame(observation_for("aloha"), "openpi")
        first.exchange(frame)
        start_kb = resident_kb(serving.process.pid)
        peers = [_open(serving.url, stack) for _ in range(sessions)]
        opened_kb = resident_kb(serving.process.pid)
        for peer in peers:
            peer.exchange(frame)
        sent_kb = resident_kb(serving.process.pid)
    return [
        is_at_most(f"{sessions} idle sessions that sent nothing, each", (opened_kb - start_kb) / sessions, 100, "kB"),
        is_at_most(f"{sessions} idle sessions that sent 2.77 MB, each", (sent_kb - start_kb) / sessions, 100, "kB"),
    ]


def _healths_ms(serving: Serving, call_s: float) -> Sequence[float]:
    """How long /healthz took, again and again, while the policy works; a new connection each, as a probe's."""
    asked = np.asarray([call_s, 0, 0, 0], np.float32)
    caller = threading.Thread(target=_ask_quietly, args=(serving.url, asked, call_s + 30))
    caller.start()
    time.sleep(0.5)  # the call is under way: the request was sent at once
    found: list[float] = []
    end = time.perf_counter() + call_s - 1.0
    while time.perf_counter() < end:
        start = time.perf_counter()
        connection = http.client.HTTPConnection("127.0.0.1", serving.port, timeout=30)
        connection.request("GET", "/healthz")
        assert connection.getresponse().status == 200
        connection.close()
        found.append((time.perf_counter() - start) * 1e3)
        time.sleep(0.02)
    caller.join()
    return found


def _ask_quietly(url: str, obs: np.ndarray[tuple[int], np.dtype[np.float32]], timeout_s: float) -> None:
    with Client(url, timeout_s=timeout_s) as client:
        client.infer({"obs": obs})


def _run_s(code: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - start


def _open(url: str, stack: ExitStack) -> RawPeer:
    peer = RawPeer(url, "openpi", 60.0)
    stack.callback(peer.close)
    return peer


def _raise_file_limit(wanted: int) -> None:
    """Both processes need a file per session; a child inherits the limit."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(wanted * 2, hard)), hard))
