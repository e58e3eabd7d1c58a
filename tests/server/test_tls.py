"""wss and https on the one port: certificates that are right, wrong and replaced, and peers that speak otherwise."""

from __future__ import annotations

import asyncio
import http.client
import os
import signal
import socket
import ssl
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from websockets.sync.client import connect

import policyserve
from policyserve.core.errors import ConfigError
from policyserve.server import tls
from policyserve.server.config import ServerConfig
from policyserve.server.policy_server import PolicyServer
from policyserve.server.server import Server
from tests.server.certificates import make_certificate, trusting
from tests.server.live import DEADLINE_S, Live, always, ask, making, serving, until_eof


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return make_certificate(tmp_path_factory.mktemp("tls"))


def secure(live: Live, cert: str, context: ssl.SSLContext | None = None) -> Any:
    return connect(f"wss://localhost:{live.port}/vibe_rl", compression=None, ssl=context or trusting(cert))


def certificate_of(live: Live) -> bytes:
    """What a new connection is shown."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", live.port), DEADLINE_S) as peer, context.wrap_socket(peer) as wrapped:
        shown = wrapped.getpeercert(binary_form=True)
        assert shown is not None
        return shown


def test_wss_and_https_share_the_port(pair: tuple[str, str]) -> None:
    with serving(tls_cert=pair[0], tls_key=pair[1]) as live:
        assert live.server is not None
        assert live.server.address.url == f"wss://127.0.0.1:{live.port}"
        with secure(live, pair[0]) as peer:
            for number in range(3):
                assert ask(peer, number) == number
        page = http.client.HTTPSConnection("localhost", live.port, timeout=DEADLINE_S, context=trusting(pair[0]))
        page.request("GET", "/healthz")
        assert page.getresponse().status == 200
        page.close()


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_images_cross_tls_on_either_loop(pair: tuple[str, str], loop: str) -> None:
    run = asyncio.run if loop == "asyncio" else pytest.importorskip("uvloop").run
    image = np.arange(480 * 640 * 3, dtype=np.uint8).reshape(480, 640, 3)

    async def main(server: Server) -> None:
        async with server:
            url = f"wss://localhost:{server.address.port}"
            async with policyserve.AsyncClient(url, ssl_context=trusting(pair[0])) as client:
                for _ in range(3):
                    np.testing.assert_array_equal((await client.infer({"image": image})).actions, image)

    with making(always(lambda seen: seen["image"]), tls_cert=pair[0], tls_key=pair[1]) as server:
        run(main(server))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_1_2_and_1_3_pass(pair: tuple[str, str], version: ssl.TLSVersion) -> None:
    context = trusting(pair[0])
    context.minimum_version = context.maximum_version = version
    with serving(tls_cert=pair[0], tls_key=pair[1]) as live, secure(live, pair[0], context) as peer:
        assert ask(peer, 1.0) == 1.0


def test_the_context_takes_nothing_older_than_1_2(pair: tuple[str, str]) -> None:
    assert tls.load(*pair).minimum_version == ssl.TLSVersion.TLSv1_2


def test_no_session_tickets_are_sent(pair: tuple[str, str]) -> None:
    """A client that reads one in one thread while it writes its request in another may never send that request."""
    context = trusting(pair[0])
    with (
        serving(tls_cert=pair[0], tls_key=pair[1]) as live,
        socket.create_connection(("127.0.0.1", live.port), DEADLINE_S) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as peer,
    ):
        peer.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert peer.recv(1000).startswith(b"HTTP/1.1 200")  # tickets would have come before it
        assert peer.version() == "TLSv1.3"
        assert peer.session is not None
        assert not peer.session.has_ticket


# Wrong peers: a line each, and nobody else is disturbed


def test_a_plain_client_on_a_tls_port_is_logged(pair: tuple[str, str], caplog: pytest.LogCaptureFixture) -> None:
    with serving(tls_cert=pair[0], tls_key=pair[1]) as live:
        for sent in (b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", b"\x00\x01\x02\x03\x04\x05 what is this?\r\n"):
            with live.tcp() as peer:
                peer.sendall(sent)
                try:
                    while peer.recv(1000):
                        pass
                except ConnectionResetError:
                    pass  # what it sent was not read to its end
        with secure(live, pair[0]) as good:
            assert ask(good, 1.0) == 1.0
    assert "the client speaks plain HTTP; it needs wss://" in caplog.text
    assert "the client speaks no TLS" in caplog.text
    assert caplog.text.count("a TLS handshake failed peer=127.0.0.1:") == 2
    assert "Traceback" not in caplog.text


def test_a_client_that_fails_again_and_again_is_logged_once(
    pair: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    with serving(tls_cert=pair[0], tls_key=pair[1]) as live:
        for _ in range(5):
            with live.tcp() as peer:
                peer.sendall(b"GET /openpi HTTP/1.1\r\nHost: x\r\n\r\n")
                with suppress(ConnectionResetError):  # what it sent was not read to its end
                    while peer.recv(1000):
                        pass
        with pytest.raises(ssl.SSLCertVerificationError):
            secure(live, pair[0], ssl.create_default_context())
        live.until(lambda _: "does not trust this certificate" in caplog.text)  # another reason has a line of its own
    assert caplog.text.count("the client speaks plain HTTP; it needs wss://") == 1


def test_a_client_that_does_not_trust_the_certificate_is_logged(
    pair: tuple[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other, _ = make_certificate(tmp_path, "other")
    with serving(tls_cert=pair[0], tls_key=pair[1]) as live:
        with pytest.raises(ssl.SSLCertVerificationError):
            secure(live, other)
        live.until(lambda _: "does not trust this certificate" in caplog.text)
    assert "Traceback" not in caplog.text


def test_a_tls_client_on_a_plain_port_is_logged(pair: tuple[str, str], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    with serving() as live:
        with pytest.raises(ssl.SSLError):
            secure(live, pair[0])
        assert live.answers()
    assert "a TLS handshake, but this port speaks plain ws://" in caplog.text


def test_a_tls_handshake_that_never_ends_is_cut(pair: tuple[str, str]) -> None:
    with serving(tls_cert=pair[0], tls_key=pair[1], handshake_timeout_s=1.0) as live:
        with live.tcp() as peer:
            peer.sendall(b"\x16\x03\x01")
            assert peer.recv(1000) == b""
        with secure(live, pair[0]) as good:
            assert ask(good, 1.0) == 1.0


# Files


def test_a_late_tls_handshake_leaves_the_rest_of_the_time(pair: tuple[str, str]) -> None:
    """The time that TLS took is over when HTTP begins: a stranger has one clock."""
    with serving(tls_cert=pair[0], tls_key=pair[1], handshake_timeout_s=1_000.0) as live:
        connected = live.tcp()
        live.until(lambda server: server.reception.waiting == 1)

        def age() -> None:
            (waiting,) = vars(live.server.reception)["_waiting"].values()
            vars(waiting)["_inside"]._came_at -= 1_000.0

        live.call(age)
        with trusting(pair[0]).wrap_socket(connected, server_hostname="localhost") as peer:
            assert b" 408 " in until_eof(peer)


def test_files_that_are_no_pair_are_one_line_each(pair: tuple[str, str], tmp_path: Path) -> None:
    cert, key = pair
    _, other_key = make_certificate(tmp_path, "other")
    garbage, half, locked = tmp_path / "garbage", tmp_path / "half", str(tmp_path / "locked")
    garbage.write_text("hello")
    half.write_text("-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n")
    subprocess.run(["openssl", "pkey", "-in", key, "-aes256", "-passout", "pass:x", "-out", locked], check=True)
    wrong = {
        "tls_cert: nowhere.pem cannot be read: No such file": ("nowhere.pem", key),
        "tls_key: nowhere.pem cannot be read: No such file": (cert, "nowhere.pem"),
        "tls_cert: expected a PEM file": (str(garbage), key),
        "is not the key of the certificate": (cert, other_key),
        "tls_cert: .* are no certificate and key": (str(half), key),
        "tls_cert: expected a PEM file with a line -----BEGIN … CERTIFICATE-----": (key, cert),
        "tls_key: expected a PEM file with a line -----BEGIN … PRIVATE KEY-----": (cert, cert),
        "tls_key: expected a key without a passphrase": (cert, locked),
    }
    for told, files in wrong.items():
        with pytest.raises(ConfigError, match=told) as caught:
            tls.load(*files)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"tls_cert": "c.pem"}, "tls_key: expected the key of the certificate, got None"),
        ({"tls_key": "k.pem"}, "tls_cert: expected the certificate of the key, got None"),
    ],
)
def test_half_a_pair_is_named(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        ServerConfig(**settings)


def test_a_wrong_pair_stops_the_start_before_it_listens(pair: tuple[str, str]) -> None:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        port = place.getsockname()[1]
    config = ServerConfig(tls_cert=pair[1], tls_key=pair[0])
    with pytest.raises(ConfigError, match="tls_cert: expected a PEM file with a line"):
        asyncio.run(PolicyServer(lambda x: x, "127.0.0.1", port, config=config).run())
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


def test_a_reload_shows_the_new_certificate_and_a_broken_one_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    cert, key = make_certificate(tmp_path)
    new_cert, new_key = make_certificate(tmp_path, "new")
    with serving(tls_cert=cert, tls_key=key) as live:
        assert live.server is not None
        first = certificate_of(live)
        with secure(live, cert) as open_before:
            os.replace(new_cert, cert)  # with the old key: no pair
            live.call(live.server.reload)
            assert "the certificate stays as it was: tls_key" in caplog.text
            assert certificate_of(live) == first
            os.replace(new_key, key)
            live.call(live.server.reload)
            assert certificate_of(live) != first
            with secure(live, cert) as peer:
                assert ask(peer, 1.0) == 1.0
            assert ask(open_before, 2.0) == 2.0


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="no SIGHUP here")
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_sighup_reloads(tmp_path: Path, loop: str, caplog: pytest.LogCaptureFixture) -> None:
    run = asyncio.run if loop == "asyncio" else pytest.importorskip("uvloop").run
    caplog.set_level("INFO")
    cert, key = make_certificate(tmp_path)
    config = ServerConfig(tls_cert=cert, tls_key=key)
    server = PolicyServer(lambda x: x, "127.0.0.1", 0, config=config)

    async def main() -> None:
        running = asyncio.ensure_future(server.run(on_ready=lambda _: os.kill(os.getpid(), signal.SIGHUP)))
        while "loaded" not in caplog.text:  # noqa: ASYNC110 - a log line tells nobody
            await asyncio.sleep(0.01)
        server.stop()
        await asyncio.wait_for(running, DEADLINE_S)

    run(main())
    assert f"certificate {cert} loaded" in caplog.text


def test_a_tls_handshake_that_is_under_way_ends_with_the_server(pair: tuple[str, str]) -> None:
    with serving(tls_cert=pair[0], tls_key=pair[1]) as live:
        half = live.tcp()
        half.sendall(b"\x16\x03\x01")
        with secure(live, pair[0]) as good:
            assert ask(good, 1.0) == 1.0
    assert half.recv(1000) == b""
    half.close()
