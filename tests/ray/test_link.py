"""An edge's connection to one replica, over loopback: calls side by side, late answers, and how it ends."""

from __future__ import annotations

import asyncio

import pytest

from policyserve.core.errors import DeadlineExceeded, PolicyLost, WireError
from policyserve.ray import wire
from policyserve.ray.link import Link, Place
from tests.engine.running import until
from tests.ray.loopback import HOST, Bench, group, numbers, run


@pytest.mark.parametrize("size", [0, 10, 70_000, 3_000_000])
def test_a_group_goes_there_and_its_answer_comes_back(size: int) -> None:
    async def talk(bench: Bench) -> None:
        replica = await bench.replica()
        link = await bench.link()
        assert link.digest == "digest"
        message, arrays = await link.send(group(b"echo", size), 10.0)
        assert (message, arrays[:size].tolist()) == (b"echo", numbers(size).tolist())
        assert arrays.flags.writeable
        assert replica.groups[0][1].flags.writeable
        assert link.load == 0

    run(talk)


def test_calls_are_under_way_at_the_same_time_and_each_gets_its_own_answer() -> None:
    async def talk(bench: Bench) -> None:
        replica = await bench.replica()
        link = await bench.link()
        calls = [asyncio.create_task(link.send(group(b"%d" % number, 100_000), 10.0)) for number in range(3)]
        await until(lambda: len(replica.ends) == 3)
        assert link.load == 3
        for number in (2, 0, 1):
            message, _ = replica.groups[number]
            replica.ends[number].set_result((b"answer of " + message, numbers(number)))
            assert (await calls[number])[0] == b"answer of %d" % number

    run(talk)


def test_an_answer_that_comes_late_is_dropped_and_tells_that_the_replica_lives() -> None:
    async def talk(bench: Bench) -> None:
        replica = await bench.replica()
        link = await bench.link()
        with pytest.raises(DeadlineExceeded, match=r"within 0\.01 s"):
            await link.send(group(b"slow", 1), 0.01)
        assert link.is_silent
        replica.ends[0].set_result((b"too late", numbers(1)))
        assert (await link.send(group(b"echo", 1), 10.0))[0] == b"echo"
        assert not link.is_silent

    run(talk)


def test_a_call_that_nobody_waits_for_leaves_nothing_behind() -> None:
    async def talk(bench: Bench) -> None:
        replica = await bench.replica()
        link = await bench.link()
        call = asyncio.create_task(link.send(group(b"cancelled", 1), 10.0))
        await until(lambda: replica.ends)
        call.cancel()
        await asyncio.wait([call])
        assert link.load == 0
        replica.ends[0].set_result((b"for nobody", numbers(1)))
        assert (await link.send(group(b"echo", 1), 10.0))[0] == b"echo"

    run(talk)


def test_what_is_under_way_is_lost_with_the_connection() -> None:
    async def talk(bench: Bench) -> None:
        replica = await bench.replica()
        changed: list[Link] = []
        link = await bench.link(on_change=changed.append)
        call = asyncio.create_task(link.send(group(b"lost", 1), 10.0))
        await until(lambda: replica.ends)
        replica.listener.close()
        with pytest.raises(PolicyLost, match="lost at this request"):
            await call
        assert changed == [link]
        assert link.is_over
        assert not link.is_open

    run(talk)


def test_a_bug_in_a_replica_is_told_and_costs_no_other_call() -> None:
    async def talk(bench: Bench) -> None:
        replica = await bench.replica()
        link = await bench.link()
        call = asyncio.create_task(link.send(group(b"broken", 1), 10.0))
        await until(lambda: replica.ends)
        replica.ends[0].set_exception(KeyError("bug"))
        with pytest.raises(RuntimeError, match="KeyError: 'bug'"):
            await call
        assert (await link.send(group(b"echo", 1), 10.0))[0] == b"echo"

    run(talk)


def test_a_replica_that_says_goodbye_answers_what_it_has_and_gets_no_more() -> None:
    async def talk(bench: Bench) -> None:
        replica = await bench.replica()
        changed: list[Link] = []
        link = await bench.link(on_change=changed.append)
        call = asyncio.create_task(link.send(group(b"last", 1), 10.0))
        await until(lambda: replica.ends)
        leaving = asyncio.create_task(replica.listener.drain())
        await until(lambda: changed)
        assert not link.is_open
        assert not link.is_over
        replica.ends[0].set_result((b"answered", numbers(1)))
        assert (await call)[0] == b"answered"
        await leaving
        assert link.is_over

    run(talk)


def test_a_replica_that_reads_nothing_is_not_sent_more_and_more() -> None:
    async def talk(bench: Bench) -> None:
        replica = await bench.replica()
        link = await bench.link()
        for connection in vars(replica.listener)["_edges"]:
            connection.pause_writing()  # as it does for an edge that reads nothing: then it reads no more groups
        calls = []
        while link.is_open:
            calls.append(asyncio.create_task(link.send(group(b"unread", 16 << 20), 10.0)))
            await asyncio.sleep(0)
        assert 4 <= len(calls) <= 8  # 64 MiB, and what the system holds
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)

    run(talk)


@pytest.mark.parametrize("said", [b"", wire.MAGIC, wire.MAGIC + bytes(wire.RANDOM_BYTES)])
def test_a_greeting_that_is_cut_anywhere_is_no_connection(said: bytes) -> None:
    async def talk(bench: Bench) -> None:
        async def cut(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(said)
            writer.close()

        async with await asyncio.start_server(cut, HOST, 0) as server:
            with pytest.raises(OSError):  # noqa: PT011, the system's own texts
                await bench.link(Place("cut", HOST, server.sockets[0].getsockname()[1], b""))

    run(talk)


@pytest.mark.parametrize("said", [b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", b"\x00" * 200])
def test_who_has_the_port_and_is_no_replica_gets_no_group(said: bytes) -> None:
    async def talk(bench: Bench) -> None:
        async def speak(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(said)
            await writer.drain()
            writer.close()

        async with await asyncio.start_server(speak, HOST, 0) as server:
            with pytest.raises(WireError, match="greeting"):
                await bench.link(Place("other", HOST, server.sockets[0].getsockname()[1], b""))

    run(talk)


def test_an_edge_with_the_secret_of_another_replica_is_turned_away() -> None:
    async def talk(bench: Bench) -> None:
        replica = await bench.replica()
        with pytest.raises(OSError, match="before the greeting did"):
            await bench.link(bench.places[-1]._replace(secret=b"another"))
        assert replica.groups == []

    run(talk)
