"""Measures what the worst messages cost the server's event loop: memory and time, for each of their bytes.

    python tests/fuzz/cost.py --seconds 1800 --seed 7

It makes messages of up to 8 MiB out of everything that is dear to read (SHAPES), of all sizes, in every dialect, for
policies that ask for different things, and has a conversation read each of them twice: the second time its layout is
learned. The table that it prints has a line for each shape, and stands in docs/reliability.md. Exit code 1: a message
cost more than is promised (MEMORY, TIME). The same messages are tests/fuzz/test_cost.py, where memory alone is counted.

Other programs on the machine make its cores slower (caches, a core's other half): what a message took is divided by how
much slower a fixed piece of work was just then than at its quickest.
"""

from __future__ import annotations

import argparse
import gc
import random
import sys
import time
import tracemalloc
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgpack

sys.path.insert(0, str(Path(__file__).parents[2]))

from policyserve import dialects
from policyserve.core.events import Event
from policyserve.core.messages import EncodedText, Message
from policyserve.core.observer import Observers
from policyserve.core.session import Session
from policyserve.core.spec import ArraySpec, ImageSpec, PolicySpec, TextListSpec, TextSpec
from policyserve.engine.answering import Task
from policyserve.server.conversation import Conversation

MIB = 1 << 20
MEMORY, MEMORY_BEYOND = 4, MIB  # times the message's bytes, and bytes more
TIME_MS, TIME_MS_PER_MIB = 5.0, 2.0  # for the first MiB, and for each further one
HELD, HELD_BEYOND = 1.5, 1 << 16  # what is counted of a request that waits is the truth within this

SPECS: Mapping[str, PolicySpec] = {
    "anything": PolicySpec("anything", None, None),
    "a state": PolicySpec("state", {"state": ArraySpec((3,)), "prompt": TextSpec(optional=True)}, None),
    "a nest": PolicySpec(
        "nest", {"a": {"b": ArraySpec((None,), "float64", optional=True), "c": TextListSpec(optional=True)}}, None
    ),
    "a list": PolicySpec("list", {"x": ArraySpec((None,), "float64"), "image": ImageSpec(optional=True)}, None),
    "texts": PolicySpec("texts", {"x": TextListSpec()}, None),
}
NAMES = (*dialects.names(), None)


class Engine:
    """Keeps what is submitted, and answers nothing."""

    def __init__(self) -> None:
        self.tasks: list[Task] = []

    def submit(self, task: Task, arrived_at: float, on_outcome: Any) -> None:
        self.tasks.append(task)


class Sink:
    """Drops what is sent."""

    def send(self, message: Message) -> None: ...
    def close(self, code: int, reason: str) -> None: ...


@dataclass(frozen=True)
class Asked:
    """One message, and who reads it."""

    shape: str
    frame: bytes
    dialect: str | None
    spec: str
    is_text: bool = False

    def message(self) -> memoryview | EncodedText:
        data = memoryview(bytearray(self.frame))
        return EncodedText(data) if self.is_text else data


@dataclass(frozen=True)
class Cost:
    """What the dearer of two readings took. left: bytes that stayed while its request waited; held: what is counted."""

    peak: int
    left: int
    held: int
    ms: float = 0.0


def conversation(asked: Asked) -> tuple[Conversation, Session, Engine]:
    """A conversation whose policy is ready."""
    dialect = dialects.by_name(asked.dialect) if asked.dialect else None
    session = Session(dialect, choice=dialects.Auto(), max_pending=8)
    engine = Engine()

    def note(level: int, kind: str, text: str, *args: object, event: Event, cause: BaseException | None = None) -> None:
        str(text % args)

    talk = Conversation(1, session, Sink(), engine, Observers(print), note)  # type: ignore[arg-type]
    talk.serve(SPECS[asked.spec], {})
    if dialect is None:
        talk.note_silence()
    return talk, session, engine


def counted(asked: Asked) -> Cost:
    """The memory that two readings of a message take, one after the other, by tracemalloc."""
    talk, session, engine = conversation(asked)
    costs: list[Cost] = []
    for _ in range(2):
        message = asked.message()
        before_held, before_received = session.held_bytes, len(engine.tasks)
        tracemalloc.start()
        try:
            talk.receive(message, 0.0)
            del message
            left, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        is_waiting = len(engine.tasks) > before_received
        costs.append(Cost(peak, left if is_waiting else 0, session.held_bytes - before_held))
    return max(costs, key=lambda cost: cost.peak)


def timed(asked: Asked) -> float:
    """Milliseconds of a processor that the dearer of two readings takes, the best of three times."""
    best = [1e9, 1e9]
    for _ in range(3):
        talk, _, _ = conversation(asked)
        for number in range(2):
            message = asked.message()
            started = time.thread_time()
            talk.receive(message, 0.0)
            best[number] = min(best[number], (time.thread_time() - started) * 1e3)
    return max(best)


