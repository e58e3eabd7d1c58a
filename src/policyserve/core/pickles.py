"""What a pickle says, without doing it. Pure.

The reader interprets opcodes into plain values (numbers, texts, bytes, tuples, lists, maps) and Things: what a global,
an object or a call of a function is called, and with what. It imports nothing, calls nothing that the pickle names, and
refuses each name and each opcode that its caller does not expect; what a Thing means is for functions that look at it
afterwards.
What must stay true: each opcode makes one value at most, bytes are views of the pickle, and there are no more opcodes
than the caller allows, so that memory is bounded by the pickle's size. Keys of maps are texts, whose hashes nobody can
choose. Nothing here recurses. A value may hold itself, or one tuple a thousand times: never take its repr(), never walk
it without counting.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from struct import unpack
from typing import Any

from policyserve.core.pickle_things import PERSISTENT, PickleFault, Thing, Vocabulary

_MOST_MARKS = 64
_NEWEST = 5  # protocol


def read_pickle(data: bytes | bytearray | memoryview, vocabulary: Vocabulary) -> Any:
    """The value that a pickle describes.

    Raises PickleFault for globals and opcodes that are not expected, and for what is no pickle.
    """
    reader = _Reader(memoryview(data), vocabulary)
    try:
        return reader.read()
    except PickleFault as fault:
        fault.place = reader.place
        raise


class _Reader:
    """The machine that a pickle is a program for, without the instructions that run something."""

    def __init__(self, data: memoryview, vocabulary: Vocabulary) -> None:
        self._data, self._vocabulary = data, vocabulary
        self.place = 0
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def read(self) -> Any:
        most, acts = self._vocabulary.most_ops, _acts_of(self._vocabulary.opcodes)
        for _ in range(most):
            opcode = self._take(1)[0]
            if opcode == ord("."):
                return self._pop()
            act = acts.get(opcode)
            if act is None:
                raise PickleFault(f"opcode {_told_opcode(opcode)}, which none of {self._vocabulary.whose} has")
            act(self)
        raise PickleFault(f"more than {most} opcodes")

    def push(self, value: Any) -> None:
        self._stack.append(value)

    def number(self, size: int) -> int:
        return int.from_bytes(self._take(size), "little")

    def proto(self) -> None:
        if (version := self.number(1)) > _NEWEST:
            raise PickleFault(f"protocol {version}")

    def frame(self) -> None:
        self._take(8)  # how long a frame is matters to readers that stream

    def mark(self) -> None:
        if len(self._marks) == _MOST_MARKS:
            raise PickleFault("values that are nested too deep")
        self._marks.append(len(self._stack))

    def pop(self) -> None:
        self._pop()

    def pop_mark(self) -> None:
        self._since_mark()

    def duplicate(self) -> None:
        self.push(self._top())

    def integer(self) -> None:
        self.push(int.from_bytes(self._take(4), "little", signed=True))

    def long(self) -> None:
        self.push(int.from_bytes(self._take(self.number(1)), "little", signed=True))

    def double(self) -> None:
        self.push(unpack(">d", self._take(8))[0])

    def text(self, width: int) -> None:
        raw = bytes(self._take(self.number(width)))
        try:
            self.push(raw.decode())
        except UnicodeDecodeError:
            raise PickleFault("a text that is no UTF-8") from None

    def raw(self, width: int) -> None:
        self.push(self._take(self.number(width)))

    def last(self, count: int) -> None:
        self.push(tuple(reversed([self._pop() for _ in range(count)])))

    def marked(self) -> None:
        self.push(tuple(self._since_mark()))

    def append(self) -> None:
        value = self._pop()
        self._list().append(value)

    def extend(self) -> None:
        values = self._since_mark()
        self._list().extend(values)

    def set_item(self) -> None:
        value, key = self._pop(), self._pop()
        self._set([key, value])

    def set_items(self) -> None:
        self._set(self._since_mark())

    def get(self, width: int) -> None:
        index = self.number(width)
        if index not in self._memo:
            raise PickleFault(f"a value {index} that was not kept")
        self.push(self._memo[index])

    def put(self, width: int) -> None:
        self._memo[self.number(width)] = self._top()

    def memoize(self) -> None:
        self._memo[len(self._memo)] = self._top()

    def named(self) -> None:
        self._name(self._line(), self._line())

    def named_on_stack(self) -> None:
        name, module = self._pop(), self._pop()
        if not (isinstance(name, str) and isinstance(module, str)):
            raise PickleFault("a global whose name is no text")
        self._name(module, name)

    def called(self) -> None:
        """REDUCE and NEWOBJ: a global and its arguments."""
        args, what = self._pop(), self._pop()
        if not isinstance(what, Thing) or what.args is not None or not isinstance(args, tuple):
            raise PickleFault("a call of what is no global")
        self.push(Thing(what.kind, args))

    def build(self) -> None:
        state, thing = self._pop(), self._top()
        if not isinstance(thing, Thing) or thing.args is None or thing.state is not None:
            raise PickleFault("a state for what has none")
        thing.state = state

    def persistent(self) -> None:
        if not self._vocabulary.knows(PERSISTENT):
            raise PickleFault("a persistent id")
        self.push(Thing(PERSISTENT, (self._pop(),)))

    def _name(self, module: str, name: str) -> None:
        kind = f"{module} {name}"
        if not self._vocabulary.knows(kind):
            raise PickleFault(f"{f'{module}.{name}'[:120]!r}, which is not built here")
        self.push(Thing(kind))

    def _take(self, count: int) -> memoryview:
        taken = self._data[self.place : self.place + count]
        if len(taken) != count:
            raise PickleFault("its end too early")
        self.place += count
        return taken

    def _line(self) -> str:
        rest = bytes(self._data[self.place : self.place + 256])
        end = rest.find(b"\n")
        if end < 0:
            raise PickleFault("a name without an end")
        self.place += end + 1
        return rest[:end].decode("utf-8", "replace")

    def _top(self) -> Any:
        if len(self._stack) <= (self._marks[-1] if self._marks else 0):
            raise PickleFault("an opcode without its value")
        return self._stack[-1]

    def _pop(self) -> Any:
        value = self._top()
        self._stack.pop()
        return value

    def _since_mark(self) -> list[Any]:
        if not self._marks:
            raise PickleFault("an opcode without its mark")
        start = self._marks.pop()
        values = self._stack[start:]
        del self._stack[start:]
        return values

    def _list(self) -> list[Any]:
        found = self._top()
        if not isinstance(found, list):
            raise PickleFault("items for what is no list")
        return found

    def _set(self, pairs: list[Any]) -> None:
        target = self._top()
        items = target.items if isinstance(target, Thing) and target.args is not None else target
        if not isinstance(items, dict) or len(pairs) % 2:
            raise PickleFault("items for what is no map")
        if not all(isinstance(key, str) for key in pairs[::2]):
            raise PickleFault("a map whose key is no text")
        items.update(zip(pairs[::2], pairs[1::2], strict=True))


# As the standard library's pickletools lists them, protocols 1 to 5.
_ACTS: dict[int, Callable[[_Reader], None]] = {
    0x80: _Reader.proto,
    0x95: _Reader.frame,
    ord("("): _Reader.mark,
    ord("0"): _Reader.pop,
    ord("1"): _Reader.pop_mark,
    ord("2"): _Reader.duplicate,
    ord("N"): lambda reader: reader.push(None),
    0x88: lambda reader: reader.push(True),
    0x89: lambda reader: reader.push(False),
    ord("J"): _Reader.integer,
    ord("K"): lambda reader: reader.push(reader.number(1)),
    ord("M"): lambda reader: reader.push(reader.number(2)),
    0x8A: _Reader.long,
    ord("G"): _Reader.double,
    0x8C: lambda reader: reader.text(1),
    ord("X"): lambda reader: reader.text(4),
    0x8D: lambda reader: reader.text(8),
    ord("C"): lambda reader: reader.raw(1),
    ord("B"): lambda reader: reader.raw(4),
    0x8E: lambda reader: reader.raw(8),
    0x96: lambda reader: reader.raw(8),
    ord(")"): lambda reader: reader.push(()),
    ord("t"): _Reader.marked,
    0x85: lambda reader: reader.last(1),
    0x86: lambda reader: reader.last(2),
    0x87: lambda reader: reader.last(3),
    ord("]"): lambda reader: reader.push([]),
    ord("a"): _Reader.append,
    ord("e"): _Reader.extend,
    ord("}"): lambda reader: reader.push({}),
    ord("s"): _Reader.set_item,
    ord("u"): _Reader.set_items,
    ord("h"): lambda reader: reader.get(1),
    ord("j"): lambda reader: reader.get(4),
    ord("q"): lambda reader: reader.put(1),
    ord("r"): lambda reader: reader.put(4),
    0x94: _Reader.memoize,
    ord("c"): _Reader.named,
    0x93: _Reader.named_on_stack,
    ord("R"): _Reader.called,
    0x81: _Reader.called,
    ord("b"): _Reader.build,
    ord("Q"): _Reader.persistent,
}


def _told_opcode(opcode: int) -> str:
    """An opcode's byte and, where it has one, its name."""
    name = _names().get(opcode)
    return f"{bytes([opcode])!r}" + (f" ({name})" if name is not None else "")


@cache
def _names() -> dict[int, str]:
    """The opcodes' names."""
    import pickletools  # takes milliseconds, and most programs read no pickle

    return {ord(opcode.code): opcode.name for opcode in pickletools.opcodes}


@cache
def _acts_of(names: frozenset[str] | None) -> dict[int, Callable[[_Reader], None]]:
    if names is None:
        return _ACTS
    return {opcode: act for opcode, act in _ACTS.items() if _names()[opcode] in names}
