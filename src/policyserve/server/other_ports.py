"""The ports beside the server's own, of clients whose protocol needs one: LeRobot's and GR00T's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from policyserve.server.config import ServerConfig
from policyserve.server.gr00t.port import Gr00tPort
from policyserve.server.lerobot_grpc.port import LeRobotPort
from policyserve.server.reception import Reception


class OtherPorts:
    """Those that the config asks for; of one that it does not, None. ready: waits for the policy.

    Raises MissingDependency without grpcio or pyzmq, where one of them is needed.
    """

    def __init__(self, config: ServerConfig, reception: Reception, ready: Callable[[], Awaitable[object]]) -> None:
        self.lerobot = LeRobotPort(config, reception, ready) if config.lerobot is not None else None
        self.gr00t = Gr00tPort(config, reception) if config.gr00t is not None else None

    async def open(self) -> None:
        """Take the ports; raises ConfigError. LeRobot's clients are answered after start()."""
        if self.lerobot is not None:
            self.lerobot.bind()
        if self.gr00t is not None:
            await self.gr00t.open()

    async def start(self) -> None:
        """Answer LeRobot's clients too from now on: the policy is being loaded, and they can wait for it."""
        if self.lerobot is not None:
            await self.lerobot.start()

    async def close(self) -> None:
        """End all connections there, also where open() has failed."""
        if self.lerobot is not None:
            await self.lerobot.close()
        if self.gr00t is not None:
            await self.gr00t.close()
