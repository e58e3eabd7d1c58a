"""Opens the listener, with the certificate and the API keys of the config, and reads both again on a signal."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from policyserve.core.errors import ConfigError
from policyserve.core.log import Log
from policyserve.server import keys, tls
from policyserve.server.admission import Admission
from policyserve.server.config import ServerConfig
from policyserve.server.listener import Address, Listener, listen

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from policyserve.server.connection import Connection
    from policyserve.server.keys import ApiKeys
    from policyserve.server.reception import Reception

log = Log(__name__)


class Entrance:
    """What its configuration says of the way in; keys and certificate may be read again while it is open."""

    def __init__(self, config: ServerConfig, admission: Admission) -> None:
        self._config = config
        self._admission = admission
        self._listener: Listener | None = None
        self._tls: ssl.SSLContext | None = None

    @property
    def address(self) -> Address:
        """Where it listens; raises ConfigError if it does not."""
        if self._listener is None:
            raise ConfigError("the server does not listen: start it first")
        return self._listener.address

    @property
    def has_files(self) -> bool:
        """Whether there is something to read again."""
        return self._config.api_key_file is not None or self._config.tls_cert is not None

    async def open(self, make_connection: Callable[[], asyncio.BaseProtocol]) -> None:
        """Read keys and certificate, and listen; raises ConfigError."""
        self._admission.keys = self._read_keys()
        if self._config.tls_cert is not None and self._config.tls_key is not None:
            self._tls = tls.load(self._config.tls_cert, self._config.tls_key)
        self._listener = await listen(self._config, make_connection)
        self._warn_of_exposure(self._listener)

    def close(self) -> None:
        """Take no more connections."""
        assert self._listener is not None
        self._listener.close()

    def protocol_for(self, connection: Connection, reception: Reception) -> asyncio.BaseProtocol:
        """What a new peer meets first: the connection itself, or the TLS handshake before it."""
        if self._tls is None:
            return connection
        return tls.TlsConnection(reception, connection, self._tls, self._config.handshake_timeout_s)

    def reload(self) -> None:
        """Read the files again, for connections to come; what is wrong is logged, the old stays."""
        try:
            self._admission.keys = self._read_keys()
            log.info("%s loaded", self._admission.keys)
        except ConfigError as error:
            log.error("the API keys stay as they were: %s", error)
        if self._tls is None or self._config.tls_cert is None or self._config.tls_key is None:
            return
        try:
            tls.reload(self._tls, self._config.tls_cert, self._config.tls_key)
            log.info("certificate %s loaded", self._config.tls_cert)
        except ConfigError as error:
            log.error("the certificate stays as it was: %s", error)

    def _read_keys(self) -> ApiKeys:
        return keys.load(self._config.api_key_file, os.environ.get(keys.VARIABLE))

    def _warn_of_exposure(self, listener: Listener) -> None:
        if not listener.is_exposed():
            return
        if not self._admission.keys:
            what = "anyone who reaches %s may use this policy: set --api-key-file, or --host 127.0.0.1; see SECURITY.md"
            log.warning(what, listener.address.url)
        elif self._tls is None:
            log.warning("API keys cross the network in the clear: set --tls-cert and --tls-key; see SECURITY.md")
