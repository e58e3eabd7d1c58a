"""API keys of the commands that ask a server: where they come from, and what keeps them out of sight."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from policyserve.client.address import first_key, naming_variables
from policyserve.core.errors import ConfigError
from policyserve.server.keys import VARIABLE

_AT_SIGNS = "@\ufe6b\uff20"
_URL_WITH_KEY = re.compile(rf"([A-Za-z][A-Za-z0-9+.-]*://)?[^\s'\"@]*:[^\s'\"]*[{_AT_SIGNS}]")
_KEY_FLAG = re.compile(r"--?(api[-_]?)?(key|token|password|secret)\b")


def key_from_environment() -> str | None:
    """The first key of POLICYSERVE_API_KEY, of those that a server would read there; None if it is not set.

    The variable holds `name:key,name2:key2`, or one key.
    """
    keys = os.environ.get(VARIABLE)
    return first_key(keys) if keys else None


def key_from_file(path: Path) -> str:
    """The first key of a file, of those that a server would read there; raises ConfigError, which quotes no key."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except OSError as error:
        raise ConfigError(f"--api-key-file: {path} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"--api-key-file: expected a text file, got {path}") from None
    found = [first_key(line) for line in lines if line and not line.startswith("#")]
    if not found or not found[0]:
        raise ConfigError(f"--api-key-file: expected `name: key` or `key` in a line, got no key in {path}")
    return found[0]


def without_keys(message: str) -> str:
    """A message without what stands before the @ of the URLs in it, also where they have no scheme."""
    has_sign = any(sign in message for sign in _AT_SIGNS)  # the pattern takes long over a long text without one
    return _URL_WITH_KEY.sub(r"\1…@", message) if has_sign else message


def naming_variable(message: str) -> str:
    """A client's error in the words of a command: it takes a key from the environment, where Python has `api_key=`."""
    return naming_variables(message, VARIABLE)


def complaint_about_a_key(argv: Sequence[str]) -> str | None:
    """What to say of a flag that no command has, and that would hold a key itself; None if there is no such flag."""
    flag = next((found.group() for word in argv if (found := _KEY_FLAG.match(word))), None)
    if flag is None:
        return None
    return f"there is no {flag}, since everybody on this machine could read the key (ps shows it): set {VARIABLE}"
