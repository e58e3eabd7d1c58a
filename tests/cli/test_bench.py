"""`policyserve bench` as a person uses it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from websockets.sync.server import ServerConnection

from policyserve import dialects
from policyserve.cli import main
from policyserve.core.policy import FunctionPolicy
from policyserve.policies.fakes import EchoPolicy, demo_image
from tests.cli.serving import POLICYSERVE, ROOT, run
from tests.cli.terminals import WHERE, Where, plain, run_in, unbroken
from tests.cli.test_colours import Terminal
from tests.plain_servers import in_thread, plain_server
from tests.policies.frameworks import import_or_skip
from tests.server.live import serving

SHORT = ("--duration-s", "0.2", "--warmup-s", "0.05")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A server of ours that takes {"image": (64, 64, 3), "state": (any,)} and answers (14,)."""
    with serving(demo_image()) as server:
        yield f"ws://127.0.0.1:{server.port}"


@pytest.fixture(scope="module")
def url_with_parts() -> Iterator[str]:
    """The same, whose actions have parts with names."""
    parts = {"modality": {"arm": 13, "gripper": 1}, "xpolicylab": {"actions": {"arm_joint_state": 14}}}
    spec = replace(demo_image().spec, metadata=parts)
    with serving(FunctionPolicy(lambda observation: np.zeros(14, np.float32), spec)) as server:
        yield f"ws://127.0.0.1:{server.port}"


def bench(*argv: str) -> None:
    main(["bench", *argv, *(() if "--duration-s" in argv else SHORT)])


def quantile_row(table: str, name: str) -> list[float]:
    """The four figures of a row."""
    found = re.search(rf"^ *{re.escape(name)} +([\d.]+) +([\d.]+) +([\d.]+) +([\d.]+)", table, re.MULTILINE)
    assert found, table
    return [float(figure) for figure in found.groups()]


def test_a_preset_is_started_driven_and_ended() -> None:
    done = run(*POLICYSERVE, "bench", "cartpole_ppo", *SHORT)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.startswith("cartpole_ppo   openpi, auto (16 bytes), 1 client, closed loop\n")
    for part in ("round trip", "client", "network", "server", "queue", "infer"):
        p50, p90, p99, most = quantile_row(done.stdout, part)
        assert p50 <= p90 <= p99 <= most
    assert re.search(r"^answers +\d+ per second \(\d+ in 0\.2 s\)$", done.stdout, re.MULTILINE)
    assert re.search(r"^errors +none$", done.stdout, re.MULTILINE)


def test_flags_behind_two_dashes_are_the_servers() -> None:
    done = run(*POLICYSERVE, "bench", "cartpole_ppo", *SHORT, "--", "--checkpoint-dir", "nowhere")
    assert done.returncode == 1
    assert "the server of cartpole_ppo did not start: checkpoint directory not found: nowhere" in done.stderr
    assert done.stderr.count("\n") == 1


TELL_ALL = ("openpi", "wall_x")  # where the time goes
NAMED = {"molmospaces": 'metadata["modality"]', "xpolicylab": "metadata="}  # whose answers have parts with names


