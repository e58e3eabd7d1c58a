"""Both real-time clients against real servers: one body of tests. Time is real; nothing waits but for a condition."""

from __future__ import annotations

import asyncio
import math
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from websockets.sync.server import ServerConnection

from policyserve import AsyncRealtimeClient, RealtimeClient, RealtimeExecution, RealtimeSettings
from policyserve.core.errors import ConfigError, DeadlineExceeded, PolicyserveError, RemoteError
from policyserve.core.messages import Timing
from policyserve.core.policy import ActionChunk, FunctionPolicy
from policyserve.core.spec import ArraySpec, PolicySpec
from policyserve.dialects import by_name
from policyserve.policies.demo_flow.policy import FlowDemo
from policyserve.policies.rtc import Rtc
from tests.plain_servers import plain_server
from tests.server import live as live_server
from tests.server.certificates import make_certificate, trusting
from tests.server.live import DEADLINE_S, Live

H = 40
HZ = 200.0
SPEC = PolicySpec(
    "numbers",
    {"obs": ArraySpec((2,), "float32", "numbers")},
    ArraySpec((2,), "float32", "numbers"),
    horizon=H,
    metadata={"action_kind": "position"},
)
OPENPI = by_name("openpi")


def rows_of(obs: Any) -> np.ndarray:
    """Row i is the first number and i more."""
    return (np.asarray(obs)[:1] + np.arange(H)[:, None] * np.ones(2)).astype(np.float32)


def policy(answer: Callable[[Any], Any] = rows_of) -> FunctionPolicy:
    return FunctionPolicy(lambda observation: answer(observation["obs"]), SPEC)


