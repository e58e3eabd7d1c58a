"""What a file of torch's is told to be without torch, and that any change of one is refused or read."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policyserve.core.errors import ConfigError
from policyserve.policies.torch_files.archive import read_torch_file
from tests.policies.torch_files.cases import ALONE, LSTM, REFUSED, changed, file_of, refused

CASES = [*ALONE, LSTM]


def zip_of(path: Path, **entries: bytes) -> str:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name.replace("__", "/").replace("_dot_", "."), data)
    return str(path)


def test_a_file_tells_its_kind_and_torchscript_what_forward_takes() -> None:
    script, export = read_torch_file(str(file_of(LSTM))), read_torch_file(str(file_of("export_mlp_static")))
    assert (script.kind, script.takes, script.width) == ("script", ("x",), 10)
    assert (export.kind, export.takes, export.title) == ("export", (), "program of torch.export")


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_to_refuse_needs_no_torch_to_be_refused(name: str) -> None:
    program = (
        "import sys\n"
        "from policyserve.policies.torch_files.archive import read_torch_file\n"
        "try:\n"
        f"    read_torch_file({str(refused(name))!r})\n"
        "except ValueError:\n"
        "    print('torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("False\n", "")


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"data": b"{}", "policy_dot_pth": b""}, "a zip of Stable-Baselines3: serve it by sb3:FILE"),
        ({"serialized_exported_program_dot_json": b"{}"}, "a .pt2 of an older torch"),
        ({"a__data__model_dot_so": b""}, "a program compiled for one machine"),
        ({"a": b""}, "a zip without a program"),
        ({"a__data_dot_pkl": b"\x80\x02}."}, "weights without a network, a state dict"),
        ({"a__data_dot_pkl": b"\x80\x02X\x05\x00\x00\x00a"}, "data.pkl: expected a pickle, got one that is damaged"),
    ],
)
def test_a_zip_without_a_program_is_told_for_what_it_is(entries: dict[str, bytes], said: str, tmp_path: Path) -> None:
    path = zip_of(tmp_path / "policy.pt", **entries)
    with pytest.raises(ConfigError) as raised:
        read_torch_file(path)
    assert str(raised.value).startswith(f"{path}: {said}")


def test_other_files_are_told_for_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "old.pth").write_bytes(b"\x80\x02\x8a\x0a")
    (tmp_path / "policy.onnx").write_bytes(b"\x08\x0a")
    with pytest.raises(ConfigError, match="a pickle, which can run any code when it is read"):
        read_torch_file(str(tmp_path / "old.pth"))
    with pytest.raises(ConfigError, match="an ONNX model: serve it by onnx:FILE"):
        read_torch_file(str(tmp_path / "policy.onnx"))
    with pytest.raises(ConfigError, match="there is no such file"):
        read_torch_file(str(tmp_path / "gone.pt"))


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (b"x: Tensor) ->", b"x: Dict[str, Tensor]) ->", "forward(): expected tensors, got 'x: Dict[str, Tensor]'"),
        (b"x: Tensor) ->", b"x: Tensor, n: int) ->", "forward(): expected tensors, got 'n: int'"),
        (b",\n    x: Tensor) ->", b") ->", "forward(): expected tensors to observe, got none"),
        (b"def forward(", b"def other(", "expected a module with forward(), got one without"),
    ],
)
def test_a_forward_that_takes_no_tensors_is_refused(before: bytes, after: bytes, said: str, tmp_path: Path) -> None:
    path = changed(
        file_of("jit_isaaclab_mlp"), tmp_path / "policy.pt",
        lambda name, data: data.replace(before, after) if name == "policy/code/__torch__.py" else data,
    )  # fmt: skip
    with pytest.raises(ConfigError) as raised:
        read_torch_file(str(path))
    assert str(raised.value).startswith(f"{path}: {said}")


def test_what_forward_has_a_default_for_need_not_be_sized(tmp_path: Path) -> None:
    path = changed(
        file_of("jit_isaaclab_mlp"), tmp_path / "policy.pt",
        lambda _name, data: data.replace(b"x: Tensor) ->", b"x: Tensor,\n    mask: Optional[Tensor]=None) ->"),
    )  # fmt: skip
    assert read_torch_file(str(path)).takes == ("x",)


@given(data=st.data())
def test_a_cut_or_mutated_file_is_read_or_refused_and_nothing_else(data: st.DataObject) -> None:
    content = bytearray(file_of(data.draw(st.sampled_from(CASES))).read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=8)):
        content[place] = data.draw(st.integers(0, 255))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "policy.pt"
        path.write_bytes(content[: data.draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))])
        with suppress(ConfigError):
            read_torch_file(str(path))
