"""The server's settings as flags: which are usual, in which group the others stand, and what help says of each."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields
from functools import cache
from typing import Any

from policyserve.core import limits
from policyserve.server import config
from policyserve.server.config import (
    Access,
    Batching,
    Dialects,
    Limits,
    Listen,
    Placement,
    Recording,
    Reporting,
    Timeouts,
)

# What `--help` lists; `--help-all` lists all.
USUAL = ("host", "port", "uds", "tls_cert", "tls_key", "api_key_file", "isolate", "replicas", "record")
PATHS = ("uds", "tls_cert", "tls_key", "record")  # besides those whose names say it
GROUPS: Mapping[str, type[Any]] = {
    "listen": Listen, "access": Access, "dialects": Dialects, "placement": Placement, "batching": Batching,
    "limits": Limits, "timeouts": Timeouts, "reporting": Reporting, "recording": Recording,
}  # fmt: skip
_COMMENT = re.compile(r"^    (\w+): .+?  # (.+)$", re.MULTILINE)


@cache
def groups() -> Mapping[str, str]:
    """The group of each field, group by group."""
    return {one.name: name for name, group in GROUPS.items() for one in fields(group)}


@cache
def help_lines() -> Mapping[str, str]:
    """What --help says of each field: the comment behind it; nothing where only compiled files are installed."""
    with suppress(OSError):
        sources = [inspect.getsource(module) for module in (limits, config)]
        return {name: comment for source in sources for name, comment in _COMMENT.findall(source)}
    return {}
