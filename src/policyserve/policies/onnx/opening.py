"""Opens an ONNX file with onnxruntime, and says in one line what is wrong with one that cannot be run."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from policyserve.core.errors import ConfigError, MissingDependency
from policyserve.core.printable import type_name
from policyserve.policies.onnx.external import check_external
from policyserve.policies.onnx.roles import Tensor
from policyserve.policies.sniffing import read_head

SMALL = 1 << 20  # bytes of a file, below which one thread is quicker than several, and a CPU than a GPU
_LONGEST = 300  # characters of onnxruntime's own words
_FATAL = 4  # its log's level: what it raises is told once, by us
_PREFIX = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : (Load model from .*? failed:)?", re.DOTALL)
_DTYPES = {
    "float": "float32", "float16": "float16", "double": "float64", "bool": "bool",
    **{name: name for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")},
}  # fmt: skip
_UNKNOWN_OPERATOR = ("is not a registered function/op", "No Op registered", "No opset import for domain")
_CUDA = "CUDAExecutionProvider"
_CPU = "CPUExecutionProvider"


@dataclass(frozen=True)
class Model:
    """An opened model. session: onnxruntime's. metadata: what its author wrote into the file."""

    session: Any
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    metadata: dict[str, str]
    device: str


def open_model(file: str, device: str = "auto", threads: int | None = None) -> Model:
    """Open a model; raises ConfigError for a file that cannot be run, MissingDependency without onnxruntime.

    No code runs from the file: onnxruntime knows its operators, and takes none from elsewhere.
    """
    read_head(file)
    path = Path(file).expanduser()
    check_external(file, path)
    runtime = _runtime()
    is_small = _size(path) < SMALL
    options = runtime.SessionOptions()
    options.log_severity_level = _FATAL
    options.inter_op_num_threads = 1
    options.intra_op_num_threads = threads if threads is not None else int(is_small)
    providers = _providers(runtime, device, is_small)
    try:
        session = runtime.InferenceSession(str(path), options, providers=providers, enable_fallback=0)
        inputs = tuple(_tensor(file, "input", one) for one in session.get_inputs())
        outputs = tuple(_tensor(file, "output", one) for one in session.get_outputs())
        metadata = dict(session.get_modelmeta().custom_metadata_map)
    except ConfigError:
        raise
    except Exception as error:  # onnxruntime's exceptions have no base of their own
        raise ConfigError(f"{file}: {_told(error)}") from error
    used = "cuda" if session.get_providers()[0] == _CUDA else "cpu"
    if device.startswith("cuda") and used == "cpu":
        raise ConfigError(f"--device {device}: onnxruntime found no such GPU, or not the CUDA libraries that it needs")
    return Model(session, inputs, outputs, metadata, used)


def said_by(error: Exception) -> str:
    """What onnxruntime says, in one line and without its codes."""
    text = " ".join(_PREFIX.sub("", str(error)).split())[:_LONGEST]
    return text or type_name(error)


def _runtime() -> Any:
    try:
        return import_module("onnxruntime")
    except ImportError as error:
        raise MissingDependency("onnxruntime", "onnx") from error


def _size(path: Path) -> int:
    """The bytes of a model, with the second file where exporters put its weights."""
    beside = path.with_name(f"{path.name}.data")
    return path.stat().st_size + (beside.stat().st_size if beside.is_file() else 0)


def _providers(runtime: Any, device: str, is_small: bool) -> list[Any]:
    has_cuda = _CUDA in runtime.get_available_providers()
    if device == "cpu" or (device == "auto" and (is_small or not has_cuda)):
        return [_CPU]
    if not has_cuda:
        raise ConfigError(f"--device {device}: this onnxruntime has no CUDA; pip install onnxruntime-gpu in its place")
    number = device.partition(":")[2]
    return [(_CUDA, {"device_id": number or "0"}), _CPU]


def _tensor(file: str, kind: str, found: Any) -> Tensor:
    named = re.fullmatch(r"tensor\((\w+)\)", found.type)
    dtype = _DTYPES.get(named[1]) if named else None
    if dtype is None:
        raise ConfigError(f"{file}: {kind} {found.name}: expected numbers, got {found.type}")
    sizes = tuple(size if not isinstance(size, int) or size >= 0 else None for size in found.shape)
    return Tensor(found.name, dtype, sizes)


def _told(error: Exception) -> str:
    """What is wrong with a file, and what to do, as far as onnxruntime's words tell."""
    text = said_by(error)
    if any(words in text for words in _UNKNOWN_OPERATOR):
        return f"it needs an operator that onnxruntime does not have; export it without ({text})"
    if "Protobuf parsing failed" in text or "No graph was found" in text:
        return f"expected an ONNX model, got a file that is cut off or none ({text})"
    return f"expected an ONNX model that onnxruntime can run, got one that it refuses: {text}"
