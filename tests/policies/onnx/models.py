"""Small ONNX models, written byte by byte: the tests need no package that makes them, and no file beside them.

The fields' numbers are those of onnx.proto3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np

from policyserve.core.arrays import Array

Shape: TypeAlias = Sequence[int | str | None]  # a text is a size that is free, None one without a name
_TYPES = {"float32": 1, "uint8": 2, "int64": 7, "text": 8, "bool": 9, "float16": 10, "float64": 11}


@dataclass(frozen=True)
class Node:
    """One operation. domain: whose; whole: its attributes that are whole numbers."""

    kind: str
    inputs: Sequence[str]
    outputs: Sequence[str]
    domain: str = ""
    whole: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Value:
    """An input or output."""

    name: str
    shape: Shape
    dtype: str = "float32"


def model(
    nodes: Sequence[Node],
    inputs: Sequence[Value],
    outputs: Sequence[Value],
    weights: Mapping[str, Array] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> bytes:
    """A whole file, of opset 17."""
    graph = b"".join(
        [
            *(_field(1, _node(node)) for node in nodes),
            _field(2, b"graph"),
            *(_field(5, _tensor(name, array)) for name, array in (weights or {}).items()),
            *(_field(11, _value(value)) for value in inputs),
            *(_field(12, _value(value)) for value in outputs),
        ]
    )
    told = (_field(14, _field(1, key.encode()) + _field(2, text.encode())) for key, text in (metadata or {}).items())
    return _number(1, 8) + _field(7, graph) + _field(8, _field(1, b"") + _number(2, 17)) + b"".join(told)


def save(path: Path, content: bytes) -> str:
    """Write a model, and give its path."""
    path.write_bytes(content)
    return str(path)


def linear(weights: Array, *, batch: int | str = "batch", metadata: Mapping[str, str] | None = None) -> bytes:
    """actions = policy @ weights; its input is called `policy`."""
    rows, columns = weights.shape
    return model(
        [Node("MatMul", ["policy", "w"], ["actions"])],
        [Value("policy", [batch, rows])],
        [Value("actions", [batch, columns])],
        {"w": weights.astype(np.float32)},
        metadata,
    )


def summing(size: int, *, batch: int | str = 1, layers: int = 1) -> bytes:
    """actions = h_out[0] = obs + h_in[0]: the sum of all observations of a session. h is (layers, batch, size)."""
    state: Shape = [layers, batch, size]
    return model(
        [Node("Add", ["obs", "h_in"], ["h_out"]), Node("Gather", ["h_out", "zero"], ["actions"], whole={"axis": 0})],
        [Value("obs", [batch, size]), Value("h_in", state)],
        [Value("actions", [batch, size]), Value("h_out", state)],
        {"zero": np.asarray(0, np.int64)},
    )


def choosing(weights: Array) -> bytes:
    """action = argmax(obs @ weights), a whole number, of one row."""
    rows, columns = weights.shape
    assert columns > 1
    return model(
        [
            Node("MatMul", ["obs", "w"], ["q"]),
            Node("ArgMax", ["q"], ["action"], whole={"axis": 1, "keepdims": 0}),
        ],
        [Value("obs", [1, rows])],
        [Value("action", [1], "int64")],
        {"w": weights.astype(np.float32)},
    )


def copying(inputs: Sequence[Value], outputs: Sequence[Value]) -> bytes:
    """Each output is the input at the same place."""
    nodes = [Node("Identity", [one.name], [other.name]) for one, other in zip(inputs, outputs, strict=True)]
    return model(nodes, inputs, outputs)


def elsewhere(location: str, *, is_in_subgraph: bool = False) -> bytes:
    """actions = obs + w (1, 2), whose numbers are in another file; or w is an attribute of a node in a node's graph."""
    told = ((b"location", location.encode()), (b"offset", b"0"), (b"length", b"8"))
    entries = b"".join(_field(13, _field(1, key) + _field(2, value)) for key, value in told)
    weights = _number(1, 1) + _number(1, 2) + _number(2, 1) + _field(8, b"w") + entries + _number(14, 1)
    inputs, outputs = [Value("obs", [1, 2])], [Value("actions", [1, 2])]
    whole = model([Node("Add", ["obs", "w"], ["actions"])], inputs, outputs)
    if is_in_subgraph:
        constant = _field(2, b"w") + _field(4, b"Constant") + _field(5, _field(1, b"value") + _field(5, weights))
        branch = _field(4, b"If") + _field(5, _field(1, b"then_branch") + _field(6, _field(1, constant)))
        return whole + _field(7, _field(1, branch))  # parsers merge it with the first graph
    return whole + _field(7, _field(5, weights))


def nested(depth: int) -> bytes:
    """A graph with a node whose attribute is a graph, and so on."""
    graph = b""
    for _ in range(depth):
        graph = _field(1, _field(5, _field(6, graph)))
    return _field(7, graph)


def _node(node: Node) -> bytes:
    names = [_field(1, name.encode()) for name in node.inputs] + [_field(2, name.encode()) for name in node.outputs]
    told = [
        _field(5, _field(1, key.encode()) + _number(3, value) + _number(20, 2)) for key, value in node.whole.items()
    ]
    return b"".join([*names, _field(4, node.kind.encode()), *told, _field(7, node.domain.encode())])


def _tensor(name: str, array: Array) -> bytes:
    sizes = b"".join(_number(1, size) for size in array.shape)
    return sizes + _number(2, _TYPES[array.dtype.name]) + _field(8, name.encode()) + _field(9, array.tobytes())


def _value(value: Value) -> bytes:
    shape = b"".join(_field(1, _size(size)) for size in value.shape)
    return _field(1, value.name.encode()) + _field(2, _field(1, _number(1, _TYPES[value.dtype]) + _field(2, shape)))


def _size(size: int | str | None) -> bytes:
    if size is None:
        return b""
    return _field(2, size.encode()) if isinstance(size, str) else _number(1, size)


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _number(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _varint(value: int) -> bytes:
    parts = bytearray()
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes([*parts, value])
