"""The ports beside the server's own, of clients whose protocol needs one: LeRobot's and GR00T's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

from policyserve.core.errors import ConfigError
from policyserve.server.config import ServerConfig
from policyserve.server.gr00t.port import Gr00tPort
from policyserve.server.lerobot_grpc.port import LeRobotPort
from policyserve.server.reception import Reception


class OtherPorts:
    """Those that the config asks for; of one that it does not, None. ready: waits for the policy.

    gr00t_for: those of one of several policies each, by its name. Raises MissingDependency without grpcio or pyzmq,
    where one of them is needed, and ConfigError for a port of a policy that there is not.
    """

    def __init__(self, config: ServerConfig, reception: Reception, ready: Callable[[], Awaitable[object]]) -> None:
        self.lerobot = LeRobotPort(config, reception, ready) if config.lerobot is not None else None
        self.gr00t = Gr00tPort(config, reception, config.gr00t) if config.gr00t is not None else None
        _check_names(config.gr00t_ports, reception)
        self.gr00t_for = {name: Gr00tPort(config, reception, port, name) for name, port in config.gr00t_ports.items()}

    async def open(self) -> None:
        """Take the ports; raises ConfigError. LeRobot's clients are answered after start()."""
        if self.lerobot is not None:
            self.lerobot.bind()
        for port in self._of_gr00t:
            await port.open()

    async def start(self) -> None:
        """Answer LeRobot's clients too from now on: the policy is being loaded, and they can wait for it."""
        if self.lerobot is not None:
            await self.lerobot.start()

    async def close(self) -> None:
        """End all connections there, also where open() has failed."""
        if self.lerobot is not None:
            await self.lerobot.close()
        for port in self._of_gr00t:
            await port.close()

    @property
    def _of_gr00t(self) -> list[Gr00tPort]:
        return [*([] if self.gr00t is None else [self.gr00t]), *self.gr00t_for.values()]


def _check_names(names: Iterable[str], reception: Reception) -> None:
    """Raise ConfigError for a name that is neither a policy's nor a route's."""
    catalogue = reception.catalogue
    for name in names:
        if catalogue.is_plain:
            raise ConfigError(f"gr00t_for: {name}: the only policy here has no name; its port is --gr00t")
        try:
            if f"/{name}" not in catalogue.routes:
                catalogue.named(name)
        except ConfigError as error:
            raise ConfigError(f"gr00t_for: {error}") from error
