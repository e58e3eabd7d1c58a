"""A replica's port and those who do not know its secret, or misuse it."""

from __future__ import annotations

import asyncio
import struct

import pytest

from policyserve.ray import listener, wire
from tests.engine.running import until
from tests.ray.loopback import HOST, Bench, HandReplica, group, numbers, run


async def connect(bench: Bench) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, bytes]:
    """A stranger's connection, and the challenge that it is told."""
    reader, writer = await asyncio.open_connection(HOST, bench.places[-1].port)
    return reader, writer, await reader.readexactly(wire.CHALLENGE_BYTES)


async def is_cut(reader: asyncio.StreamReader) -> bool:
    try:
        return await reader.read() == b""
    except ConnectionError:
        return True


async def check_others_are_served(bench: Bench, replica: HandReplica) -> None:
    link = await bench.link()
    assert (await link.send(group(b"echo", 10), 10.0))[0] == b"echo"
    assert [message for message, _ in replica.groups] == [b"echo"]


def test_a_stranger_is_cut_off_before_a_byte_of_a_group_is_read() -> None:
    async def talk(bench: Bench) -> None:
        replica = await bench.replica()
        sent = b"".join(wire.write_frame(wire.GROUP, 1, b"echo", [numbers(10).data]))
        for guess in (bytes(wire.CLAIM_BYTES), b"GET / HTTP/1.1\r\n\r\n".ljust(wire.CLAIM_BYTES)):
            reader, writer, _ = await connect(bench)
            writer.write(guess + sent)
            assert await is_cut(reader)
            writer.close()
        await check_others_are_served(bench, replica)

    run(talk)


def test_a_greeting_that_was_recorded_opens_nothing() -> None:
    async def talk(bench: Bench) -> None:
        replica = await bench.replica()
        reader, writer, challenge = await connect(bench)
        claimed = wire.claim(bench.places[-1].secret, challenge, bytes(wire.RANDOM_BYTES))
        writer.write(claimed)
        assert len(await reader.readexactly(wire.WELCOME_BYTES)) == wire.WELCOME_BYTES
        again, writer_again, _ = await connect(bench)
        writer_again.write(claimed)
        assert await is_cut(again)
        for one in (writer, writer_again):
            one.close()
        await check_others_are_served(bench, replica)

    run(talk)


def test_a_stranger_that_says_nothing_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "_PROVES_WITHIN_S", 0.01)

    async def talk(bench: Bench) -> None:
        await bench.replica()
        reader, writer, _ = await connect(bench)
        writer.write(b"half a claim")
        assert await is_cut(reader)
        writer.close()

    run(talk)


def test_many_strangers_take_each_others_places_and_no_edges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "_MOST_UNPROVEN", 3)

    async def talk(bench: Bench) -> None:
        replica = await bench.replica()
        strangers = [await connect(bench) for _ in range(4)]
        assert await is_cut(strangers[0][0])
        await check_others_are_served(bench, replica)
        for _, writer, _ in strangers:
            writer.close()

    run(talk)


@pytest.mark.parametrize("header", [struct.pack(">BQQQ", wire.GROUP, 1, 2**60, 0), b"\xff" * 25])
def test_an_edge_that_sends_no_group_is_cut_off_alone(header: bytes) -> None:
    async def talk(bench: Bench) -> None:
        replica = await bench.replica()
        reader, writer, challenge = await connect(bench)
        writer.write(wire.claim(bench.places[-1].secret, challenge, bytes(wire.RANDOM_BYTES)))
        await reader.readexactly(wire.WELCOME_BYTES)
        writer.write(header)
        assert await is_cut(reader)
        writer.close()
        await check_others_are_served(bench, replica)

    run(talk)


def test_of_an_edge_that_reads_no_answers_no_more_groups_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "_HIGH_WATER", 1 << 20)

    async def talk(bench: Bench) -> None:
        replica = await bench.replica()
        reader, writer, challenge = await connect(bench)
        writer.write(wire.claim(bench.places[-1].secret, challenge, bytes(wire.RANDOM_BYTES)))
        await reader.readexactly(wire.WELCOME_BYTES)
        (connection,) = vars(replica.listener)["_edges"]
        transport = vars(connection)["_transport"]
        for number in range(16):  # StreamReader stops reading at 128 KiB
            writer.write(b"".join(wire.write_frame(wire.GROUP, number, b"echo", [numbers(1 << 20).data])))
        await until(lambda: not transport.is_reading())
        assert len(replica.groups) < 16
        writer.transport.abort()

    run(talk)


def test_a_replica_that_leaves_waits_for_its_answers_and_takes_nobody_new() -> None:
    async def talk(bench: Bench) -> None:
        replica = await bench.replica()
        link = await bench.link()
        call = asyncio.create_task(link.send(group(b"last", 1), 10.0))
        await until(lambda: replica.ends)
        leaving = asyncio.create_task(replica.listener.drain())
        await until(lambda: not link.is_open)
        with pytest.raises(OSError):  # noqa: PT011, the system's own text
            await bench.link()
        assert not leaving.done()
        replica.ends[0].set_result((b"answered", numbers(1)))
        assert (await call)[0] == b"answered"
        await leaving

    run(talk)


def test_a_replica_that_nobody_asks_leaves_at_once() -> None:
    async def talk(bench: Bench) -> None:
        await (await bench.replica()).listener.drain()

    run(talk)
