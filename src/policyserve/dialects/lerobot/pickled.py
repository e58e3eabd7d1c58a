"""What a pickle of LeRobot's client holds, as plain values and arrays. Pure: nothing that it names is made or called.

The reader of opcodes (core/pickles.py) gives plain values and Things; here a Thing becomes an array, or is refused. A
pickle may hold one value in many places, so that a few hundred bytes are 2^60 values: what is walked is counted, and
so are the bytes of arrays.
"""

from __future__ import annotations

import re
from typing import Any

from policyserve.core.arrays import Array, read_array
from policyserve.core.errors import WireError
from policyserve.core.limits import HEAVY, WireLimits
from policyserve.core.pickle_things import PickleFault, Thing, Vocabulary, told_of
from policyserve.core.pickles import read_pickle

OBSERVATION, SETUP = "TimedObservation", "RemotePolicyConfig"
ACTION, TENSOR = "TimedAction", "torch tensor"  # of an answer
_FEATURE, _FEATURE_TYPE = "PolicyFeature", "FeatureType"  # of clients before 0.4
# Its module differs from version to version, so that its last name decides.
_CLASSES = frozenset((OBSERVATION, SETUP, _FEATURE, _FEATURE_TYPE))

_CORES = ("numpy", "numpy.core", "numpy._core")
_RECONSTRUCT = frozenset(f"{core}.multiarray _reconstruct" for core in _CORES)
_SCALAR = frozenset(f"{core}.multiarray scalar" for core in _CORES)
_FROM_BUFFER = frozenset(f"{core}.numeric _frombuffer" for core in _CORES)
_GETATTR = "builtins getattr"  # with an enum and a name: how early releases of Python 3.11 write its members
_ARRAY, _DTYPE, _ENCODE = "numpy ndarray", "numpy dtype", "_codecs encode"
_NUMPY = frozenset((_ARRAY, _DTYPE, _ENCODE)) | _RECONSTRUCT | _SCALAR | _FROM_BUFFER

_OPCODES = frozenset(
    (
        *("PROTO", "FRAME", "STOP", "MARK", "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1"),
        *("BINFLOAT", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8"),
        *("BYTEARRAY8", "EMPTY_TUPLE", "EMPTY_LIST", "EMPTY_DICT", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "APPEND"),
        *("APPENDS", "SETITEM", "SETITEMS", "MEMOIZE", "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET", "GLOBAL"),
        *("STACK_GLOBAL", "REDUCE", "NEWOBJ", "BUILD"),
    )
)
_MODULE = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,119}", re.ASCII)
_CODE = re.compile(r"(b1|[iu][1248]|f[248])", re.ASCII)
_INT64 = 1 << 63


def read_thing(data: bytes | bytearray | memoryview, limits: WireLimits, *, is_answer: bool = False) -> Thing | Any:
    """The value of a pickle, its parts unlooked at. is_answer: of what a server sends, with the names that it has.

    Raises WireError, which names what the pickle wants to have called.
    """
    knows = _answers_know if is_answer else _robots_know
    try:
        return read_pickle(data, Vocabulary(knows, limits.max_items, "LeRobot's messages", _OPCODES))
    except PickleFault as fault:
        expected, hint = "a pickle of LeRobot's client", "nothing that a pickle names is run here"
        raise WireError("", expected, f"{fault} at byte {fault.place}", hint) from None


def fields_of(thing: Any, name: str) -> dict[str, Any]:
    """The fields of an object whose class has this last name; raises WireError."""
    if name_of(thing) != name or not isinstance(thing.state, dict):
        raise WireError("", f"a {name} of LeRobot's", told_of(thing))
    return thing.state


def name_of(thing: Any) -> str:
    """The last name of an object's class; empty for anything else."""
    return thing.kind.rpartition(" ")[2] if isinstance(thing, Thing) and thing.args is not None else ""


def module_of(thing: Thing) -> str:
    """The module that the peer knows its classes by; raises WireError for what is no module's name."""
    module = thing.kind.rpartition(" ")[0]
    if not _MODULE.fullmatch(module):
        raise WireError("", "a module's name", f"{module!r:.60}")
    return module


