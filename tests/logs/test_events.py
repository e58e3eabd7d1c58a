"""Every event of the closed list is logged for real, as JSON, with the facts that its line in docs/logs.md names."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed

from policyserve.client.sync import Client
from policyserve.core.errors import ConfigError, PolicyFailed, RemoteError
from policyserve.core.events import EVENTS
from policyserve.core.log import log_unraisable
from policyserve.core.observer import Observer
from policyserve.core.policy import FunctionPolicy, as_policy
from policyserve.core.recipe import Newest
from policyserve.core.spec import ArraySpec, PolicySpec
from policyserve.engine.answering import Answering, Task
from policyserve.engine.engine import deliver
from policyserve.engine.runner import ThreadRunner
from policyserve.logs.log_file import LogFile
from tests.cli.serving import POLICYSERVE, run
from tests.core.test_printable import is_harmless
from tests.engine.running import recipe
from tests.logs.reading import Kept, keeping
from tests.policies.frameworks import import_or_skip
from tests.server.certificates import make_certificate
from tests.server.exchanging import numbered, swapping
from tests.server.live import DEADLINE_S, ask, frame, open_raw, serving, until_eof
from tests.server.test_changing import reloading, until_answering, write

SPEC = PolicySpec("arm", {"x": ArraySpec((1,))}, ArraySpec((1,)))
Scene = Callable[[Kept, Path], None]


def sessions(kept: Kept, _folder: Path) -> None:
    with serving() as live, live.websocket("/") as peer:
        assert ask(peer, 1.0) == 1.0


def a_silent_client(kept: Kept, _folder: Path) -> None:
    with serving(hello_grace_ms=1.0) as live, live.websocket("/") as peer:
        peer.recv(timeout=DEADLINE_S)
        live.until(kept.has("session_greeted"))


def an_idle_client(kept: Kept, _folder: Path) -> None:
    with serving(idle_timeout_s=0.05) as live, live.websocket() as peer, pytest.raises(ConnectionClosed):
        peer.recv(timeout=DEADLINE_S)


def keys_that_no_spec_has(kept: Kept, _folder: Path) -> None:
    policy = FunctionPolicy(lambda seen: seen["x"], SPEC)
    with serving(policy) as live, Client(live.url("/openpi")) as client:
        client.infer({"x": np.zeros(1, np.float32), "other": 1})


def a_key_that_the_policy_calls_otherwise(kept: Kept, _folder: Path) -> None:
    policy = FunctionPolicy(lambda seen: seen["x"], SPEC)
    with serving(policy, map=("state=x",)) as live, Client(live.url("/openpi")) as client:
        client.infer({"state": np.zeros(1, np.float32)})


def pictures_of_0_and_1(kept: Kept, _folder: Path) -> None:
    with serving(lambda _: np.zeros(2)) as live, Client(live.url("/openpi")) as client:
        client.infer({"view": np.ones((4, 4, 3), np.uint8)})


def a_wrong_observation(kept: Kept, _folder: Path) -> None:
    policy = FunctionPolicy(lambda seen: seen["x"], SPEC)
    with serving(policy) as live, Client(live.url("/openpi")) as client, pytest.raises(RemoteError):
        client.infer({"x": np.zeros(7, np.float32)})


def an_outcome_that_nobody_takes(kept: Kept, _folder: Path) -> None:
    def raises(_outcome: Any) -> None:
        raise OSError("gone")

    deliver(raises, PolicyFailed("it failed"), 7)


def a_request_that_is_no_http(kept: Kept, _folder: Path) -> None:
    with serving() as live, live.tcp() as peer:
        peer.sendall(b"HELLO\r\n\r\n")
        until_eof(peer)


def more_connections_than_wait(kept: Kept, _folder: Path) -> None:
    with serving(max_handshakes=1) as live, live.tcp() as first, live.tcp():
        until_eof(first)


def a_client_without_tls(kept: Kept, folder: Path) -> None:
    cert, key = make_certificate(folder)
    with serving(tls_cert=cert, tls_key=key) as live, live.tcp() as peer:
        peer.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        live.until(kept.has("handshake_failed"))


def a_frame_without_a_mask(kept: Kept, _folder: Path) -> None:
    with serving() as live:
        peer, _ = open_raw(live)
        with peer:
            peer.sendall(b"\x82\x01x")
            until_eof(peer)


def a_process_that_is_killed(kept: Kept, folder: Path) -> None:
    with serving(load=recipe("load_vibe_rl", marks=folder), isolate="process") as live:
        live.ready()
        with live.websocket() as peer:
            peer.send(frame([float(signal.SIGKILL)]))
            with pytest.raises(ConnectionClosed):
                peer.recv(timeout=DEADLINE_S)
        live.until(kept.has("policy_replaced"))


def a_policy_that_does_not_come_back(kept: Kept, folder: Path) -> None:
    with serving(load=recipe("load_once", marks=folder), isolate="thread") as live:
        live.ready()
        with Client(live.url("/openpi")) as client, pytest.raises(RemoteError):
            client.infer({"x": np.array([6], np.float32), "do": "fail"})
        live.until(kept.has("policy_not_replaced"))
        (folder / "heal").touch()
        live.until(kept.has("policy_replaced"))


def an_inline_policy_that_is_slow(kept: Kept, _folder: Path) -> None:
    is_warm = False

    def act(seen: Any) -> Any:
        if is_warm:
            threading.Event().wait(0.15)
        return seen["obs"]

    spec = PolicySpec("reflex", {"obs": ArraySpec((2,))}, ArraySpec((2,)), inline=True)

    async def main() -> None:
        nonlocal is_warm
        runner = ThreadRunner(lambda _on_stage: FunctionPolicy(act, spec))
        await runner.start(lambda _stage: None)
        is_warm = True
        while runner.inline is not None:
            runner.inline.answer([Task("a", {"obs": np.zeros(2, np.float32)})])
        await runner.close(5)

    asyncio.run(main())


class Remembering:
    """A policy with one memory."""

    def __init__(self) -> None:
        self.calls = 0

    def infer(self, _observation: Any) -> Any:
        self.calls += 1
        return np.full(1, self.calls)

    def reset(self) -> None:
        self.calls = 0


class Unclosable(FunctionPolicy):
    def close(self) -> None:
        raise OSError("no\nway")


def a_memory_that_two_share(kept: Kept, _folder: Path) -> None:
    answering = Answering(as_policy(Remembering()))
    for session in (1, 2):
        answering.answer([Task(session, {})])


def a_close_that_fails(kept: Kept, _folder: Path) -> None:
    with serving(load=lambda _: Unclosable(lambda seen: seen["x"], SPEC), isolate="thread") as live:
        live.ready()


def code_that_changes(kept: Kept, folder: Path) -> None:
    os.chdir(folder)
    write(1)
    with reloading() as live, live.websocket("/openpi"):
        write(2)
        until_answering(live, 2)
        Path("my_policy.py").write_text("def policy(")
        live.until(kept.has("policy_not_reloaded"))


def a_policy_that_is_exchanged(kept: Kept, _folder: Path) -> None:
    with swapping() as (live, engine):
        live.finish(engine.swap(numbered(2)))
        with pytest.raises(ConfigError):
            live.finish(engine.swap(numbered(3, fails=True)))


def a_run_that_is_followed(kept: Kept, _folder: Path) -> None:
    def look() -> Newest:
        raise ConfigError("the run is gone")

    with serving() as live:
        live.call(lambda: live.server.follow(look, Newest(1, recipe(), 0), every_s=0.01))
        live.call(live.server._followers[0].start)  # pyright: ignore[reportPrivateUsage]
        live.until(kept.has("run_lost"))


def a_server_on_all_addresses(kept: Kept, _folder: Path) -> None:
    with serving(host="0.0.0.0"):
        pass


def a_port_beside_a_unix_socket(kept: Kept, folder: Path) -> None:
    with serving(uds=str(folder / "socket")):
        pass


def files_that_are_read_again(kept: Kept, folder: Path) -> None:
    keys = folder / "keys"
    keys.write_text("robot: abcdefghijklmnopqrstuvwxyz\n")
    keys.chmod(0o600)
    with serving(api_key_file=str(keys)) as live:
        live.call(live.server.reload)
        keys.write_text("robot\n")
        live.call(live.server.reload)


def a_server_at_work(kept: Kept, _folder: Path) -> None:
    with serving(stats_every_s=0.01) as live, live.websocket() as peer:
        ask(peer, 1.0)
        live.until(kept.has("statistics"))


def a_recording_that_ends_early(kept: Kept, folder: Path) -> None:
    import_or_skip("mcap.writer")
    with serving(record=str(folder / "runs"), record_queue_mib=1.0) as live, live.websocket() as peer:
        live.until(kept.has("recording_begun"))
        recorder = live.server.recorder
        assert recorder is not None
        os.kill(recorder.number, signal.SIGSTOP)
        try:
            ask(peer, 1.0)
            peer.send(frame(np.zeros(1 << 18)))  # more than the queue holds
            peer.recv(timeout=DEADLINE_S)
        finally:
            os.kill(recorder.number, signal.SIGKILL)
        live.until(kept.has("recording_ended"))


class Wrong(Observer):
    def on_message(self, session: int, message: Any, arrived_at: float) -> None:
        raise ValueError("a bug\nof somebody's")


def an_observer_that_raises(kept: Kept, _folder: Path) -> None:
    with serving() as live, live.websocket() as peer:
        live.call(lambda: live.server.observers.add(Wrong()))
        ask(peer, 1.0)


def an_error_that_nobody_catches(kept: Kept, _folder: Path) -> None:
    class State:
        def __del__(self) -> None:
            raise ValueError("late")

    hook, sys.unraisablehook = sys.unraisablehook, log_unraisable
    try:
        State()
        gc.collect()
    finally:
        sys.unraisablehook = hook


def a_line_of_another_library(kept: Kept, _folder: Path) -> None:
    logging.getLogger("a_library").warning("no GPU\n%s", "here")


def a_policy_that_tells_its_stage(kept: Kept, _folder: Path) -> None:
    def load(on_stage: Callable[[str], None]) -> Any:
        on_stage("reading weights")
        return as_policy(lambda x: x)

    with serving(load=load, isolate="thread") as live:
        live.ready()


def a_policy_that_hangs_at_the_end(kept: Kept, _folder: Path) -> None:
    begun, release = threading.Event(), threading.Event()

    def hang(seen: Any) -> Any:
        begun.set()
        release.wait(DEADLINE_S)
        return seen

    with serving(hang, isolate="thread", drain_s=0.0) as live, live.websocket() as peer:
        peer.send(frame([1.0]))
        assert begun.wait(DEADLINE_S)
        live.stop()
        live.join()
        release.set()


def a_disk_that_was_full(kept: Kept, folder: Path) -> None:
    place, file = folder / "log", folder / "file"
    place.symlink_to("/dev/full")
    handler = LogFile(str(place))
    handler.setFormatter(kept.formatter)
    ours = logging.getLogger("policyserve.test")
    ours.addHandler(handler)
    try:
        ours.warning("lost")
        place.unlink()
        place.symlink_to(file)
        ours.warning("kept")
    finally:
        ours.removeHandler(handler)
        handler.close()
    kept.texts += file.read_text().splitlines()


def a_command_from_its_start_to_its_end(kept: Kept, folder: Path) -> None:
    (folder / "robot.py").write_text("import numpy as np\ndef act(seen):\n    return np.zeros(2)\n")
    code = (
        "import signal, sys; from policyserve.server.server import Server; from policyserve.cli import main\n"
        "run = Server.run\n"
        "async def once(self, on_ready):\n"
        "    await run(self, lambda spec: (on_ready(spec), signal.raise_signal(signal.SIGTERM)))\n"
        "Server.run = once\n"
        "main(['serve', './robot.py:act', '--host', '127.0.0.1', '--port', '0', '--log-format', 'json'])\n"
    )
    done = run(sys.executable, "-c", code, cwd=folder)
    assert (done.returncode, done.stdout) == (0, ""), done
    kept.texts += done.stderr.splitlines()


def a_command_that_cannot_load(kept: Kept, folder: Path) -> None:
    (folder / "robot.py").write_text("def load():\n    raise OSError('no\\nweights')\n")
    flags = ("--host", "127.0.0.1", "--port", "0", "--log-format", "json")
    done = run(*POLICYSERVE, "serve", "./robot.py:load", *flags, cwd=folder)
    assert done.returncode == 1
    kept.texts += done.stderr.splitlines()


# What makes an event, and which facts its line has.
SCENES: dict[str, tuple[Scene, set[str]]] = {
    "stage": (a_policy_that_tells_its_stage, set()),
    "ready": (a_command_from_its_start_to_its_end, {"policy", "ms"}),
    "stopping": (a_command_from_its_start_to_its_end, set()),
    "unanswered": (a_policy_that_hangs_at_the_end, set()),
    "stopped": (a_command_from_its_start_to_its_end, {"ms"}),
    "failed": (a_command_that_cannot_load, {"code"}),
    "session_opened": (sessions, {"session", "peer", "dialect"}),
    "session_speaks": (sessions, {"session", "dialect"}),
    "session_greeted": (a_silent_client, {"session"}),
    "session_ended": (an_idle_client, {"session", "peer", "code"}),
    "session_closed": (sessions, {"session", "peer"}),
    "keys_dropped": (keys_that_no_spec_has, {"session"}),
    "keys_mapped": (a_key_that_the_policy_calls_otherwise, {"session"}),
    "pictures_binary": (pictures_of_0_and_1, {"session"}),
    "request_refused": (a_wrong_observation, {"session", "code", "path"}),
    "answer_lost": (an_outcome_that_nobody_takes, {"session"}),
    "connection_refused": (a_request_that_is_no_http, {"peer", "code"}),
    "connection_cut": (more_connections_than_wait, {"peer"}),
    "handshake_failed": (a_client_without_tls, {"peer"}),
    "protocol_violated": (a_frame_without_a_mask, {"session", "peer", "code"}),
    "policy_lost": (a_process_that_is_killed, {"policy"}),
    "policy_replaced": (a_process_that_is_killed, {"policy", "ms"}),
    "policy_not_replaced": (a_policy_that_does_not_come_back, {"policy"}),
    "policy_slow": (an_inline_policy_that_is_slow, {"policy", "ms"}),
    "policy_shared": (a_memory_that_two_share, {"policy"}),
    "policy_close_failed": (a_close_that_fails, {"policy"}),
    "policy_watched": (code_that_changes, set()),
    "policy_changed": (code_that_changes, set()),
    "policy_reloaded": (code_that_changes, {"policy", "ms"}),
    "policy_not_reloaded": (code_that_changes, set()),
    "policy_spec_seen": (a_server_at_work, {"policy"}),
    "policy_coming": (a_policy_that_is_exchanged, set()),
    "policy_swapped": (a_policy_that_is_exchanged, {"policy", "ms"}),
    "policy_not_swapped": (a_policy_that_is_exchanged, {"policy"}),
    "run_followed": (a_run_that_is_followed, set()),
    "run_lost": (a_run_that_is_followed, set()),
    "access_warned": (a_server_on_all_addresses, set()),
    "flag_unused": (a_port_beside_a_unix_socket, set()),
    "files_reloaded": (files_that_are_read_again, set()),
    "files_not_reloaded": (files_that_are_read_again, set()),
    "recording_begun": (a_recording_that_ends_early, set()),
    "recording_behind": (a_recording_that_ends_early, set()),
    "recording_ended": (a_recording_that_ends_early, set()),
    "statistics": (a_server_at_work, set()),
    "observer_failed": (an_observer_that_raises, set()),
    "uncaught": (an_error_that_nobody_catches, set()),
    "lines_lost": (a_disk_that_was_full, set()),
    "log": (a_line_of_another_library, {"logger"}),
}
NEEDS_LINUX = ("lines_lost", *(name for name, (scene, _) in SCENES.items() if scene is code_that_changes))


def test_each_event_has_its_scene() -> None:
    assert tuple(SCENES) == EVENTS


@pytest.mark.parametrize("event", EVENTS)
def test_it_is_logged_with_its_facts(event: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if event in NEEDS_LINUX and not Path("/dev/full").exists():
        pytest.skip("needs Linux")
    monkeypatch.chdir(tmp_path)  # and back at the end
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    scene, facts = SCENES[event]
    with keeping() as kept:
        scene(kept, tmp_path)
    line = kept.of(event)[0]
    assert set(line) - {"traceback"} == {"ts", "level", "event", "message"} | facts, line
    assert is_harmless(line["message"])
