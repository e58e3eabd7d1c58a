"""The `mcap` library reads our files, checksums included, and finds in them what it finds in its own."""

from __future__ import annotations

import io
import os
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.policies.frameworks import import_or_skip

writer = import_or_skip("mcap.writer")
reader = import_or_skip("mcap.reader")

from policyserve.recordings.chunks import ChunkedFile  # noqa: E402

MESSAGES = st.lists(
    st.tuples(st.sampled_from(["/a", "/b", "/c"]), st.integers(1, 1 << 62), st.binary(max_size=300)), max_size=30
)


def ours(messages: list[tuple[str, int, bytes]], chunk_bytes: int) -> io.BytesIO:
    stream = io.BytesIO()
    file = ChunkedFile(stream, "profile", "us", chunk_bytes)
    schema = file.add_schema("a", "jsonschema", b"{}")
    channels = {name: file.add_channel(name, "json", schema if name == "/a" else 0) for name in ("/a", "/b", "/c")}
    for number, (name, at, data) in enumerate(messages):
        file.add_message(channels[name], at, data, number)
    file.add_metadata("facts", {"key": "value"})
    file.finish()
    stream.seek(0)
    return stream


def theirs(messages: list[tuple[str, int, bytes]], chunk_bytes: int) -> io.BytesIO:
    stream = io.BytesIO()
    file = writer.Writer(stream, chunk_size=chunk_bytes)
    file.start("profile", "them")
    schema = file.register_schema("a", "jsonschema", b"{}")
    channels = {name: file.register_channel(name, "json", schema if name == "/a" else 0) for name in ("/a", "/b", "/c")}
    for number, (name, at, data) in enumerate(messages):
        file.add_message(channels[name], at, data, at, number)
    file.add_metadata("facts", {"key": "value"})
    file.finish()
    stream.seek(0)
    return stream


def told(stream: io.BytesIO) -> dict[str, Any]:
    """All that the library finds in a file."""
    read = reader.make_reader(stream, validate_crcs=True)
    found = [
        (
            channel.topic,
            channel.message_encoding,
            schema and schema.name,
            message.sequence,
            message.log_time,
            message.data,
        )
        for schema, channel, message in read.iter_messages()
    ]
    summary = read.get_summary()
    statistics = summary.statistics
    return {
        "profile": read.get_header().profile,
        "messages": found,
        "some": [message.data for _, _, message in read.iter_messages(topics=["/b"])],
        "metadata": [(one.name, one.metadata) for one in read.iter_metadata()],
        "counts": dict(statistics.channel_message_counts),
        "times": (statistics.message_start_time, statistics.message_end_time),
        "schemas": [schema.name for schema in summary.schemas.values()],
    }


@settings(max_examples=60, deadline=None)
@given(MESSAGES, st.sampled_from([1, 200, 1 << 20]))
def test_the_library_reads_the_same_of_our_files_as_of_its_own(
    messages: list[tuple[str, int, bytes]], chunk_bytes: int
) -> None:
    assert told(ours(messages, chunk_bytes)) == told(theirs(messages, chunk_bytes))


@settings(max_examples=30, deadline=None)
@given(MESSAGES)
def test_a_file_that_is_flushed_reads_as_a_stream_before_it_is_finished(messages: list[tuple[str, int, bytes]]) -> None:
    stream = io.BytesIO()
    file = ChunkedFile(stream, "profile", "us")
    channels = {name: file.add_channel(name, "binary") for name in ("/a", "/b", "/c")}
    for number, (name, at, data) in enumerate(messages):
        file.add_message(channels[name], at, data, number)
        file.flush()
    stream.seek(0)
    read: list[bytes] = []
    try:
        for _, _, message in reader.NonSeekingReader(stream).iter_messages(log_time_order=False):
            read.append(message.data)
    except Exception:  # the file's end, which is not there yet
        pass
    assert read == [data for _, _, data in messages]


def compressions(stream: io.BytesIO) -> list[str]:
    """Of each chunk."""
    stream.seek(0)
    summary = reader.make_reader(stream).get_summary()
    return [index.compression for index in sorted(summary.chunk_indexes, key=lambda one: one.chunk_start_offset)]


LARGE = 400_000  # bytes
NOISE, TEXT = os.urandom(LARGE), (b"one robot and another " * LARGE)[:LARGE]


@pytest.mark.parametrize("way", ["as a sample tells", "in haste"])
def test_what_does_not_shrink_is_stored_and_all_reads_the_same(way: str) -> None:
    messages = [("/a", 1, b"small"), ("/b", 2, NOISE), ("/a", 3, TEXT), ("/b", 4, b"small too"), ("/c", 5, NOISE[1:])]
    stream = io.BytesIO()
    file = ChunkedFile(stream, "profile", "us")
    file.compresses = way != "in haste"
    channels = {name: file.add_channel(name, "binary") for name in ("/a", "/b", "/c")}
    for number, (name, at, data) in enumerate(messages):
        file.add_message(channels[name], at, memoryview(bytearray(data)), number)
    file.finish()
    stream.seek(0)
    found = reader.make_reader(stream, validate_crcs=True).iter_messages()
    assert [(channel.topic, message.log_time, message.data) for _, channel, message in found] == messages
    assert compressions(stream) == (["", "zstd", ""] if file.compresses else ["", "", ""])
    assert len(stream.getvalue()) < (2.1 if file.compresses else 3.1) * LARGE


def test_a_messages_bytes_may_change_once_it_was_given() -> None:
    stream = io.BytesIO()
    file = ChunkedFile(stream, "profile", "us")
    channel = file.add_channel("/a", "binary")
    given_bytes = [bytearray(b"small"), bytearray(NOISE), bytearray(TEXT)]
    for data in given_bytes:
        file.add_message(channel, 1, memoryview(data))
        data[:] = bytes(len(data))
    file.finish()
    stream.seek(0)
    assert [message.data for _, _, message in reader.make_reader(stream).iter_messages()] == [b"small", NOISE, TEXT]
