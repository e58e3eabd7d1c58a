"""Where another server is and how it is asked; what its greeting says its policy takes and gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from policyserve.client.aio import AsyncClient
from policyserve.client.options import ClientOptions
from policyserve.client.sync import Client
from policyserve.core.errors import ConfigError, PolicyserveError, WireError
from policyserve.core.examples import spec_of
from policyserve.core.log import Log
from policyserve.core.policy import open_spec
from policyserve.core.spec import PolicySpec
from policyserve.policies.remote.told_errors import in_words_of_flags

log = Log(__name__)

_OURS = ("spec", "policyserve")  # what each greeting of this server has of its own
_RETRY_S = 10.0


@dataclass(frozen=True)
class Remote:
    """Another server. Raises ConfigError for what is no URL, no dialect or no key; none is shown by an error or a repr.

    dialect: None: the one of the URL's path, else openpi's. timeout_s: for a request, connecting included. key: sent to
    that server with each connection; None: none is sent.
    """

    url: str = field(repr=False)
    dialect: str | None = None
    timeout_s: float = 30.0
    key: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        _ = self._options

    @property
    def shown(self) -> str:
        """The URL as everybody may see it."""
        return self._options.address.url

    @property
    def spoken(self) -> str:
        """The name of the dialect."""
        return self._options.spoken

    @property
    def patience_s(self) -> float:
        """How long to try again where nobody answers: less than a request may take, so that the error says why."""
        return min(_RETRY_S, self.timeout_s / 2)

    def client(self) -> AsyncClient:
        """A client of one session; it connects when it is asked. A server that restarts is waited for."""
        return AsyncClient(
            self.url, dialect=self.dialect, api_key=self.key, timeout_s=self.timeout_s, retry_for_s=self.patience_s
        )

    def greeting(self, retry_for_s: float) -> Mapping[str, Any]:
        """What the server says to a client that connects, which then leaves; empty where its dialect has no greeting.

        Raises ConfigError that says why there is no such server, and what to do.
        """
        client = Client(
            self.url, dialect=self.dialect, api_key=self.key, timeout_s=self.timeout_s, retry_for_s=retry_for_s
        )
        try:
            with client:
                return client.metadata
        except ConfigError:
            raise
        except PolicyserveError as error:
            cure = "start that server or mend the URL; policyserve doctor URL says what is wrong"
            raise ConfigError(f"remote: {in_words_of_flags(str(error))}; {cure}") from error

    @property
    def _options(self) -> ClientOptions:
        return ClientOptions(self.url, self.dialect, self.key, timeout_s=self.timeout_s)


def spec_from(greeting: Mapping[str, Any], name: str) -> PolicySpec:
    """The spec of a policyserve server's greeting; of any other server's an open one. The rest of it is metadata."""
    metadata = {key: value for key, value in greeting.items() if key not in _OURS}
    if "policyserve" not in greeting or not isinstance(greeting.get("spec"), Mapping):
        return open_spec(name, metadata)
    try:
        return replace(spec_of(greeting["spec"], name), metadata=metadata)
    except WireError as error:
        log.warning("%s describes its policy in a way that is not known here (%s): anything is passed on", name, error)
        return open_spec(name, metadata)
