"""Opens the listener, with the certificate and the API keys of the config, and reads both again on a signal."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from policyserve.core.errors import ConfigError
from policyserve.core.events import Event
from policyserve.core.log import Log
from policyserve.core.throttle import Throttle
from policyserve.server import keys, tls
from policyserve.server.admission import Admission
from policyserve.server.config import Listen, ServerConfig
from policyserve.server.listener import Address, Listener, listen
from policyserve.server.proxied import ProxiedConnection
from policyserve.server.proxy_header import Trusted

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from policyserve.server.connection import Connection
    from policyserve.server.keys import ApiKeys
    from policyserve.server.reception import Reception

log = Log(__name__)

_RELOADED, _NOT_RELOADED, _WARNED = Event("files_reloaded"), Event("files_not_reloaded"), Event("access_warned")


class Entrance:
    """What its configuration says of the way in; keys and certificate may be read again while it is open."""

    def __init__(self, config: ServerConfig, admission: Admission) -> None:
        self._config = config
        # From now on, since a policy may change the working directory before the files are read again.
        self._key_file, self._cert_file, self._cert_key_file = (
            None if path is None else os.path.abspath(path)
            for path in (config.api_key_file, config.tls_cert, config.tls_key)
        )
        self._admission = admission
        self._listener: Listener | None = None
        self._tls: ssl.SSLContext | None = None
        self._proxies = Trusted(config.trusted_proxies)
        self._tls_failures = Throttle(tls.OF_ONE_FAILURE)

    @property
    def address(self) -> Address:
        """Where it listens; raises ConfigError if it does not."""
        if self._listener is None:
            raise ConfigError("the server does not listen: start it first")
        return self._listener.address

    async def open(self, make_connection: Callable[[], asyncio.BaseProtocol]) -> None:
        """Read keys and certificate, and listen; raises ConfigError."""
        self._admission.keys = self._read_keys()
        if self._cert_file is not None and self._cert_key_file is not None:
            self._tls = tls.load(self._cert_file, self._cert_key_file)
        self._listener = await listen(self._config, make_connection)
        self._warn_of_exposure(self._listener)
        self._warn_of_unused(self._listener)

    def close(self) -> None:
        """Take no more connections."""
        assert self._listener is not None
        self._listener.close()

    def protocol_for(self, connection: Connection, reception: Reception) -> asyncio.BaseProtocol:
        """What a new peer meets first: a balancer's header is read, then the TLS handshake, where there is one."""
        inside: Connection | tls.TlsConnection = connection
        timeout_s = self._config.handshake_timeout_s
        if self._tls is not None:
            inside = tls.TlsConnection(reception, connection, self._tls, timeout_s, self._tls_failures)
        return ProxiedConnection(reception, inside, self._proxies, timeout_s) if self._config.proxy_protocol else inside

    def reload(self) -> None:
        """Read the files again, for connections to come; what is wrong is logged, the old stays."""
        if self._key_file is not None:
            self._reload_keys(self._key_file)
        if self._tls is not None and self._cert_file is not None and self._cert_key_file is not None:
            self._reload_certificate(self._tls, self._cert_file, self._cert_key_file)
        if self._key_file is None and self._tls is None:
            known = f"the keys come from {keys.VARIABLE}" if self._admission.keys else "there are no API keys"
            log.info("nothing to read again: %s, and there is no certificate", known, event=_RELOADED)

    def _reload_keys(self, path: str) -> None:
        try:
            self._admission.keys = self._read_keys()
            log.info("%s; loaded from %s", self._admission.keys, path, event=_RELOADED)
        except ConfigError as error:
            log.error("the API keys stay as they were: %s", error, event=_NOT_RELOADED)

    def _reload_certificate(self, context: ssl.SSLContext, cert: str, key: str) -> None:
        try:
            tls.reload(context, cert, key)
            log.info("certificate %s loaded", cert, event=_RELOADED)
        except ConfigError as error:
            log.error("the certificate stays as it was: %s", error, event=_NOT_RELOADED)

    def _read_keys(self) -> ApiKeys:
        return keys.load(self._key_file, os.environ.get(keys.VARIABLE))

    def _warn_of_exposure(self, listener: Listener) -> None:
        if not listener.is_exposed():
            return
        if not self._admission.keys:
            what = "anyone who reaches %s may use this policy: set --api-key-file, or --host 127.0.0.1; see SECURITY.md"
            log.warning(what, listener.address.url, event=_WARNED)
        elif self._tls is None:
            what = "API keys cross the network in the clear: set --tls-cert and --tls-key; see SECURITY.md"
            log.warning(what, event=_WARNED)

    def _warn_of_unused(self, listener: Listener) -> None:
        """A Unix socket has no host and no port."""
        given = [name for name in ("host", "port") if getattr(self._config, name) != getattr(Listen, name)]
        if self._config.uds is not None and given:
            told = " and ".join(f"--{name} {getattr(self._config, name)}" for name in given)
            what = "%s: not used, since the server listens on %s alone (--uds)"
            log.warning(what, told, listener.address.host, event=Event("flag_unused"))
