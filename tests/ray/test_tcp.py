"""Which replica an edge chooses, and how it follows who comes and goes."""

from __future__ import annotations

import asyncio

import pytest

from policyserve.core.errors import DeadlineExceeded, NotReady, PolicyLost
from policyserve.ray.tcp import Links, PinnedCarrier, TcpCarrier
from tests.engine.running import until
from tests.ray.loopback import Bench, HandReplica, group, run


async def fleet(bench: Bench, *digests: str) -> tuple[list[HandReplica], Links]:
    replicas = [await bench.replica(digest) for digest in digests]
    links = await bench.links()
    await until(lambda: len(links.open) == len(digests))
    return replicas, links


def begin(carrier: TcpCarrier, message: bytes, timeout_s: float = 10.0) -> asyncio.Task[object]:
    return asyncio.create_task(carrier.send(group(message, 1), timeout_s))


async def ended(*calls: asyncio.Task[object]) -> None:
    for call in calls:
        call.cancel()
    await asyncio.wait(calls)


def test_a_group_goes_to_the_replica_with_the_fewest_and_else_to_each_in_turn() -> None:
    async def talk(bench: Bench) -> None:
        replicas, links = await fleet(bench, "digest", "digest", "digest")
        carrier = TcpCarrier(links, "digest")
        for _ in range(6):
            await carrier.send(group(b"echo", 1), 10.0)
        assert [len(one.groups) for one in replicas] == [2, 2, 2]
        calls = [begin(carrier, b"slow") for _ in range(2)]
        await until(lambda: sum(len(one.groups) for one in replicas) == 8)
        (free,) = [one for one in replicas if len(one.groups) == 2]
        for _ in range(3):
            await carrier.send(group(b"echo", 1), 10.0)
        assert len(free.groups) == 5
        await ended(*calls)

    run(talk)


def test_a_carrier_that_is_pinned_stays_with_its_replica_until_that_has_gone_or_is_silent() -> None:
    async def talk(bench: Bench) -> None:
        replicas, links = await fleet(bench, "digest", "digest", "digest")
        carrier = PinnedCarrier(links, "digest")
        for _ in range(4):
            await carrier.send(group(b"echo", 1), 10.0)
        (own,) = [one for one in replicas if one.groups]
        assert len(own.groups) == 4
        with pytest.raises(DeadlineExceeded):
            await carrier.send(group(b"slow", 1), 0.01)
        for _ in range(2):
            await carrier.send(group(b"echo", 1), 10.0)
        (second,) = [one for one in replicas if one.groups and one is not own]
        assert (len(own.groups), len(second.groups)) == (5, 2)
        second.listener.close()
        await until(lambda: len(links.open) == 2)
        await carrier.send(group(b"echo", 1), 10.0)
        assert len(second.groups) == 2

    run(talk)


def test_a_silent_replica_is_chosen_only_while_there_is_no_other() -> None:
    async def talk(bench: Bench) -> None:
        (first, second), links = await fleet(bench, "digest", "digest")
        carrier = TcpCarrier(links, "digest")
        with pytest.raises(DeadlineExceeded):
            await carrier.send(group(b"slow", 1), 0.01)
        silent, other = (first, second) if first.groups else (second, first)
        for _ in range(3):
            await carrier.send(group(b"echo", 1), 10.0)
        assert (len(silent.groups), len(other.groups)) == (1, 3)
        other.listener.close()
        await until(lambda: len(links.open) == 1)
        await carrier.send(group(b"echo", 1), 10.0)
        assert len(silent.groups) == 2

    run(talk)


def test_a_replica_of_another_spec_is_chosen_only_while_there_is_no_other() -> None:
    async def talk(bench: Bench) -> None:
        (first, second), links = await fleet(bench, "one", "two")
        one, two, none = (TcpCarrier(links, digest) for digest in ("one", "two", "none"))
        for _ in range(3):
            await one.send(group(b"echo", 1), 10.0)
        assert (len(first.groups), len(second.groups)) == (3, 0)
        await two.send(group(b"echo", 1), 10.0)
        assert len(second.groups) == 1
        await none.send(group(b"echo", 1), 10.0)

    run(talk)


def test_a_lost_replica_loses_what_it_had_and_without_one_there_is_nobody_to_ask() -> None:
    async def talk(bench: Bench) -> None:
        (replica,), links = await fleet(bench, "digest")
        carrier = TcpCarrier(links, "digest")
        call = begin(carrier, b"lost")
        await until(lambda: replica.ends)
        replica.listener.close()
        with pytest.raises(PolicyLost):
            await call
        with pytest.raises(NotReady, match="no replica is connected"):
            await carrier.send(group(b"echo", 1), 10.0)

    run(talk)


def test_one_that_comes_is_asked_and_one_that_is_no_more_is_not() -> None:
    async def talk(bench: Bench) -> None:
        (first,), links = await fleet(bench, "digest")
        carrier = TcpCarrier(links, "digest")
        second = await bench.replica()
        call = begin(carrier, b"stays")
        links.look_soon()
        await until(lambda: len(links.open) == 2)
        del bench.places[0]  # its actor is dead, and its connection has not noticed
        links.look_soon()
        with pytest.raises(PolicyLost):
            await call
        await carrier.send(group(b"echo", 1), 10.0)
        assert (len(first.groups), len(second.groups)) == (1, 1)

    run(talk)


def test_one_that_leaves_is_replaced_by_one_that_is_there_already() -> None:
    async def talk(bench: Bench) -> None:
        (first,), links = await fleet(bench, "digest")
        carrier = TcpCarrier(links, "digest")
        second = await bench.replica()
        await first.listener.drain()
        await until(lambda: links.open)
        await carrier.send(group(b"echo", 1), 10.0)
        assert len(second.groups) == 1

    run(talk)


def test_a_connection_that_breaks_is_opened_again_while_its_replica_lives() -> None:
    async def talk(bench: Bench) -> None:
        (replica,), links = await fleet(bench, "digest")
        (link,) = links.open
        link.abort()
        await until(lambda: links.open and links.open != [link])
        await TcpCarrier(links, "digest").send(group(b"echo", 1), 10.0)
        assert len(replica.groups) == 1

    run(talk)


def test_what_is_found_out_of_reach_is_told_with_its_cure() -> None:
    async def talk(bench: Bench) -> None:
        (await bench.replica()).listener.close()
        with pytest.raises(NotReady, match=r"could not be reached within 0\.05 s.*--carrier handle"):
            await bench.links(patience_s=0.05)

    run(talk)


def test_a_cluster_that_is_away_leaves_connections_as_they_are() -> None:
    async def talk(bench: Bench) -> None:
        replica = await bench.replica()
        asked = 0

        async def find() -> list[object]:
            nonlocal asked
            asked += 1
            if asked > 1:
                raise ConnectionError("no GCS")
            return list(bench.places)

        links = Links(find)  # type: ignore[arg-type]
        await links.start(10.0)
        vars(links)["_changed"].set()
        await until(lambda: asked > 1)
        await TcpCarrier(links, "digest").send(group(b"echo", 1), 10.0)
        assert len(replica.groups) == 1
        await links.close()

    run(talk)
