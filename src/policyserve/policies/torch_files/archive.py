"""What a file of torch's is, by what is in it: no torch is needed for it, and nothing of the file is run."""

from __future__ import annotations

import json
import mmap
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from policyserve.core.errors import ConfigError, names_told
from policyserve.policies.files import reading
from policyserve.policies.sniffing import read_head
from policyserve.policies.torch_files.hints import check_code, check_graph
from policyserve.policies.torch_files.pickled import Pickled, is_of_tensors, read_pickle
from policyserve.policies.zips import Zip

Kind: TypeAlias = Literal["script", "export"]

_ZIP = b"PK"
_PICKLE = b"\x80"
_GRAPH = "models/model.json"
_OLD_GRAPH = "serialized_exported_program.json"  # of torch 2.7 and before, without a folder
_CURE = "where its class is, export it: torch.jit.script(network).save('policy.pt'), or torch.onnx.export"
_RSL_RL = "where it was trained, export it: export_policy_as_jit or export_policy_as_onnx (Isaac Lab: play.py)"
_FORWARD = r"^class {name}\(.*?^  def forward\((?P<arguments>.*?)\) -> "
_ARGUMENT = re.compile(r"\s*(\w+)\s*:\s*([^=]+?)\s*(=.*)?", re.DOTALL)


@dataclass(frozen=True)
class TorchFile:
    """A file that is a program. told: how it is called in errors. size: bytes.

    takes: what forward of TorchScript takes, by name, without sizes. width: what the first layer seems to take.
    """

    told: str
    path: Path
    kind: Kind
    size: int
    takes: tuple[str, ...] = ()
    width: int | None = None

    @property
    def title(self) -> str:
        return "TorchScript program" if self.kind == "script" else "program of torch.export"


