"""Results as a person reads them, in 80 columns, and as a program does."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

from policyserve.bench.machine import Machine, counted
from policyserve.bench.measures import Spread
from policyserve.bench.payloads import told_bytes
from policyserve.bench.run import Comparison, Result, Server, Settings, Step
from policyserve.client.address import without_key

Highlight = Callable[[str], str]  # makes a line stand out, where it is shown

_COLUMNS = 80
_NAMES = 18  # columns of a row's name
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
_OF_JPEGS = {  # where the time goes that pictures take to be coded
    "network": "the way there and back, shrinking and encoding pictures included",
    "queue": "waiting for the policy, and decoding pictures before that",
}


def text(result: Result, settings: Settings, highlight: Highlight = str) -> str:
    """One server's table, and below it what its rows are; highlight: for the part that takes longest."""
    return "\n\n".join([_table(result, settings, highlight), *_explanations([result])])


def comparison_text(comparison: Comparison, settings: Settings, highlight: Highlight = str) -> str:
    """Both servers' tables, the ratios between them, and what the rows are."""
    tables = [_table(result, settings, highlight) for result in comparison.results]
    one, other = (result.server.name for result in comparison.results)
    of = f"median of {counted(len(comparison.slices), 'pair')} of slices (quartiles)"
    between = " / " if len(one) + len(other) + 4 <= _COLUMNS else " /\n"
    lines = _fitting(f"{one}{between}{other}: ", of)
    lines += [f"  {name:<20}{_spread(found)}" for name, found in comparison.ratios.items()]
    if not comparison.ratios:
        lines.append("  no pair of slices has answers of both")
    return "\n\n".join([*tables, "\n".join(lines), *_explanations(comparison.results)])


def step_text(step: Step) -> str:
    """One line of a sweep."""
    clients = f"{step.clients:5d} {'client ' if step.clients == 1 else 'clients'}"
    p99 = "no answer" if step.p99_ms is None else f"p99 {step.p99_ms:.2f} ms"
    errors = f", {counted(step.errors, 'error')}" if step.errors else ""
    verdict = "holds" if step.holds else "does not hold"
    return f"{clients}   {p99}, {step.per_second:.0f} answers per second{errors}   {verdict}"


def sweep_text(steps: Sequence[Step], settings: Settings, most: int, machine: Machine) -> str:
    """What a sweep found. machine: where the clients ran, whose load may be why none holds."""
    rate = f"{settings.rate_hz:g} Hz"
    best = max((step.clients for step in steps if step.holds), default=0)
    if best:
        too_many = min((step.clients for step in steps if not step.holds), default=None)
        least = f" (more than {best} were not tried)" if too_many is None else ""
        if too_many is not None and too_many > best + 1:
            least = f" (stopped: {best + 1} … {too_many - 1} were not tried)"
        holds = f"{counted(best, 'client')} {'holds' if best == 1 else 'hold'} {rate}"
        return _wrapped(f"{holds}: p99 within {1e3 / (settings.rate_hz or 1):g} ms, no errors{least}")
    if not steps:
        return f"stopped before any number of clients was tried at {rate}"
    fewest = min(steps, key=lambda step: step.clients)
    load = "" if machine.load is None else f" (load of this machine: {machine.load:.0f})"
    if fewest.clients > 1:
        told = f"stopped before it was known how many clients hold {rate}: {fewest.clients} are too many"
        return _wrapped(told + load)
    return _wrapped(f"no number of clients holds {rate}: one client alone {_fault(fewest)}{load}")


def sweep_heading(server: Server, settings: Settings) -> str:
    """What a sweep measures, in one line, or two where 80 columns do not hold it."""
    facts = f"{server.load.dialect}, {server.payload}, {settings.rate_hz:g} requests per second each"
    return "\n".join(_fitting(f"{server.name}   ", facts))


def heading(result: Result) -> str:
    """What was measured, in one line, or two where 80 columns do not hold it."""
    server, load = result.server, result.server.load
    loop = "closed loop" if load.rate_hz is None else f"{load.rate_hz:g} requests per second each"
    clients = f"{counted(load.clients, 'client')}{', raw' if load.is_raw else ''}{load.told_images}"
    return "\n".join(_fitting(f"{server.name}   ", f"{load.dialect}, {server.payload}, {clients}, {loop}"))


