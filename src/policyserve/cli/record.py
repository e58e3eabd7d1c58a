"""`policyserve record`: stand between any client and any policy server, and record both."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from policyserve.cli.arguments.parsing import parse
from policyserve.cli.terminal import ARGUMENT_ERROR, FAILURE, complain, warn_of_keys
from policyserve.core.errors import ConfigError, MissingDependency, PolicyserveError
from policyserve.logs.start import LogSettings, start_log
from policyserve.recordings.plan import Plan
from policyserve.recordings.proxy import Proxy
from policyserve.recordings.recorder import Recorder
from policyserve.server.config import Recording

PROG = "policyserve record"


@dataclass(frozen=True)
class RecordFlags:
    """Stand between any client and any policy server, ours or another of its family, and record both.

    Messages pass as they are. Clients connect to this command's URL in place of the server's, and keep their keys.
    """

    url: Annotated[Positional[str], arg(metavar="URL")] = field(repr=False)
    """The server: ws://host:port, wss://host:port or ws+unix:///path/to/socket."""
    out: Annotated[str, arg(metavar="DIR")]
    """The directory for .mcap files, with pictures and prompts."""
    host: str = "127.0.0.1"
    """The IP address or name to listen on; 0.0.0.0: all of IPv4."""
    port: int = 8001
    """The TCP port to listen on; 0: any free one."""
    max_mib: float = 1024.0
    """The most of one file; then another one is begun."""
    queue_mib: float = 256.0
    """The most that waits for the disk; requests beyond it are not recorded."""
    views: bool = True
    """Beside the messages, camera pictures and named numbers, for Rerun and Foxglove."""

    def __post_init__(self) -> None:
        """Raise ConfigError for a port that is none."""
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"--port: expected 0 … 65535, got {self.port}")

    @property
    def plan(self) -> Plan:
        """What the recorder needs to know; raises ConfigError for a flag that is out of its range."""
        try:
            settings = Recording(
                record=self.out, record_max_mib=self.max_mib, record_queue_mib=self.queue_mib, record_views=self.views
            )
        except ConfigError as error:
            name, _, told = str(error).partition(":")
            flag = "out" if name == "record" else name.removeprefix("record_").replace("_", "-")
            raise ConfigError(f"--{flag}:{told}") from error
        assert settings.recording_plan is not None, "there is a directory"
        return settings.recording_plan


def main(argv: Sequence[str]) -> None:
    """Record until a signal comes; exits with 1 if it cannot listen, with 2 for wrong arguments."""
    flags = parse(RecordFlags, PROG, argv)
    start_log(LogSettings())
    try:
        proxy = Proxy(flags.url, Recorder(flags.plan), flags.host, flags.port)
    except MissingDependency as error:
        complain(str(error), FAILURE)
    except ConfigError as error:
        complain(str(error).replace("record:", "--out:", 1), ARGUMENT_ERROR)
    warn_of_keys(flags.url)
    try:
        asyncio.run(_serve(proxy, Path(flags.out)))
    except PolicyserveError as error:
        complain(str(error), FAILURE)


async def _serve(proxy: Proxy, directory: Path) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(NotImplementedError):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with proxy.serving() as url:
        print(f"url      {url}", f"server   {proxy.server}", f"records  {directory}", sep="\n")
        print("ready; Ctrl-C stops it", flush=True)
        await stop.wait()
    left_out = proxy.recorder.left_out
    print(f"stopped after {proxy.sessions} session{'' if proxy.sessions == 1 else 's'}", end="")
    print(f", {left_out} requests left out" if left_out else "", flush=True)
