"""What a program is refused for before torch loads it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import policyserve
from policyserve.core.errors import ConfigError
from policyserve.policies.torch_files.hints import check_code, check_graph
from tests.policies.torch_files.cases import changed, file_of


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("_0 = torch.from_file('a', True, 4)", "a: it calls from_file, a function that touches files"),
        ("torch.save(x, 'a')", "a: it calls save, a function"),
        ("_0 = ops.aten . from_file('a')", "a: it calls from_file"),
        ("_0 = ops.mine.run(x)", "a: it calls ops.mine.run, no operator of torch's own"),
    ],
)
def test_code_that_asks_for_more_than_to_compute_is_refused(code: str, said: str) -> None:
    with pytest.raises(ConfigError, match=f"^{said}"):
        check_code(code, "a")


def test_what_networks_call_is_not_refused() -> None:
    check_code("ops.prim.dtype(x); ops.quantized.linear(x); ops.aten.relu(x); torch.linear(x); self.save_rate", "a")
    targets = ["torch.ops.aten.conv2d.default", "_operator.mul", "math.floor", "torch.sym_max", "c.0.weight", "x"]
    check_graph({"nodes": [{"target": target} for target in targets]}, "a")
    check_graph({"expr_str": "Max(1, 2*Symbol('s0', positive=True, integer=True)) + FloorDiv(s1, 2)"}, "a")


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({"target": "torch.hub.load"}, "it calls 'torch.hub.load', no operator of torch's own"),
        ({"target": "torch.ops.mine.run.default"}, "it calls 'torch.ops.mine.run.default', no operator"),
        ({"target": "torch.ops.aten.from_file.default"}, "it calls from_file"),
        ({"expr_str": "exec(chr(105))"}, "expected a size, got 'exec\\(chr\\(105\\)\\)', which would be evaluated"),
        ({"expr_str": "().__class__"}, "expected a size"),
        ({"expr_str": "s0.x"}, "expected a size"),
        ({"expr_str": "__import__('os')"}, "expected a size"),
        ({"expr_str": "Symbol('s 0; x')"}, "expected a size"),
        ({"in_spec": '[1, {"context": {"default_factory_module": "os"}}]'}, "in_spec has a module imported"),
    ],
)
def test_a_graph_that_asks_for_more_than_to_compute_is_refused(found: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=f"^a: {said}"):
        check_graph({"nodes": [[found]]}, "a")


def test_a_graph_that_is_nested_deep_is_walked_through() -> None:
    deep: object = {"expr_str": "exec(s0)"}
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(ConfigError, match="expected a size"):
        check_graph(deep, "a")
    while isinstance(deep, list):  # freeing it all at once would recurse
        deep = deep[0]


def test_a_module_that_writes_a_file_when_it_is_loaded_is_refused_before_it_is(tmp_path: Path) -> None:
    written = tmp_path / "written"
    path = changed(
        file_of("jit_isaaclab_mlp"), tmp_path / "policy.pt",
        lambda name, data: data.replace(
            b"    m = s.m\n", f"    _9 = torch.from_file({str(written)!r}, True, 4)\n    m = s.m\n".encode()
        ) if name == "policy/code/__torch__.py" else data,
    )  # fmt: skip
    with pytest.raises(ConfigError, match=r"policy.pt: code/__torch__.py: it calls from_file"):
        policyserve.load_policy(str(path), obs="45")
    assert not written.exists()


def test_an_exported_program_that_calls_something_else_is_refused_before_it_is_loaded(tmp_path: Path) -> None:
    def hub(name: str, data: bytes) -> bytes:
        if not name.endswith("models/model.json"):
            return data
        model = json.loads(data)
        model["graph_module"]["graph"]["nodes"][0]["target"] = "torch.hub.load"
        return json.dumps(model).encode()

    path = changed(file_of("export_mlp_static"), tmp_path / "policy.pt2", hub)
    with pytest.raises(ConfigError, match=r"policy.pt2: models/model.json: it calls 'torch.hub.load'"):
        policyserve.load_policy(str(path))
