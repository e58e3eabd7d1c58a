"""A connection that a load balancer passes on: its PROXY header is read before anything else."""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import Protocol, cast

from policyserve.core.events import Event
from policyserve.server.listener import peer_of, take_socket, with_port
from policyserve.server.peers import Peer
from policyserve.server.proxy_header import BadHeader, HeaderReader, Trusted
from policyserve.server.reception import Reception


class Inside(Peer, Protocol):
    """What the connection goes to behind its header."""

    def stand_for(self, address: str, peer: str) -> None:
        """Count and log it as this peer, and not as the one whose socket it is."""
        ...


class ProxiedConnection(asyncio.Protocol):
    """Reads the header of a trusted balancer, and then hands the connection to `inside`, as TlsConnection does.

    A peer that is not trusted is taken for a client, whose header nobody believes: it is refused as no HTTP request.
    The socket is read by this class and not by asyncio, which would read what stands behind the header too.
    """

    def __init__(self, reception: Reception, inside: Inside, trusted: Trusted, timeout_s: float) -> None:
        self.number = inside.number
        self.address, self.peer = "", ""
        self._reception = reception
        self._inside = inside
        self._trusted = trusted
        self._timeout_s = timeout_s
        self._reading: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.address, self.peer = peer_of(transport)
        connected = take_socket(transport)
        self._reading = asyncio.get_running_loop().create_task(self._read(connected))
        self._reception.enter(self)

    def abort(self) -> None:
        """Stop waiting for the header."""
        if self._reading is not None:
            self._reading.cancel()

    async def _read(self, connected: socket.socket) -> None:
        loop, is_handed_over = asyncio.get_running_loop(), False
        try:
            if self._trusted.has(self.address):
                reader = await asyncio.wait_for(_header_of(connected), self._timeout_s)
                if reader.source.host:
                    self._inside.stand_for(reader.source.host, with_port(reader.source.host, reader.source.port))
            is_handed_over = True
            await loop.connect_accepted_socket(lambda: cast(asyncio.BaseProtocol, self._inside), connected)
        except asyncio.TimeoutError:
            self._refuse(f"no PROXY header within {self._timeout_s:g} s")
        except (BadHeader, OSError) as error:
            self._refuse(str(error))
        finally:
            if not is_handed_over:
                connected.close()

    def _refuse(self, reason: str) -> None:
        self._reception.leave(self)
        text, event = "refused peer=%s: %s (--proxy-protocol)", Event("connection_refused", peer=self.peer)
        self._reception.note(self.address, logging.WARNING, "proxy", text, self.peer, reason, event=event)
        self._reception.on_refused(self.peer, "proxy", reason)


async def _header_of(connected: socket.socket) -> HeaderReader:
    reader, loop = HeaderReader(), asyncio.get_running_loop()
    while reader.wanted:
        data = await loop.sock_recv(connected, reader.wanted)
        if not data:
            raise BadHeader("expected a PROXY header, got the connection's end within it")
        reader.feed(data)
    return reader
