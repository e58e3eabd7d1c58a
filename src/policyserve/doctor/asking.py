"""Requests to the server: whether one is answered as it should be, and where the time of twenty goes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from policyserve.bench.measures import Quantiles
from policyserve.bench.payloads import Payload, payload_for, told_bytes
from policyserve.bench.tally import Tally, first_line, split
from policyserve.client.sync import Client
from policyserve.core.arrays import Array, describe
from policyserve.core.dialect import answers_one_action, code_in_text
from policyserve.core.errors import ConfigError, DeadlineExceeded, PolicyserveError, RemoteError, WireError
from policyserve.core.leaf_specs import sizes_match
from policyserve.core.messages import Observation, Reply
from policyserve.dialects import by_name
from policyserve.doctor.findings import Finding, broken, ok, warning
from policyserve.doctor.greeting import Seen
from policyserve.doctor.server import Examined, without_place

TRIPS = 20
_SLOW_MS = 20.0  # below that nobody needs to look at where the time goes
_LEAST_PER_S = 10.0  # observations that the network should carry each second
_SHORTEST_MS = 0.01
_MEASURABLE = 100_000  # bytes, below which the way's own time drowns that of the bytes
_CURES = {
    "bad_observation": "mend that in the client; --frame FILE compares a client's recorded message key by key",
    "bad_frame": "the client writes another dialect than it asks for: name one with --dialect",
    "wrong_dialect": "name the dialect with --dialect, or by the URL's path",
    "bad_action": "the checkpoint or its normalisation is broken: see the server's log, and try another checkpoint",
    "policy_failed": "the policy raised: the server's log has the traceback",
    "policy_lost": "the policy's process died and is replaced: the server's log says why",
    "not_ready": "wait, and ask again; the server's own terminal shows what it is at",
    "overloaded": "others keep the policy busy: fewer clients, or more copies of it (--replicas)",
    "deadline_exceeded": "the policy is slower than the server allows (--request-timeout-s)",
}


@dataclass(frozen=True)
class Asked:
    """What to ask with: an observation, and where it comes from."""

    payload: Payload
    source: str


def request_for(seen: Seen, given: Observation | None, source: str) -> tuple[Finding, Asked | None]:
    """The observation to ask with: the given one, else one that the server's spec asks for."""
    if given is not None:
        payload = Payload(source, given)
        return ok("request", f"made of {source}, {told_bytes(payload.size)}", bytes=payload.size, source=source), Asked(
            payload, source
        )
    try:
        payload = payload_for("auto", seen.metadata, seen.dialect)
    except ConfigError:
        told = "cannot ask: the server does not tell what it takes"
        cure = "give an observation with --example FILE (.npz, or .json), or a recorded one with --frame FILE"
        return warning("request", told, cure, bytes=None, source=None), None
    made = f"made from the spec, {told_bytes(payload.size)} of random numbers"
    return ok("request", made, bytes=payload.size, source="spec"), Asked(payload, "the spec")


def asking(server: Examined, seen: Seen, asked: Asked, ping_ms: float | None) -> Iterator[Finding]:
    """Ask once, look at the answer, and ask twenty times more."""
    observation = asked.payload.observation
    try:
        with server.client(seen.dialect) as client:
            reply = client.infer(observation)
            answer = answer_of(seen, reply)
            yield answer
            if answer.verdict == "broken":
                return
            tally = _round_trips(server, client, observation)
    except PolicyserveError as error:
        yield _unanswered(server.timeout_s, seen, error)
        return
    if tally.answers:
        parts = split(tally, None)
        yield round_trips(tally.answers, parts)
        if asked.payload.images:
            yield images(asked.payload, parts, ping_ms)


def _round_trips(server: Examined, client: Client, observation: Observation) -> Tally:
    """Ask one after the other, for as long as a step may take."""
    tally, until = Tally(), time.monotonic() + server.timeout_s
    while tally.answers < TRIPS and (time.monotonic() < until or not tally.answers):
        sent = time.perf_counter()
        reply = client.infer(observation)
        tally.answered(sent, sent, time.perf_counter(), reply.timing)
    return tally


