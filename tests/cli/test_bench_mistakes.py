"""`policyserve bench` where it cannot measure: mistakes on its command line, and servers of others, a line each."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import msgpack
import pytest
from websockets.sync.server import ServerConnection

from policyserve.cli import main
from policyserve.policies.fakes import demo_image
from tests.cli.terminals import WHERE, Where, plain, run_in, unbroken
from tests.plain_servers import in_thread, plain_server
from tests.server.live import serving

WRONG: dict[str, tuple[list[str], int, str]] = {
    "a target of no name": ([""], 2, "got nothing (a server's address is ws://host:port)"),
    "a result whose variable is not set": (["ws://x:1", "--json", ""], 2, "--json: expected a file, got the directory"),
    "a server whose variable is not set": (
        ["ws://x:1", "--against", ""],
        2,
        "--against: expected a value, got nothing",
    ),
    "a host without ws": (["localhost:8000"], 2, "did you mean ws://localhost:8000?"),
    "another scheme": (["https://localhost:8000"], 2, "url: expected ws://host:port"),
    "http without a dialect of it": (
        ["http://localhost:8000"],
        2,
        "--dialect: expected openvla, openvla_oft, xvla, molmoact2, gr00t_http, json with a URL of http://, got 'auto'",
    ),
    "a dialect of http without TLS": (
        ["wss://localhost:8000", "--dialect", "xvla"],
        2,
        "url: expected http://host:port for the dialect xvla, got wss://localhost:8000",
    ),
    "a dead port that is asked by http": (["ws://127.0.0.1:1", "--dialect", "xvla"], 1, "Connection refused"),
    "a raw body": (
        ["ws://x:1", "--raw", "--dialect", "xvla"],
        2,
        "--raw sends one prepared frame of a WebSocket: --dialect xvla has none; leave --raw out",
    ),
    "raw requests over ZeroMQ": (
        ["tcp://x:1", "--raw", "--dialect", "gr00t"],
        2,
        "--raw sends one prepared frame of a WebSocket: expected ws://host:port, got tcp://x:1; else leave --raw out",
    ),
    "raw requests over gRPC": (["ws://x:1", "--against", "grpc://x:2", "--raw"], 2, "grpc://x:2; else leave --raw out"),
    "a module that is not there": (["nowhere:policy"], 1, "there is no module 'nowhere'"),
    "a dead port": (["ws://127.0.0.1:1"], 1, "cannot connect to ws://127.0.0.1:1"),
    "no clients": (["ws://x:1", "--clients", "0"], 2, "--clients: expected 1 or more, got 0"),
    "no time": (["ws://x:1", "--duration-s", "0"], 2, "--duration-s: expected more than 0, got 0"),
    "no rate": (["ws://x:1", "--rate-hz", "0"], 2, "--rate-hz: expected more than 0, got 0"),
    "an unknown payload": (["ws://x:1", "--payload", "cartpol"], 2, "got 'cartpol' (did you mean 'cartpole'?)"),
    "an unknown dialect": (["ws://x:1", "--dialect", "opnpi"], 2, "got 'opnpi' (did you mean 'openpi'?)"),
    "a sweep without a rate": (["ws://x:1", "--sweep"], 2, "--sweep needs --rate-hz"),
    "a sweep of two": (
        ["ws://x:1", "--sweep", "--rate-hz", "1", "--against", "ws://x:2"],
        2,
        "--sweep needs one server",
    ),
    "a raw open loop": (["ws://x:1", "--raw", "--rate-hz", "1"], 2, "--raw is a closed loop"),
    "a quality that is none": (["ws://x:1", "--images", "jpeg", "--jpeg-quality", "0"], 2, "expected 1 … 100, got 0"),
    "another way of images": (["ws://x:1", "--images", "png"], 2, "png"),
    "images of a prepared frame": (["ws://x:1", "--images", "jpeg", "--raw"], 2, "does not go with --raw"),
    "images without a wire": (
        ["ws://x:1", "--images", "auto", "--dialect", "vibe_rl"],
        2,
        "does not go with --dialect",
    ),
    "a file that is not there": (["ws://x:1", "--payload", "nowhere.json"], 2, "there is no file nowhere.json"),
    "a directory that is not there": (["ws://x:1", "--json", "no/where.json"], 2, "--json: there is no directory"),
    "a picture of no kind": (["ws://x:1", "--plot", "out.txt"], 2, "expected a file that ends in .png"),
    "a misspelt flag": (["ws://x:1", "--client", "3"], 2, "--clients"),
}


def complaint(argv: list[str], capfd: pytest.CaptureFixture[str]) -> tuple[Any, str]:
    """The exit code and the one line of a command that cannot work."""
    with pytest.raises(SystemExit) as exit_request:
        main(["bench", *argv])
    out, err = capfd.readouterr()
    assert err.count("\n") == 1, err
    assert err.startswith("error: ")
    assert out == ""
    return exit_request.value.code, err


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("mistake", WRONG)
def test_a_mistake_is_one_line(mistake: str, where: Where) -> None:
    argv, code, told = WRONG[mistake]
    said = run_in(where, ["bench", *argv])
    complaint = unbroken(plain(said.err))
    assert (said.code, complaint.count("\n"), said.out) == (code, 1, "")
    assert complaint.startswith("error: ")
    assert told in complaint


def test_a_file_that_is_no_json_is_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "broken.json"
    file.write_text('{"obs": ')
    code, line = complaint(["ws://x:1", "--payload", str(file)], capfd)
    assert (code, "broken.json is not JSON" in line) == (2, True)


def test_a_payload_that_is_refused_shows_the_refusal_and_its_key(capfd: pytest.CaptureFixture[str]) -> None:
    with serving(demo_image()) as server:
        for dialect in ("openpi", "vibe_rl"):
            flags = ["--payload", "cartpole", "--dialect", dialect]
            code, line = complaint([f"ws://127.0.0.1:{server.port}", *flags], capfd)
            assert code == 1
            assert "refuses the payload: " in line
            assert "image: expected uint8 image HWC, 64 x 64" in line


@contextmanager
def web_server() -> Iterator[str]:
    """An HTTP server that knows no WebSocket."""

    class Pages(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(404)

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    with HTTPServer(("127.0.0.1", 0), Pages) as server, in_thread(server):
        yield f"ws://127.0.0.1:{server.server_port}"


@contextmanager
def websocket_server(handle: Callable[[ServerConnection], None]) -> Iterator[str]:
    """A WebSocket server that is none of ours."""
    with plain_server(handle) as port:
        yield f"ws://127.0.0.1:{port}"


def close(connection: ServerConnection) -> None:
    connection.close(4001, "members only")


def greet_and_wait(connection: ServerConnection) -> None:
    connection.send(bytes(msgpack.packb({}) or b""))
    for _ in connection:
        pass


def echo(connection: ServerConnection) -> None:
    for message in connection:
        connection.send(message)


def talk(connection: ServerConnection) -> None:
    connection.send(b"\xc1 this is no MessagePack")
    echo(connection)


FOREIGN: dict[str, tuple[Callable[[ServerConnection], None], list[str], str]] = {
    "it closes": (close, [], "members only"),
    "it never answers": (greet_and_wait, ["--payload", "cartpole", "--timeout-s", "0.3"], "no answer from ws://"),
    "it tells no spec": (greet_and_wait, [], "does not tell what it takes: name a --payload"),
    "it echoes": (echo, ["--dialect", "vibe_rl", "--payload", "cartpole"], "expected an action"),
    "it says something else": (talk, [], "greets as no policy server does"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_stranger_behind_the_port_is_one_line(kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    handle, flags, said = FOREIGN[kind]
    with websocket_server(handle) as url:
        code, line = complaint([url, *flags], capfd)
    assert said in line
    assert code in (1, 2)


def test_a_web_server_and_a_silent_port_are_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    with web_server() as url:
        code, line = complaint([url], capfd)
        assert (code, "cannot connect to ws://" in line) == (1, True)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, line = complaint([f"ws://127.0.0.1:{taken.getsockname()[1]}", "--timeout-s", "0.3"], capfd)
        assert (code, "no handshake with ws://" in line) == (1, True)
