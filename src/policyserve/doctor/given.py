"""What the user brings: an observation to ask with, and a client's recorded message."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from policyserve import dialects
from policyserve.bench.payloads import payload_for
from policyserve.core.errors import BadObservation, ConfigError, WireError
from policyserve.core.limits import DEFAULT_LIMITS
from policyserve.core.messages import Observation
from policyserve.dialects.recognition import family_of_first_message
from policyserve.transforms.jpeg import decode_images

_MOST_BYTES = 1 << 28
_ENDINGS = (".json", ".npz")


@dataclass(frozen=True)
class Frame:
    """A recorded request. dialect: the family that wrote it. observation: None where it cannot be read, by `error`."""

    dialect: str
    size: int
    observation: Observation | None = None
    error: WireError | BadObservation | None = None


def read_example(path: Path) -> Observation:
    """An observation of a file: arrays of .npz, by their keys, or the .json that `bench --payload` takes.

    Raises ConfigError that names the file and what is wrong in it.
    """
    if path.suffix not in _ENDINGS:
        raise ConfigError(f"--example: expected a file that ends in {' or '.join(_ENDINGS)}, got {path}")
    if path.suffix == ".json":
        try:
            return payload_for(str(path), {}, "openpi").observation
        except ConfigError as error:
            raise ConfigError(str(error).replace("--payload:", "--example:")) from error
    content = _content("example", path)
    if not content.startswith(b"PK"):  # how a zip file begins, which an .npz is
        raise ConfigError(f"--example: {path} is no .npz file, of {len(content)} bytes: np.savez writes one")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            observation = {key: _value(arrays[key]) for key in arrays.files}
    except Exception as error:  # a stranger's file, of which NumPy and zipfile raise many errors
        raise ConfigError(f"--example: {path} cannot be read: {error}") from error
    if not observation:
        raise ConfigError(f"--example: {path} holds no array")
    return observation


def read_frame(path: Path, dialect: str = "auto") -> Frame:
    """A client's recorded message: the bytes of one request, without WebSocket's own.

    Raises ConfigError where the file cannot be read. dialect: who wrote it, `auto`: its bytes tell.
    """
    message = _content("frame", path)
    if not message:
        raise ConfigError(f"--frame: expected the bytes of one message, got the empty file {path}")
    family = family_of_first_message(message, greeted=True) if dialect == "auto" else dialect
    try:
        read = decode_images(dialects.by_name(family).read_request(message, DEFAULT_LIMITS).observation)
    except (WireError, BadObservation) as error:
        return Frame(family, len(message), None, error)
    return Frame(family, len(message), read)


def _content(option: str, path: Path) -> bytes:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ConfigError(f"--{option}: expected at most 256 MiB, got {path} of {path.stat().st_size} bytes")
        return path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(f"--{option}: there is no file {path}") from None
    except OSError as error:
        raise ConfigError(f"--{option}: {path} cannot be read: {error.strerror or error}") from error


def _value(array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> object:
    """An array, or the text of one that holds a text alone."""
    return str(array) if array.dtype.kind == "U" and array.ndim == 0 else array
