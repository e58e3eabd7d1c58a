"""The server's settings as flags: `--help` shows them in panels, and first the ten that people need first."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import field, fields, make_dataclass
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

from policyserve.core import limits
from policyserve.server import config
from policyserve.server.config import (
    Access,
    Batching,
    Dialects,
    Limits,
    Listen,
    Placement,
    Reporting,
    ServerConfig,
    Timeouts,
)

if TYPE_CHECKING:
    from tyro.constructors import ConstructorRegistry, StructConstructorSpec, StructTypeInfo

COMMON = (
    "host", "port", "uds", "api_key_file", "tls_cert", "tls_key", "isolate", "replicas", "devices", "max_wait_ms",
)  # fmt: skip
GROUPS: Mapping[str, type[Any]] = {
    "listen": Listen, "access": Access, "dialect": Dialects, "placement": Placement, "batching": Batching,
    "limit": Limits, "timeout": Timeouts, "report": Reporting,
}  # fmt: skip
_COMMENT = re.compile(r"^    (\w+): .+?  # (.+)$", re.MULTILINE)


def registry() -> ConstructorRegistry:
    """What tyro has to know to read a ServerConfig: active in a `with` block around tyro.cli()."""
    from tyro.constructors import ConstructorRegistry

    made = ConstructorRegistry()
    made.struct_rule(_server_rule)
    return made


@cache
def help_lines() -> Mapping[str, str]:
    """What --help says of each field: the comment behind it; nothing where only compiled files are installed."""
    with suppress(OSError):
        sources = [inspect.getsource(module) for module in (limits, config)]
        return {name: comment for source in sources for name, comment in _COMMENT.findall(source)}
    return {}


def panels() -> Mapping[str, tuple[str, ...]]:
    """The fields of each panel, each field in one: those that people need first, then group by group."""
    shown: dict[str, tuple[str, ...]] = {"common": COMMON}
    for name, group in GROUPS.items():
        rest = tuple(one.name for one in fields(group) if one.name not in COMMON)
        if rest:
            shown[name] = rest
    return shown


def _server_rule(info: StructTypeInfo) -> StructConstructorSpec | None:
    """Tyro's view of a ServerConfig: one structure for each panel, without a prefix to its flags."""
    from tyro.conf import OmitArgPrefixes
    from tyro.constructors import StructConstructorSpec, StructFieldSpec

    if info.type is not ServerConfig:
        return None
    default = info.default if isinstance(info.default, ServerConfig) else ServerConfig()
    made = []
    for name, names in panels().items():
        panel = _panel(name, names)
        shown = panel(**{one: getattr(default, one) for one in names})
        unprefixed: Any = Annotated[panel, OmitArgPrefixes]
        made.append(StructFieldSpec(name=name, type=unprefixed, default=shown))
    return StructConstructorSpec(instantiate=_config_of, fields=tuple(made))


@cache  # tyro asks several times
def _panel(name: str, names: tuple[str, ...]) -> type[Any]:
    """A dataclass of these fields."""
    from tyro.conf import arg

    hints, told = get_type_hints(ServerConfig), help_lines()
    made = [
        (one, Annotated[hints[one], arg(help=told.get(one, ""))], field(default=getattr(ServerConfig, one)))
        for one in names
    ]
    panel = make_dataclass(name, made, frozen=True)
    panel.__doc__ = GROUPS[name].__doc__ if name in GROUPS else "What people need first."
    return panel


def _config_of(**shown: Any) -> ServerConfig:
    return ServerConfig(**{one.name: getattr(panel, one.name) for panel in shown.values() for one in fields(panel)})
