"""The client's handshake against websockets' sans-I/O server, and every other answer."""

from __future__ import annotations

import errno
import http
import re
import socket
import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.http11 import Request
from websockets.server import ServerProtocol

from policyserve.client.address import read_address
from policyserve.client.handshake import Handshake, connect_error
from policyserve.client.retries import NotYet
from policyserve.core.errors import ConnectionLost, RemoteError

ROBOT = read_address("ws://robot:8000", "openpi")


def accepted(handshake: Handshake) -> tuple[Request, bytes]:
    """What websockets' server reads, and its answer."""
    server = ServerProtocol()
    server.receive_data(handshake.request)
    (request,) = server.events_received()
    assert isinstance(request, Request)
    server.send_response(server.accept(request))
    return request, b"".join(server.data_to_send())


@given(cuts=st.lists(st.integers(1, 60), max_size=30), behind=st.binary(max_size=40))
def test_an_accepted_handshake_gives_what_came_behind_it(cuts: list[int], behind: bytes) -> None:
    handshake = Handshake(ROBOT, None)
    request, answer = accepted(handshake)
    assert request.path == "/openpi"
    assert request.headers["Host"] == "robot:8000"
    assert "Authorization" not in request.headers
    assert "Sec-WebSocket-Extensions" not in request.headers
    cut, read = iter(cuts), None
    while read is None:
        count = min(next(cut, 1 << 30), len(answer))
        is_last = count == len(answer)
        read = handshake.feed(answer[:count] + (behind if is_last else b""))
        answer = answer[count:]
        assert (read is not None) == is_last
    assert read == behind


def test_a_key_replaces_a_urls_password() -> None:
    request, _ = accepted(Handshake(read_address("ws://me:secret@robot", "openpi"), "the-key"))
    assert request.headers.get_all("Authorization") == ["Api-Key the-key"]
    request, _ = accepted(Handshake(read_address("ws://me:secret@robot", "openpi"), None))
    assert request.headers["Authorization"].startswith("Basic ")


def page(status: int, body: str = "", headers: str = "") -> bytes:
    reason = http.HTTPStatus(status).phrase
    return f"HTTP/1.1 {status} {reason}\r\n{headers}Content-Length: {len(body)}\r\n\r\n{body}".encode()


def refusal(answer: bytes, key: str | None = None) -> Exception:
    handshake = Handshake(ROBOT, key)
    try:
        for data in (answer, b""):
            assert handshake.feed(data) is None
    except (RemoteError, NotYet) as error:
        return error
    raise AssertionError("it was taken for a policy server")


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_told_and_not_worth_a_retry(status: int) -> None:
    error = refusal(page(status, "who are you?\nreally"), "wrong")
    assert isinstance(error, RemoteError)
    assert not isinstance(error, ConnectionLost)
    assert not error.retryable
    assert str(error).startswith(f"ws://robot:8000/openpi refused the API key (HTTP {status} ")
    assert "who are you? really" in str(error)
    assert "wants an API key" in str(refusal(page(status)))


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_busy_server_is_worth_a_retry(status: int) -> None:
    error = refusal(page(status, "256 sessions are open"))
    assert isinstance(error, NotYet)
    assert f"HTTP {status}" in str(error)
    assert "256 sessions are open" in str(error)


@pytest.mark.parametrize("status", [401, 404, 503])
def test_a_strangers_page_drives_no_terminal(status: int) -> None:
    told = str(refusal(page(status, "\x1b[2J" * 1_000)))
    assert told.isprintable()
    assert r"\x1b[2J" in told
    assert len(told) < 5_000


@pytest.mark.parametrize(
    "answer",
    [
        page(200, "hello"),
        page(404),
        page(301, headers="Location: ws://elsewhere/\r\n"),
        page(500, "x" * 100_000),
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n\x81\x00",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\x15\x03\x03\x00\x02\x02\x46",
        b"HTTP/1.1 101 Swi",
        b"\0" * 9_000,
    ],
)
def test_any_other_answer_is_no_policy_server(answer: bytes) -> None:
    error = refusal(answer)
    assert isinstance(error, ConnectionLost)
    assert str(error).startswith("cannot connect to ws://robot:8000/openpi: ")
    assert re.search("no WebSocket server answers there|is it a policy server that answers there", str(error))
    assert len(str(error)) < 500


