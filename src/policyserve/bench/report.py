"""Results as a person reads them, and as a program does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from policyserve.bench.measures import Spread
from policyserve.bench.run import Comparison, Result, Server, Settings, Step
from policyserve.client.address import without_key
from policyserve.core.version import VERSION

_BUSY = 0.9  # of a core: from here on the client may be what is measured
_PARTS = {
    "late": "from due to sent: its client still waited, or this program was late",
    "client": "encoding and decoding, measured by themselves",
    "network": "the way there and back, waiting in sockets included",
    "server": "reading, checking and writing",
    "queue": "waiting for the policy",
    "infer": "the policy",
    "network + server": "all that the server does not tell of",
    "server + infer": "all of the server's side",
}


def text(result: Result, settings: Settings) -> str:
    """One server's table."""
    lines = [heading(result), f"{'ms':<18}{'p50':>9}{'p90':>9}{'p99':>9}{'max':>9}"]
    for name, part in result.parts.items():
        row = "".join(f"{value:9.3f}" for value in (part.p50, part.p90, part.p99, part.max))
        told = _PARTS.get(name, "")
        lines.append(f"{name if name == 'round trip' else f'  {name}':<18}{row}" + (f"   {told}" if told else ""))
    return "\n".join([*(lines if result.parts else lines[:1]), *_counts(result, settings)])


def comparison_text(comparison: Comparison, settings: Settings) -> str:
    """Both servers' tables and the ratios between them."""
    one, other = comparison.results
    lines = [text(one, settings), "", text(other, settings), ""]
    lines.append(
        f"{one.server.name} / {other.server.name}: median of {len(comparison.slices)} pairs of slices (quartiles)"
    )
    lines += [f"  {name:<20}{_spread(found)}" for name, found in comparison.ratios.items()]
    return "\n".join(lines if comparison.ratios else [*lines, "  no pair of slices has answers of both"])


def step_text(step: Step) -> str:
    """One line of a sweep."""
    p99 = "no answer" if step.p99_ms is None else f"p99 {step.p99_ms:.2f} ms"
    errors = f", {step.errors} errors" if step.errors else ""
    verdict = "holds" if step.holds else "too many"
    return f"{step.clients:5d} clients   {p99}, {step.per_second:.0f} answers per second{errors}   {verdict}"


def sweep_text(steps: Sequence[Step], settings: Settings, most: int) -> str:
    """What a sweep found."""
    best = max((step.clients for step in steps if step.holds), default=0)
    least = f" (more than {most} were not tried)" if best == most else ""
    rate = f"{settings.rate_hz:g} requests per second each"
    return f"{best} clients hold {rate}: p99 within {1e3 / (settings.rate_hz or 1):g} ms, no errors{least}"


def sweep_heading(server: Server, settings: Settings) -> str:
    """What a sweep measures, in one line."""
    return f"{server.name}   {server.load.dialect}, {server.payload}, {settings.rate_hz:g} requests per second each"


def heading(result: Result) -> str:
    """What was measured, in one line."""
    server, load = result.server, result.server.load
    loop = "closed loop" if load.rate_hz is None else f"{load.rate_hz:g} requests per second each"
    clients = f"{load.clients} client{'s' if load.clients > 1 else ''}{', raw' if load.is_raw else ''}"
    return f"{server.name}   {load.dialect}, {server.payload}, {clients}, {loop}"


def as_json(results: Sequence[Result], settings: Settings, found: Comparison | Sequence[Step] | None) -> dict[str, Any]:
    """All figures; times in ms."""
    document: dict[str, Any] = {
        "policyserve": VERSION,
        "settings": asdict(replace(settings, api_key=None)),
        "servers": [_result_json(result) for result in results],
    }
    if isinstance(found, Comparison):
        document["ratios"] = {name: asdict(ratio) for name, ratio in found.ratios.items()}
    elif found is not None:
        document["sweep"] = [asdict(step) for step in found]
    return document


def _result_json(result: Result) -> dict[str, Any]:
    tally, server = result.tally, result.server
    return {
        "name": server.name,
        "url": without_key(server.load.url),
        "dialect": server.load.dialect,
        "payload": server.payload.name,
        "payload_bytes": server.payload.size,
        "clients": server.load.clients,
        "seconds": tally.seconds,
        "answers": tally.answers,
        "answers_per_second": tally.per_second,
        "horizon": server.horizon,
        "actions_per_second": result.actions_per_second,
        "ms": {name: asdict(part) for name, part in result.parts.items()},
        "encode_ms": asdict(server.encode),
        "decode_ms": asdict(server.decode),
        "errors": dict(tally.errors),
        "error_texts": tally.examples,
        "unsent": tally.unsent,
        "generator_cores": tally.cpu_s / tally.seconds if tally.seconds else None,
    }


def _counts(result: Result, settings: Settings) -> list[str]:
    tally = result.tally
    chunks = f" (chunks of {result.server.horizon})" if result.server.horizon > 1 else ""
    early = f", stopped before {settings.duration_s:g} s" if tally.seconds < 0.95 * settings.duration_s else ""
    rows = [
        ("answers", f"{tally.per_second:.0f} per second ({tally.answers} in {tally.seconds:.1f} s{early})"),
        ("actions", f"{result.actions_per_second:.0f} per second{chunks}"),
        ("errors", ", ".join(f"{count} {kind}" for kind, count in tally.errors.most_common()) or "none"),
        *((f"  {kind}", text) for kind, text in tally.examples.items()),
    ]
    if tally.unsent:
        rows.append(("never sent", f"{tally.unsent} requests were due while their clients still waited"))
    share = tally.cpu_s / tally.seconds if tally.seconds else 0.0
    busy = "; it may be what is measured here, not the server" if share > _BUSY else ""
    rows.append(("generator", f"{share:.0%} of a core{busy}"))
    return [f"{name:<18}{told}" for name, told in rows]


def _spread(found: Spread) -> str:
    return f"{found.median:6.3f}   ({found.low:.3f} … {found.high:.3f})"
