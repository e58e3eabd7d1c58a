"""Machines that cannot be reached, and certificates that are wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from policyserve.doctor import reaching
from tests.doctor.sick import closed_port, examined, of, stand_in, tcp_server, until_closed, worst
from tests.server.certificates import make_certificate, make_dated_certificate
from tests.server.live import serving

Pair = tuple[str, str]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(autouse=True)
def trusts_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)


def test_a_wrong_host_is_told_by_its_name() -> None:
    found = worst(examined("ws://no-such-robot.invalid:8000"))
    assert found.check == "name"
    assert "no-such-robot.invalid" in found.found
    assert found.cure.startswith("mend the name in the URL")


def test_a_closed_port_says_to_start_the_server() -> None:
    found = worst(examined(f"ws://127.0.0.1:{closed_port()}"))
    assert found.check == "connection"
    assert "connection refused" in found.found
    assert found.cure.startswith("nothing listens there: start the server")


def test_a_unix_socket_that_is_not_there_is_told(tmp_path: Path) -> None:
    found = worst(examined(f"ws+unix://{tmp_path}/policy.sock"))
    assert found.check == "connection"
    assert "--uds" in found.cure


def test_a_name_is_told_with_its_addresses() -> None:
    findings = examined(f"ws://localhost:{closed_port()}")
    assert "127.0.0.1" in of(findings, "name").figures["addresses"]


def test_a_trusted_certificate_is_told_with_its_names_and_its_end(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", pair[0])
    monkeypatch.setattr(reaching, "_DAYS_LEFT", 14)
    with serving(tls_cert=pair[0], tls_key=pair[1]) as live:
        found = of(examined(f"wss://localhost:{live.port}"), "tls")
    assert found.verdict == "ok"
    assert "trusted, for localhost, 127.0.0.1, until 20" in found.found
    assert found.figures["issuer"] == "policy-server"


def test_a_certificate_that_ends_soon_is_told(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", pair[0])
    monkeypatch.setattr(reaching, "_DAYS_LEFT", 10_000)
    with serving(tls_cert=pair[0], tls_key=pair[1]) as live:
        findings = examined(f"wss://localhost:{live.port}")
    assert of(findings, "tls").verdict == "warning"
    assert "ends in" in of(findings, "tls").found
    assert of(findings, "handshake").verdict == "ok"


def test_a_certificate_that_nobody_trusts_is_told_with_its_signer(pair: Pair) -> None:
    with serving(tls_cert=pair[0], tls_key=pair[1]) as live:
        found = worst(examined(f"wss://localhost:{live.port}"))
    assert found.check == "tls"
    assert "not trusted" in found.found
    assert "policy-server has signed" in found.cure
    assert "SSL_CERT_FILE" in found.cure


def test_a_certificate_for_another_name_is_told_with_its_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cert, key = make_certificate(tmp_path, "other", "DNS:robot.lab,DNS:arm.lab")
    monkeypatch.setenv("SSL_CERT_FILE", cert)
    with serving(tls_cert=cert, tls_key=key) as live:
        found = worst(examined(f"wss://localhost:{live.port}"))
    assert found.found == "the certificate is for robot.lab, arm.lab, not for localhost"
    assert "connect by such a name" in found.cure


@pytest.mark.parametrize(
    ("begins", "ends", "told"),
    [("20200101", "20200201", "ended on 2020-02-01"), ("20900101", "20910101", "begins on 2090-01-01")],
)
def test_a_certificate_out_of_its_time_is_told_with_the_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begins: str, ends: str, told: str
) -> None:
    cert, key = make_dated_certificate(tmp_path, begins, ends)
    monkeypatch.setenv("SSL_CERT_FILE", cert)
    with serving(tls_cert=cert, tls_key=key) as live:
        found = worst(examined(f"wss://localhost:{live.port}"))
    assert found.found == f"the certificate {told}"
    assert "clock" in found.cure


def test_a_certificate_that_has_ended_is_told_so_where_nobody_trusts_it_either(tmp_path: Path) -> None:
    cert, key = make_dated_certificate(tmp_path, "20200101", "20200201")
    with serving(tls_cert=cert, tls_key=key) as live:
        assert worst(examined(f"wss://localhost:{live.port}")).found == "the certificate ended on 2020-02-01"


def test_a_server_without_tls_says_to_write_ws() -> None:
    with serving() as live:
        found = worst(examined(f"wss://127.0.0.1:{live.port}"))
    assert (found.check, found.cure) == ("tls", "write ws:// in place of wss://")


def test_a_server_with_tls_says_to_write_wss(pair: Pair) -> None:
    with serving(tls_cert=pair[0], tls_key=pair[1]) as live:
        found = worst(examined(f"ws://localhost:{live.port}"))
    assert (found.check, found.cure) == ("handshake", "write wss:// in place of ws://")


def test_a_port_that_stays_silent_to_tls_is_told() -> None:
    with tcp_server(until_closed) as port:
        found = worst(examined(f"wss://127.0.0.1:{port}", timeout_s=0.3))
    assert found.check == "tls"
    assert "within 0.3 s" in found.found


def test_an_address_needs_no_name_service() -> None:
    with stand_in("openpi", [0.0]) as url:
        assert [finding for finding in examined(url) if finding.check == "name"] == []
