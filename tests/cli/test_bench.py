"""`policyserve bench` as a person uses it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from policyserve import dialects
from policyserve.cli import main
from policyserve.core.policy import FunctionPolicy
from policyserve.policies.fakes import EchoPolicy, demo_image
from tests.cli.serving import POLICYSERVE, ROOT, run
from tests.cli.terminals import run_in
from tests.cli.test_colours import Terminal
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
