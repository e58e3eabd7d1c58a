"""The `mcap` library reads our files, checksums included, and finds in them what it finds in its own."""

from __future__ import annotations

import io
from typing import Any

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
