"""Another server's policy on the command line: dialects over the wire, keys, TLS, and what is refused."""

from __future__ import annotations

import logging
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import policyserve
from policyserve import Client
from policyserve.core.errors import ConfigError, DeadlineExceeded, RemoteError
from policyserve.policies import registry
from policyserve.policies.fakes import SlowPolicy
from policyserve.policies.remote.adapter import RemoteAdapter, RemoteFlags
from tests.cli.serving import POLICYSERVE, ROOT, run, serving
from tests.plain_servers import plain_server
from tests.policies.frameworks import import_or_skip
from tests.policies.remote.upstream import Summing, openpi_original
from tests.server import live
from tests.server.certificates import make_certificate

PORT_0 = ("--host", "127.0.0.1", "--port", "0")
ONE = np.array([1, 0], np.float32)
CLOSED = "ws://127.0.0.1:1"


def test_a_url_is_found_by_its_scheme() -> None:
    adapter = registry.find("remote:ws://robot:8000")
    assert isinstance(adapter, RemoteAdapter)
    source = adapter.source(RemoteFlags())
    assert source.title == "the policy of ws://robot:8000/openpi"
    assert source.origin == "server ws://robot:8000/openpi"
    assert registry.listing()["remote:URL"] == RemoteAdapter("remote").help
    with pytest.raises(ConfigError, match="expected remote:URL, got 'remote'"):
        registry.find("remote")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"remote_dialect": ""}, "--remote-dialect: expected a value, got nothing"),
        ({"remote_key_env": " "}, "--remote-key-env: expected a value, got nothing"),
        ({"remote_timeout_s": 0.0}, "remote_timeout_s: expected more than 0 seconds, got 0"),
        ({"remote_sessions": 0}, "remote_sessions: expected 1 or more, got 0"),
    ],
)
def test_a_flag_that_can_never_be_is_refused(flags: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(said)}"):
        RemoteFlags(**flags)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ((f"remote:{CLOSED}",), 1, f"error: remote: cannot connect to {CLOSED}/openpi: "),
        (("remote:http://robot",), 2, "error: url: expected ws://host:port"),
        ((f"remote:{CLOSED}", "--remote-dialect", "morse"), 2, "error: "),
        ((f"remote:{CLOSED}", "--remote-key-env", "NOT_SET"), 1, "error: --remote-key-env: the variable 'NOT_SET'"),
        (
            (f"remote:{CLOSED}", "--remote-key-env", "POLICYSERVE_API_KEY"),
            1,
            "error: --remote-key-env: POLICYSERVE_API_KEY holds the keys of this server's own clients",
        ),
        (("remote:ws://name:hidden-key@robot",), 2, "error: remote: a key does not go into the URL"),
    ],
)
def test_what_cannot_be_asked_ends_the_command_before_a_port_is_opened(
    words: tuple[str, ...], code: int, said: str
) -> None:
    done = run(*POLICYSERVE, "serve", *words, *PORT_0)
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith(said), done.stderr
    assert done.stderr.count("\n") == 1
    assert "ready" not in done.stdout
    assert "hidden-key" not in done.stdout + done.stderr


@pytest.mark.parametrize("isolate", ["thread", "process"])
def test_a_founding_client_is_served_by_openpis_server(isolate: str) -> None:
    with (
        plain_server(openpi_original) as port,
        serving([*POLICYSERVE, "serve", f"remote:ws://127.0.0.1:{port}", "--isolate", isolate, *PORT_0]) as server,
        Client(f"{server.url}/vibe_rl", dialect="vibe_rl") as robot,
        Client(f"{server.url}/openpi") as arm,
    ):
        assert robot.infer({"state": ONE}).actions.tolist() == [2, 0]
        assert arm.metadata["robot"] == "arm"
        reply = arm.infer({"state": ONE})
        assert reply.actions.tolist() == [2, 0]
        assert reply["policy_timing"] == {"infer_ms": 1.5}
        with pytest.raises(RemoteError, match="KeyError: 'state'"):
            arm.infer({"obs": ONE})
        assert arm.infer({"state": ONE}).actions.tolist() == [2, 0]


STAND_INS = {
    "openpi": ["metadata_first.py"],
    "wall_x": ["metadata_first.py", "--family", "wall_x"],
    "vibe_rl": ["vibe_rl.py", "--policy", "zeros"],
}


@pytest.mark.parametrize("dialect", STAND_INS)
def test_stand_ins_of_other_servers_are_served_to_clients_of_every_dialect(dialect: str) -> None:
    program, *options = STAND_INS[dialect]
    with serving([sys.executable, f"benchmarks/rivals/{program}", *options], cwd=ROOT) as theirs:
        policy = policyserve.load_policy(f"remote:{theirs.url}", remote_dialect=dialect)
        with policyserve.start(policy) as server:
            for spoken in STAND_INS:
                with Client(f"{server.url}/{spoken}", dialect=spoken) as client:
                    assert not client.infer({"obs": np.zeros(4, np.float32)}).actions.any()


