"""`policyserve doctor` as a person uses it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from policyserve.cli.layout import width_of
from policyserve.dialects import by_name
from policyserve.policies.fakes import demo_image
from tests.cli.terminals import COLUMNS, WHERE, Where, plain, run_in, unbroken
from tests.doctor.sick import closed_port, stand_in, take_any_time
from tests.server.live import serving

KEY = "a-key-of-16-letters"
GREEN, RED, ARROW = "\x1b[32m✓\x1b[0m", "\x1b[31m✗\x1b[0m", "\x1b[36m→\x1b[0m"


@pytest.fixture(autouse=True)
def on_any_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    take_any_time(monkeypatch)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving(demo_image()) as live:
        yield f"ws://127.0.0.1:{live.port}"


@pytest.mark.parametrize("where", WHERE)
def test_a_healthy_server_ends_with_0(url: str, where: Where) -> None:
    said = run_in(where, ["doctor", url])
    assert (said.code, said.err) == (0, "")
    lines = plain(said.out).splitlines()
    assert lines[0] == url
    assert lines[-1] == "healthy: 11 passed"
    assert max(map(width_of, lines)) <= COLUMNS
    assert (GREEN in said.out) == (where == "terminal")


@pytest.mark.parametrize("where", WHERE)
def test_a_closed_port_ends_with_2_and_says_what_to_do(where: Where) -> None:
    said = run_in(where, ["doctor", f"ws://127.0.0.1:{closed_port()}"])
    assert (said.code, said.err) == (2, "")
    assert "→ nothing listens there: start the server" in plain(said.out)
    assert plain(said.out).splitlines()[-1] == "broken: 1 failed"
    assert max(map(width_of, plain(said.out).splitlines())) <= COLUMNS
    assert (RED in said.out and ARROW in said.out) == (where == "terminal")


def test_what_could_not_be_asked_ends_with_1() -> None:
    with stand_in("openpi", np.zeros(2, np.float32)) as url:
        said = run_in("pipe", ["doctor", url])
    assert said.code == 1
    assert "--example FILE" in said.out
    assert "not all is well" in said.out


def test_programs_get_one_object_and_nothing_else(url: str) -> None:
    said = run_in("pipe", ["doctor", url, "--json"])
    told = json.loads(said.out)
    assert (said.code, said.err) == (0, "")
    assert (told["format"], told["url"], told["verdict"], told["status"]) == (1, url, "ok", 0)
    assert told["findings"][-2]["figures"]["network"]["p50_ms"] >= 0


def test_a_frame_is_told_key_by_key(url: str, tmp_path: Path) -> None:
    frame = tmp_path / "frame.bin"
    frame.write_bytes(by_name("openpi").write_request({"camera": np.zeros((3, 64, 64), np.uint8)}))
    said = run_in("pipe", ["doctor", url, "--frame", str(frame)])
    assert said.code == 2
    for told in ("→ rename camera to image", "→ turn its axes: image.transpose(1, 2, 0)", "→ send it as state"):
        assert told in said.out


def test_an_example_is_asked_with(url: str, tmp_path: Path) -> None:
    example = tmp_path / "seen.npz"
    np.savez(example, image=np.zeros((64, 64, 3), np.uint8), state=np.zeros(3, np.float32))
    said = run_in("pipe", ["doctor", url, "--example", str(example)])
    assert said.code == 0
    assert "made of seen.npz, 12.3 kB" in said.out


@pytest.mark.parametrize("given", ["variable", "file", "url", "none", "wrong"])
def test_a_key_is_taken_from_where_it_is_kept_and_never_shown(given: str, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"# the lab's\nrobot: {KEY}\n")
    keys.chmod(0o600)
    environment = {"POLICYSERVE_API_KEY": {"variable": KEY, "wrong": "no-key-of-this-server"}.get(given, "")}
    flags = ["--api-key-file", str(keys)] if given == "file" else []
    with serving(demo_image(), api_key_file=str(keys)) as live:
        host = f"robot:{KEY}@127.0.0.1" if given == "url" else "127.0.0.1"
        said = run_in("pipe", ["doctor", f"ws://{host}:{live.port}", *flags], **environment)
    assert said.code == (2 if given in ("none", "wrong") else 0), said
    assert KEY not in said.out + said.err
    assert "no-key-of-this-server" not in said.out + said.err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["localhost:8000"], "did you mean ws://localhost:8000?"),
        (["http://robot:8000/"], "did you mean ws://robot:8000?"),
        (["cartpole_ppo"], "got 'cartpole_ppo'\n"),
        (["https://robot"], "did you mean wss://robot?"),
        (["ws://robot", "--dialect", "openpy"], "did you mean 'openpi'?"),
        (["ws://robot", "--timeout-s", "0"], "--timeout-s: expected more than 0"),
        (["ws://robot", "--frame", "nowhere.bin"], "--frame: there is no file nowhere.bin"),
        (["ws://robot", "--example", "nowhere.npz"], "--example: there is no file nowhere.npz"),
        (["ws://robot", "--api-key-file", "nowhere"], "--api-key-file: nowhere cannot be read"),
        (["ws://robot", "--api-key", KEY], "set POLICYSERVE_API_KEY"),
        (["ws://robot", "--jsn"], "--json"),
        ([], "URL"),
    ],
)
@pytest.mark.parametrize("where", WHERE)
def test_a_mistake_is_told_in_one_line(where: Where, words: list[str], told: str) -> None:
    said = run_in(where, ["doctor", *words])
    assert (said.code, said.out) == (2, "")
    assert told in unbroken(said.err)
    assert KEY not in said.err


def test_the_help_names_its_exit_statuses() -> None:
    said = run_in("pipe", ["doctor", "--help"])
    assert said.code == 0
    assert "with 1 if there is something to look at" in " ".join(said.out.split())


def test_what_can_be_no_key_is_told_before_anything_is_asked() -> None:
    said = run_in("pipe", ["doctor", "ws://robot"], POLICYSERVE_API_KEY="ключ-из-букв-кириллицы")
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("error: api_key: expected printable ASCII characters")
