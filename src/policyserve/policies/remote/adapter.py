"""Another server's policy on the command line: `remote:ws://host:port`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial

from policyserve.client.address import has_key
from policyserve.core.errors import ConfigError
from policyserve.core.policy import Policy
from policyserve.core.recipe import OnStage, Recipe
from policyserve.core.settings import Settings
from policyserve.policies.registry import Source, check_given
from policyserve.policies.remote.opening import Remote, spec_from
from policyserve.policies.remote.policy import RemotePolicy

_KEYS_OF_THIS_SERVER = "POLICYSERVE_API_KEY"


@dataclass(frozen=True, kw_only=True)
class RemoteFlags(Settings):
    """Flags of another server's policy."""

    remote_dialect: str | None = None
    """What that server speaks: openpi, wall_x or vibe_rl; None: what the URL's path says, else openpi."""
    remote_key_env: str | None = None
    """The variable that holds the key which that server wants; None: no key is sent."""
    remote_timeout_s: float = 30.0
    """How long that server may take for an answer, connecting included."""
    remote_sessions: int = 64
    """The most sessions that have a connection to that server at a time; one more is refused as overloaded."""

    def check(self) -> None:
        """Raise ConfigError for a flag that is out of its range."""
        super().check()
        check_given(remote_dialect=self.remote_dialect, remote_key_env=self.remote_key_env)
        self.require("remote_timeout_s", 0 < self.remote_timeout_s <= 1e6, "more than 0 seconds")
        self.require("remote_sessions", self.remote_sessions >= 1, "1 or more")


@dataclass(frozen=True)
class RemoteAdapter:
    """Serves the policy of a server that runs already, whose clients then have this one's dialects, keys and limits."""

    target: str
    help = "the policy of another server: openpi's, Wall-X's, vibe_rl's or policyserve's"
    rest = "URL"
    flags = RemoteFlags

    def defaults(self, given: RemoteFlags | None) -> RemoteFlags:
        return RemoteFlags()

    def source(self, flags: RemoteFlags) -> Source:
        url = self.target.partition(":")[2]
        if has_key(url):
            raise ConfigError(
                "remote: a key does not go into the URL, since everybody on this machine could read it (ps shows it): "
                "--remote-key-env NAME"
            )
        shown = Remote(url, flags.remote_dialect, flags.remote_timeout_s).shown
        recipe = Recipe(f"{__name__}:load", {"url": url, "flags": flags})
        return Source(f"the policy of {shown}", f"server {shown}", recipe, check=partial(_check, url, flags))


def load(url: str, flags: RemoteFlags, on_stage: OnStage) -> Policy:
    """The policy of another server; raises ConfigError if it cannot be reached."""
    remote = _remote(url, flags)
    on_stage("asking the remote server")
    spec = spec_from(remote.greeting(remote.patience_s), remote.shown)
    return RemotePolicy(remote, spec, flags.remote_sessions)


def _check(url: str, flags: RemoteFlags) -> None:
    _remote(url, flags).greeting(retry_for_s=0.0)


def _remote(url: str, flags: RemoteFlags) -> Remote:
    return Remote(url, flags.remote_dialect, flags.remote_timeout_s, _key(flags.remote_key_env))


def _key(variable: str | None) -> str | None:
    """The key that a variable holds; its value stands in no error."""
    if variable is None:
        return None
    if variable == _KEYS_OF_THIS_SERVER:
        raise ConfigError(f"--remote-key-env: {variable} holds the keys of this server's own clients: name another")
    key = os.environ.get(variable, "").strip()
    if not key:
        raise ConfigError(f"--remote-key-env: the variable {variable!r} is not set: export it before this command")
    return key
