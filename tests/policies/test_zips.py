"""Zip archives are read where they lie; what is damaged, or would grow without end, is refused."""

from __future__ import annotations

import io
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policyserve.core.errors import ConfigError
from policyserve.policies.zips import Zip, names_in


def packed(method: int = zipfile.ZIP_STORED, **entries: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return file.getvalue()


CONTENT = packed(a=b"one", b=b"two" * 100)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_entries_are_read_by_name(method: int) -> None:
    found = Zip(packed(method, a=b"one", b=b"two" * 100), "z")
    assert list(found) == ["a", "b"]
    assert len(found) == 2
    assert "a" in found
    assert "c" not in found
    assert (bytes(found["a"]), bytes(found["b"])) == (b"one", b"two" * 100)


def test_a_stored_entry_is_a_view() -> None:
    assert Zip(CONTENT, "z")["a"].obj is CONTENT


def test_the_names_alone_are_told_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(CONTENT)
    assert names_in(path, "z") == ["a", "b"]
    path.write_bytes(b"")
    with pytest.raises(ConfigError, match="z: expected a zip archive"):
        names_in(path, "z")


def test_a_comment_at_the_end_does_not_hide_the_list() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a", b"one")
        archive.comment = b"x" * 1000
    assert list(Zip(file.getvalue(), "z")) == ["a"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "z: expected a zip archive, got an empty file"),
        (b"PK\3\4nothing", "z: expected a zip archive, got another file, or one that was cut short"),
        (CONTENT[:-30], "z: expected a zip archive"),
        (packed(zipfile.ZIP_LZMA, a=b"one"), "z: 'a': expected an entry stored or deflated"),
        (b"PK\5\6" + b"\xff" * 18, "whose list of entries is damaged"),
    ],
)
def test_what_is_no_zip_is_told(content: bytes, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Zip(content, "z")
    assert told in str(caught.value)


def test_a_name_that_is_there_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="'b': expected an entry stored or deflated, got it twice"):
        Zip(packed(b=b"one", x=b"two").replace(b"x", b"b"), "z")


def test_an_entry_that_is_not_there_says_what_is() -> None:
    with pytest.raises(ConfigError, match="z: expected an entry 'c', got a, b"):
        Zip(CONTENT, "z")["c"]


def test_a_changed_byte_is_found() -> None:
    with pytest.raises(ConfigError, match="z: a: expected 3 bytes of CRC"):
        Zip(CONTENT.replace(b"one", b"oNe"), "z")["a"]


def test_an_entry_that_lies_about_its_size_is_found() -> None:
    content = packed(zipfile.ZIP_DEFLATED, a=b"\0" * 100_000)
    listed = content.rindex(b"PK\1\2")
    lying = content[: listed + 24] + (50).to_bytes(4, "little") + content[listed + 28 :]
    with pytest.raises(ConfigError, match="z: a: expected 50 bytes of CRC"):
        Zip(lying, "z")["a"]


def test_entries_together_grow_to_64_times_the_archive_at_most() -> None:
    with pytest.raises(ConfigError, match="grow to 64 times the archive's"):
        Zip(packed(zipfile.ZIP_DEFLATED, a=b"\0" * 1_000_000), "z")["a"]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(CONTENT) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_any_change_is_read_or_a_config_error(changes: list[tuple[int, int]]) -> None:
    content = bytearray(CONTENT)
    for place, value in changes:
        content[place] = value
    with suppress(ConfigError):
        for content_of_entry in Zip(bytes(content), "z").values():
            assert len(content_of_entry) <= len(content)