class Walk:
    """Makes plain values of one pickle's parts, and counts them. size: the pickle's bytes."""

    def __init__(self, size: int, limits: WireLimits) -> None:
        self._limits = limits
        self._items, self._arrays, self._bytes = limits.max_items, limits.max_arrays, size

    def value(self, given: Any, path: str, depth: int = 0) -> Any:
        """The value as numbers, texts, None, arrays, and lists and maps of them; raises WireError."""
        if depth > self._limits.max_depth:
            raise WireError(path, f"at most {self._limits.max_depth} levels of nesting (--max-depth)", "more")
        self._count(1 if isinstance(given, (bool, int, float)) else HEAVY, path)
        if given is None or isinstance(given, (bool, float)):
            return given
        if isinstance(given, int):
            return self._whole(given, path)
        if isinstance(given, str):
            return self._text(given, path)
        if isinstance(given, dict):
            return {
                self._key(key, path): self.value(one, f"{path}/{key[:60]}" if path else key[:60], depth + 1)
                for key, one in given.items()
            }
        if isinstance(given, (list, tuple)):
            return [self.value(one, path, depth + 1) for one in given]
        if isinstance(given, Thing) and name_of(given) == _FEATURE:
            return self.value(given.state, path, depth + 1)
        if isinstance(given, Thing) and name_of(given) == _FEATURE_TYPE and given.args:
            return self.value(given.args[0], path, depth + 1)
        if (name := _name_of_feature_type(given)) is not None:
            return self._text(name, path)  # which is its value as well
        return self._array(given, path)

    def _count(self, items: int, path: str) -> None:
        self._items -= items
        if self._items < 0:
            raise WireError(path, f"at most {self._limits.max_items} items (--max-items)", "more")

    def _key(self, key: str, path: str) -> str:
        if len(key) > self._limits.max_key:
            raise WireError(path, f"a key of at most {self._limits.max_key} bytes (--max-key)", f"{len(key)}")
        self._count(HEAVY, path)
        return key

    def _whole(self, number: int, path: str) -> int:
        if not -_INT64 <= number < _INT64:
            raise WireError(path, "a number of 64 bits", "a longer one")
        return number

    def _text(self, text: str, path: str) -> str:
        if len(text) > self._limits.max_text:
            raise WireError(path, f"a text of at most {self._limits.max_text} characters", f"{len(text)}")
        return text

    def _array(self, given: Any, path: str) -> Array:
        """The array that a Thing stands for; a number without axes of NumPy's scalars."""
        args = given.args if isinstance(given, Thing) and given.args is not None else ()
        kind = given.kind if isinstance(given, Thing) else ""
        if kind in _FROM_BUFFER and len(args) == 4:
            data, dtype, shape, order = args
            return self._made(data, dtype, shape, order == "F", path)
        if kind in _RECONSTRUCT and isinstance(given.state, tuple) and len(given.state) == 5:
            _, shape, dtype, is_fortran, data = given.state
            return self._made(data, dtype, shape, is_fortran is True, path)
        if kind in _SCALAR and len(args) == 2:
            return self._made(args[1], args[0], (), False, path)
        raise WireError(path, "numbers, a text or an array of numbers", told_of(given))

    def _made(self, data: Any, dtype: Any, shape: Any, is_fortran: bool, path: str) -> Array:
        self._arrays -= 1
        if self._arrays < 0:
            raise WireError(path, f"at most {self._limits.max_arrays} arrays (--max-arrays)", "more")
        data = _raw(data, path)
        self._bytes -= len(data)
        if self._bytes < 0:  # one array's bytes in several places: each would be copied
            raise WireError(path, "arrays of no more bytes than the message", "more")
        name = _dtype_name(dtype, path)
        if not is_fortran or not isinstance(shape, tuple):
            return read_array(data, name, shape, path)
        turned = read_array(data, name, shape[::-1], path).T  # the first axis varies quickest
        return turned.copy(order="C")


def _robots_know(kind: str) -> bool:
    return kind in _NUMPY or kind == _GETATTR or kind.rpartition(" ")[2] in _CLASSES


def _name_of_feature_type(given: Any) -> str | None:
    """The name of a member that is written by it; None for all else."""
    if not isinstance(given, Thing) or given.kind != _GETATTR or given.args is None or len(given.args) != 2:
        return None
    kind, name = given.args
    is_class = isinstance(kind, Thing) and kind.args is None and kind.kind.rpartition(" ")[2] == _FEATURE_TYPE
    return name if is_class and isinstance(name, str) else None


def _answers_know(kind: str) -> bool:
    return kind == TENSOR or kind.rpartition(" ")[2] == ACTION


def _raw(data: Any, path: str) -> bytes | bytearray | memoryview:
    """An array's bytes. Protocol 2 has none, and writes them as a text of letters up to 255."""
    if isinstance(data, Thing) and data.kind == _ENCODE and data.args is not None:
        text = data.args[0] if len(data.args) == 2 and data.args[1] == "latin1" else None
        if isinstance(text, str):
            try:
                return text.encode("latin-1")
            except UnicodeEncodeError:
                pass
    elif isinstance(data, (bytes, bytearray, memoryview)):
        return data
    raise WireError(path, "an array of numbers", f"its content as {told_of(data)}: objects, which are never made")


def _dtype_name(dtype: Any, path: str) -> str:
    """`<f4`, say; raises WireError for what is no dtype of numbers."""
    args = dtype.args if isinstance(dtype, Thing) and dtype.kind == _DTYPE else None
    code = args[0] if args else dtype
    if not args or not isinstance(code, str) or not _CODE.fullmatch(code):
        raise WireError(path, "a bool, int, uint or float dtype", f"dtype {told_of(code)}")
    state = dtype.state if isinstance(dtype.state, tuple) and len(dtype.state) > 4 else (3, "=", None, None, None)
    if state[1] not in ("<", ">", "|", "=") or any(part is not None for part in state[2:5]):
        raise WireError(path, "a bool, int, uint or float dtype", "one with fields")
    return f"{state[1]}{code}"
