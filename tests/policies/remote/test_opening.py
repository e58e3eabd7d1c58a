"""What is known of another server before anybody asks it."""

from __future__ import annotations

from typing import Any

import pytest
from websockets.sync.server import ServerConnection

from policyserve.core.errors import ConfigError
from policyserve.core.spec import ArraySpec, PolicySpec
from policyserve.policies.remote.opening import Remote, spec_from
from tests.plain_servers import plain_server
from tests.policies.remote.upstream import openpi_original

SPEC = PolicySpec("it", {"obs": ArraySpec((2,))}, ArraySpec((3,)), horizon=4)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"url": "http://robot"}, "url: expected ws://host:port"),
        ({"url": "ws://robot", "dialect": "morse"}, "morse"),
        ({"url": "ws://robot", "timeout_s": 0}, "timeout_s: expected"),
        ({"url": "ws://robot", "key": "secrét"}, "api_key: expected printable ASCII"),
    ],
)
def test_what_is_no_server_is_refused_without_a_key(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as refused:
        Remote(**arguments)
    assert "secr" not in str(refused.value)


def test_neither_a_repr_nor_an_error_has_the_key() -> None:
    remote = Remote("ws://127.0.0.1:1", key="hidden-key", timeout_s=5)
    assert "hidden-key" not in repr(remote)
    with pytest.raises(ConfigError, match=r"cannot connect to ws://127\.0\.0\.1:1/openpi") as refused:
        remote.greeting(0.0)
    assert "hidden-key" not in str(refused.value)
    assert "start that server or mend the URL" in str(refused.value)


def test_a_greeting_is_what_the_server_said() -> None:
    with plain_server(openpi_original) as port:
        assert Remote(f"ws://127.0.0.1:{port}").greeting(0.0) == {"robot": "arm"}


def test_another_program_is_told_as_what_it_is() -> None:
    def silent(peer: ServerConnection) -> None:
        peer.send("hello")

    with plain_server(silent) as port, pytest.raises(ConfigError, match=r"^remote: "):
        Remote(f"ws://127.0.0.1:{port}").greeting(0.0)


def test_a_greeting_of_ours_tells_the_spec_and_keeps_the_rest() -> None:
    spec = spec_from({"spec": SPEC.describe(), "policyserve": "1", "robot": "arm"}, "there")
    assert (spec.name, spec.metadata) == ("there", {"robot": "arm"})
    assert (spec.observation, spec.action, spec.horizon) == (SPEC.observation, SPEC.action, 4)


def test_a_spec_of_another_version_or_program_is_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    other = spec_from({"spec": {"observation": {"obs": {"kind": "smell"}}}, "policyserve": "9"}, "there")
    assert other.observation is None
    assert "describes its policy in a way that is not known here" in caplog.text
    assert spec_from({"spec": "of theirs", "robot": "arm"}, "there").metadata == {"robot": "arm"}
    assert spec_from({}, "there").observation is None
