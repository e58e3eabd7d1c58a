"""What one value of an observation, or an action, has to be: numbers, an image, a text, a list of texts."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields
from functools import cached_property
from math import prod
from typing import Any, TypeAlias, cast

import numpy as np

from policyserve.core.arrays import Array, describe
from policyserve.core.encoded_images import EncodedImage
from policyserve.core.errors import BadObservation, ConfigError
from policyserve.core.limits import WireLimits

_ANY_SIZE_EXAMPLE = 8  # what example() puts where a spec leaves a size free
_ANY_SIDE_EXAMPLE = 64  # and for an image's side
_NUMBERS = frozenset((float, bool, int))
_CONTAINERS = frozenset((dict, list))
_WITH_TEXTS = _CONTAINERS | {str}
_MOST_CAST = 1 << 20  # bytes, to which an array may grow as much as its dtype wants
_MOST_GROWTH = 4  # times its bytes that a larger array may take as another dtype, with its own copy if it is one
_LEAST_INT, _MOST_INT = -(1 << 63), (1 << 64) - 1


class ShortRepr:
    """The base of a dataclass whose repr leaves out what has its default: Python that makes the same again."""

    def __repr__(self) -> str:
        told = []
        for place, one in enumerate(fields(cast(Any, self))):
            value = getattr(self, one.name)
            default = one.default if one.default_factory is MISSING else one.default_factory()
            if default is MISSING or value != default:
                is_bare = place == 0 and default is MISSING
                told.append(repr(value) if is_bare else f"{one.name}={value!r}")
        return f"{type(self).__name__}({', '.join(told)})"


@dataclass(frozen=True, repr=False)
class ArraySpec(ShortRepr):
    """Numbers of one shape and dtype. shape: None is any size. doc: meaning and unit."""

    shape: tuple[int | None, ...]
    dtype: str = "float32"
    doc: str = ""
    optional: bool = False

    def __post_init__(self) -> None:
        """Raise ConfigError for a shape or a dtype that cannot be."""
        is_shape = isinstance(self.shape, tuple) and all(size is None or is_whole(size, 0) for size in self.shape)
        require(is_shape, "ArraySpec's shape", "a tuple of sizes such as (7,), None for any size", self.shape)
        if isinstance(self.dtype, (type, np.dtype)):
            object.__setattr__(self, "dtype", np.dtype(self.dtype).name)  # np.float32 is often written for its name
        require(_is_dtype(self.dtype), "ArraySpec's dtype", "numbers, such as 'float32' (words go to doc=)", self.dtype)

    def __str__(self) -> str:
        return describe(self.dtype, self.shape)

    def read(self, value: Any, path: str) -> tuple[Array, int | None]:
        """Return `value` as this spec's dtype and its batch size (None: no client batch); raises BadObservation.

        A list of numbers, nested or not, is the array that NumPy makes of it.
        """
        if isinstance(value, (list, tuple)):
            value = array_of_list(value, path, str(self))
        if not isinstance(value, (np.ndarray, np.generic, int, float)):
            raise BadObservation(path, str(self), name_of(value))
        array: Array = np.asarray(value)
        extra = array.ndim - len(self.shape)
        sizes = array.shape[extra:] if extra in (0, 1) else None
        if sizes is None or not sizes_match(sizes, self.shape):
            raise BadObservation(path, str(self), name_of(value))
        return self._cast(array, path), array.shape[0] if extra else None

    def _cast(self, array: Array, path: str) -> Array:
        wanted = np.dtype(self.dtype)
        if array.dtype == wanted:
            return array
        copied = (
            0 if array.dtype.itemsize == 1 and array.dtype.kind != "b" else array.nbytes
        )  # bytes lie in the message
        if array.size * wanted.itemsize > max(_MOST_CAST, array.nbytes * _MOST_GROWTH - copied):
            hint = f"so many numbers have to be sent as {wanted}"
            raise BadObservation(path, str(self), name_of(array), hint)
        if wanted.kind == "f" and array.dtype.kind in "biuf":
            # A float64 beyond float32 becomes inf, a signalling NaN a quiet one: the policy decides.
            with np.errstate(all="ignore"):
                return array.astype(wanted)
        if wanted.kind in "iu" and array.dtype.kind in "biu":
            cast_array = array.astype(wanted)
            if np.can_cast(array.dtype, wanted) or np.array_equal(cast_array, array):
                return cast_array
        raise BadObservation(path, str(self), name_of(array))

    def example(self, batch: tuple[int, ...] = ()) -> Array:
        """Zeros of this shape, with `batch` in front."""
        return np.zeros(batch + _filled(self.shape), self.dtype)

    def describe(self) -> dict[str, Any]:
        """JSON-like description, for metadata."""
        return {"kind": "array", "shape": list(self.shape), "dtype": self.dtype, "doc": self.doc, **_whether(self)}


@dataclass(frozen=True, repr=False)
class ImageSpec(ShortRepr):
    """A camera image. An image is never cast between uint8 and float: its scale would be a guess.

    layouts: the orders of axes that pass, such as "HWC" and "CHW" (C is 3 channels), "HW" (gray) or "1HWC"; the first
    is what example() makes. dtypes: those that pass as they are; "float" is any of them.
    """

    height: int | None = None
    width: int | None = None
    layouts: tuple[str, ...] = ("HWC",)
    dtypes: tuple[str, ...] = ("uint8",)
    doc: str = ""
    optional: bool = False

    def __post_init__(self) -> None:
        """Raise ConfigError for sides, layouts or dtypes that cannot be."""
        for name, side in (("height", self.height), ("width", self.width)):
            require(side is None or is_whole(side, 1), f"ImageSpec's {name}", "pixels, or None for any number", side)
        are_layouts = is_texts(self.layouts) and all(layout and set(layout) <= set("HWC1") for layout in self.layouts)
        require(are_layouts, "ImageSpec's layouts", "a tuple such as ('HWC',) (words go to doc=)", self.layouts)
        are_dtypes = is_texts(self.dtypes) and all(dtype == "float" or _is_dtype(dtype) for dtype in self.dtypes)
        require(are_dtypes, "ImageSpec's dtypes", "a tuple such as ('uint8',)", self.dtypes)

    def __str__(self) -> str:
        sizes = f", {self.height or '*'} x {self.width or '*'}" if self.height or self.width else ""
        return f"{' or '.join(self.dtypes)} image {'|'.join(self.layouts)}{sizes}"

    def read(self, value: Any, path: str) -> tuple[Array, int | None]:
        """Return `value` unchanged and its batch size (None: no client batch); raises BadObservation.

        A list is stacked, of rows or of pictures; one of Python's numbers is no picture, since nothing tells its dtype.
        An encoded picture stays encoded: its header says what it will be.
        """
        if isinstance(value, (list, tuple)):
            value = array_of_list(value, path, str(self))
        if isinstance(value, EncodedImage):
            return self._read_encoded(value, path), None
        if not isinstance(value, np.ndarray) or not self._takes(value.dtype):
            raise BadObservation(path, str(self), name_of(value) + layout_of(value), self._cure(value))
        for extra in (0, 1):
            sizes = value.shape[extra:]
            if any(sizes_match(sizes, shape) for shape in self._shapes) and 0 not in sizes:
                return value, value.shape[0] if extra else None
        raise BadObservation(path, str(self), name_of(value) + layout_of(value))

    def _read_encoded(self, image: EncodedImage, path: str) -> Any:
        image.check(path)
        fits = self._takes(image.dtype) and any(sizes_match(image.shape, shape) for shape in self._shapes)
        if not fits and "HWC" not in self.layouts and "CHW" in self.layouts and len(image.shape) == 3:
            image.put_channels_first()  # a JPEG has no layout of its own
            fits = self._takes(image.dtype) and any(sizes_match(image.shape, shape) for shape in self._shapes)
        if not fits:
            raise BadObservation(path, str(self), name_of(image) + layout_of(image))
        return image

    def check_limits(self, value: Array, batch_size: int | None, path: str, limits: WireLimits) -> None:
        """Raise BadObservation if what read() gave is an image beyond the limits; a batch is as many images."""
        sizes = value.shape if batch_size is None else value.shape[1:]
        if max(sizes) > limits.max_image_side:
            raise BadObservation(path, f"an image of at most {limits.max_image_side} pixels a side", name_of(value))
        most = limits.max_image_mpixels * 1e6
        if value.size > most and self._pixels(sizes) > most:
            expected = f"an image of at most {limits.max_image_mpixels:g} million pixels"
            raise BadObservation(path, expected, name_of(value))

    def _pixels(self, sizes: tuple[int, ...]) -> int:
        layouts = zip(self.layouts, self._shapes, strict=True)
        layout = next(layout for layout, shape in layouts if sizes_match(sizes, shape))
        return prod(size for size, axis in zip(sizes, layout, strict=True) if axis in "HW")

    def example(self, batch: tuple[int, ...] = ()) -> Array:
        """A black image, with `batch` in front."""
        shape = tuple(_ANY_SIDE_EXAMPLE if size is None else size for size in self._shapes[0])
        return np.zeros(batch + shape, "float32" if self.dtypes[0] == "float" else self.dtypes[0])

    def describe(self) -> dict[str, Any]:
        """JSON-like description, for metadata."""
        sizes = {"height": self.height, "width": self.width}
        formats = {"layouts": list(self.layouts), "dtypes": list(self.dtypes)}
        return {"kind": "image", **sizes, **formats, "doc": self.doc, **_whether(self)}

    def _takes(self, dtype: np.dtype[Any]) -> bool:
        return dtype.name in self.dtypes or (dtype.kind == "f" and "float" in self.dtypes)

    def _cure(self, value: Any) -> str:
        """What to do about numbers of a dtype that is not taken."""
        is_numbers = isinstance(value, np.ndarray) and value.dtype.kind in "biuf"
        return "send uint8 0 … 255" if is_numbers and "uint8" in self.dtypes else ""

    @cached_property
    def _shapes(self) -> tuple[tuple[int | None, ...], ...]:
        """Of each layout."""
        sizes = {"H": self.height, "W": self.width, "C": 3, "1": 1}
        return tuple(tuple(sizes[axis] for axis in layout) for layout in self.layouts)


@dataclass(frozen=True, repr=False)
class TextSpec(ShortRepr):
    """One text, such as an instruction. default: used when the observation has none."""

    doc: str = ""
    default: str | None = None
    optional: bool = False

    def __str__(self) -> str:
        return "a text (str)"

    def read(self, value: Any, path: str) -> tuple[str, None]:
        """Return `value` if it is a str; raises BadObservation."""
        if not isinstance(value, str):
            raise BadObservation(path, str(self), name_of(value))
        return value, None

    def example(self, batch: tuple[int, ...] = ()) -> str:
        """The default, or an empty text."""
        return self.default or ""

    def describe(self) -> dict[str, Any]:
        """JSON-like description, for metadata."""
        return {"kind": "text", "default": self.default, "doc": self.doc, **_whether(self)}


@dataclass(frozen=True, repr=False)
class TextListSpec(ShortRepr):
    """A list of texts; a single text is taken for a list of one."""

    doc: str = ""
    optional: bool = False

    def __str__(self) -> str:
        return "a list of texts (str)"

    def read(self, value: Any, path: str) -> tuple[list[str], None]:
        """Return `value` as a list of str; raises BadObservation."""
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, (list, tuple)):
            raise BadObservation(path, str(self), name_of(value))
        for index, text in enumerate(texts):
            if not isinstance(text, str):
                raise BadObservation(f"{path}[{index}]", "a text (str)", name_of(text))
        return list(texts), None

    def example(self, batch: tuple[int, ...] = ()) -> list[str]:
        """A list of one empty text."""
        return [""]

    def describe(self) -> dict[str, Any]:
        """JSON-like description, for metadata."""
        return {"kind": "text list", "doc": self.doc, **_whether(self)}


LeafSpec: TypeAlias = ArraySpec | ImageSpec | TextSpec | TextListSpec


def _whether(leaf: LeafSpec) -> dict[str, bool]:
    """Whether an observation may lack it, for its description; nothing of those that it must have."""
    return {"optional": True} if leaf.optional else {}


def check_texts(value: Any, path: str, limits: WireLimits) -> None:
    """Raise BadObservation if a text, or one within maps and lists, has more characters than it may."""
    if isinstance(value, str):
        if len(value) > limits.max_text:
            raise BadObservation(path, f"a text of at most {limits.max_text} characters", f"{len(value)}")
        return
    if not isinstance(value, (dict, list)) or not value:
        return
    inside = value.values() if isinstance(value, dict) else value
    kinds = set(map(type, inside))
    is_flat = kinds.isdisjoint(_CONTAINERS)
    if is_flat and (str not in kinds or max(len(text) for text in inside if type(text) is str) <= limits.max_text):
        return
    for place, inner in value.items() if isinstance(value, dict) else enumerate(value):
        if type(inner) in _WITH_TEXTS:
            try:
                check_texts(inner, "", limits)
            except BadObservation as error:
                step = str(place) if isinstance(value, dict) else f"[{place}]"
                raise BadObservation(joined(path, joined(step, error.path)), error.expected, error.got) from None


def joined(above: str, below: str) -> str:
    """A path of two parts; an index, `[2]`, follows its list without a slash."""
    return f"{above}/{below}" if above and below and not below.startswith("[") else above + below


def array_of_list(value: list[Any] | tuple[Any, ...], path: str, expected: str) -> Array:
    """The array of a list of numbers, lists or arrays; raises BadObservation with the path of what does not fit."""
    _check_items(value, path, expected)  # first: of a long text among numbers NumPy makes an array of long texts
    array: Array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise BadObservation(path, expected, f"a {type(value).__name__} of numbers that no dtype holds")
    return array


def _check_items(items: list[Any] | tuple[Any, ...], path: str, expected: str) -> tuple[int, ...]:
    """The shape of a list; raises BadObservation for an item that is no number, or has another shape than the first."""
    if _NUMBERS.issuperset(map(type, items)) and items and min(items) >= _LEAST_INT and max(items) <= _MOST_INT:
        return (len(items),)  # most lists; NaN, which is not comparable, is looked at below
    first: tuple[int, ...] = ()
    for index, item in enumerate(items):
        if type(item) is float or type(item) is bool or (type(item) is int and _LEAST_INT <= item <= _MOST_INT):
            shape: tuple[int, ...] = ()
        elif isinstance(item, (list, tuple)):
            try:
                shape = _check_items(item, "", expected)
            except BadObservation as error:
                raise BadObservation(f"{path}[{index}]{error.path}", error.expected, error.got) from None
        elif isinstance(item, (np.ndarray, np.generic)) and item.dtype.kind in "biuf":
            shape = item.shape
        else:
            raise BadObservation(f"{path}[{index}]", expected, name_of(item))
        if index == 0:
            first = shape
        elif shape != first:
            raise BadObservation(f"{path}[{index}]", f"shape {first}, as the first of its list has", f"{shape}")
    return (len(items), *first)


def require(is_fine: bool, what: str, expected: str, got: object) -> None:
    """Raise ConfigError about a part of a spec unless it is fine."""
    if not is_fine:
        raise ConfigError(f"{what}: expected {expected}, got {got!r:.80}")


def is_whole(value: object, least: int) -> bool:
    """Whether it is a whole number, not below `least`."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and bool(value >= least)


