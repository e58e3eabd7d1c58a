"""What stands in an MCAP file, read to its end or to where it was cut."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Set
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from mcap.data_stream import ReadDataStream
from mcap.reader import make_reader
from mcap.records import Channel, Chunk, Header, Message, Metadata
from mcap.stream_reader import StreamReader, breakup_chunk
from mcap.summary import Summary

from policyserve.recordings import layout
from policyserve.recordings.layout import RecordingError

_MAGIC = b"\x89MCAP0\r\n"


class Said(NamedTuple):
    """One message of a file. number: of the request that it is or answers. at: nanoseconds since 1970."""

    topic: str
    encoding: str
    number: int
    data: bytes
    at: int

    def event(self) -> Mapping[str, Any]:
        """What an event's message tells; empty where it is none."""
        try:
            told = json.loads(self.data)
        except ValueError:
            return {}
        return told if isinstance(told, dict) else {}


class Container:
    """A file of ours. metadata: its records by name, in their order; is_cut: it has no end.

    Raises RecordingError if it is none.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._opened() as file:
            self._check(file)
            self._summary = _summary_of(file)
            self.is_cut = self._summary is None
            self.metadata = list(self._metadata(file))

    def said(self, wanted: Callable[[str], bool]) -> Iterator[Said]:
        """The messages whose topic is wanted, in the file's order."""
        with self._opened() as file:
            channels = dict(self._summary.channels) if self._summary is not None else {}
            for record in self._records(file, wanted):
                if isinstance(record, Channel):
                    channels[record.id] = record
                elif isinstance(record, Message):
                    channel = channels.get(record.channel_id)
                    if channel is not None and wanted(channel.topic):
                        yield Said(
                            channel.topic, channel.message_encoding, record.sequence, record.data, record.log_time
                        )

    def _opened(self) -> BinaryIO:
        try:
            return self.path.open("rb")
        except FileNotFoundError:
            raise RecordingError(f"{self.path}: expected a recording, got no such file") from None
        except IsADirectoryError:
            told = "expected a recording, got a directory; name one of the .mcap files in it"
            raise RecordingError(f"{self.path}: {told}") from None
        except (OSError, ValueError) as error:
            raise RecordingError(f"{self.path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error

    def _check(self, file: BinaryIO) -> None:
        begin = file.read(len(_MAGIC))
        if begin != _MAGIC:
            got = f"one that begins with {begin!r}" if begin else "an empty file"
            raise RecordingError(f"{self.path}: expected an MCAP file of policyserve, got {got}")
        records = _until_cut(file)
        header, told = next(records, None), next(records, None)
        if isinstance(header, Header) and header.profile != layout.PROFILE:
            got = f"one of {header.library or 'an unknown program'}"
            cure = "policyserve serve --record writes those that can be read"
            raise RecordingError(f"{self.path}: expected a recording of policyserve, got {got}; {cure}")
        if not isinstance(told, Metadata) or told.name != layout.FILE:
            raise RecordingError(f"{self.path}: expected a recording, got one that was cut before its first record")
        version = told.metadata.get("format", "none")
        if version != layout.FORMAT:
            by = f"format {version} of policyserve {told.metadata.get('version', '')}".rstrip()
            cure = "read it with that version"
            raise RecordingError(f"{self.path}: expected a recording of format {layout.FORMAT}, got {by}; {cure}")

    def _metadata(self, file: BinaryIO) -> Iterator[Metadata]:
        if self._summary is None:
            yield from (record for record in _until_cut(file) if isinstance(record, Metadata))
            return
        for index in self._summary.metadata_indexes:
            record = next(_until_cut(file, begin=index.offset), None)
            if isinstance(record, Metadata):
                yield record

    def _records(self, file: BinaryIO, wanted: Callable[[str], bool]) -> Iterator[Any]:
        if self._summary is None:
            for record in _until_cut(file):
                yield from _broken_up(record) if isinstance(record, Chunk) else (record,)
            return
        named = {number for number, channel in self._summary.channels.items() if wanted(channel.topic)}
        yield from _chunked(file, self._summary, named)


def _chunked(file: BinaryIO, summary: Summary, channels: Set[int]) -> Iterator[Any]:
    """The records of the chunks that hold messages of these channels."""
    for index in sorted(summary.chunk_indexes, key=lambda one: one.chunk_start_offset):
        if channels.isdisjoint(index.message_index_offsets):
            continue
        try:
            file.seek(index.chunk_start_offset + 9)  # its opcode and length
            chunk = Chunk.read(ReadDataStream(file))
        except Exception:  # a file that was damaged behind our back
            return
        yield from _broken_up(chunk)


def _summary_of(file: BinaryIO) -> Summary | None:
    """What an end that was written tells; None where there is none that can be read."""
    try:
        file.seek(0)
        summary = make_reader(file).get_summary()
    except Exception:  # a file's bytes: mcap raises many errors for a cut one
        return None
    ends = [] if summary is None else [index for index in summary.metadata_indexes if index.name == layout.END]
    return summary if ends else None


def _until_cut(file: BinaryIO, begin: int = 0) -> Iterator[Any]:
    """Records up to the first that cannot be read; a chunk as one."""
    try:
        size = file.seek(0, 2)
        file.seek(begin)
        yield from StreamReader(file, skip_magic=begin > 0, emit_chunks=True, record_size_limit=size).records
    except Exception:  # a file's bytes: mcap raises many errors for a cut one
        return


def _broken_up(chunk: Chunk) -> Iterator[Any]:
    try:
        records = breakup_chunk(chunk, validate_crc=True)
    except Exception:  # zstd's error, or a record that is cut
        return
    yield from records