class _Entries(Mapping[str, memoryview]):
    """An archive's entries by their names without the folder that torch puts them in."""

    def __init__(self, archive: Zip) -> None:
        self._archive = archive
        self._names = {name.partition("/")[2] or name: name for name in archive}

    def __getitem__(self, name: str) -> memoryview:
        return self._archive[self._names[name]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def read_torch_file(file: str) -> TorchFile:
    """Look at a file; raises ConfigError for what is no program, is damaged, or asks for more than to compute."""
    path = Path(file).expanduser()
    head = read_head(file)
    if not head.startswith(_ZIP):
        raise ConfigError(f"{file}: {_no_zip(path, head)}")
    with reading(file, "a zip archive"), path.open("rb") as opened:
        data = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
    archive = Zip(memoryview(data), file)
    for name in archive:
        archive[name]  # which is checked against its CRC
    entries = _Entries(archive)
    if _GRAPH in entries:
        _check_export(entries, file)
        return TorchFile(file, path, "export", len(data))
    if "constants.pkl" in entries and "data.pkl" in entries:
        takes, width = _check_script(entries, file)
        return TorchFile(file, path, "script", len(data), takes, width)
    raise ConfigError(f"{file}: {_no_program(entries, file)}")


def _no_zip(path: Path, head: bytes) -> str:
    """What a file is that no torch of today writes, and what to do."""
    if head.startswith(_PICKLE):
        return f"a pickle, which can run any code when it is read: policyserve does not; {_CURE}"
    if path.suffix.lower() == ".onnx":
        return "an ONNX model: serve it by onnx:FILE"
    return f"expected a TorchScript or .pt2 file, which are zip archives, got one that begins with {head[:8]!r}"


def _no_program(entries: Mapping[str, memoryview], file: str) -> str:
    """What a zip is that has no program, and what to do."""
    names = set(entries)
    if {"data", "policy.pth"} <= names:
        return "a zip of Stable-Baselines3: serve it by sb3:FILE"
    if _OLD_GRAPH in names:
        return "a .pt2 of an older torch: load it there, and save it with torch 2.8 or newer"
    if any(name.endswith((".so", ".cubin", ".dll")) for name in names):
        return "a program compiled for one machine (AOTInductor): save it with torch.export.save() instead"
    if "data.pkl" not in names:
        return f"a zip without a program: expected what torch.jit.save() or torch.export.save() wrote, {_got(names)}"
    saved = read_pickle(bytes(entries["data.pkl"]), f"{file}: data.pkl")
    if saved.foreign:
        return (
            f"a pickled module or object (it names {saved.foreign:.80}), which runs code when it is read:"
            f" policyserve does not; {_CURE}"
        )
    if "model_state_dict" in saved.strings:
        return f"weights without a network, a checkpoint of rsl_rl (model_state_dict): {_RSL_RL}"
    if "pytorch-lightning_version" in saved.strings:
        return f"weights without a network, a checkpoint of Lightning; {_CURE}"
    return f"weights without a network, a state dict; {_CURE}"


def _got(names: set[str]) -> str:
    return f"got {names_told(sorted(names))}"


def _check_export(entries: Mapping[str, memoryview], file: str) -> None:
    """Check what torch.export.load() would unpickle or evaluate; raises ConfigError."""
    for name in entries:
        if "custom_obj" in name or name.endswith((".so", ".cubin", ".dll")):
            raise ConfigError(f"{file}: {name:.80}: compiled code, or an object of its own class: export it without")
        if name.endswith(".json"):
            told = f"{file}: {name}"
            with reading(told, "JSON"):
                check_graph(json.loads(bytes(entries[name])), told)
    for name, data in entries.items():
        if bytes(data[:2]) == _ZIP:  # torch.save() in torch.export.save(): sample inputs, or weights
            _check_saved(Zip(data, f"{file}: {name}"), f"{file}: {name}")
        elif bytes(data[:1]) == _PICKLE and name.startswith("data/sample_inputs/"):
            raise ConfigError(f"{file}: {name}: a pickle that is no zip, which torch does not write: export it again")


def _check_saved(archive: Zip, told: str) -> None:
    entries = _Entries(archive)
    if "data.pkl" not in entries:
        raise ConfigError(f"{told}: expected what torch.save() wrote, {_got(set(entries))}")
    foreign = read_pickle(bytes(entries["data.pkl"]), told).foreign
    if foreign:
        raise ConfigError(f"{told}: a pickle that names {foreign:.80}, where tensors alone are read: export it again")


def _check_script(entries: Mapping[str, memoryview], file: str) -> tuple[tuple[str, ...], int | None]:
    """What forward takes, and the width of its first layer; raises ConfigError."""
    for name in entries:
        if name.startswith("code/") and name.endswith(".py"):
            check_code(_text(entries, name, file), f"{file}: {name}")
    saved = [read_pickle(bytes(entries[name]), f"{file}: {name}") for name in ("constants.pkl", "data.pkl")]
    for pickled in saved:
        foreign = next((name for name in pickled.names if not name.startswith("__torch__.") and not _is_jit(name)), "")
        if foreign:
            raise ConfigError(f"{file}: a pickle in it names {foreign:.80}, which is no module of this program's")
    width = next((shape[1] for shape in saved[1].shapes if len(shape) == 2), None)
    return _taken(entries, saved[1], file), width


def _is_jit(name: str) -> bool:
    return is_of_tensors(name) or name.startswith("torch.jit._pickle.")


def _taken(entries: Mapping[str, memoryview], saved: Pickled, file: str) -> tuple[str, ...]:
    """The names of forward's tensors, by the text of the module's class; raises ConfigError for another forward."""
    root = next((name for name in saved.names if name.startswith("__torch__.")), "")
    module, _, name = root.rpartition(".")
    place = f"code/{module.replace('.', '/')}.py"
    text = _text(entries, place, file) if place in entries else ""
    found = re.search(_FORWARD.format(name=re.escape(name)), text, re.DOTALL | re.MULTILINE) if name else None
    if found is None:
        raise ConfigError(f"{file}: expected a module with forward(), got one without: export the module that acts")
    names: list[str] = []
    for argument in re.split(r",(?![^\[]*\])", found["arguments"])[1:]:
        parts = _ARGUMENT.fullmatch(argument)
        if not argument.strip() or (parts and parts[3] and parts[2] != "Tensor"):
            continue  # what has a default need not be given
        if parts is None or parts[2] != "Tensor":
            got = " ".join(argument.split())[:80]
            raise ConfigError(f"{file}: forward(): expected tensors, got {got!r}: export a module that takes tensors")
        names.append(parts[1])
    if not names:
        raise ConfigError(f"{file}: forward(): expected tensors to observe, got none: export the module that acts")
    return tuple(names)


def _text(entries: Mapping[str, memoryview], name: str, file: str) -> str:
    with reading(f"{file}: {name}", "code in UTF-8"):
        return bytes(entries[name]).decode()