@pytest.mark.parametrize("told", ["no policy is at '/plaec': there are /place", "no dialect is named 'opnpi'"])
def test_a_policy_server_without_such_a_path_is_not_doubted(told: str) -> None:
    assert str(refusal(page(404, told))).endswith(f"HTTP 404 Not Found: {told}")


def test_an_end_without_an_answer_is_worth_a_retry_and_may_be_a_server_with_tls() -> None:
    error = refusal(b"")
    assert isinstance(error, NotYet)
    assert str(error) == "the connection ended before an answer; a server with TLS wants wss://"


def test_an_end_without_a_word_is_named_all_the_same() -> None:
    assert str(connect_error(ROBOT, ConnectionAbortedError())) == "the connection ended"


@pytest.mark.parametrize(
    ("reason", "cure"),
    [
        ("WRONG_VERSION_NUMBER", "wants ws://"),
        (
            "CERTIFICATE_VERIFY_FAILED",
            "SSL_CERT_FILE=ca.pem in the environment, or ssl_context=ssl.create",
        ),
    ],
)
def test_what_openssl_says_comes_with_a_cure(reason: str, cure: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    error = ssl.SSLError(1, f"[SSL: {reason}] no")
    error.reason = reason
    told = connect_error(ROBOT, error)
    assert isinstance(told, ConnectionLost)
    assert cure in str(told)


def test_where_the_variable_for_a_ca_names_no_file_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "nowhere.pem")
    error = ssl.SSLError(1, "[SSL: CERTIFICATE_VERIFY_FAILED] no")
    error.reason = "CERTIFICATE_VERIFY_FAILED"
    assert str(connect_error(ROBOT, error)).endswith("; there is no file nowhere.pem, which SSL_CERT_FILE names")


def test_a_certificate_of_another_name_is_no_matter_of_trust() -> None:
    error = ssl.SSLCertVerificationError(1, "Hostname mismatch, certificate is not valid for 'robot'")
    error.reason, error.verify_code = "CERTIFICATE_VERIFY_FAILED", 62
    assert str(connect_error(ROBOT, error)).endswith("; connect by a name or an address that the certificate has")


@pytest.mark.parametrize(
    "error",
    [
        ConnectionRefusedError(errno.ECONNREFUSED, "Connect call failed ('127.0.0.1', 1)"),
        FileNotFoundError(errno.ENOENT, "No such file or directory"),
        OSError(errno.EHOSTUNREACH, "No route to host"),
        socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"),
    ],
)
def test_what_may_heal_is_worth_a_retry(error: Exception) -> None:
    assert isinstance(connect_error(ROBOT, error), NotYet)


def test_a_name_that_nobody_has_is_not() -> None:
    error = connect_error(ROBOT, socket.gaierror(socket.EAI_NONAME, "Name or service not known"))
    assert isinstance(error, ConnectionLost)
    assert str(error) == "cannot connect to ws://robot:8000/openpi: Name or service not known"


def test_a_refused_connection_is_named_in_plain_words() -> None:
    error = ConnectionRefusedError(errno.ECONNREFUSED, "Connect call failed ('127.0.0.1', 1)")
    assert str(connect_error(ROBOT, error)) == "Connection refused"


def test_compression_is_offered_only_where_it_is_looked_for() -> None:
    assert b"permessage-deflate" not in Handshake(ROBOT, None).request
    assert b"permessage-deflate" in Handshake(ROBOT, None, offers_deflate=True).request


def test_the_answers_headers_and_extensions_are_told() -> None:
    handshake = Handshake(ROBOT, None, offers_deflate=True)
    assert (handshake.headers, handshake.extensions) == ({}, [])
    more = b"Via: 1.1 nginx\r\nSec-WebSocket-Extensions: permessage-deflate\r\n"
    _, answer = accepted(handshake)
    handshake.feed(answer.replace(b"\r\n\r\n", b"\r\n" + more + b"\r\n"))
    assert handshake.headers["via"] == "1.1 nginx"
    assert handshake.extensions == ["permessage-deflate"]