@pytest.mark.parametrize("dialect", dialects.client_names())
def test_every_dialect_that_a_client_speaks_is_driven(
    url: str, url_with_parts: str, dialect: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if dialect in NAMED:
        with pytest.raises(SystemExit):
            bench(url, "--dialect", dialect)
        assert NAMED[dialect] in capsys.readouterr().err
        url = url_with_parts
    for more in ((), ("--raw",)):
        bench(url, "--dialect", dialect, *more)
        table = capsys.readouterr().out
        assert f"{dialect}, auto (12.3 kB), 1 client" in table
        assert re.search(r"^errors +none$", table, re.MULTILINE)


@pytest.mark.parametrize("dialect", dialects.http_names())
def test_every_family_that_asks_by_http_is_driven(url: str, dialect: str, capsys: pytest.CaptureFixture[str]) -> None:
    bench(url, "--dialect", dialect)
    assert f"{dialect}, auto (12.3 kB), 1 client" in capsys.readouterr().out
    bench(f"http{url.removeprefix('ws')}", "--dialect", dialect, "--clients", "3")
    table = capsys.readouterr().out
    assert f"{dialect}, auto (12.3 kB), 3 clients" in table
    assert re.search(r"^errors +none$", table, re.MULTILINE)


@pytest.mark.parametrize("clients", ["1", "3"])
def test_lerobots_port_is_driven(clients: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import_or_skip("grpc")
    with serving(demo_image(), lerobot=0) as server:
        assert server.server.lerobot is not None
        url = f"grpc://{server.server.lerobot.place}/demo_image"
        payload = {"image": {"shape": [64, 64, 3], "dtype": "uint8"}, "state": {"shape": [8]}}
        with pytest.raises(SystemExit):
            bench(url)
        assert "the server does not tell what it takes: name a --payload" in capsys.readouterr().err
        with pytest.raises(SystemExit):
            bench(url, "--raw", "--payload", "cartpole")
        assert (
            "--raw sends one prepared frame of a WebSocket: expected ws://host:port, got grpc"
            in capsys.readouterr().err
        )
        file = tmp_path / "robot.json"
        file.write_text(json.dumps(payload))
        bench(url, "--payload", str(file), "--clients", clients)
    assert re.search(r"^errors +none$", capsys.readouterr().out, re.MULTILINE)


def test_a_policy_is_started_with_a_port_of_lerobots() -> None:
    import_or_skip("grpc")
    done = run(*POLICYSERVE, "bench", "demo_image", "--dialect", "lerobot", *SHORT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("demo_image   lerobot, auto (12.3 kB), 1 client, closed loop\n")


def test_the_help_names_every_dialect(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["bench", "--help"])
    told = re.sub(r"\W+", " ", capsys.readouterr().out)
    assert [name for name in (*dialects.client_names(), *dialects.http_names()) if f" {name} " not in told] == []


def test_a_dialect_that_only_other_programs_speak_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(dialects.by_name("lerobot")), "has_client", False, raising=False)
    with pytest.raises(SystemExit) as ended:
        bench("ws://127.0.0.1:1", "--dialect", "lerobot")
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert "got 'lerobot', which only other programs' clients speak" in told
    assert told.count("\n") == 1


@pytest.mark.parametrize("dialect", ["openpi", "wall_x", "vibe_rl", "vla_eval"])
@pytest.mark.parametrize("clients", ["1", "3"])
def test_every_dialect_is_spoken_by_one_client_and_by_many(
    url: str, dialect: str, clients: str, capsys: pytest.CaptureFixture[str]
) -> None:
    bench(url, "--dialect", dialect, "--clients", clients)
    table = capsys.readouterr().out
    assert f"{dialect}, auto (12.3 kB), {clients} client" in table
    assert quantile_row(table, "infer" if dialect in TELL_ALL else "server + infer")[0] > 0


def test_a_path_that_names_a_dialect_is_believed(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    bench(f"{url}/wall_x")
    assert "wall_x, auto" in capsys.readouterr().out


def test_an_open_loop_says_how_late_requests_were(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    bench(url, "--rate-hz", "50", "--clients", "2", "--duration-s", "0.4")
    table = capsys.readouterr().out
    assert "2 clients, 50 requests per second each" in table
    assert quantile_row(table, "late")[0] <= quantile_row(table, "round trip")[3]
    found = re.search(r"\((\d+) in", table)
    assert found
    assert int(found.group(1)) <= 2 * 50 * 0.4 + 2


def test_raw_clients_measure_the_server_alone(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    bench(url, "--raw", "--clients", "2")
    table = capsys.readouterr().out
    assert "2 clients, raw, closed loop" in table
    assert quantile_row(table, "network + server")[0] > 0


def test_two_servers_in_turns_and_their_ratios(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "figures.json"
    bench(url, "--against", f"{url}/vibe_rl", "--slices", "4", "--json", str(file))
    told = capsys.readouterr().out
    assert f"{url} / {url}/vibe_rl:\n  median of 4 pairs of slices (quartiles)\n" in told
    assert told.count("the way there and back") == 1
    figures = json.loads(file.read_text())
    assert [server["dialect"] for server in figures["servers"]] == ["openpi", "vibe_rl"]
    for name in ("round trip p50", "round trip p99", "answers per second"):
        ratio = figures["ratios"][name]
        assert 0 < ratio["low"] <= ratio["median"] <= ratio["high"]
        assert ratio["count"] == 4
        assert f"{name:<20}{ratio['median']:6.3f}" in told


def test_a_terminal_shows_a_bar_and_then_the_part_that_takes_longest_in_colour(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    bench(url, "--duration-s", "0.6")
    shown = terminal.getvalue()
    assert re.search(r"\r\033\[Kws://127\.0\.0\.1:\d+: \[#+\.*\] 0\.\d of 0\.6 s, \d+ answers?", shown)
    table = shown.rpartition("\r\033[K")[2]
    (coloured,) = re.findall(r"^\033\[33m  (.*?) .*\033\[0m$", table, re.MULTILINE)
    plain = re.sub(r"\033\[\d+m", "", table)
    medians = {name: quantile_row(plain, name)[0] for name in ("client", "network", "server", "queue", "infer")}
    assert coloured == max(medians, key=lambda name: medians[name])
    assert max(map(len, plain.splitlines())) <= 80


def test_all_figures_are_in_the_file(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "figures.json"
    bench(url, "--json", str(file))
    (server,) = json.loads(file.read_text())["servers"]
    assert server["answers"] > 0
    assert server["actions_per_second"] == pytest.approx(server["answers"] / server["seconds"])
    assert set(server["ms"]) == {"round trip", "client", "network", "server", "queue", "infer"}
    assert server["errors"] == {}
    assert f"{server['answers']} in" in capsys.readouterr().out


def test_stdout_can_be_the_file_of_figures_and_the_table_is_then_on_stderr(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    bench(url, "--json", "-")
    out, err = capsys.readouterr()
    assert json.loads(out)["servers"][0]["answers"] > 0
    assert quantile_row(err, "round trip")[0] > 0
    bench(url, "--sweep", "--rate-hz", "1", "--max-clients", "1", "--json", "-")
    out, err = capsys.readouterr()
    assert json.loads(out)["sweep"][0]["holds"]
    assert "1 client holds 1 Hz" in err


def test_a_sweep_ends_with_the_number_that_holds(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "figures.json"
    bench(url, "--sweep", "--rate-hz", "1", "--max-clients", "3", "--duration-s", "0.3", "--json", str(file))
    told = capsys.readouterr().out
    assert re.findall(r"^ +(\d) clients? +p99 [\d.]+ ms.*holds$", told, re.MULTILINE) == ["1", "2", "3"]
    assert "3 clients hold 1 Hz: p99 within 1000 ms, no errors (more than 3 were not tried)\n" in told
    assert [step["clients"] for step in json.loads(file.read_text())["sweep"]] == [1, 2, 3]


def test_a_sweep_that_no_client_holds_says_what_one_alone_does(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    bench(url, "--sweep", "--rate-hz", "100000", "--clients", "2", "--duration-s", "0.05")
    told = " ".join(capsys.readouterr().out.split())
    assert told.count("does not hold") == 2
    assert re.search(r"no number of clients holds 100000 Hz: one client alone has p99 [\d.]+ ms", told)
    assert re.search(r"\(load of this machine: \d+\)$", told)


@pytest.mark.parametrize("mode", [(), ("--against", "again"), ("--sweep", "--rate-hz", "2", "--max-clients", "2")])
def test_a_picture_is_drawn(
    mode: tuple[str, ...], url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    file = tmp_path / "out.png"
    flags = [url if flag == "again" else flag for flag in mode]
    bench(url, *flags, "--duration-s", "0.3", "--plot", str(file))
    assert file.read_bytes().startswith(b"\x89PNG")


def test_a_picture_without_matplotlib_names_the_extra(
    url: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(SystemExit) as exit_request:
        bench(url, "--plot", "out.png")
    assert exit_request.value.code == 2
    assert "matplotlib is not installed; run: pip install 'policyserve[bench]'" in capfd.readouterr().err


def test_ctrl_c_prints_what_was_measured_so_far(url: str) -> None:
    command = [*POLICYSERVE, "bench", url, "--duration-s", "60", "--warmup-s", "0", "--clients", "2"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    pipe = subprocess.PIPE
    with serving(EchoPolicy()) as echo:
        command[4] = f"ws://127.0.0.1:{echo.port}"
        process = subprocess.Popen(command, cwd=ROOT, text=True, stdout=pipe, stderr=pipe, env=environment)
        while echo.call(lambda: echo.server.counters.requests if echo.server else 0) < 50:
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)  # the server tells nobody
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert err == ""
    assert "stopped before 60 s" in out
    assert quantile_row(out, "round trip")[0] > 0


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
    "a raw body": (["ws://x:1", "--raw", "--dialect", "xvla"], 2, "--raw sends one prepared frame of a WebSocket"),
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


@pytest.mark.parametrize("clients", ["1", "2"])
def test_images_go_as_jpegs_of_a_scene(url: str, clients: str, capfd: pytest.CaptureFixture[str]) -> None:
    import_or_skip("simplejpeg")
    rates = []
    for images in ("jpeg", "raw"):
        bench(url, "--images", images, "--clients", clients, "--json", "-")
        told = json.loads(capfd.readouterr().out)
        (server,) = told["servers"]
        assert (told["settings"]["images"], told["settings"]["jpeg_quality"], server["errors"]) == (images, 90, {})
        rates.append(server["image_mbit_per_second"] / server["answers_per_second"])
    assert rates[0] < rates[1] / 3  # what one request takes of the network
    bench(url, "--images", "auto", "--jpeg-quality", "80")
    told = " ".join(capfd.readouterr().out.split())
    assert ", images auto of quality 80" in told
    assert "network the way there and back, shrinking and encoding pictures included" in told


def test_a_payload_that_is_refused_shows_the_refusal_and_its_key(url: str, capfd: pytest.CaptureFixture[str]) -> None:
    for dialect in ("openpi", "vibe_rl"):
        code, line = complaint([url, "--payload", "cartpole", "--dialect", dialect], capfd)
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


def test_the_help_says_what_every_flag_does() -> None:
    said = run_in("pipe", ["bench", "--help"])
    assert (said.code, said.err) == (0, "")
    told = " ".join(said.out.split())
    for words in (
        "usage: policyserve bench TARGET [flags]",
        "--against TEXT",
        "both are driven in turns",
        "--payload TEXT What to send: cartpole, libero (two 224x224 images), aloha",
        '"shape": [64, 64, 3], "dtype": "uint8"',
        "--rate-hz NUMBER Requests per second of each client, due at fixed times",
        "--sweep Find the largest number of clients",
        "--json PATH",
        "--plot PATH",
    ):
        assert words in told
