"""The marks of one client's round trip: servers alone, whole pairs, page faults."""

from __future__ import annotations

import resource
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from policyserve import Client, Observation

from .clients import REPLY_BYTES, observation_for, written
from .harness import Effort, Program, Row, minor_faults, our_server, ratio_row, skipped, stand_in, started
from .turns import Asker, Sides, in_turns, trip_ratio

PAYLOADS = {"cartpole": "P1", "libero": "P2", "aloha": "P3"}
_INLINE = {"cartpole": 0.55, "libero": 0.25, "aloha": 0.32}
_THREAD = {"libero": 0.42, "aloha": 0.35}
# What is asked against what, and the marks of P1, P2, P3.
_PAIRS = (
    ("openpi-client + our server / openpi's pair", "openpi-client + ours", "openpi", (0.85, 0.48, 0.70)),
    ("our client + our server / openpi's pair", "ours", "openpi", (0.30, 0.28, 0.24)),
    ("our client + our server / raw TCP", "ours", "tcp", (4.0, 4.0, 2.4)),
    ("the same over a Unix socket / openpi's pair", "uds", "openpi", (0.22, 0.20, 0.15)),
)
_WARM_S = 1.0


def servers_alone(payload: str, effort: Effort) -> list[Sides]:
    """Raw clients in turns: ours inline, in a thread and by default, and the stand-in of openpi's."""
    servers = {
        "inline": our_server(f"measuring.policies:{payload}_inline", "--dialect", "openpi"),
        "thread": our_server(f"measuring.policies:{payload}_thread", "--dialect", "openpi"),
        "default": our_server(f"measuring.policies:{payload}_inline"),
        "openpi": stand_in("metadata_first"),
    }
    askers = {name: Asker(name, payload) for name in servers}
    askers["default"] = Asker("default", payload, path="/any")  # no dialect's: the server finds out what is spoken
    return in_turns(servers, askers, effort)


def pairs(payload: str, effort: Effort, openpi_python: str | None) -> list[Sides]:
    """Whole clients in turns: ours and openpi-client with our server, openpi's pair, and the limit, raw TCP."""
    with TemporaryDirectory() as folder:
        servers = {
            "ours": our_server(f"measuring.policies:{payload}_inline"),
            "uds": our_server(f"measuring.policies:{payload}_inline", "--uds", str(Path(folder) / "policy.sock")),
            "tcp": tcp_server(payload),
            "openpi": stand_in("metadata_first"),
        }
        askers = {
            "ours": Asker("ours", payload, "ours"),
            "uds": Asker("uds", payload, "ours"),
            "tcp": Asker("tcp", payload, "tcp"),
        }
        if openpi_python is not None:
            askers["openpi-client + ours"] = Asker("ours", payload, "openpi-client")
            askers["openpi"] = Asker("openpi", payload, "openpi-client")
        return in_turns(servers, askers, effort, openpi_python)


def tcp_server(payload: str) -> Program:
    """The limit: as many bytes in and out, nothing decoded."""
    return stand_in("tcp", "--request-bytes", str(len(written(payload))), "--reply-bytes", str(REPLY_BYTES))


def server_rows(effort: Effort) -> list[Row]:
    """Servers alone against the stand-in of openpi's."""
    rows: list[Row] = []
    for payload, short in PAYLOADS.items():
        starts = servers_alone(payload, effort)
        rows.append(
            ratio_row(f"server alone, inline, {short}", trip_ratio(starts, "inline", "openpi"), _INLINE[payload])
        )
        if payload in _THREAD:
            found = trip_ratio(starts, "thread", "openpi")
            rows.append(ratio_row(f"server alone, policy in a worker thread, {short}", found, _THREAD[payload]))
        else:
            found = trip_ratio(starts, "default", "openpi")
            rows.append(ratio_row(f"server alone, default configuration, {short}", found, 0.6))
    return rows


def pair_rows(effort: Effort, openpi_python: str | None) -> list[Row]:
    """Clients and servers against openpi's pair and against raw TCP."""
    rows: list[Row] = []
    for place, (payload, short) in enumerate(PAYLOADS.items()):
        rows += _pair_rows(short, pairs(payload, effort, openpi_python), place)
    return rows


def _pair_rows(short: str, starts: Sequence[Sides], place: int) -> list[Row]:
    rows: list[Row] = []
    for what, one, other, most in _PAIRS:
        if one in starts[0] and other in starts[0]:
            rows.append(ratio_row(f"{what}, {short}", trip_ratio(starts, one, other), most[place]))
        else:
            rows.append(skipped(f"{what}, {short}", f"≤ {most[place]:g}", "no --openpi-python"))
    return rows


def fault_rows(effort: Effort) -> list[Row]:
    """Page faults per request once everything is warm, in our server and in our client."""
    rows: list[Row] = []
    for payload, short in PAYLOADS.items():
        observation = observation_for(payload)
        server_program = our_server(f"measuring.policies:{payload}_inline")
        with started(server_program) as serving, Client(serving.url) as client:
            _ask_for(client, observation, min(_WARM_S, effort.alone_s))
            server, own = minor_faults(serving.process.pid), _own_faults()
            answers = _ask_for(client, observation, effort.alone_s)
            faults = {"server": minor_faults(serving.process.pid) - server, "client": _own_faults() - own}
        for side, count in faults.items():
            each = count / answers
            measured = f"{each:.3f} ({count} in {answers})"
            rows.append(Row(f"page faults per request, {side}, {short}", "0", measured, each < 0.005))
    return rows


def _ask_for(client: Client, observation: Observation, seconds: float) -> int:
    """Ask for so long and keep nothing: what keeps answers takes memory of its own."""
    answers, end = 0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        client.infer(observation)
        answers += 1
    return answers


def _own_faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
