"""Raw clients that ask at the same time: alone one blocks, more share a selector."""

from __future__ import annotations

import selectors
import time
from collections.abc import Sequence

from policyserve.bench.load import Load, Watch
from policyserve.bench.raw import RawPeer
from policyserve.bench.tally import Tally
from policyserve.core.errors import DeadlineExceeded, PolicyserveError


class RawFleet:
    """A closed loop of raw clients (the protocol Fleet). One that fails is out for good."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._peers: list[RawPeer] = []
        try:
            for _ in range(load.clients):
                self._peers.append(self._open())
            self._frame = self._peers[0].frame(load.observation, load.dialect)
        except BaseException:
            self.close()
            raise

    def drive(self, tally: Tally, seconds: float) -> None:
        with Watch(tally) as start:
            if len(self._peers) == 1:
                lost = _drive_one(self._peers[0], self._frame, tally, start + seconds)
            else:
                with selectors.DefaultSelector() as selector:
                    turns = _Turns(selector, self._frame, tally, start + seconds)
                    lost = turns.run(self._peers, self._load.timeout_s)
        for peer in lost:
            self._peers.remove(peer)

    def close(self) -> None:
        for peer in self._peers:
            peer.close()

    def _open(self) -> RawPeer:
        load = self._load
        return RawPeer(load.url, load.dialect, load.timeout_s, load.api_key, offers_deflate=load.offers_deflate)


def _drive_one(peer: RawPeer, frame: bytes, tally: Tally, end: float) -> list[RawPeer]:
    """Ask again and again until the end; returns the client if it is lost."""
    clock = time.perf_counter
    try:
        while (sent := clock()) < end:
            peer.exchange(frame)
            tally.answered(sent, sent, clock(), {})
    except PolicyserveError as error:
        tally.failed(error)
        peer.close()
        return [peer]
    return []


class _Turns:
    """One slice of several clients: whoever is answered asks again."""

    def __init__(self, selector: selectors.BaseSelector, frame: bytes, tally: Tally, end: float) -> None:
        self._selector = selector
        self._frame = frame
        self._tally = tally
        self._end = end
        self._asked: dict[RawPeer, float] = {}  # who waits for an answer, since when
        self._lost: list[RawPeer] = []

    def run(self, peers: Sequence[RawPeer], timeout_s: float) -> list[RawPeer]:
        """Drive the clients until the end and their last answers; returns those that are lost."""
        for peer in peers:
            self._selector.register(peer.socket, selectors.EVENT_READ, peer)
            self._ask(peer)
        while self._asked:
            ready = self._selector.select(timeout_s)
            for key, _ in ready:
                self._read(key.data)
            if not ready:  # everybody has waited too long
                for peer in list(self._asked):
                    self._lose(peer, DeadlineExceeded(f"no answer within {timeout_s:g} s"))
        return self._lost

    def _ask(self, peer: RawPeer) -> None:
        self._asked[peer] = time.perf_counter()
        try:
            peer.send(self._frame)
        except PolicyserveError as error:
            self._lose(peer, error)

    def _read(self, peer: RawPeer) -> None:
        """There is something to read for a client, its answer or a part of that."""
        try:
            peer.read()
            is_answered = peer.take()
        except PolicyserveError as error:
            self._lose(peer, error)
            return
        if is_answered and peer in self._asked:
            now, sent = time.perf_counter(), self._asked.pop(peer)
            self._tally.answered(sent, sent, now, {})
            if now < self._end:
                self._ask(peer)

    def _lose(self, peer: RawPeer, error: PolicyserveError) -> None:
        self._tally.failed(error)
        self._asked.pop(peer, None)
        self._lost.append(peer)
        self._selector.unregister(peer.socket)
        peer.close()