class InLoop:
    """An AsyncRealtimeClient whose loop runs in a thread, so that both clients pass one body."""

    def __init__(self, url: str, **options: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._client = AsyncRealtimeClient(url, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def _run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(DEADLINE_S)

    def observe(self, observation: Any) -> None:
        self._run(self._start())
        self._client.observe(observation)

    async def _start(self) -> None:
        await self._client.__aenter__()

    def wait_until_ready(self, timeout_s: float = DEADLINE_S) -> None:
        self._run(self._client.wait_until_ready(timeout_s))

    def close(self) -> None:
        if self._thread.is_alive():
            self._run(self._client.close())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()


MADE: list[Any] = []  # the clients of the test that runs


@pytest.fixture(params=["thread", "task"])
def make(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    def make_one(url: str, **options: Any) -> Any:
        kind = RealtimeClient if request.param == "thread" else InLoop
        MADE.append(kind(url, **{"control_hz": HZ, **options}))
        return MADE[-1]

    yield make_one
    close_made()


def close_made() -> None:
    while MADE:
        MADE.pop().close()


@contextmanager
def serving(load: Any, **settings: Any) -> Iterator[Live]:
    """A server that outlives its clients: it waits two seconds for the goodbye of one whose thread asks nothing."""
    with live_server.serving(load, **settings) as live:
        yield live
        close_made()


def until(condition: Callable[[], Any], client: Any = None) -> None:
    """Wait for it, the robot acting meanwhile."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, client and client.status
        if client is not None:
            client.act()
        time.sleep(1 / HZ)


def x(value: float = 0.0) -> dict[str, Any]:
    return {"obs": np.full(2, value, np.float32)}


@pytest.mark.parametrize("dialect", ["openpi", "wall_x"])
def test_a_robot_moves_while_the_next_chunk_is_asked_for(make: Any, dialect: str) -> None:
    with serving(policy()) as live:
        client = make(live.url(f"/{dialect}"), dialect=dialect)
        assert client.act().source == "none"
        client.observe(x())
        client.wait_until_ready()
        assert client.act().values.tolist() == [0, 0]
        for number in range(5):
            chunks = client.status.chunks
            client.observe(x(number))
            until(lambda before=chunks: client.status.chunks > before, client)
        assert client.status.state == "STREAMING"
        assert client.status.sessions == 1
        assert client.metadata["action_kind"] == "position"


def test_vibe_rl_has_no_greeting_and_the_user_says_what_actions_are(make: Any) -> None:
    with serving(policy()) as live:
        client = make(live.url(), dialect="vibe_rl", action_kind="position")
        client.observe(x(3))
        client.wait_until_ready()
        assert client.act().values.tolist() == [3, 3]


def test_over_a_unix_socket(make: Any, tmp_path: Path) -> None:
    if not hasattr(socket, "AF_UNIX"):
        pytest.skip("no Unix sockets here")
    path = tmp_path / "s"
    with serving(policy(), uds=str(path)):
        client = make(f"ws+unix://{path}", dialect="openpi")
        client.observe(x(3))
        client.wait_until_ready()
        assert client.act().values.tolist() == [3, 3]


def test_over_tls(make: Any, tmp_path: Path) -> None:
    cert, key = make_certificate(tmp_path)
    with serving(policy(), tls_cert=cert, tls_key=key) as live:
        client = make(f"wss://localhost:{live.port}", dialect="openpi", ssl_context=trusting(cert))
        client.observe(x(3))
        client.wait_until_ready()
        assert client.act().values.tolist() == [3, 3]


def test_a_function_for_observations_is_called_when_a_request_is_due(make: Any) -> None:
    calls: list[int] = []

    def look() -> dict[str, Any]:
        calls.append(1)
        return x(len(calls))

    with serving(policy()) as live:
        client = make(live.url("/openpi"), dialect="openpi", execution_horizon=10)
        client.observe(look)
        client.wait_until_ready()
        until(lambda: client.status.chunks > 4, client)
        assert client.status.requests <= len(calls) <= client.status.requests + 1


def test_a_new_episode_is_a_new_session_and_moves_by_new_observations_alone(make: Any) -> None:
    with serving(policy()) as live:
        client = make(live.url("/openpi"), dialect="openpi")
        client.observe(x(1))
        client.wait_until_ready()
        client.act()
        client.reset()
        assert client.act().source == "none"
        client.observe(x(500))
        client.wait_until_ready()
        assert client.act().values.tolist() == [500, 500]
        assert client.status.sessions == 2


def test_stop_and_resume(make: Any) -> None:
    with serving(policy()) as live:
        client = make(live.url("/openpi"), dialect="openpi")
        client.observe(x(1))
        client.wait_until_ready()
        client.stop()
        assert client.act().source == "stop"
        client.resume()
        assert client.act().source == "none"
        client.observe(x(7))
        client.wait_until_ready()
        assert client.act().values.tolist() == [7, 7]


def test_states_errors_and_chunks_are_told_in_order_by_another_thread(
    make: Any, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[tuple[str, Any]] = []

    def raise_it(chunk: Any) -> None:
        told.append(("chunk", chunk))
        raise RuntimeError("the robot's own fault")

    with serving(policy()) as live:
        client = make(
            live.url("/openpi"),
            dialect="openpi",
            fallback=[("hold", 0.05), "stop"],
            on_state=lambda state: told.append(("state", state)),
            on_chunk=raise_it,
        )
        client.observe(x())
        client.wait_until_ready()
        until(lambda: ("state", "STOPPED") in told, client)
    (chunk,) = [value for kind, value in told if kind == "chunk"]
    assert (chunk.first, chunk.actions.shape, "server_timing" in chunk.fields) == (0, (H, 2), True)
    assert [value for kind, value in told if kind == "state"] == ["STREAMING", "HOLDING", "STOPPED"]
    assert "on_chunk raised RuntimeError: the robot's own fault" in caplog.text


def test_a_server_with_rtc_is_told_what_the_robot_executes_and_says_what_it_did(make: Any) -> None:
    with serving(FlowDemo(Rtc("guided"))) as live:
        client = make(live.url("/openpi"), dialect="openpi", control_hz=50, rtc="require")
        seen = {"position": np.zeros(2, np.float32), "stage": np.zeros(2, np.float32), "time_s": np.array(0.0)}
        client.observe(lambda: seen)
        client.wait_until_ready()
        until(lambda: client.status.chunks > 6, client)
        status = client.status
    assert (status.rtc, status.rtc_missing, status.error) == ("guided", 0, None)


# What goes wrong (R12, R16)


def test_rows_go_on_while_the_server_is_away_and_it_is_found_again(make: Any) -> None:
    chunk = np.zeros((400, 2), np.float32)
    long = PolicySpec("long", SPEC.observation, SPEC.action, horizon=400, metadata=SPEC.metadata)
    with live_server.serving(FunctionPolicy(lambda _: chunk, long)) as live:
        port = live.port
        client = make(live.url("/openpi"), dialect="openpi")
        client.observe(x())
        client.wait_until_ready()
        client.act()
    until(lambda: client.observe(x()) or client.status.state == "DEGRADED", client)
    assert client.act().source in ("chunk", "blend")
    with live_server.serving(FunctionPolicy(lambda _: chunk, long), port=port):
        before = client.status.chunks
        until(lambda: client.observe(x()) or client.status.chunks > before, client)
        until(lambda: client.status.state == "STREAMING", client)
    assert client.status.sessions == 2
    assert client.status.starved_steps == 0


def test_a_refused_observation_is_told_by_observe_and_never_by_act(make: Any) -> None:
    with serving(policy()) as live:
        client = make(live.url("/openpi"), dialect="openpi")
        client.observe({"obs": np.zeros(3, np.float32)})
        with pytest.raises(RemoteError, match="obs") as caught:
            client.wait_until_ready()
        assert caught.value.code == "bad_observation"
        with pytest.raises(RemoteError):
            client.observe(x())
        assert client.act().source == "none"
        client.reset()
        client.observe(x(2))
        client.wait_until_ready()
        assert client.act().values.tolist() == [2, 2]


def test_an_observation_that_cannot_be_sent_is_told(make: Any) -> None:
    with serving(policy()) as live:
        client = make(live.url("/openpi"), dialect="openpi")
        client.observe({"obs": {1, 2}})
        with pytest.raises(PolicyserveError, match="obs: expected an array of numbers"):
            client.wait_until_ready()


@pytest.mark.parametrize("observation", [3, None, lambda: None])
@pytest.mark.parametrize("rtc", ["auto", "off"])
def test_an_observation_that_is_no_map_is_told(make: Any, observation: Any, rtc: str) -> None:
    """One that an observation's function forgot to return is one of them."""
    with serving(FlowDemo(Rtc("guided"))) as live:
        client = make(live.url("/openpi"), dialect="openpi", rtc=rtc)
        client.observe(observation)
        with pytest.raises(PolicyserveError, match="expected a map of arrays, texts and numbers, got a"):
            client.wait_until_ready()


def test_a_server_that_does_not_say_what_its_actions_are_needs_a_word_of_the_users(make: Any) -> None:
    with serving(lambda obs: rows_of(obs["obs"])) as live:
        client = make(live.url("/openpi"), dialect="openpi")
        with pytest.raises(ConfigError, match="action_kind="):
            client.wait_until_ready()
        named = make(live.url("/openpi"), dialect="openpi", fallback=[("hold", 0.5), "stop"])
        named.observe(x(4))
        named.wait_until_ready()
        assert named.act().values.tolist() == [4, 4]


def test_rtc_that_is_required_and_not_there_is_told(make: Any) -> None:
    told = "rtc: expected a server whose spec lists rtc/prev_chunk"
    with serving(policy()) as live, pytest.raises(ConfigError, match=told):
        make(live.url("/openpi"), dialect="openpi", rtc="require").wait_until_ready()


def test_what_keeps_it_from_being_ready_is_told() -> None:
    with serving(policy()) as live, RealtimeClient(live.url("/openpi"), control_hz=50) as client:
        until(lambda: client.status.is_connected)
        told = r"within 0.05 s: observe\(\) has given nothing to ask with"
        with pytest.raises(DeadlineExceeded, match=told):
            client.wait_until_ready(0.05)
    silent = socket.create_server(("127.0.0.1", 0))
    with RealtimeClient(f"ws://127.0.0.1:{silent.getsockname()[1]}", control_hz=50) as client, silent:
        client.observe(x())
        with pytest.raises(DeadlineExceeded, match=r"within 0.05 s: the connection is not open yet"):
            client.wait_until_ready(0.05)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        client = RealtimeClient(f"ws://127.0.0.1:{free.getsockname()[1]}", control_hz=50)
        with client, pytest.raises(DeadlineExceeded, match=r"no chunk within 0.3 s: cannot connect"):
            client.wait_until_ready(0.3)


def test_a_client_that_is_stopped_says_how_it_goes_on(make: Any) -> None:
    with serving(policy()) as live:
        client = make(live.url("/openpi"), dialect="openpi")
        client.observe(x())
        client.wait_until_ready()
        client.stop()
        with pytest.raises(DeadlineExceeded, match=r"it is stopped; call resume\(\) or reset\(\), then observe\(\)"):
            client.wait_until_ready(0.05)


def test_after_close_nobody_waits_for_a_chunk() -> None:
    with serving(policy()) as live:
        client = RealtimeClient(live.url("/openpi"), control_hz=50)
        client.close()
        with pytest.raises(DeadlineExceeded, match=r"close\(\) was called; make a new one"):
            client.wait_until_ready(math.inf)


def test_who_waits_for_a_chunk_in_an_event_loop_is_told_of_close() -> None:
    async def close_while_waiting(url: str) -> None:
        client = AsyncRealtimeClient(url, control_hz=50)
        waiting = asyncio.create_task(client.wait_until_ready(10 * DEADLINE_S))
        await asyncio.sleep(0)  # it has begun to wait
        await client.close()
        with pytest.raises(DeadlineExceeded, match=r"close\(\) was called"):
            await asyncio.wait_for(waiting, DEADLINE_S)

    with serving(policy()) as live:
        asyncio.run(close_while_waiting(live.url("/openpi")))


def test_a_closed_client_takes_no_observation() -> None:
    with serving(policy()) as live:
        client = RealtimeClient(live.url("/openpi"), control_hz=50)
        client.close()
        with pytest.raises(ConfigError, match=r"^no chunk comes any more: close\(\) was called; make a new one$"):
            client.observe(x())


def test_a_closed_client_of_an_event_loop_takes_no_observation_and_nobody_waits_for_it() -> None:
    async def use_closed(url: str) -> None:
        client = AsyncRealtimeClient(url, control_hz=50)
        async with client:
            client.observe(x())
            await client.wait_until_ready(DEADLINE_S)
        with pytest.raises(ConfigError, match=r"^no chunk comes any more: close\(\) was called; make a new one$"):
            client.observe(x())
        with pytest.raises(DeadlineExceeded, match=r"close\(\) was called; make a new one"):
            await asyncio.wait_for(client.wait_until_ready(math.inf), DEADLINE_S)
        assert len(asyncio.all_tasks()) == 1, "no task was started again"

    with serving(policy()) as live:
        asyncio.run(use_closed(live.url("/openpi")))


@pytest.mark.parametrize(("kind", "is_told"), [("velocity", True), ("position", False)])
def test_a_server_that_calls_its_actions_otherwise_is_told_of_once(
    make: Any, kind: Any, is_told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(policy()) as live:
        client = make(live.url("/openpi"), dialect="openpi", action_kind=kind)
        for _ in range(2):
            client.observe(x())
            client.wait_until_ready()
            client.reset()
        client.close()
    told = [one for one in caplog.messages if one.startswith("action_kind=velocity is used, although the server says")]
    assert len(told) == is_told


def reply(actions: Any) -> Any:
    return OPENPI.write_reply(ActionChunk(np.asarray(actions, np.float32)), Timing(0, 0, 1))


def never(peer: ServerConnection, asked: threading.Event) -> None:
    asked.wait(DEADLINE_S)


def dies(peer: ServerConnection, asked: threading.Event) -> None:
    peer.socket.shutdown(socket.SHUT_RDWR)


def twice(peer: ServerConnection, asked: threading.Event) -> None:
    peer.send(reply(np.ones((H, 2))))
    peer.send(reply(np.full((H, 2), 99)))


MISDEEDS: dict[str, Callable[[ServerConnection, threading.Event], None]] = {
    "dies": dies,
    "never": never,
    "twice": twice,
    "overloads": lambda peer, _: peer.send("overloaded: the queue is full; again in 10 ms"),
    "nan": lambda peer, _: peer.send(reply(np.full((H, 2), np.nan))),
    "another horizon": lambda peer, _: peer.send(reply(np.ones((3, 2)))),
    "another width": lambda peer, _: peer.send(reply(np.ones((H, 5)))),
    "garbage": lambda peer, _: peer.send(b"\xc1\xc1"),
    "closes": lambda peer, _: peer.close(1011, "the arm fell off"),
}


@pytest.mark.parametrize("misdeed", MISDEEDS)
def test_whatever_a_server_does_act_gives_the_ladder_and_raises_nothing(make: Any, misdeed: str) -> None:
    """The first answer is a good one; every one behind it is not."""
    answered, over = threading.Event(), threading.Event()

    def handle(peer: ServerConnection) -> None:
        peer.send(OPENPI.greeting({"action_kind": "position"}) or b"")
        with suppress(Exception):
            for _ in peer:
                if answered.is_set():
                    MISDEEDS[misdeed](peer, over)
                else:
                    answered.set()
                    peer.send(reply(np.ones((H, 2))))

    sources: list[str] = []
    with plain_server(handle) as port:
        client = make(f"ws://127.0.0.1:{port}", dialect="openpi", fallback=[("hold", 0.1), "stop"])
        client.observe(x())
        client.wait_until_ready()
        failed = False
        deadline = time.monotonic() + DEADLINE_S

        def is_enough() -> bool:
            nonlocal failed
            action = client.act()
            if not sources or sources[-1] != action.source:
                sources.append(action.source)
            assert action.values is None or action.values.tolist() != [99, 99]
            try:
                client.observe(x())
            except PolicyserveError:
                failed = True
            status = client.status
            is_fine = misdeed in ("twice", "another horizon") and status.chunks > 8
            return action.source == "stop" or is_fine or time.monotonic() > deadline

        until(is_enough)
        over.set()
        if misdeed not in ("twice", "another horizon"):
            assert sources[-2:] == ["hold", "stop"]
            assert client.status.error is not None or client.status.is_overdue or misdeed == "never"
        client.close()


def test_a_dead_connection_is_noticed_by_its_silence(make: Any) -> None:
    """A server that has answered once and then neither answers nor sends pongs."""
    held: list[Any] = []

    def handle(listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                peer, _ = listener.accept()
                held.append(peer)

    from websockets.server import ServerProtocol

    def serve_once(listener: socket.socket) -> None:
        peer, _ = listener.accept()
        held.append(peer)
        protocol = ServerProtocol()
        greeted = answered = False
        while not answered:
            protocol.receive_data(peer.recv(1 << 16))
            for event in protocol.events_received():
                if not greeted:
                    protocol.send_response(protocol.accept(event))  # type: ignore[arg-type]
                    protocol.send_binary(OPENPI.greeting({"action_kind": "position"}) or b"")  # type: ignore[arg-type]
                    greeted = True
                elif not answered:
                    protocol.send_binary(bytes(reply(np.ones((H, 2)))))
                    answered = True
            for data in protocol.data_to_send():
                peer.sendall(data)
        handle(listener)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve_once, args=[listener], daemon=True)
        thread.start()
        client = make(f"ws://127.0.0.1:{listener.getsockname()[1]}", dialect="openpi", dead_after_s=0.3)
        client.observe(x())
        client.wait_until_ready()
        client.observe(x())
        until(lambda: "nothing was heard of the server for 0.3 s" in (client.status.error or ""), client)
        client.close()
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(DEADLINE_S)
        for one in held:
            one.close()


# Anybody's policy


class Held:
    """A policy in this process, as a façade makes one."""

    def __init__(self) -> None:
        self.sessions_opened = 1
        self.metadata: dict[str, Any] = {}
        self.closed = False

    def connect(self) -> None: ...
    def reset(self) -> None: ...

    def infer(self, observation: Any) -> Any:
        return {"actions": rows_of(observation["obs"])}

    def close(self) -> None:
        self.closed = True


def test_anything_that_answers_can_be_executed() -> None:
    held = Held()
    with RealtimeExecution(held, RealtimeSettings(HZ, action_kind="position")) as running:
        running.observe(x(5))
        running.wait_until_ready()
        assert running.act().values.tolist() == [5, 5]
        running.reset()
        running.observe(x(6))
        running.wait_until_ready()
        assert running.act().values.tolist() == [6, 6]
    until(lambda: held.closed)


@pytest.mark.parametrize(("answer", "got"), [({"acts": 1, "state": 2}, "keys acts, state"), (None, "NoneType")])
def test_an_answer_without_actions_is_told_by_what_it_has(answer: Any, got: str) -> None:
    held = Held()
    held.infer = lambda observation: answer  # type: ignore[method-assign]
    with RealtimeExecution(held, RealtimeSettings(HZ, action_kind="position")) as running:
        running.observe(x())
        until(lambda: running.status.bad_answers)
        assert running.status.error == f'infer: expected a map with "actions", or a Reply, got {got}'


def test_a_server_that_lacks_what_is_needed_is_told_and_not_asked_in_silence() -> None:
    held = Held()
    del held.metadata
    running = RealtimeExecution(held, RealtimeSettings(HZ, action_kind="position"))
    with running, pytest.raises(ConfigError, match=r"asking the server or policy raised AttributeError: .*metadata"):
        running.wait_until_ready()


@pytest.mark.parametrize(("rows", "is_told"), [(1, True), (2, False)])
def test_a_server_of_single_actions_is_told_of_once(
    make: Any, rows: int, is_told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(lambda obs: {"actions": np.ones((rows, 2), np.float32)}) as live:
        client = make(live.url("/openpi"), dialect="openpi", action_kind="position")
        until(lambda: client.observe(x()) or client.status.chunks > 2, client)
        client.close()
    told = [one for one in caplog.messages if one.startswith("the server answers one action at a time")]
    assert len(told) == is_told


def test_two_threads_act_and_two_observe() -> None:
    errors: list[BaseException] = []
    steps: list[list[int]] = [[], []]
    with RealtimeExecution(Held(), RealtimeSettings(HZ, action_kind="position")) as running:
        running.observe(x())
        running.wait_until_ready()

        def robot(number: int) -> None:
            try:
                for _ in range(300):
                    running.observe(x(number))
                    steps[number].append(running.act().plan_step)
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=robot, args=[number]) for number in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert errors == []
    assert all(one == sorted(one) for one in steps)


@pytest.mark.parametrize("kind", [RealtimeClient, AsyncRealtimeClient])
@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"control_hz": 0}, "control_hz: expected rows per second"),
        ({"control_hz": math.inf}, "control_hz: expected"),
        ({"execution_horzion": 5}, r"has no setting 'execution_horzion' \(did you mean execution_horizon\?\)"),
        ({"qwertz": 5}, r"no setting 'qwertz' \(those of RealtimeSettings and of Client are taken\)"),
        ({"dialect": "nonsense"}, "nonsense"),
        ({"timeout_s": -1}, "timeout_s: expected"),
        ({"dead_after_s": 0}, "dead_after_s: expected seconds"),
        ({"on_state": 5}, "on_state: expected a function, got 5"),
        ({"rtc": "yes"}, "rtc: expected one of"),
    ],
)
def test_a_wrong_argument_is_told_by_its_name(kind: Any, options: Any, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        kind("ws://127.0.0.1:1", **{"control_hz": 50, **options})
