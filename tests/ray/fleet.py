"""Clients of each founding dialect, as their programs have them, and the ledger of what became of their requests."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from policyserve import Client
from policyserve.compat.openpi.client import WebsocketClientPolicy
from policyserve.compat.wall_x import WallXClient
from policyserve.core.errors import ConnectionLost, PolicyserveError


class Peer(NamedTuple):
    """A client of one dialect. sessions: how many it has opened; one whose session was closed may open another."""

    ask: Callable[[dict[str, Any]], Any]
    close: Callable[[], None]
    sessions: Callable[[], int] = lambda: 1


def _openpi(url: str) -> Peer:
    host, _, port = url.removeprefix("ws://").rpartition(":")
    client = WebsocketClientPolicy(host, int(port))
    return Peer(lambda obs: client.infer(obs)["actions"], client.close)


def _wall_x(url: str) -> Peer:
    client = WallXClient(f"{url}/wall_x", timeout_s=60)
    client.connect_sync()
    return Peer(lambda obs: client.predict_sync(obs)["action"], client.close_sync)


def _vibe_rl(url: str) -> Peer:
    client = Client(f"{url}/vibe_rl", dialect="vibe_rl", timeout_s=60, retry_for_s=0)
    client.connect()
    return Peer(lambda obs: client.infer(obs).actions, client.close, lambda: client.sessions_opened)


Dialects = Sequence[Callable[[str], Peer]]
DIALECTS: Dialects = (_openpi, _wall_x, _vibe_rl)


class Fleet:
    """Clients that ask without a pause. urls: of the edges, one client after the other; dead ones are left out.

    begins_anew: sessions may be closed while nothing is asked, or behind a refusal, and clients open others by
    themselves; the ledger counts those.
    dialects: what opens a client, in turn.
    """

    def __init__(
        self, urls: Sequence[str], clients: int = 12, begins_anew: bool = False, dialects: Dialects = DIALECTS
    ) -> None:
        self._begins_anew = begins_anew
        self._dialects = dialects
        self.urls = list(urls)
        self.ledger: Counter[str] = Counter()
        self.versions: Counter[int] = Counter()  # that answered
        self.worst_ms = 0.0
        self.told: list[str] = []  # what went wrong, the first of it
        self._ends = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._live, args=(who,), daemon=True) for who in range(clients)]

    @property
    def answered(self) -> int:
        return self.ledger["answered"]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        self._ends.set()
        for thread in self._threads:
            thread.join(60)
        assert not [thread for thread in self._threads if thread.is_alive()], "a client got no answer and no error"

    def until_answered(self, more: int, patience_s: float = 60.0) -> None:
        """Wait until so many more requests are answered."""
        goal, until = self.answered + more, time.monotonic() + patience_s
        while self.answered < goal:
            assert time.monotonic() < until, (
                f"{goal - self.answered} answers are missing: {dict(self.ledger)}, {self.told}"
            )
            time.sleep(0.02)

    def check(self, lost: int = 0) -> None:
        """The ledger is balanced: each request was answered or refused, and at most so many were lost with an edge."""
        booked = {name: self.ledger[name] for name in ("sent", "answered", "refused", "lost", "crossed", "state lost")}
        ended = booked["answered"] + booked["refused"] + booked["lost"]
        assert booked["sent"] == ended, (booked, self.told)
        assert booked["lost"] <= lost, (booked, self.told)
        assert (booked["crossed"], booked["state lost"]) == (0, 0), (booked, self.told)

    def _book(self, name: str, told: str = "") -> None:
        with self._lock:
            self.ledger[name] += 1
            if told and len(self.told) < 10:
                self.told.append(told)

    def _live(self, who: int) -> None:
        numbers = itertools.count(1)
        while not self._ends.is_set():
            url = self.urls[who % len(self.urls)]
            try:
                peer = self._dialects[who % len(self._dialects)](url)
            except (PolicyserveError, OSError, RuntimeError):
                time.sleep(0.05)  # an edge that is gone; the list of edges tells of it
                continue
            try:
                self._ask_until_lost(who, peer, numbers)
            finally:
                peer.close()

    def _ask_until_lost(self, who: int, peer: Peer, numbers: Iterator[int]) -> None:
        count, sessions = 0, peer.sessions()
        while not self._ends.is_set():
            number = next(numbers)
            self._book("sent")
            began_at = time.monotonic()
            try:
                answer = np.asarray(peer.ask({"obs": np.array([who, number], np.float64)})).reshape(-1)
            except ConnectionLost as error:
                self._book("lost", f"client {who}: {error}")
                return
            except (PolicyserveError, RuntimeError) as error:
                self._book("refused", f"client {who}, request {number}: {error}")
                continue
            took_ms = (time.monotonic() - began_at) * 1e3
            if peer.sessions() != sessions:  # vibe_rl's are closed by a refusal, and its client connects again
                count, sessions = 0, peer.sessions()
            self._note(who, number, count, answer, took_ms)
            count = int(answer[2])

    def _note(self, who: int, number: int, count: int, answer: Any, took_ms: float) -> None:
        self._book("answered")
        self.worst_ms = max(self.worst_ms, took_ms)
        with self._lock:
            self.versions[int(answer[3])] += 1
        if answer[:2].tolist() != [who, number]:
            self._book("crossed", f"client {who} asked {number} and got {answer}")
        elif self._begins_anew and count and answer[2] == 1:
            self._book("begun anew")
        elif answer[2] != count + 1:
            self._book("state lost", f"client {who}, request {number}: its policy counts {answer[2]} after {count}")


@contextmanager
def driving(
    urls: Sequence[str], clients: int = 12, begins_anew: bool = False, dialects: Dialects = DIALECTS
) -> Iterator[Fleet]:
    """A fleet at work, which has ended at the end."""
    fleet = Fleet(urls, clients, begins_anew, dialects)
    fleet.start()
    try:
        fleet.until_answered(5 * clients)
        yield fleet
    finally:
        fleet.end()
        print(f"\n{dict(fleet.ledger)}, versions {dict(fleet.versions)}, worst {fleet.worst_ms:.0f} ms")
