"""A server's settings: one flat configuration, made of groups that check themselves."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from policyserve.core.errors import ConfigError
from policyserve.core.limits import DEFAULT_LIMITS, WireLimits
from policyserve.server.config import (
    Access,
    Batching,
    Dialects,
    Limits,
    Listen,
    Placement,
    Recording,
    Reporting,
    ServerConfig,
    Timeouts,
    is_host,
)

GROUPS = (Listen, Access, Dialects, Placement, Batching, Limits, Timeouts, Reporting, Recording)


def test_a_config_is_each_of_its_groups_and_has_their_fields_and_no_others() -> None:
    config = ServerConfig(host="127.0.0.1", port=9123, max_queue=7)
    assert (config.host, config.port, config.max_queue) == ("127.0.0.1", 9123, 7)
    assert all(isinstance(config, group) for group in GROUPS)
    of_groups = [one.name for group in GROUPS for one in fields(group)]
    assert sorted(of_groups) == sorted(one.name for one in fields(ServerConfig))


def test_a_config_bounds_messages_as_the_limits_of_wires_do_by_default() -> None:
    config = ServerConfig()
    assert isinstance(config, WireLimits)
    assert {one.name: getattr(config, one.name) for one in fields(WireLimits)} == vars(DEFAULT_LIMITS)


def test_it_takes_names_only() -> None:
    with pytest.raises(TypeError):
        ServerConfig("127.0.0.1", 0)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


@pytest.mark.parametrize("empty", ["", " "])
@pytest.mark.parametrize(
    ("field", "group"),
    [
        ("host", Listen), ("uds", Listen), ("tls_cert", Listen), ("tls_key", Listen), ("api_key_file", Access),
        ("devices", Placement), ("dialect", Dialects),
    ],
)  # fmt: skip
def test_a_text_that_a_shells_unset_variable_made_empty_is_refused(field: str, group: Any, empty: str) -> None:
    given: dict[str, Any] = {field: empty}
    for made in (group, ServerConfig):
        with pytest.raises(ConfigError, match=f"^{field}: expected .*, got (nothing|' ')"):
            made(**given)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "::1", "fe80::1%eth0", "localhost", "robot_7.lab.example", "büro"])
def test_addresses_and_names_are_hosts(host: str) -> None:
    assert is_host(host)
    assert Listen(host=host).host == host


@pytest.mark.parametrize("host", ["[::1]", "127.0.0.1:8000", "http://lab", "a b", "lab/", "lab\n", "a,b", "a\0"])
def test_what_is_no_host_is_refused_by_name(host: str) -> None:
    with pytest.raises(ConfigError, match="host: expected an IP address or a host name, without scheme, brackets"):
        Listen(host=host)


@pytest.mark.parametrize("field", [one.name for one in fields(ServerConfig) if "float" in str(one.type)])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, "5", True])
def test_no_number_may_be_none_below_zero_or_without_end(field: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"^{field}: expected "):
        ServerConfig(**{field: value})


@pytest.mark.parametrize("field", [one.name for one in fields(Timeouts)])
def test_a_time_that_the_systems_clocks_cannot_count_is_refused(field: str) -> None:
    with pytest.raises(ConfigError, match=f"^{field}: expected "):
        Timeouts(**{field: 1e12})


def test_a_path_with_a_zero_byte_is_refused_and_a_path_object_is_taken(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="uds: expected a path"):
        Listen(uds="a\0b")
    assert Access(api_key_file=tmp_path / "keys").api_key_file == str(tmp_path / "keys")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_what_concerns_two_groups_is_checked_where_both_are_known() -> None:
    assert Batching(max_wait_ms=900).max_wait_s == 0.9
    with pytest.raises(ConfigError, match="max_wait_ms: expected 0 … 500, the request's time-out, got 900"):
        ServerConfig(max_wait_ms=900, request_timeout_s=0.5)
