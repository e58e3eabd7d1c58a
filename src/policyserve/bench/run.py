"""One measurement from its first request to its result: a server alone, two in turns, or the search of a limit."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass, field, replace

from policyserve.bench.fleet import Fleet, open_fleet
from policyserve.bench.load import Load
from policyserve.bench.machine import counted
from policyserve.bench.measures import Quantiles, Search, Spread, in_turns, quantiles, ratios
from policyserve.bench.payloads import Payload, payload_for
from policyserve.bench.scenes import with_scenes
from policyserve.bench.tally import Tally, split
from policyserve.bench.target import Peek, Place
from policyserve.client.address import has_key
from policyserve.core.arrays import Array
from policyserve.core.errors import PolicyserveError, RemoteError
from policyserve.core.messages import Reply, Timing
from policyserve.core.policy import ActionChunk
from policyserve.dialects import http_names, spoken
from policyserve.transforms import jpeg

_CALIBRATIONS = 30

# Told what is measured next, the tally that fills meanwhile, and for how many seconds.
OnTally = Callable[[str, Tally, float], None]


@dataclass(frozen=True)
class Settings:
    """How to measure; `policyserve bench --help` says what each is."""

    dialect: str = "auto"
    payload: str = "auto"
    clients: int = 1
    duration_s: float = 10.0
    warmup_s: float = 1.0
    rate_hz: float | None = None
    timeout_s: float = 30.0
    slices: int = 20
    is_raw: bool = False
    images: str = "raw"
    jpeg_quality: int = 90
    api_key: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Server:
    """A server that has answered one request: what to send it, and what that costs its client."""

    name: str
    load: Load
    payload: Payload
    horizon: int
    encode: Quantiles  # ms
    decode: Quantiles

    @property
    def client(self) -> Quantiles | None:
        """What one request and its answer cost a client that encodes and decodes, in ms."""
        pairs = zip(astuple(self.encode), astuple(self.decode), strict=True)
        return None if self.load.is_raw else Quantiles(*(encode + decode for encode, decode in pairs))


@dataclass
class Result:
    """What one server did."""

    server: Server
    tally: Tally = field(default_factory=Tally)

    @property
    def parts(self) -> dict[str, Quantiles]:
        """The round trip and its parts in ms; empty where nothing was answered."""
        if not self.tally.answers:
            return {}
        return split(self.tally, self.server.client, self.server.load.rate_hz is not None)

    @property
    def actions_per_second(self) -> float:
        """Steps of action per second, of all clients together."""
        return self.tally.per_second * self.server.horizon

    @property
    def image_mbit_per_second(self) -> float:
        """What the pictures in the requests of all clients took of the network, in millions of bits per second.

        With --images auto: what they take raw.
        """
        load, images = self.server.load, self.server.payload.images
        return sum(_sent_bytes(load, one) for one in images) * self.tally.per_second * 8e-6


@dataclass
class Comparison:
    """Two servers that were driven in turns. slices: the tallies of each pair, in the order of `results`."""

    results: tuple[Result, Result]
    slices: list[tuple[Tally, Tally]] = field(default_factory=list)

    @property
    def ratios(self) -> dict[str, Spread]:
        """First server over second, slice by slice; empty where no pair of slices has answers of both."""
        pairs = [(one, other) for one, other in self.slices if one.answers and other.answers]
        if not pairs:
            return {}
        trips = [(quantiles(one.trips_s), quantiles(other.trips_s)) for one, other in pairs]
        rates = [(one.per_second, other.per_second) for one, other in pairs]
        return {
            "round trip p50": ratios([one.p50 for one, _ in trips], [other.p50 for _, other in trips]),
            "round trip p99": ratios([one.p99 for one, _ in trips], [other.p99 for _, other in trips]),
            "answers per second": ratios([one for one, _ in rates], [other for _, other in rates]),
        }


@dataclass(frozen=True)
class Step:
    """One number of clients of a sweep. p99_ms: None if nothing was answered."""

    clients: int
    p99_ms: float | None
    per_second: float
    errors: int
    holds: bool
    unsent: int = 0


def _sent_bytes(load: Load, image: Array) -> int:
    """What a picture of bytes takes on the wire, where the server takes it as it is sent; in JSON it is base64."""
    if load.dialect in http_names():
        return image.nbytes * 4 // 3
    if load.images != "jpeg" or image.ndim != 3 or 3 not in image.shape[::2]:
        return image.nbytes
    picture = image if image.shape[-1] == 3 else image.transpose(1, 2, 0)
    return len(jpeg.encode(picture, load.jpeg_quality).data)


def prepare(name: str, place: Place, settings: Settings) -> Server:
    """Look at a server and ask it once; raises what is wrong with it or the payload, in one line."""
    api_key = None if has_key(place.url) else settings.api_key
    peek = Peek(place.url, place.told_at, settings.timeout_s, api_key)
    seen = peek.look(settings.dialect, needs_greeting=settings.payload == "auto")
    payload = payload_for(settings.payload, seen.metadata, seen.dialect)
    if settings.images != "raw":
        payload = with_scenes(payload)
    reply = peek.ask(seen.dialect, payload.observation)
    load = Load(
        place.url,
        seen.dialect,
        payload.observation,
        settings.clients,
        settings.rate_hz,
        settings.timeout_s,
        settings.is_raw,
        api_key,
        settings.images,
        settings.jpeg_quality,
    )
    horizon = reply.actions.shape[0] if reply.actions.ndim > 1 else 1
    return Server(name, load, payload, horizon, *_own_cost(load, reply))


def measure(server: Server, settings: Settings, on_tally: OnTally) -> Result:
    """Drive one server; Ctrl-C ends it early with what there is."""
    result = Result(server)
    with _fleet(server.load) as fleet, _interruptible():
        _warm_up(fleet, settings, on_tally)
        on_tally(server.name, result.tally, settings.duration_s)
        fleet.drive(result.tally, settings.duration_s)
    return result


def compare(servers: tuple[Server, Server], settings: Settings, on_tally: OnTally) -> Comparison:
    """Drive two servers in turns, each for duration_s in all; Ctrl-C ends it early with what there is."""
    comparison = Comparison((Result(servers[0]), Result(servers[1])))
    with _fleet(servers[0].load) as one, _fleet(servers[1].load) as other, _interruptible():
        fleets = (one, other)
        for fleet in fleets:
            _warm_up(fleet, settings, on_tally)
        for turn, order in enumerate(in_turns(settings.slices)):
            pair = (Tally(), Tally())
            try:
                for number in order:
                    seconds = settings.duration_s / settings.slices
                    on_tally(f"slice {turn + 1} of {settings.slices}, {servers[number].name}", pair[number], seconds)
                    fleets[number].drive(pair[number], seconds)
                comparison.slices.append(pair)
            finally:  # what an interrupted pair saw counts, but not for the ratios
                for result, tally in zip(comparison.results, pair, strict=True):
                    result.tally.add(tally)
    return comparison


def sweep(
    server: Server, settings: Settings, most: int, on_tally: OnTally, on_step: Callable[[Step], None]
) -> list[Step]:
    """Find the largest number of clients that all hold rate_hz: p99 within the period, nothing failed, nothing unsent.

    Raises what connecting raises only if not even one client can.
    """
    search = Search(settings.clients, most)
    steps: list[Step] = []
    with _interruptible():
        while (clients := search.next) is not None:
            step = _try_clients(server, clients, settings, on_tally)
            search.tell(step.holds)
            steps.append(step)
            on_step(step)
    return steps


def _try_clients(server: Server, clients: int, settings: Settings, on_tally: OnTally) -> Step:
    assert settings.rate_hz is not None, "a sweep has a rate"
    tally, told = Tally(), counted(clients, "client")
    on_tally(f"{told}, connecting", tally, 0.0)
    try:
        with _fleet(replace(server.load, clients=clients)) as fleet:
            _warm_up(fleet, settings, on_tally, f"{told}, warming up")
            on_tally(told, tally, settings.duration_s)
            fleet.drive(tally, settings.duration_s)
    except PolicyserveError as error:  # more connections than the server takes
        if clients == 1:
            raise
        tally.failed(error)
    errors = sum(tally.errors.values())
    p99_ms = quantiles(tally.trips_s).p99 * 1e3 if tally.answers else None
    holds = p99_ms is not None and p99_ms <= 1e3 / settings.rate_hz and not errors and not tally.unsent
    return Step(clients, p99_ms, tally.per_second, errors, holds, tally.unsent)


def _warm_up(fleet: Fleet, settings: Settings, on_tally: OnTally, what: str = "warming up") -> None:
    """Drive without counting; raises RemoteError if nothing but errors came."""
    tally = Tally()
    on_tally(what, tally, settings.warmup_s)
    if settings.warmup_s:
        fleet.drive(tally, settings.warmup_s)
    if tally.errors and not tally.answers:
        kind, text = next(iter(tally.examples.items()))
        raise RemoteError(text if text.startswith(kind) else f"{kind}: {text}")


def _own_cost(load: Load, reply: Reply) -> tuple[Quantiles, Quantiles]:
    """What encoding the request and decoding its answer take here, in ms."""
    dialect = spoken(load.dialect)
    answer = dialect.write_reply(ActionChunk(reply.actions), Timing(0.1, 0.1, 0.1, 0.1))
    encode = _timed(lambda: dialect.write_request(load.observation))
    decode = _timed(lambda: dialect.read_reply(answer))
    return encode, decode


def _timed(call: Callable[[], object]) -> Quantiles:
    took: list[float] = []
    for _ in range(_CALIBRATIONS):
        start = time.perf_counter()
        call()
        took.append((time.perf_counter() - start) * 1e3)
    return quantiles(took)


@contextmanager
def _fleet(load: Load) -> Iterator[Fleet]:
    fleet = open_fleet(load)
    try:
        yield fleet
    finally:
        fleet.close()


def _interruptible() -> suppress:
    """Ctrl-C ends the block and not the program."""
    return suppress(KeyboardInterrupt)
