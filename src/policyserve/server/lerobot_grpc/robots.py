"""Who is on LeRobot's port, by gRPC's name of each connection. gRPC does not tell when one ends.

A client that lives has a call under way most of the time. A connection that ends cancels its calls: if no other comes
soon, its session ends, so that the policy forgets it and somebody else has its place. What it said of itself is kept
longer: gRPC connects again by itself, from another port, and the client goes on as if nothing had been.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import unquote

from policyserve.server.config import ServerConfig
from policyserve.server.lerobot_grpc.robot import Robot
from policyserve.server.lerobot_grpc.status import Refused
from policyserve.server.listener import plain_address
from policyserve.server.reception import Reception

CALLS_OF_ONE = 8  # at a time; a client has two
_CUT_S = 3.0  # from a cancelled call to the end of the session, where no other call comes


class Robots:
    """The clients of one port."""

    def __init__(self, reception: Reception, config: ServerConfig) -> None:
        self._reception = reception
        self._config = config
        self._by_name: dict[str, Robot] = {}

    @contextmanager
    def calling(self, name: str) -> Iterator[Robot]:
        """The client that calls, while its call is under way. name: gRPC's. Raises Refused where too many are."""
        robot = self._by_name.get(name) or self._enter(name)
        if robot.calls >= CALLS_OF_ONE:
            raise Refused(
                "RESOURCE_EXHAUSTED", f"{CALLS_OF_ONE} calls of this client are under way, the most it may have"
            )
        robot.calls += 1
        robot.was_cut = False
        _stop_timer(robot)
        try:
            yield robot
        except asyncio.CancelledError:
            robot.was_cut = True
            raise
        finally:
            robot.calls -= 1
            if not robot.calls:
                self._wait(name, robot)

    def end_all(self) -> None:
        """Drop all sessions, and release the calls that wait."""
        for robot in self._by_name.values():
            _stop_timer(robot)
            robot.abort()
        self._by_name.clear()

    def _enter(self, name: str) -> Robot:
        most = self._config.max_handshakes
        if len(self._by_name) >= most:
            idle = next((one for one, robot in self._by_name.items() if not robot.calls), None)
            if idle is None:
                raise Refused("RESOURCE_EXHAUSTED", f"{most} clients are connected, the most this server takes")
            self._forget(idle)
        robot = self._by_name[name] = Robot(*_place_of(name), self._reception, self._config)
        self._inherit(name, robot)
        return robot

    def _inherit(self, name: str, robot: Robot) -> None:
        """Let a client go on that has lost its connection, if it is clear which one it is."""
        lost = {
            other: one
            for other, one in self._by_name.items()
            if other != name and one.was_cut and not one.calls and one.address == robot.address and one.setup
        }
        if lost and len({one.setup for one in lost.values()}) == 1:
            first = next(iter(lost))
            robot.adopt(lost[first])
            self._forget(first)

    def _wait(self, name: str, robot: Robot) -> None:
        """It calls no more; whether it will is seen later."""
        later = asyncio.get_running_loop().call_later
        _stop_timer(robot)
        if self._by_name.get(name) is robot:
            whole_s = self._config.ping_timeout_s
            robot.timer = later(_CUT_S if robot.was_cut else whole_s, self._miss, name, robot, whole_s)

    def _miss(self, name: str, robot: Robot, whole_s: float) -> None:
        robot.end_session()
        robot.timer = asyncio.get_running_loop().call_later(whole_s, self._forget, name)

    def _forget(self, name: str) -> None:
        robot = self._by_name.pop(name)
        _stop_timer(robot)
        robot.end_session()


def _stop_timer(robot: Robot) -> None:
    if robot.timer is not None:
        robot.timer.cancel()
        robot.timer = None


def _place_of(name: str) -> tuple[str, str]:
    """The IP address, and the same with its port, of gRPC's `ipv4:127.0.0.1:4711` or `ipv6:%5B::1%5D:4711`."""
    place = unquote(name.partition(":")[2])
    address = place.rpartition(":")[0].strip("[]")
    return (plain_address(address), place) if name.startswith("ip") else ("", "local")
