"""The marks of one client's round trip: servers alone, whole pairs, page faults."""

from __future__ import annotations

import resource
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from policyserve import Client, Observation
from policyserve.bench.fleet import Fleet, Single
from policyserve.bench.load import Load
from policyserve.bench.raw_fleet import RawFleet
from policyserve.bench.tally import Tally
from policyserve.dialects import by_name

from .harness import (
    Effort,
    OpenpiClient,
    Row,
    TcpFleet,
    minor_faults,
    observation_for,
    ratio_row,
    rival,
    serve,
    skipped,
    take_turns,
    takes_flag,
    trip_ratio,
)

PAYLOADS = {"cartpole": "P1", "libero": "P2", "aloha": "P3"}
_REPLY_BYTES = 1050  # of (32, 7) float32 with its timing, in a frame
_WARM_S = 1.0


def servers_alone(payload: str, effort: Effort) -> dict[str, list[Tally]]:
    """Raw clients in turns: ours inline, ours in a thread, ours by default, and the stand-ins of openpi and Wall-X."""
    with ExitStack() as stack:
        inline = stack.enter_context(serve(f"measuring.policies:{payload}_inline", "--dialect", "openpi")).url
        thread = stack.enter_context(serve(f"measuring.policies:{payload}_thread", "--dialect", "openpi")).url
        default = stack.enter_context(serve(f"measuring.policies:{payload}_inline")).url
        openpi = stack.enter_context(rival("metadata_first")).url
        wall_x = stack.enter_context(rival("metadata_first", "--family", "wall_x")).url
        loads = {
            "inline": (inline, "openpi"),
            "thread": (thread, "openpi"),
            "default": (f"{default}/any", "openpi"),  # a path that is no dialect's: the server finds it out
            "openpi": (openpi, "openpi"),
            "wall_x": (wall_x, "wall_x"),
        }
        fleets: dict[str, Fleet] = {}
        for name, (url, dialect) in loads.items():
            fleets[name] = RawFleet(Load(url, dialect, observation_for(payload)))
            stack.callback(fleets[name].close)
        return take_turns(fleets, effort)


def pairs(payload: str, effort: Effort, openpi_python: str | None) -> dict[str, list[Tally]]:
    """Whole clients in turns: ours and openpi-client with our server, openpi's pair, and the limit, raw TCP."""
    observation = observation_for(payload)
    request = by_name("openpi").write_request(observation)
    with ExitStack() as stack:
        ours = stack.enter_context(serve(f"measuring.policies:{payload}_inline"))
        openpi = stack.enter_context(rival("metadata_first"))
        sizes = ("--request-bytes", str(len(request)), "--reply-bytes", str(_REPLY_BYTES))
        tcp = stack.enter_context(rival("tcp", *sizes))
        fleets: dict[str, Fleet] = {
            "ours": Single(Load(ours.url, "openpi", observation)),
            "tcp": TcpFleet(tcp.url, len(request), _REPLY_BYTES),
        }
        if openpi_python is not None:
            fleets["openpi-client + ours"] = OpenpiClient(openpi_python, ours.port, payload)
            fleets["openpi"] = OpenpiClient(openpi_python, openpi.port, payload)
        if takes_flag("--uds"):
            place = Path(stack.enter_context(TemporaryDirectory())) / "policy.sock"
            stack.enter_context(serve(f"measuring.policies:{payload}_inline", "--uds", str(place)))
            fleets["uds"] = Single(Load(f"ws+unix://{place}", "openpi", observation))
        for fleet in fleets.values():
            stack.callback(fleet.close)
        return take_turns(fleets, effort)


def server_rows(effort: Effort) -> list[Row]:
    """Servers alone against the stand-in of openpi's."""
    rows: list[Row] = []
    for payload, short in PAYLOADS.items():
        tallies = servers_alone(payload, effort)
        inline = {"cartpole": 0.55, "libero": 0.25, "aloha": 0.32}[payload]
        rows.append(ratio_row(f"server alone, inline, {short}", trip_ratio(tallies, "inline", "openpi"), inline))
        thread = {"libero": 0.42, "aloha": 0.35}.get(payload)
        if thread is not None:
            found = trip_ratio(tallies, "thread", "openpi")
            rows.append(ratio_row(f"server alone, policy in a worker thread, {short}", found, thread))
        else:
            found = trip_ratio(tallies, "default", "openpi")
            rows.append(ratio_row(f"server alone, default configuration, {short}", found, 0.6))
    return rows


def pair_rows(effort: Effort, openpi_python: str | None) -> list[Row]:
    """Clients and servers against openpi's pair and against raw TCP."""
    rows: list[Row] = []
    for payload, short in PAYLOADS.items():
        rows += _pair_rows(short, pairs(payload, effort, openpi_python), {"P1": 0, "P2": 1, "P3": 2}[short])
    return [*rows, skipped("same host, shared memory / openpi's pair, P3", "≤ 0.03", "there is no such transport yet")]


def _pair_rows(short: str, tallies: Mapping[str, list[Tally]], place: int) -> list[Row]:
    marks = (
        ("openpi-client + our server / openpi's pair", "openpi-client + ours", "openpi", (0.85, 0.48, 0.70)),
        ("our client + our server / openpi's pair", "ours", "openpi", (0.30, 0.28, 0.24)),
        ("our client + our server / raw TCP", "ours", "tcp", (4.0, 4.0, 2.4)),
        ("the same over a Unix socket / openpi's pair", "uds", "openpi", (0.22, 0.20, 0.15)),
    )
    rows: list[Row] = []
    for what, one, other, most in marks:
        missing = [name for name in (one, other) if name not in tallies]
        if missing:
            why = "the server has no --uds" if missing == ["uds"] else "no --openpi-python"
            rows.append(skipped(f"{what}, {short}", f"≤ {most[place]:g}", why))
        else:
            rows.append(ratio_row(f"{what}, {short}", trip_ratio(tallies, one, other), most[place]))
    return rows


def fault_rows(effort: Effort) -> list[Row]:
    """Page faults per request once everything is warm, in our server and in our client."""
    rows: list[Row] = []
    for payload, short in PAYLOADS.items():
        observation = observation_for(payload)
        with serve(f"measuring.policies:{payload}_inline") as serving, Client(serving.url) as client:
            _ask_for(client, observation, _WARM_S)
            server, own = minor_faults(serving.process.pid), _own_faults()
            answers = _ask_for(client, observation, max(effort.total_s / 2, _WARM_S))
            faults = {"server": minor_faults(serving.process.pid) - server, "client": _own_faults() - own}
        for side, count in faults.items():
            each = count / answers
            told = f"{each:.3f} ({count} in {answers})"
            rows.append(Row(f"page faults per request, {side}, {short}", "0", told, each < 0.005))
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