class Pace:
    """How much slower the machine is than at its quickest so far, by a piece of work that is always the same."""

    def __init__(self) -> None:
        self._work = _packed([{f"key{index}": [index, "text", {}]} for index in range(300)])
        self._best = 1e9
        for _ in range(50):
            self.slowness()

    def slowness(self) -> float:
        """At least 1; the best of three times."""
        took = 1e9
        for _ in range(3):
            started = time.thread_time()
            for entry in msgpack.unpackb(self._work):
                for key, value in entry.items():
                    assert str(key).isprintable()
                    assert len(value)
            took = min(took, time.thread_time() - started)
        self._best = min(self._best, took)
        return took / self._best


# Messages. A shape gets about `size` bytes to fill, and a source of chance.

Shape = Callable[[int, random.Random], Any]
ARRAY = {b"__ndarray__": True, b"data": bytes(12), b"dtype": "<f4", b"shape": [3]}
THEIR_ARRAY = {b"nd": True, b"type": "<f4", b"kind": b"", b"shape": [3], b"data": bytes(12)}
LETTERS = ("a", "é", "\u4e2d", "\U0001f600", "\x01")


def _many(size: int, each: int) -> int:
    return max(size // each, 1)


def _long_key(size: int, chance: random.Random) -> Any:
    long = chance.choice((size, 200, 60)) if size > 300 else size
    return {"K" * long: {f"a{index}": 0 for index in range(_many(size, 5))}}


def _numbers(size: int, chance: random.Random) -> Any:
    kinds: tuple[tuple[Any, int], ...] = ((1, 1), (200, 2), (70_000, 5), (1.5, 9), (None, 1), (-(1 << 40), 9))
    number, each = chance.choice(kinds)
    return {"x": [number] * min(_many(size, each), chance.choice((16_300, 1 << 30)))}


def _texts(size: int, chance: random.Random) -> Any:
    text = chance.choice(LETTERS) * chance.choice((0, 1, 2, 20, 1000))
    each = len(text.encode()) + 1
    return {"x": [text] * min(_many(size, each), chance.choice((2_700, 1 << 30)))}


def _one_text(size: int, chance: random.Random) -> Any:
    letter = chance.choice(LETTERS)
    text = letter * min(_many(size, len(letter.encode())), chance.choice((99_000, 1 << 30))) + chance.choice(LETTERS)
    return {chance.choice(("x", "state", "prompt")): text}


def _long_texts(size: int, chance: random.Random) -> Any:
    text = chance.choice(LETTERS) * 90_000 + "\U0001f600"
    return {"x": [text] * _many(size, len(text.encode()))}


def _flat_map(size: int, chance: random.Random) -> Any:
    most = min(_many(size, 6), chance.choice((500, 3_200, 1 << 30)))
    return {f"{index:x}": chance.choice((0, 1.5, "ab", b"")) for index in range(most)}


def _long_keys(size: int, chance: random.Random) -> Any:
    letter = chance.choice(LETTERS[:4])
    filled = letter * (124 // len(letter.encode()))
    return {f"{index:x}{filled}": 0 for index in range(min(_many(size, 130), 3_200))}


def _maps(size: int, chance: random.Random) -> Any:
    inner: Any = chance.choice(({}, [], [[]], {"a": 0}, [1, 2, 3], {"a": {}}, {"nd": 0}, {"": {"": {"": {}}}}))
    most = min(_many(size, len(_packed(inner))), chance.choice((1_000, 2_700, 1 << 30)))
    return {"x": [inner] * most} if chance.random() < 0.5 else {f"{index:x}": inner for index in range(most)}


def _deep(size: int, chance: random.Random) -> Any:
    head = chance.choice(
        (b"\x91", b"\x81\xa1a", b"\xdd\x00\x00\x3f\x00", b"\xdf\x00\x00\x0a\x00\xa1a", b"\xdc\xff\xff")
    )
    return _Raw(head * min(_many(size, len(head)), chance.choice((3, 8, 30, 1 << 30))))


def _comb(size: int, chance: random.Random) -> Any:
    """Lists of eight levels, each with as many items as fit."""
    level: Any = [1] * 40
    for _ in range(chance.randrange(1, 7)):
        level = [level, *[2] * chance.choice((1, 60, 2_000))]
    return {"x": [level] * min(_many(size, len(_packed(level))), 50)}


def _arrays(size: int, chance: random.Random) -> Any:
    one = chance.choice((ARRAY, THEIR_ARRAY, {"__npgeneric__": True, "data": 1, "dtype": "<f4"}))
    most = min(_many(size, len(_packed(one))), chance.choice((256, 300, 1 << 30)))
    return {f"{index:x}": one for index in range(most)} if chance.random() < 0.5 else {"x": [one] * most}


def _bad_arrays(size: int, chance: random.Random) -> Any:
    bad = chance.choice(
        (
            {"dtype": "V" * size},
            {"dtype": b"\xff" * size},
            {"shape": [1] * min(size, 16_000)},
            {"shape": [1 << 62] * 32},
            {"data": [0] * min(size, 16_000)},
            {"shape": "x" * size},
            {"data": bytes(size), "shape": [size]},
        )
    )
    return {"state": {**{key.decode(): value for key, value in ARRAY.items()}, **bad}}


def _large_array(size: int, chance: random.Random) -> Any:
    dtype, each = chance.choice((("|u1", 1), ("|b1", 1), (">f4", 4), ("<f2", 2), ("<f8", 8), ("<i8", 8)))
    count = _many(size, each)
    return {
        chance.choice(("x", "state", "image")): {
            **ARRAY,
            b"data": bytes(count * each),
            b"dtype": dtype,
            b"shape": [count],
        }
    }


def _bins(size: int, chance: random.Random) -> Any:
    each = chance.choice((0, 1, 2_000, size))
    return {"x": [bytes(each)] * min(_many(size, each + 3), 2_700)} if each < size else {"x": bytes(size)}


def _same_keys(size: int, chance: random.Random) -> Any:
    count = min(_many(size, 5), chance.choice((3_000, 65_000)))
    keys = b"".join(_packed(f"{index:03x}") + b"\x01" for index in range(count - 1)) + b"\xa3000\x01"
    return _Raw(b"\x81\xa1x\xde" + count.to_bytes(2, "big") + keys)


def _meta(size: int, chance: random.Random) -> Any:
    """vibe_rl's: many arrays, or a description that is long, or packed once more."""
    count = min(_many(size, 40), chance.choice((1, 250, 4_000)))
    meta: Any = {f"{index:x}": {"dtype": "<f4", "shape": [3]} for index in range(count)}
    if chance.random() < 0.3:
        meta["more"] = [0] * min(size, 14_000)
    data = {f"{index:x}": bytes(12) for index in range(count)}
    return {**data, "__meta__": _packed(meta) if chance.random() < 0.5 else meta}


def _mixed(size: int, chance: random.Random, depth: int = 0) -> Any:
    """Several shapes inside each other."""
    made: dict[str, Any] = {}
    for number in range(chance.randrange(1, 5)):
        part = size // (number + 2)
        below = chance.choice(PLAIN)(max(part, 1), chance) if depth > 1 or chance.random() < 0.6 else None
        if below is None:
            below = _mixed(max(part, 1), chance, depth + 1)
        made[chance.choice(("x", "a", "state", "b", f"k{number}"))] = 0 if isinstance(below, _Raw) else below
    return made


@dataclass(frozen=True)
class _Raw:
    """Bytes that are a message as they are."""

    data: bytes


PLAIN: tuple[Shape, ...] = (
    *(_long_key, _numbers, _texts, _one_text, _long_texts, _flat_map, _long_keys, _maps, _comb, _arrays, _bad_arrays),
    *(_large_array, _bins, _meta),
)
SHAPES: Mapping[str, Shape] = {
    "a long key over many entries": _long_key,
    "long lists of numbers": _numbers,
    "lists of short texts": _texts,
    "one text": _one_text,
    "texts of 90,000 letters": _long_texts,
    "a map of many entries": _flat_map,
    "many keys of 124 bytes": _long_keys,
    "many small maps and lists": _maps,
    "deep nesting": _deep,
    "lists inside long lists": _comb,
    "many arrays": _arrays,
    "arrays that are none": _bad_arrays,
    "one large array": _large_array,
    "bins": _bins,
    "the same key twice": _same_keys,
    "vibe_rl's description": _meta,
    "several of these": _mixed,
}


def _packed(value: Any) -> bytes:
    packed = msgpack.packb(value, use_bin_type=True)
    assert isinstance(packed, bytes)
    return packed


def asked(shape: str, size: int, chance: random.Random) -> Asked:
    """A message of a shape, of about `size` bytes."""
    value = SHAPES[shape](size, chance)
    if isinstance(value, _Raw):
        frame = value.data
    else:
        if chance.random() < 0.5 and "state" not in value:  # what a policy asks for, so that the rest is dropped
            value = {chance.choice(("state", "x")): chance.choice((ARRAY, THEIR_ARRAY)), **value}
        frame = _packed(value)
    if chance.random() < 0.1:
        frame = frame[: chance.randrange(1, len(frame) + 1)]
    return Asked(shape, frame, chance.choice(NAMES), chance.choice((*SPECS,)))


def asked_in_text(size: int, chance: random.Random) -> Asked:
    """A text frame."""
    letter = chance.choice(LETTERS)
    frame = (letter * _many(size, len(letter.encode())) + chance.choice(LETTERS)).encode()
    return Asked("a text frame", frame, chance.choice(NAMES), chance.choice((*SPECS,)), is_text=True)


def any_asked(most: int, chance: random.Random) -> Asked:
    """A message of any shape and size."""
    size = int(most ** chance.uniform(0.4, 1.0))
    shape = chance.choice((*SHAPES, "a text frame"))
    return asked_in_text(size, chance) if shape == "a text frame" else asked(shape, size, chance)


# The program.


@dataclass
class Worst:
    """Of one shape: its messages so far, and the worst of them."""

    messages: int = 0
    memory: float = 0.0  # times the message's bytes, beyond 1 MiB
    memory_of: Asked | None = None
    time: float = 0.0  # of what it may take
    ms: float = 0.0
    time_of: Asked | None = None
    held: float = 0.0
    resident: int = 0


def memory_ratio(one: Asked, cost: Cost) -> float:
    """Times a message's bytes that were allocated, beyond 1 MiB."""
    return max(cost.peak - MEMORY_BEYOND, 0) / max(len(one.frame), 1)


def allowed_ms(size: int) -> float:
    """What a message of `size` bytes may take of the event loop."""
    return TIME_MS + TIME_MS_PER_MIB * max(size / MIB - 1, 0)


def held_ratio(cost: Cost) -> float:
    """What stays for a request that waits, as a multiple of what is counted."""
    return max(cost.left - HELD_BEYOND, 0) / max(cost.held, 1)


def measure(one: Asked, worst: Worst, pace: Pace) -> None:
    """Read one message, and note what it cost."""
    worst.messages += 1
    before = _reset_peak()
    ms = timed(one)
    share = ms / allowed_ms(len(one.frame))
    if share > worst.time:  # again, since another process may have had the core
        ms = min(_at_full_speed(one, pace) for _ in range(3))
        share = ms / allowed_ms(len(one.frame))
    worst.resident = max(worst.resident, _status("VmHWM") - before)
    if share > worst.time:
        worst.time, worst.time_of, worst.ms = share, one, ms
    cost = counted(one)
    if memory_ratio(one, cost) >= worst.memory:
        worst.memory, worst.memory_of = memory_ratio(one, cost), replace(one)
    worst.held = max(worst.held, held_ratio(cost))


def _at_full_speed(one: Asked, pace: Pace) -> float:
    before, ms, after = pace.slowness(), timed(one), pace.slowness()
    return ms / min(before, after)


def _reset_peak() -> int:
    """Let the system note the process's peak anew; returns the memory that it has now, in bytes."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _status(name: str) -> int:
    with suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))
    return 0


def run(seconds: float, seed: int, most: int) -> dict[str, Worst]:
    """Measure for so long; the shapes take turns."""
    chance = random.Random(seed)
    found = {name: Worst() for name in (*SHAPES, "a text frame")}
    pace = Pace()
    ends_at = time.monotonic() + seconds
    gc.disable()  # a collection of the fuzzer's own objects is no message's
    while time.monotonic() < ends_at:
        for name, worst in found.items():
            size = int(most ** chance.uniform(0.4, 1.0))
            measure(asked_in_text(size, chance) if name == "a text frame" else asked(name, size, chance), worst, pace)
        gc.collect()
    return found


def table(found: Mapping[str, Worst]) -> str:
    """The worst of each shape, as Markdown."""
    head = "| shape | messages | memory | of a message of | of its time | ms | of a message of | kept |"
    lines = [head, "|---|---:|---:|---:|---:|---:|---:|---:|"]
    for name, worst in found.items():
        cells = (
            f"{worst.memory:.2f} | {_size(worst.memory_of)} | {worst.time:.0%} | {worst.ms:.2f} | "
            f"{_size(worst.time_of)} | {worst.held:.2f}"
        )
        lines.append(f"| {name} | {worst.messages} | {cells} |")
    return "\n".join(lines)


def _size(one: Asked | None) -> str:
    return "" if one is None else f"{len(one.frame) / 1024:,.0f} KiB, {one.dialect or 'auto'}, {one.spec}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=180.0)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--most-mib", type=float, default=8.0, help="the largest message")
    flags = parser.parse_args()
    found = run(flags.seconds, flags.seed, int(flags.most_mib * MIB))
    print(table(found))
    resident = max(worst.resident for worst in found.values())
    print(f"\nThe process grew by {resident / MIB:.0f} MiB at most while it read one message.")
    sys.exit(any(worst.memory > MEMORY or worst.time > 1 or worst.held > HELD for worst in found.values()))


if __name__ == "__main__":
    main()
