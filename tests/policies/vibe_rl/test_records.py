"""Reading .npy records, whole, damaged and hostile."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserve.core.errors import ConfigError
from policyserve.policies.vibe_rl.records import open_records
from tests.policies.vibe_rl.states import write_eqx

LEAVES = [np.arange(6, dtype=np.float32).reshape(2, 3), np.int32(7), np.float64(0.5), np.array(True), np.zeros((0, 4))]


def npy(header: str, data: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    """A .npy record with any header."""
    text = header.encode() + b"\n"
    return b"\x93NUMPY" + version + len(text).to_bytes(2, "little") + text + data


def test_records_come_back_in_order_and_in_any_order_of_asking(tmp_path: Path) -> None:
    with open_records(write_eqx(tmp_path / "state.eqx", LEAVES)) as records:
        assert records.header(len(LEAVES)) is None
        for index in reversed(range(len(LEAVES))):
            found = records.header(index)
            value = records.read(index)
            assert found is not None
            assert (found.dtype, found.shape) == (value.dtype, value.shape)
            np.testing.assert_array_equal(value, LEAVES[index])
            assert value.flags.writeable


def test_an_array_in_fortran_order_is_the_same_array(tmp_path: Path) -> None:
    array = np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3))
    with open_records(write_eqx(tmp_path / "state.eqx", [array])) as records:
        assert str(records.header(0)) == "float32 (2, 3)"
        np.testing.assert_array_equal(records.read(0), array)


def test_what_follows_the_record_asked_for_is_not_looked_at(tmp_path: Path) -> None:
    path = write_eqx(tmp_path / "state.eqx", LEAVES[:1])
    path.write_bytes(path.read_bytes() + b"trailing bytes")
    with open_records(path) as records:
        assert records.header(0) is not None
        np.testing.assert_array_equal(records.read(0), LEAVES[0])
        with pytest.raises(ConfigError, match=r"record 1: expected a \.npy 1\.0 record, got b'trailing bytes'"):
            records.header(1)


def zip_file() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, a=np.zeros(3))
    return buffer.getvalue()


OBJECTS = "{'descr': '|O', 'fortran_order': False, 'shape': (1,)}"
BAD_FILES = {
    "a text": b"this is no checkpoint\n",
    "a zip": zip_file(),
    "a pickle": b"\x80\x04N.",
    "half a header": npy(OBJECTS)[:40],
    "only the magic": b"\x93NUMPY",
    "version 2": npy(OBJECTS, version=b"\x02\x00"),
    "objects": npy(OBJECTS, b"\x80\x04N."),
    "a negative size": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-4,)}"),
    "no dict": npy("[1, 2]"),
    "code": npy("__import__('os')"),
    "nested deep": npy("(" * 5000 + ")" * 5000),
    "not even text": npy("\xff\xfe"),
    "a header of 60 kB": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (" + "1," * 30_000 + ")}"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_file_that_holds_something_else_is_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "state.eqx"
    path.write_bytes(BAD_FILES[kind])
    with (
        open_records(path) as records,
        pytest.raises(ConfigError, match=r"state\.eqx: record 0: expected a \.npy 1\.0"),
    ):
        records.header(0)


@pytest.mark.parametrize("shape", ["(1000000000000,)", "(99999999999, 99999999999, 99999999999)"])
def test_a_header_of_a_huge_array_allocates_nothing(shape: str, tmp_path: Path) -> None:
    path = tmp_path / "state.eqx"
    path.write_bytes(npy(f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}", b"1234"))
    with open_records(path) as records:
        assert records.header(0) is not None
        with pytest.raises(ConfigError, match=r"record 0: expected .* bytes up to its end"):
            records.read(0)
        assert records.header(1) is None


def test_a_file_cut_within_an_array_is_refused_when_that_is_read(tmp_path: Path) -> None:
    path = write_eqx(tmp_path / "state.eqx", LEAVES[:1])
    path.write_bytes(path.read_bytes()[:-1])
    with open_records(path) as records:
        records.header(0)
        with pytest.raises(ConfigError, match="record 0: expected 152 bytes up to its end, got 151"):
            records.read(0)


def test_an_empty_file_has_no_records(tmp_path: Path) -> None:
    with open_records(write_eqx(tmp_path / "state.eqx", [])) as records:
        assert records.header(0) is None


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigError, match=r"state\.eqx: cannot be read: No such file"),
        open_records(tmp_path / "state.eqx"),
    ):
        pass


def test_any_bytes_give_records_or_a_config_error(tmp_path: Path) -> None:
    whole = write_eqx(tmp_path / "state.eqx", LEAVES).read_bytes()
    rng: Any = np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(whole)
        for place in rng.integers(0, len(damaged), 3):
            damaged[place] = rng.integers(0, 256)
        path = tmp_path / "damaged.eqx"
        path.write_bytes(damaged[: rng.integers(1, len(damaged))])
        with contextlib.suppress(ConfigError), open_records(path) as records:
            index = 0
            while records.header(index) is not None:
                records.read(index)
                index += 1
