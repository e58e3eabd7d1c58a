"""Keys on a command line: they stand in no line, no table, no file and no list of processes of ours."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policyserve.bench.load import Load
from policyserve.bench.run import Settings
from policyserve.bench.target import Peek
from policyserve.cli import main
from policyserve.cli.bench import BenchFlags
from policyserve.cli.eval import EvalServer, Target
from policyserve.cli.keys import key_from_environment, without_keys
from policyserve.policies.fakes import demo_image
from tests.cli.serving import ROOT, run
from tests.server.certificates import make_certificate
from tests.server.live import Live, serving

KEY, OTHER = "zq7-not-a-real-key-51", "zq8-not-a-real-key-52"
SHORT = ("--duration-s", "0.2", "--warmup-s", "0.05")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A server of ours that wants one of two keys."""
    file = tmp_path_factory.mktemp("keys") / "keys"
    file.write_text(f"robot-7: {KEY}\nsimulator: {OTHER}\n")
    file.chmod(0o600)
    with serving(demo_image(), api_key_file=str(file)) as live:
        yield live


def url(live: Live, key: str = KEY, path: str = "") -> str:
    return f"ws://robot-7:{key}@127.0.0.1:{live.port}{path}"


def told(capfd: pytest.CaptureFixture[str]) -> str:
    out, err = capfd.readouterr()
    return out + err


