"""Sessions, a balancer, edges with their lanes, Serve's choice of a replica, replicas with their batches, and faults.

It does what policyserve.ray does (docs/cluster.md): a lane sends one group after the other, each of all that waits for
it; a replica makes batches of the groups of all edges; a group comes back when its last request is answered. Left out:
the wait of a batch for sessions that are about to ask, deadlines, that Serve knows late how long queues are, and that
edges ask Serve more often for some seconds after a change.
"""

from __future__ import annotations

from random import Random

from policyserve.ray.asking import SELDOM_S

from .costs import Costs
from .events import Clock, Cores, Station
from .parts import Call, Edge, Lane, Replica, Request, Shape


class Fleet:
    """A run, which ends when all that was asked is answered or lost."""

    def __init__(self, shape: Shape, costs: Costs, seed: int = 0) -> None:
        self.clock = Clock()
        self.shape = shape
        self.costs = costs
        self.asked = self.answered = self.lost = self.sent_again = self.calls = 0
        self.took_s: list[float] = []  # in the order of the answers
        self.hit_s: list[float] = []  # of those that a fault delayed
        self.calm = 0  # answers before the first fault
        self.up, self.down, self.controller = Station(), Station(), Station()
        self.passes_s: list[float] = []  # from one look of the controller at its replicas to the next
        self.edges = [Edge(shape) for _ in range(shape.edges)]
        self.replicas = [Replica() for _ in range(shape.replicas)]
        self._random = Random(seed)
        self._cores = None if shape.cores is None else Cores(shape.cores)
        self._alive = list(self.replicas)
        self._homeless: list[Call] = []  # while no replica is alive
        self._edge_of = [self.edges[session % shape.edges] for session in range(shape.sessions)]
        self._open: dict[int, Request] = {}
        self._byte_s = shape.request_bytes * costs.edge_byte_s
        self._wire_s = 8e-9 * shape.request_bytes / costs.balancer_gbit
        self._back_wire_s = 8e-9 * costs.answer_bytes / costs.balancer_gbit

    def run(self) -> Fleet:
        """Let sessions ask for shape.seconds, and answer them all."""
        first = self.shape.every_s or 0.05
        for session in range(self.shape.sessions):
            self.clock.at(self._random.random() * first, self._ask, session)
        self.clock.at(0.0, self._look)
        for edge in self.edges:
            self._plan_status(edge, SELDOM_S * self._random.random())
        self.clock.run()
        return self

    def kill_replica(self, number: int, when: float) -> None:
        """A replica's process dies then; Serve starts another."""
        self.clock.at(when, self._kill_replica, self.replicas[number])

    def freeze_replica(self, number: int, when: float) -> None:
        """A replica falls silent then, until Serve replaces it."""
        self.clock.at(when, self._freeze_replica, self.replicas[number])

    def kill_edge(self, number: int, when: float) -> None:
        """An edge dies then; its sessions connect again, to others."""
        self.clock.at(when, self._kill_edge, self.edges[number])

    def _ask(self, session: int) -> None:
        now = self.clock.now
        if now >= self.shape.seconds:
            return
        self.asked += 1
        request = self._open[session] = Request(session, now)
        self.clock.at(self.up.take(now, self._wire_s) + self.costs.network_s, self._arrive, request)

    def _arrive(self, request: Request) -> None:
        edge = self._edge_of[request.session]
        takes_s = self.costs.edge_request_s / 2 + self._byte_s
        self.clock.at(self._work(edge.loop, takes_s), self._queue, request, edge)

    def _queue(self, request: Request, edge: Edge) -> None:
        if request.is_over:
            return
        lane = edge.least_loaded()
        lane.load += 1
        lane.waiting.append(request)
        if not lane.is_busy:
            self._send(lane)

    def _send(self, lane: Lane) -> None:
        call = Call(lane, lane.waiting)
        lane.waiting, lane.is_busy = [], True
        for request in call.requests:
            request.call = call
        self._try(call)

    def _try(self, call: Call) -> None:
        if not call.lane.edge.is_alive:
            return
        self.calls += 1
        call.tries += 1
        self.sent_again += call.tries > 1
        takes_s = self.costs.edge_call_s / 2
        self.clock.at(self._work(call.lane.edge.loop, takes_s) + self.costs.hop_s, self._choose, call)

    def _choose(self, call: Call) -> None:
        """As Serve does: of two replicas by chance, the one with fewer calls."""
        if not self._alive:
            self._homeless.append(call)
            _note_hit(call)
            return
        one, other = self._random.choice(self._alive), self._random.choice(self._alive)
        replica = call.replica = one if len(one.calls) <= len(other.calls) else other
        replica.calls[call] = None
        if replica.is_frozen:
            self.clock.at(self.clock.now + self.costs.call_timeout_s, self._give_up, call, replica, call.tries)
            return
        size = len(call.requests)
        takes_s = self.costs.replica_call_s / 2 + size * self._replica_request_s
        self.clock.at(self._work(replica.loop, takes_s), self._come, call, replica, replica.life)

    @property
    def _replica_request_s(self) -> float:
        return self.costs.replica_request_s / 2 + self.shape.request_bytes * self.costs.replica_byte_s

    def _come(self, call: Call, replica: Replica, life: int) -> None:
        if replica.life != life or replica.is_frozen:
            return
        replica.waiting.extend(call.requests)
        if not replica.is_working:
            self._begin_batch(replica)

    def _begin_batch(self, replica: Replica) -> None:
        size = min(len(replica.waiting), self.shape.max_batch)
        batch = [replica.waiting.popleft() for _ in range(size)]
        for request in batch:
            assert request.call is not None
            if request.call.began_at is None:
                request.call.began_at = self.clock.now
        replica.is_working = True
        replica.batches += 1
        self.clock.at(self.clock.now + self.shape.batch_s, self._end_batch, replica, batch, replica.life)

    def _end_batch(self, replica: Replica, batch: list[Request], life: int) -> None:
        if replica.life != life or replica.is_frozen:
            return
        for request in batch:
            call = request.call
            assert call is not None
            call.left -= 1
            if not call.left:
                del replica.calls[call]
                assert call.began_at is not None
                call.lane.edge.note_work(self.clock.now - call.began_at)
                takes_s = self.costs.replica_call_s / 2 + len(call.requests) * self.costs.replica_request_s / 2
                self.clock.at(self._work(replica.loop, takes_s) + self.costs.hop_s, self._return, call)
        replica.is_working = False
        if replica.waiting:
            self._begin_batch(replica)

    def _return(self, call: Call) -> None:
        edge = call.lane.edge
        if edge.is_alive:
            takes_s = self.costs.edge_call_s / 2 + len(call.requests) * self.costs.edge_request_s / 2
            self.clock.at(self._work(edge.loop, takes_s), self._tell, call)

    def _tell(self, call: Call) -> None:
        lane = call.lane
        if not lane.edge.is_alive:
            return
        lane.is_busy = False
        lane.load -= len(call.requests)
        if call.is_hit:  # whoever waited behind it as well
            for request in lane.waiting:
                request.is_hit = True
        if lane.waiting:
            self._send(lane)
        for request in call.requests:
            done = self._work(None, self.costs.client_s)
            done = self.down.take(done, self._back_wire_s) + self.costs.network_s
            self.clock.at(done, self._answer, request)

    def _answer(self, request: Request) -> None:
        if request.is_over:
            return
        now = self.clock.now
        request.is_over = True
        self.answered += 1
        self.took_s.append(now - request.asked_at)
        if request.is_hit:
            self.hit_s.append(now - request.asked_at)
        self.clock.at(max(now, request.asked_at + self.shape.every_s), self._ask, request.session)

    def _work(self, station: Station | None, takes_s: float) -> float:
        if self._cores is not None:
            return self._cores.take(self.clock.now, Station() if station is None else station, takes_s)
        return self.clock.now if station is None else station.take(self.clock.now, takes_s)

    def _look(self, before: float = 0.0) -> None:
        """One pass of the controller over its replicas; the next comes a pause later."""
        now, costs = self.clock.now, self.costs
        self.passes_s.append(now - before)
        if now < self.shape.seconds:
            takes_s = costs.controller_pass_s + costs.controller_replica_s * len(self.replicas)
            self.clock.at(self.controller.take(now, takes_s) + costs.controller_pause_s, self._look, now)

    def _status(self, edge: Edge) -> None:
        """An edge asks the controller how many replicas there are, as seldom as where nothing changes."""
        now, costs = self.clock.now, self.costs
        if edge.is_alive:
            done = self.controller.take(now, costs.status_s + costs.status_replica_s * len(self.replicas))
            self._plan_status(edge, done + SELDOM_S * self._random.uniform(0.75, 1.25))

    def _plan_status(self, edge: Edge, when: float) -> None:
        if when < self.shape.seconds:
            self.clock.at(when, self._status, edge)

    def _kill_replica(self, replica: Replica) -> None:
        self.calm = self.calm or self.answered
        self._alive.remove(replica)
        self._end_life(replica, self.costs.noticed_s)
        self.clock.at(self.clock.now + self.costs.restart_s + self.costs.load_s, self._start, replica)

    def _freeze_replica(self, replica: Replica) -> None:
        self.calm = self.calm or self.answered
        now, costs = self.clock.now, self.costs
        replica.is_frozen = True
        for call in replica.calls:
            self.clock.at(now + costs.call_timeout_s, self._give_up, call, replica, call.tries)
        self.clock.at(now + costs.silent_s, self._kill_replica, replica)

    def _end_life(self, replica: Replica, noticed_s: float) -> None:
        calls, replica.calls = replica.calls, {}
        replica.life += 1
        replica.is_frozen = replica.is_working = False
        replica.waiting.clear()
        for call in calls:
            self._again(call, noticed_s)

    def _give_up(self, call: Call, replica: Replica, tries: int) -> None:
        if call.tries == tries and call in replica.calls:
            del replica.calls[call]
            self._again(call, 0.0)

    def _again(self, call: Call, after_s: float) -> None:
        call.left, call.began_at = len(call.requests), None
        _note_hit(call)
        self.clock.at(self.clock.now + after_s, self._try, call)

    def _start(self, replica: Replica) -> None:
        self._alive.append(replica)
        homeless, self._homeless = self._homeless, []
        for call in homeless:
            self._choose(call)

    def _kill_edge(self, edge: Edge) -> None:
        self.calm = self.calm or self.answered
        edge.is_alive = False
        others = [one for one in self.edges if one.is_alive]
        assert others, "the last edge is not killed"
        for session, its in enumerate(self._edge_of):
            if its is edge:
                self._edge_of[session] = self._random.choice(others)
                request = self._open.get(session)
                if request is not None and not request.is_over:
                    request.is_over = True
                    self.lost += 1
                    self.clock.at(self.clock.now + self.costs.reconnect_s, self._ask, session)


def _note_hit(call: Call) -> None:
    call.is_hit = True
    for request in call.requests:
        request.is_hit = True