def answer_of(seen: Seen, reply: Reply) -> Finding:
    """Whether the actions have the spec's shape, and are finite."""
    actions = reply.actions
    told = describe(actions.dtype, actions.shape)
    figures = {"shape": list(actions.shape), "dtype": actions.dtype.name}
    wrong = _wrong_shape(seen, actions)
    is_finite = actions.dtype.kind != "f" or bool(np.isfinite(actions).all())
    if not is_finite:
        count = int((~np.isfinite(actions)).sum())
        found = f"{told}, of which {count} of {actions.size} numbers are NaN or Inf"
        return broken("answer", found, _CURES["bad_action"], **figures, is_finite=False)
    if wrong:
        cure = "the server, or its checkpoint, is of another robot than it says"
        return broken("answer", f"{told}, expected {wrong}", cure, **figures, is_finite=True)
    if actions.size == 0:
        return broken("answer", f"{told}: no number at all", "see the server's log", **figures, is_finite=True)
    return ok("answer", f"{told}, all finite", **figures, is_finite=True)


def _wrong_shape(seen: Seen, actions: Array) -> str:
    """What was expected of the actions' shape; empty where they have it, or nobody says."""
    spec, metadata = seen.spec, seen.metadata
    if spec is not None and spec.action is not None:
        is_one = spec.horizon is None or answers_one_action(by_name(seen.dialect))
        steps = () if is_one else (spec.horizon,)
        shape = (*steps, *spec.action.shape)
        is_right = sizes_match(actions.shape, shape)
        return "" if is_right else describe(spec.action.dtype, shape)
    size = metadata.get("action_dim")
    is_told = isinstance(size, int) and not isinstance(size, bool) and actions.ndim > 0
    return f"{size} numbers in each action" if is_told and actions.shape[-1] != size else ""


def _unanswered(timeout_s: float, seen: Seen, error: PolicyserveError) -> Finding:
    told = without_place(first_line(str(error)))
    code = code_in_text(told) if seen.is_ours and error.code == "remote" else error.code
    if isinstance(error, DeadlineExceeded):
        cure = "the policy hangs, or needs longer for its first call: try --timeout-s 60, see the server's log"
        return broken("answer", f"no answer within {timeout_s:g} s", cure, code=code)
    if isinstance(error, WireError) and not isinstance(error, RemoteError):
        cure = f"it may speak another dialect than {seen.dialect}: name one with --dialect"
        return broken("answer", told, cure, code=code)
    cure = _CURES.get(code or "", f"the server's log says why; does the request fit this policy, and {seen.dialect}?")
    return broken("answer", f"refused: {told}", cure, code=code)


def round_trips(count: int, parts: Mapping[str, Quantiles]) -> Finding:
    """Where the time goes: the whole of a round trip first, then its parts as far as the server tells them."""
    whole = parts["round trip"]
    rest = {name: one for name, one in parts.items() if name != "round trip"}
    told = f"{whole.p50:.1f} ms, at most {whole.max:.1f} (median of {count})"
    shares = ", ".join(f"{name} {one.p50:.1f}" for name, one in rest.items())
    figures = {name: {"p50_ms": one.p50, "max_ms": one.max} for name, one in parts.items()}
    found = f"{told}\n{shares}"
    network = rest.get("network")
    queue, infer = rest.get("queue"), rest.get("infer")
    if queue is not None and infer is not None and queue.p50 > max(infer.p50, _SLOW_MS):
        cure = _CURES["overloaded"]
        return warning("round trip", found + "\nrequests wait longer than the policy works", cure, **figures)
    if network is not None and network.p50 > max(whole.p50 / 2, _SLOW_MS):
        cure = "use a cable in place of Wi-Fi, smaller pictures, or a server that is nearer"
        return warning("round trip", found + "\nmost of the time goes to the network", cure, **figures)
    return ok("round trip", found, **figures)


def images(payload: Payload, parts: Mapping[str, Quantiles], ping_ms: float | None) -> Finding:
    """How many observations with pictures of these sizes the network carries in a second, as far as can be told.

    The time on the way is the network's part beyond a ping, which carries next to nothing.
    """
    told = parts.get("network") or parts.get("network + server") or parts["round trip"]
    way_ms = max(told.p50 - (ping_ms or 0.0), _SHORTEST_MS)
    size = sum(image.nbytes for image in payload.images)
    per_s, mbit_per_s = 1e3 / way_ms, size * 8e-3 / way_ms
    count = len(payload.images)
    pictures = f"{count} {'picture' if count == 1 else 'pictures'}, {told_bytes(size)}: {way_ms:.1f} ms on the way"
    found = pictures if size < _MEASURABLE else f"{pictures}, {mbit_per_s:,.0f} Mbit/s"
    figures = {"count": count, "bytes": size, "way_ms": way_ms, "mbit_per_s": mbit_per_s}
    if per_s < _LEAST_PER_S:
        cure = "make them smaller on the robot (the spec's size is enough), or use a cable in place of Wi-Fi"
        return warning("images", f"{found}: at most {per_s:.1f} each second", cure, **figures)
    return ok("images", found, **figures)