@pytest.mark.parametrize(
    "flags",
    [
        (),
        ("--raw",),
        ("--clients", "3"),
        ("--sweep", "--rate-hz", "5", "--max-clients", "1"),
        ("--dialect", "vibe_rl"),
    ],
)
def test_bench_is_let_in_by_a_urls_key_and_shows_it_nowhere(
    guarded: Live, flags: tuple[str, ...], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    report, picture = tmp_path / "report.json", tmp_path / "picture.svg"
    main(["bench", url(guarded), *flags, *SHORT, "--json", str(report), "--plot", str(picture)])
    said = told(capfd)
    assert f"ws://…@127.0.0.1:{guarded.port}" in said
    assert "ps shows it" in said
    for text in (said, report.read_text(), picture.read_text()):
        assert KEY not in text
    for server in json.loads(report.read_text())["servers"]:
        assert server["url"] == server["name"] == f"ws://…@127.0.0.1:{guarded.port}"


def test_bench_against_another_lets_each_url_have_its_own_key(
    guarded: Live, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POLICYSERVE_API_KEY", "a-third-key-that-nobody-knows")
    report = tmp_path / "report.json"
    against = ("--against", url(guarded, OTHER, "/openpi"), "--slices", "2", "--json", str(report))
    main(["bench", url(guarded), *SHORT, *against])
    for text in (told(capfd), report.read_text()):
        assert KEY not in text
        assert OTHER not in text


@pytest.mark.parametrize("flags", [(), ("--raw",), ("--dialect", "wall_x"), ("--payload", "cartpole")])
def test_benchs_errors_show_no_key(guarded: Live, flags: tuple[str, ...], capfd: pytest.CaptureFixture[str]) -> None:
    for wrong in (url(guarded, "a-wrong-key-entirely"), f"ws://robot-7:{KEY}@127.0.0.1:1", url(guarded, path="/%zz")):
        with suppress(SystemExit):  # a path may be as good as another
            main(["bench", wrong, *flags, "--duration-s", "0.05", "--warmup-s", "0", "--timeout-s", "5"])
    said = told(capfd)
    assert "a-wrong-key" not in said
    assert KEY not in said


COMPLAINTS = {
    "a port that is none": ["bench", f"ws://robot-7:{KEY}@127.0.0.1:99999"],
    "another scheme": ["bench", f"http://robot-7:{KEY}@127.0.0.1:8000"],
    "no scheme": ["bench", f"robot-7:{KEY}@127.0.0.1:8000"],
    "no scheme of the other": ["bench", "ws://127.0.0.1:1", "--against", f"robot-7:{KEY}@127.0.0.1:8000"],
    "an @ that was forgotten": ["bench", f"ws://robot-7:{KEY}:127.0.0.1:8000"],
    "an unknown flag before a URL": ["bench", "ws://127.0.0.1:1", "--agianst", f"ws://robot-7:{KEY}@127.0.0.1:8000"],
    "a URL in a number's place": ["bench", "ws://127.0.0.1:1", "--clients", f"ws://robot-7:{KEY}@127.0.0.1:8000"],
    "a flag for a key": ["bench", "ws://127.0.0.1:1", "--api-key", KEY],
    "a flag for a key, with =": ["bench", "ws://127.0.0.1:1", f"--api_key={KEY}"],
    "a token": ["bench", "ws://127.0.0.1:1", "--token", KEY],
    "eval's URL": ["eval", "--url", f"robot-7:{KEY}@127.0.0.1:1", "--env", "CartPole-v1"],
    "eval's dead port": ["eval", "--url", f"ws://robot-7:{KEY}@127.0.0.1:1", "--env", "CartPole-v1"],
    "eval's key": ["eval", "--url", "ws://127.0.0.1:1", "--env", "CartPole-v1", "--api-key", KEY],
    "a served URL": ["serve", f"ws://robot-7:{KEY}@127.0.0.1:8000"],
    "a server's key": ["serve", "cartpole_ppo", "--api-key", KEY],
    "a server's key under another name": ["serve", "cartpole_ppo", f"--key={KEY}"],
    "a key in place of its file": ["serve", "cartpole_ppo", "--port", "0", "--api-key-file", KEY],
    "a command that is none": [f"ws://robot-7:{KEY}@127.0.0.1:8000"],
}


@pytest.mark.parametrize("mistake", COMPLAINTS)
def test_no_complaint_shows_a_key(mistake: str, capfd: pytest.CaptureFixture[str]) -> None:
    if COMPLAINTS[mistake][0] == "eval":
        pytest.importorskip("gymnasium")
    with pytest.raises(SystemExit) as exit_request:
        main(COMPLAINTS[mistake])
    assert exit_request.value.code in (1, 2)
    said = told(capfd)
    assert said
    assert KEY not in said


@pytest.mark.parametrize("flag", ["--api-key", "--api_key", "--apikey", "--key", "--token", "--password"])
@pytest.mark.parametrize(
    "command", [["serve", "cartpole_ppo"], ["bench", "ws://127.0.0.1:1"], ["eval", "--url", "ws://127.0.0.1:1"]]
)
def test_no_flag_takes_a_key_itself(command: list[str], flag: str, capfd: pytest.CaptureFixture[str]) -> None:
    for words in ([flag, KEY], [f"{flag}={KEY}"]):
        with pytest.raises(SystemExit) as exit_request:
            main([*command, *words])
        assert exit_request.value.code == 2
        said = told(capfd)
        assert f"there is no {flag}, since everybody on this machine could read the key" in said
        assert "set POLICYSERVE_API_KEY" in said
        assert KEY not in said


def test_eval_is_let_in_by_the_environments_key_or_by_its_urls(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("gymnasium")
    (tmp_path / "keys").write_text(f"robot-7: {KEY}\n")
    (tmp_path / "keys").chmod(0o600)
    with serving(lambda observation: np.int64(observation[2] > 0), api_key_file=str(tmp_path / "keys")) as live:
        place = f"127.0.0.1:{live.port}"
        flags = ("--env", "CartPole-v1", "--episodes", "1")
        main(["eval", "--url", url(live), *flags])
        said = told(capfd)
        assert f"ws://…@{place}" in said
        assert KEY not in said
        monkeypatch.setenv("POLICYSERVE_API_KEY", f"robot-7:{KEY},other:{OTHER}")
        main(["eval", "--url", f"ws://{place}", *flags])
        assert KEY not in told(capfd)
    main(["eval", "cartpole_ppo", "--episodes", "1"])  # whose server takes the same key
    assert KEY not in told(capfd)


@pytest.mark.parametrize("command", [["eval", "--env", "CartPole-v1", "--url"], ["bench", *SHORT]])
def test_a_command_without_a_key_is_told_where_it_takes_one_from(
    guarded: Live, command: list[str], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("gymnasium")
    monkeypatch.delenv("POLICYSERVE_API_KEY", raising=False)
    with pytest.raises(SystemExit) as exit_request:
        main([*command, f"ws://127.0.0.1:{guarded.port}"])
    assert exit_request.value.code == 1
    assert "wants an API key (set POLICYSERVE_API_KEY)" in told(capfd)


def test_a_command_that_does_not_know_the_ca_is_told_of_no_argument_in_python(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    cert, key = make_certificate(tmp_path)
    with serving(demo_image(), tls_cert=cert, tls_key=key) as live, pytest.raises(SystemExit):
        main(["bench", *SHORT, f"wss://127.0.0.1:{live.port}"])
    assert "; SSL_CERT_FILE=ca.pem in the environment trusts a CA of your own" in told(capfd)


@pytest.mark.parametrize(
    ("place", "said"),
    [
        (f"ws://robot-7:{KEY}@127.0.0.1:1", "cannot connect to ws://…@127.0.0.1:1"),
        (f"robot-7:{KEY}@127.0.0.1:1", "--url: expected ws://host:port"),
        (f"ws://robot-7:{KEY}", "--url: expected ws://host:port"),
    ],
)
def test_the_example_client_shows_no_key(place: str, said: str) -> None:
    done = run(sys.executable, "examples/simple_client.py", "--url", place, cwd=ROOT)
    assert said in done.stderr
    assert KEY not in done.stdout + done.stderr


@pytest.mark.parametrize(
    "value",
    [
        Load(f"ws://a:{KEY}@b", "openpi", {}, api_key=KEY),
        Settings(api_key=KEY),
        Peek(f"ws://a:{KEY}@b", f"ws://a:{KEY}@b", 1.0, KEY),
        Target(f"ws://a:{KEY}@b", "openpi"),
        EvalServer(f"ws://a:{KEY}@b"),
        BenchFlags(f"ws://a:{KEY}@b", against=f"ws://a:{KEY}@b"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_holds_a_key_has_a_repr_without_it(value: Any) -> None:
    assert KEY not in repr(value)


@pytest.mark.parametrize(
    ("variable", "key"),
    [(None, None), ("", None), (KEY, KEY), (f"robot-7:{KEY}", KEY), (f" robot-7: {KEY} , other:{OTHER}", KEY)],
)
def test_the_environments_first_key_is_the_one_that_is_sent(
    variable: str | None, key: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("POLICYSERVE_API_KEY", raising=False)
    if variable is not None:
        monkeypatch.setenv("POLICYSERVE_API_KEY", variable)
    assert key_from_environment() == key


def test_a_message_keeps_all_but_the_keys_in_it() -> None:
    assert without_keys(f"got 'ws://robot-7:{KEY}@lab:1', which") == "got 'ws://…@lab:1', which"
    assert without_keys(f"x: got robot-7:{KEY}@lab:1 there") == "x: got …@lab:1 there"
    for plain in ("--port: expected 0 … 65535, got 70000", "ws://127.0.0.1:1 and a@b", "", "policy@1.sock: there"):
        assert without_keys(plain) == plain
