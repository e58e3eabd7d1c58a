"""A server in a process of its own that is told to stop, or loses its disk, while clients go on asking."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from policyserve.dialects import by_name
from tests.server.live import (
    DEADLINE_S,
    Live,
    answer,
    ask,
    chosen_runner,
    frame,
    masked,
    open_raw,
    read_frame,
    serving,
)

TEXT, BINARY, CLOSE = 1, 2, 8

PROGRAM = """
import asyncio, logging, sys, policyserve
logging.basicConfig(level=logging.DEBUG)
server = policyserve.Server(
    policyserve.Recipe("tests.contract.policies:patient"),
    policyserve.ServerConfig(host="127.0.0.1", port=0, isolate=sys.argv[1], max_queue_ms=60_000.0),  # a busy machine's
)
asyncio.run(server.run(on_ready=lambda spec: print(server.address.port, flush=True)))
"""


def program(stderr: Any) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", PROGRAM, chosen_runner()]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr)


class Ledger(Counter[str]):
    @property
    def lost(self) -> int:
        return self["sent"] - self["answered"] - self["closed"]


async def keep_asking(port: int, ledger: Ledger, is_under_way: asyncio.Event) -> None:
    """Ask, often two at a time, until the server closes; every request gets its answer or a clean close."""
    async with connect(f"ws://127.0.0.1:{port}/vibe_rl", compression=None) as peer:
        for number in range(100_000):
            batch = [number, number + 0.5][: 1 + number % 2]
            unanswered = 0
            try:
                for one in batch:
                    await peer.send(frame([one]))
                    ledger["sent"] += 1
                    unanswered += 1
                for one in batch:
                    assert answer(await asyncio.wait_for(peer.recv(), DEADLINE_S)) == one
                    ledger["answered"] += 1
                    unanswered -= 1
            except ConnectionClosed as closed:
                told = (closed.rcvd.code, closed.rcvd.reason) if closed.rcvd else None
                ledger["closed" if told == (1001, "the server is stopping") else "cut"] += unanswered
                return
            if ledger["answered"] > 200:
                is_under_way.set()


def test_sigterm_under_load_loses_nothing_that_was_accepted() -> None:
    with program(stderr=subprocess.PIPE) as server:
        assert server.stdout is not None
        assert server.stderr is not None
        port = int(server.stdout.readline())
        ledger = Ledger()

        async def main() -> None:
            is_under_way = asyncio.Event()
            clients = [asyncio.create_task(keep_asking(port, ledger, is_under_way)) for _ in range(16)]
            await asyncio.wait_for(is_under_way.wait(), DEADLINE_S)
            os.kill(server.pid, signal.SIGTERM)
            await asyncio.wait_for(asyncio.gather(*clients), DEADLINE_S)

        asyncio.run(main())
        _, told = server.communicate(timeout=DEADLINE_S)
    assert server.returncode == 0
    assert b"Traceback" not in told
    assert b"unanswered" not in told
    assert ledger["answered"] > 200
    assert ledger.lost == 0
    assert ledger["closed"] <= 32  # what was on its way to a server that took no more


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_server_whose_log_is_on_a_full_disk_goes_on() -> None:
    with open("/dev/full", "w") as full, program(stderr=full) as server:
        assert server.stdout is not None
        port = int(server.stdout.readline())

        async def main() -> None:
            for number in range(5):
                async with connect(f"ws://127.0.0.1:{port}/vibe_rl", compression=None) as peer:
                    await peer.send(frame([number]))
                    assert answer(await asyncio.wait_for(peer.recv(), DEADLINE_S)) == number
                    await peer.send(b"\xc1")
                    with pytest.raises(ConnectionClosed, match="1008"):
                        await asyncio.wait_for(peer.recv(), DEADLINE_S)

        asyncio.run(main())
        server.send_signal(signal.SIGTERM)
        server.communicate(timeout=DEADLINE_S)
    assert server.returncode in (0, 120)  # 120: the interpreter could not flush stderr at its very end


# What one frame did to the programs whose protocols these are


def of_openpi(**entries: Any) -> bytes:
    return packed({"observation": {"__ndarray__": True, "data": bytes(8), "dtype": "<f4", "shape": [2], **entries}})


def of_wall_x(**entries: Any) -> bytes:
    return packed({"state": {"nd": True, "type": "<f4", "kind": b"", "shape": [2], "data": bytes(8), **entries}})


def of_vibe_rl(dtype: Any, shape: Any, data: Any = bytes(8)) -> bytes:
    return packed({"obs": data, "__meta__": {"obs": {"dtype": dtype, "shape": shape}}})


def packed(message: Any) -> bytes:
    sent = msgpack.packb(message)
    assert isinstance(sent, bytes)
    return sent


PICKLE = b"cos\nsystem\n(S'touch /tmp/policyserve-was-here'\ntR."
FORGED = {
    "openpi: objects by pointer": ("/openpi", of_openpi(dtype="|O")),
    "openpi: a scalar of objects": ("/openpi", packed({"x": {"__npgeneric__": True, "data": 1, "dtype": "|O"}})),
    "openpi: a negative shape": ("/openpi", of_openpi(shape=[-1])),
    "openpi: more than its bytes": ("/openpi", of_openpi(shape=[2**40])),
    "openpi: a structured dtype": ("/openpi", of_openpi(dtype="f4,O")),
    "Wall-X: a pickle": ("/wall_x", of_wall_x(type="|O", kind=b"O", data=PICKLE)),
    "Wall-X: a pickle by kind alone": ("/wall_x", of_wall_x(kind=b"O", data=PICKLE)),
    "Wall-X: a complex that is code": ("/wall_x", packed({"x": {"complex": True, "data": "__import__('os')"}})),
    "Wall-X: fields": ("/wall_x", of_wall_x(kind=b"V", type=[["a", "<f4"], ["b", "|O"]])),
    "vibe_rl: objects": ("/vibe_rl", of_vibe_rl("object", [1])),
    "vibe_rl: 2**80 bytes": ("/vibe_rl", of_vibe_rl("<f4", [2**40, 2**40, 0])),
    "vibe_rl: dates": ("/vibe_rl", of_vibe_rl("M8[s]", [1])),
    "nesting": ("/openpi", b"\x91" * 100_000 + b"\xc0"),
    "an extension": ("/wall_x", packed({"x": msgpack.ExtType(5, PICKLE)})),
    "a bin of four gigabytes": ("/vibe_rl", b"\x81\xc4\x03obs\xc6\xff\xff\xff\xff"),
    "a map of four billion": ("/openpi", b"\xdf\xff\xff\xff\xff"),
    "a text": ("/openpi", "{}"),
    "nothing": ("/wall_x", b""),
}  # fmt: skip


@pytest.fixture(scope="module")
def live() -> Any:
    with serving(lambda x: x["state"] if isinstance(x, dict) else x) as live:
        yield live


@pytest.mark.parametrize(("path", "sent"), FORGED.values(), ids=FORGED.keys())
def test_a_frame_that_kills_the_originals_leaves_everybody_served(live: Live, path: str, sent: bytes | str) -> None:
    with live.websocket() as before:
        assert ask(before, 1.0) == 1.0
        peer, _ = open_raw(live, path=path)
        if path != "/vibe_rl":
            assert read_frame(peer)[0] == BINARY  # the greeting
        peer.sendall(masked(TEXT, sent.encode()) if isinstance(sent, str) else masked(BINARY, sent))
        opcode, told = read_frame(peer)
        assert opcode in (TEXT, CLOSE), "it was taken for an observation"
        assert b"expected" in told
        with live.websocket(path) as same_family:
            if path != "/vibe_rl":
                same_family.recv(timeout=DEADLINE_S)
            good = by_name(path[1:]).write_request(
                {"obs": np.ones(1, np.float32)} if path == "/vibe_rl" else {"state": np.ones(2, np.float32)}
            )
            same_family.send(good)
            reply = same_family.recv(timeout=DEADLINE_S)
            assert by_name(path[1:]).read_reply(reply).actions.ravel()[0] == 1.0
        assert ask(before, 2.0) == 2.0
        peer.close()
    assert not Path("/tmp/policyserve-was-here").exists()