def as_json(
    results: Sequence[Result], settings: Settings, found: Comparison | Sequence[Step] | None, machine: Machine
) -> dict[str, Any]:
    """All figures; times in ms."""
    document: dict[str, Any] = {
        "policyserve": machine.policyserve,
        "machine": asdict(machine),
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
        "image_mbit_per_second": result.image_mbit_per_second,
        "ms": {name: asdict(part) for name, part in result.parts.items()},
        "encode_ms": asdict(server.encode),
        "decode_ms": asdict(server.decode),
        "errors": dict(tally.errors),
        "error_texts": tally.examples,
        "unsent": tally.unsent,
        "generator_cores": tally.cpu_s / tally.seconds if tally.seconds else None,
    }


def _explanations(results: Sequence[Result]) -> list[str]:
    """What the parts are that the tables of these results have; empty where nothing was answered."""
    names = dict.fromkeys(name for result in results for name in result.parts if name in _PARTS)
    told = {**_PARTS, **_OF_JPEGS} if any(one.server.load.images != "raw" for one in results) else _PARTS
    return ["\n".join(_row(name, told[name]) for name in names)] if names else []


def _table(result: Result, settings: Settings, highlight: Highlight) -> str:
    parts = result.parts
    inner = {name: part.p50 for name, part in parts.items() if name in _PARTS}
    longest = max(inner, key=lambda name: inner[name], default="")
    lines = [heading(result)]
    if parts:
        lines.append(f"{'ms':<{_NAMES}}{'p50':>9}{'p90':>9}{'p99':>9}{'max':>9}")
    for name, part in parts.items():
        figures = "".join(f"{value:9.3f}" for value in (part.p50, part.p90, part.p99, part.max))
        row = f"{f'  {name}' if name in _PARTS else name:<{_NAMES}}{figures}"
        lines.append(highlight(row) if name == longest else row)
    return "\n".join([*lines, *_counts(result, settings)])


def _counts(result: Result, settings: Settings) -> list[str]:
    tally = result.tally
    chunks = f" (chunks of {result.server.horizon})" if result.server.horizon > 1 else ""
    early = f", stopped before {settings.duration_s:g} s" if tally.seconds < 0.95 * settings.duration_s else ""
    rows = [
        ("answers", f"{tally.per_second:.0f} per second ({tally.answers} in {tally.seconds:.1f} s{early})"),
        ("actions", f"{result.actions_per_second:.0f} per second{chunks}"),
        *_images(result),
        ("errors", ", ".join(f"{count} {kind}" for kind, count in tally.errors.most_common()) or "none"),
        *((f"  {kind}", text) for kind, text in tally.examples.items()),
    ]
    if tally.unsent:
        were = "request was due while its client" if tally.unsent == 1 else "requests were due while their clients"
        rows.append(("never sent", f"{tally.unsent} {were} still waited"))
    share = tally.cpu_s / tally.seconds if tally.seconds else 0.0
    busy = "; it may be what is measured here, not the server" if share > _BUSY else ""
    rows.append(("generator", f"{share:.0%} of a core{busy}"))
    return [_row(name, told) for name, told in rows]


def _images(result: Result) -> list[tuple[str, str]]:
    """What the pictures take of the network; nothing where none are sent."""
    images = result.server.payload.images
    if not images:
        return []
    size = told_bytes(sum(image.nbytes for image in images))
    return [("images", f"{result.image_mbit_per_second:.1f} Mbit/s ({len(images)} in a request, {size})")]


def _fault(step: Step) -> str:
    """What is wrong with one client alone."""
    if step.p99_ms is None:
        return "gets no answer" + (f" and {counted(step.errors, 'error')}" if step.errors else "")
    if step.errors:
        return f"has {counted(step.errors, 'error')}"
    p99 = f"{step.p99_ms:.0f}" if step.p99_ms >= 10 else f"{step.p99_ms:.2f}"
    return f"has p99 {p99} ms{f', and {step.unsent} were never sent' if step.unsent else ''}"


def _fitting(name: str, facts: str) -> list[str]:
    """Both in one line, or each in its own; a name may be longer than a line, and has to stay whole."""
    one = f"{name}{facts}"
    return [one] if len(one) <= _COLUMNS else [name.rstrip(), _wrapped(f"  {facts}", "  ")]


def _row(name: str, told: str) -> str:
    return _wrapped(f"{name:<{_NAMES - 1}} {told}", " " * _NAMES)


def _wrapped(line: str, indent: str = "") -> str:
    return textwrap.fill(line, _COLUMNS, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _spread(found: Spread) -> str:
    return f"{found.median:6.3f}   ({found.low:.3f} … {found.high:.3f})"
