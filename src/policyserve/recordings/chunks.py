"""Writes an MCAP file in chunks, compressed or not, whose records are those of the `mcap` library.

The library's own Writer compresses everything, at zstd's level 3, and copies a message five times. A camera's picture
has a sensor's noise in it, which no compressor shrinks: of three such pictures level 3 takes 25 ms to save 18 %, level
1 takes 5 ms to save 8 %, and quicker levels save nothing. So a sample of each chunk is compressed first, and where that
saves little the chunk is stored as it is. A large message ends its chunk, and goes to the file from where it lies.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import BinaryIO

import zstandard
from mcap.data_stream import RecordBuilder
from mcap.opcode import Opcode
from mcap.records import (
    Channel,
    ChunkIndex,
    DataEnd,
    Footer,
    Header,
    McapRecord,
    MessageIndex,
    Metadata,
    MetadataIndex,
    Schema,
    Statistics,
    SummaryOffset,
)

_MAGIC = b"\x89MCAP0\r\n"
_LEVEL = 1
_LARGE = 128 << 10  # bytes of a message that ends its chunk and is not copied
_SAMPLE, _SAMPLES = 16 << 10, 4  # bytes of a piece, and how many of a chunk are tried
_WORTH = 0.8  # of its size: a sample that is larger when it is compressed has its chunk stored as it is
_PIECE = 128 << 10  # bytes of one write: during one of megabytes Linux lets nobody have the core, for milliseconds
_CHUNK = struct.Struct("<BQQQQI")  # its opcode and length, then what stands before the compression's name
_MESSAGE = struct.Struct("<BQHIQQ")  # its opcode and length, then what stands before its data
_RECORD_HEAD = 9  # an opcode and a length


class ChunkedFile:
    """The writer's state. stream: where to, whose position is 0. chunk_bytes: when a chunk is full.

    compresses: whether it may; to be turned off while time is short.
    """

    def __init__(self, stream: BinaryIO, profile: str, library: str, chunk_bytes: int = 1 << 20) -> None:
        self._stream = stream
        self.compresses = True
        self._chunk_bytes = chunk_bytes
        self._compressor = zstandard.ZstdCompressor(level=_LEVEL)
        self._schemas: list[Schema] = []
        self._channels: list[Channel] = []
        self._chunks: list[ChunkIndex] = []
        self._metadata: list[MetadataIndex] = []
        self._counts: dict[int, int] = {}
        self._parts: list[bytes] = []  # of the chunk in progress
        self._size = 0  # bytes of it
        self._index: dict[int, list[tuple[int, int]]] = {}
        self._begin = self._end = 0  # the times of its messages
        self._first, self._last = 0, 0  # and of all
        stream.write(_MAGIC)
        stream.write(_written(Header(profile, library)))

    @property
    def channels(self) -> int:
        """How many there are; a file holds 65,535."""
        return len(self._channels)

    def add_schema(self, name: str, encoding: str, data: bytes) -> int:
        """Its number, for channels."""
        schema = Schema(id=len(self._schemas) + 1, name=name, encoding=encoding, data=data)
        self._schemas.append(schema)
        self._append(_written(schema))
        return schema.id

    def add_channel(self, topic: str, encoding: str, schema: int = 0) -> int:
        """Its number, for messages; schema: 0 for none."""
        number = len(self._channels) + 1
        channel = Channel(id=number, topic=topic, message_encoding=encoding, metadata={}, schema_id=schema)
        self._channels.append(channel)
        self._append(_written(channel))
        return number

    def add_message(self, channel: int, at: int, data: bytes | memoryview, sequence: int = 0) -> None:
        """A message, and when it was: nanoseconds. Its bytes are not needed any more afterwards."""
        self._index.setdefault(channel, []).append((at, self._size))
        is_first = self._begin == self._end == 0
        self._begin, self._end = (at, at) if is_first else (min(self._begin, at), max(self._end, at))
        self._append(_MESSAGE.pack(Opcode.MESSAGE, _MESSAGE.size - _RECORD_HEAD + len(data), channel, sequence, at, at))
        if len(data) >= _LARGE:
            self._end_chunk(data)
            return
        self._append(bytes(data))
        if self._size >= self._chunk_bytes:
            self._end_chunk()

    def add_metadata(self, name: str, data: dict[str, str]) -> None:
        """Facts by their names, at once in the file."""
        self._end_chunk()
        record = _written(Metadata(name=name, metadata=data))
        self._metadata.append(MetadataIndex(offset=self._stream.tell(), length=len(record), name=name))
        self._stream.write(record)

    def flush(self) -> None:
        """End the chunk in progress, and give all to the operating system."""
        self._end_chunk()
        self._stream.flush()

    def finish(self) -> None:
        """Write the summary; nothing follows."""
        self._end_chunk()
        self._stream.write(_written(DataEnd(0)))
        begin = self._stream.tell()
        groups = (
            (Opcode.SCHEMA, self._schemas),
            (Opcode.CHANNEL, self._channels),
            (Opcode.STATISTICS, [self._statistics()]),
            (Opcode.CHUNK_INDEX, self._chunks),
            (Opcode.METADATA_INDEX, self._metadata),
        )
        summary, offsets = b"", b""
        for opcode, records in groups:
            group = b"".join(map(_written, records))
            if group:
                offsets += _written(SummaryOffset(opcode, begin + len(summary), len(group)))
            summary += group
        offsets_at = begin + len(summary)
        summary += offsets
        head = struct.pack("<BQQQ", Opcode.FOOTER, 20, begin, offsets_at)
        crc = zlib.crc32(head, zlib.crc32(summary))
        self._stream.write(summary + _written(Footer(begin, offsets_at, crc)) + _MAGIC)
        self._stream.flush()

    def _append(self, part: bytes) -> None:
        self._parts.append(part)
        self._size += len(part)

    def _end_chunk(self, last: bytes | memoryview = b"") -> None:
        """Write the chunk in progress. last: bytes that belong to it."""
        if not self._parts:
            return
        parts = (memoryview(b"".join(self._parts)), memoryview(last))
        size = self._size + len(last)
        crc = zlib.crc32(last, zlib.crc32(parts[0]))
        is_small = self.compresses and self._is_worth_compressing(max(parts, key=len))
        stored = self._compressed(parts, size) if is_small else parts
        compression = "zstd" if is_small else ""
        begin, stored_size = self._stream.tell(), sum(map(len, stored))
        head = _chunk_head(self._begin, self._end, size, crc, compression, stored_size)
        for part in (head, *stored):
            for place in range(0, len(part), _PIECE):
                self._stream.write(part[place : place + _PIECE])
        index = ChunkIndex(
            chunk_length=len(head) + stored_size,
            chunk_start_offset=begin,
            compression=compression,
            compressed_size=stored_size,
            message_end_time=self._end,
            message_index_length=0,
            message_index_offsets={},
            message_start_time=self._begin,
            uncompressed_size=size,
        )
        self._chunks.append(self._indexed(index))
        if self._index:
            is_first = not self._counts
            self._first = self._begin if is_first else min(self._first, self._begin)
            self._last = max(self._last, self._end)
        for channel, places in self._index.items():
            self._counts[channel] = self._counts.get(channel, 0) + len(places)
        self._parts, self._size, self._index, self._begin, self._end = [], 0, {}, 0, 0

    def _is_worth_compressing(self, data: memoryview) -> bool:
        """Whether pieces of it become much smaller; of what is little more than the pieces, always."""
        if len(data) < 2 * _SAMPLE * _SAMPLES:
            return True
        step = (len(data) - _SAMPLE) // (_SAMPLES - 1)
        sample = b"".join(data[begin : begin + _SAMPLE] for begin in range(0, _SAMPLES * step, step))
        return len(self._compressor.compress(sample)) <= _WORTH * len(sample)

    def _compressed(self, parts: Sequence[memoryview], size: int) -> Sequence[memoryview]:
        """Both parts as one frame of zstd."""
        compressor = self._compressor.compressobj(size=size)
        return [memoryview(one) for one in (*map(compressor.compress, parts), compressor.flush())]

    def _indexed(self, chunk: ChunkIndex) -> ChunkIndex:
        """Write where each channel's messages are in a chunk, and add where that is told."""
        begin = self._stream.tell()
        for channel, places in self._index.items():
            chunk.message_index_offsets[channel] = self._stream.tell()
            self._stream.write(_written(MessageIndex(channel, places)))
        chunk.message_index_length = self._stream.tell() - begin
        return chunk

    def _statistics(self) -> Statistics:
        return Statistics(
            attachment_count=0,
            channel_count=len(self._channels),
            channel_message_counts=self._counts,
            chunk_count=len(self._chunks),
            message_count=sum(self._counts.values()),
            message_end_time=self._last,
            message_start_time=self._first,
            metadata_count=len(self._metadata),
            schema_count=len(self._schemas),
        )


def _written(record: McapRecord) -> bytes:
    builder = RecordBuilder()
    record.write(builder)
    return builder.end()


def _chunk_head(begin: int, end: int, size: int, crc: int, compression: str, stored: int) -> memoryview:
    """A chunk's record up to its data. begin, end: times; stored: bytes of the data as they are in the file."""
    name = compression.encode()
    rest = struct.pack("<I", len(name)) + name + struct.pack("<Q", stored)
    length = _CHUNK.size - _RECORD_HEAD + len(rest) + stored
    return memoryview(_CHUNK.pack(Opcode.CHUNK, length, begin, end, size, crc) + rest)