def test_sessions_over_the_wire_are_kept_apart_and_a_reset_is_a_new_one_there() -> None:
    with live.serving(Summing()) as theirs, policyserve.start(f"remote:{theirs.url('/openpi')}") as server:
        with Client(server.url) as first, Client(server.url) as second:
            for step in (1, 2, 3):
                assert first.infer({"obs": ONE}).actions[0].tolist() == [step, 0]
                assert second.infer({"obs": 5 * ONE}).actions[0].tolist() == [5 * step, 0]
            first.reset()
            assert first.infer({"obs": ONE}).actions[0].tolist() == [1, 0]
            with pytest.raises(RemoteError, match="expected") as refused:
                second.infer({"obs": np.zeros(3, np.float32)})
            assert refused.value.code == "bad_observation"
        theirs.until(lambda one: one.counters.sessions_open == 0)


def test_a_client_that_vanishes_in_mid_request_leaves_no_connection() -> None:
    slow = SlowPolicy()
    with live.serving(slow) as theirs, policyserve.start(f"remote:{theirs.url('/openpi')}") as server:
        with Client(server.url, timeout_s=0.5) as client, pytest.raises(DeadlineExceeded):
            client.infer({"obs": np.zeros(4, np.float32)})
        theirs.until(lambda one: one.counters.sessions_open == 1)
        slow.release.set()
        theirs.until(lambda one: one.counters.sessions_open == 0)


def test_a_server_that_goes_leaves_this_one_there_until_it_is_back() -> None:
    with live.serving(Summing()) as theirs:
        port = theirs.port
        server = policyserve.start(policyserve.load_policy(f"remote:ws://127.0.0.1:{port}", remote_timeout_s=2.0))
        client = Client(server.url)
        assert client.infer({"obs": ONE}).actions[0].tolist() == [1, 0]
    with pytest.raises(RemoteError, match="cannot connect") as lost:
        client.infer({"obs": ONE})
    assert (lost.value.code, lost.value.retryable) == ("policy_lost", True)
    with live.serving(Summing(), port=port):
        assert client.infer({"obs": ONE}).actions[0].tolist() == [1, 0]
        client.close()
        server.stop()


def test_a_key_comes_from_the_variable_that_is_named_and_is_shown_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("THEIR_KEY", "hidden-key-of-theirs")
    (tmp_path / "keys").write_text("us: hidden-key-of-theirs\n")
    with live.serving(Summing(), api_key_file=str(tmp_path / "keys")) as theirs:
        url = f"remote:{theirs.url('/openpi')}"
        monkeypatch.setenv("WRONG", "another-key")
        for flags in ({}, {"remote_key_env": "WRONG"}):
            with pytest.raises(ConfigError, match=r"an API key \(--remote|refused the API key") as refused:
                policyserve.load_policy(url, **flags)
            assert "hidden-key" not in str(refused.value)
            assert "another-key" not in str(refused.value)
        source = registry.find(url).source(RemoteFlags(remote_key_env="THEIR_KEY"))
        assert "hidden-key" not in repr(source)
        with (
            policyserve.start(policyserve.load_policy(url, remote_key_env="THEIR_KEY")) as server,
            Client(server.url) as client,
        ):
            assert client.infer({"obs": ONE}).actions[0].tolist() == [1, 0]
            assert "hidden-key" not in repr(client.metadata)
    assert "hidden-key" not in caplog.text


def test_tls_is_checked_with_the_certificates_of_the_system(tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path)
    with live.serving(Summing(), tls_cert=certificate, tls_key=key) as theirs:
        command = [*POLICYSERVE, "serve", f"remote:wss://localhost:{theirs.port}", *PORT_0]
        refused = run(*command)
        assert refused.returncode == 1
        assert "api_key=" not in refused.stderr
        trusting = ["env", f"SSL_CERT_FILE={certificate}", *command]
        with serving(trusting) as server, Client(server.url) as client:
            assert client.infer({"obs": ONE}).actions[0].tolist() == [1, 0]


def test_a_unix_socket_is_a_server_too(tmp_path: Path) -> None:
    path = tmp_path / "policy.sock"
    with (
        live.serving(Summing(), uds=str(path)),
        policyserve.start(f"remote:ws+unix://{path}") as server,
        Client(server.url) as client,
    ):
        assert client.infer({"obs": ONE}).actions[0].tolist() == [1, 0]


def test_the_bench_takes_it_as_a_policy() -> None:
    import_or_skip("gymnasium")
    with live.serving(Summing()) as theirs:
        done = run(*POLICYSERVE, "bench", f"remote:{theirs.url('/openpi')}", "--duration-s", "0.2", "--warmup-s", "0")
    assert done.returncode == 0, done.stderr
    assert re.search(r"errors +none", done.stdout)