def is_texts(value: object) -> bool:
    """Whether it is a tuple of texts with one in it at least."""
    return isinstance(value, tuple) and value != () and all(isinstance(text, str) for text in value)


def _is_dtype(name: object) -> bool:
    try:
        return isinstance(name, str) and np.dtype(name).kind in "biuf"
    except (TypeError, ValueError, SyntaxError):  # "x, y in m" is read as a list of dtypes
        return False


def sizes_match(sizes: tuple[int, ...], shape: tuple[int | None, ...]) -> bool:
    """Whether sizes are those of a shape, in which None stands for any size."""
    if sizes == shape:
        return True
    return len(sizes) == len(shape) and all(
        want is None or size == want for size, want in zip(sizes, shape, strict=True)
    )


def name_of(value: Any) -> str:
    """A value as an error tells of it: an array's dtype and shape, the beginning of a text or number, else its type."""
    if isinstance(value, np.ndarray):
        return describe(value.dtype, value.shape)
    if isinstance(value, EncodedImage):
        return str(value)
    if isinstance(value, str):
        value = value[:40]  # of a long text, what repr() makes of it may be ten times as long
    return f"{type(value).__name__} {value!r:.40}" if isinstance(value, (str, int, float)) else type(value).__name__


def layout_of(value: Any) -> str:
    """What an array that was refused as an image looks like."""
    sizes = value.shape if isinstance(value, (np.ndarray, EncodedImage)) else ()
    if 0 in sizes:
        return ", an image of 0 pixels"
    if len(sizes) == 2:
        return ", which looks like a gray HW image"
    if len(sizes) != 3:
        return ""
    for channels, kind in ((3, ""), (4, " with 4 channels (RGBA)"), (1, " with 1 channel")):
        if channels in (sizes[-1], sizes[0]):
            return f", which looks like {'HWC' if sizes[-1] == channels else 'CHW'}{kind}"
    return ""


def _filled(shape: tuple[int | None, ...]) -> tuple[int, ...]:
    return tuple(_ANY_SIZE_EXAMPLE if size is None else size for size in shape)
