"""A chaos soak: fifty clients of all dialects, a third of them up to no good, against a server that must lose nothing.

    python benchmarks/soak.py --seconds 60 --clients 50 --seed 7 [--runner process] [--loop uvloop] [--replicas 2] …

The server is a process of its own. Its policy answers with the names of the session and the request, remembers its
sessions, and raises, answers NaN, wrong shapes and too little, is slow, hangs, breaks its GPU, dies with its process.
Its peers send large texts while it loads, pipeline, cut frames, vanish, stop reading, send a byte a second, floods of
tiny frames, giants, keys as long as a message, forged frames, other dialects' frames, wrong keys and no HTTP at all.
GR00T's clients come to a port of their own over ZeroMQ, others to it that speak none; without pyzmq nobody does.
LeRobot's robots come to another one over gRPC, and with them pickles that want to run something; without grpcio nobody.
Meanwhile our own clients call a server that misbehaves towards them. At last ours gets SIGTERM under load, its
successor SIGKILL, and the next one, which has its key from the environment, SIGHUP. Another server is then asked over
TLS, on connections of websockets' synchronous client, of which none may hang.

What each client does follows from the seed alone; when it comes to it, from the machine. The run ends with a ledger,
sent = answered + refused + closed, and with what the server held. Exit code 1 if the ledger does not balance, a misdeed
ended otherwise than it should, the policy was replaced more often than it was broken, a line of the log is not the
server's own, or the server kept something: with nobody connected it must have no more file descriptors, threads, tasks
and sessions at the end than at the start, and 32 MiB more memory at most, however long the run, once it has given back
the buffers that it keeps to be used again. At its peak it may have half as much again as the bound of its messages and
what it keeps of them.
Linux only: it reads /proc.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from chaos import logs
from chaos.beginnings import write_while_it_loads
from chaos.clients import PATIENCE_S, in_thread, live_async, live_plain
from chaos.endings import Drained, HungUp, Revived, hang_up, kill_under_load, terminate_under_load
from chaos.gr00t import has_zeromq, live_gr00t
from chaos.ledger import Ledger, Watch
from chaos.lerobot import has_grpc, live_lerobot
from chaos.misdeeds import misbehaving
from chaos.posters import live_http
from chaos.rig import Held, Rig
from chaos.sabotage import Saboteur
from chaos.victims import suffer
from tls_connections import Tally, has_openssl, open_many

_WARM_UP = 0.15  # of the time, at most _WARM_UP_S: memory that is taken once is taken then
_WARM_UP_S = 60.0
_LONG_S = 20.0  # a run that is longer tries the time-outs, too
_TLS_CONNECTIONS, _TLS_S = 100, 30.0  # how many, and for how long at most
_SPARE_FDS = 4  # of each policy's process
_KEPT_MIB = 256.0  # of freed memory, which it keeps to be used again
_MOST = 1.5  # times both, at the peak
# Shorter than anybody would set them, so that each of them ends somebody; bounds that a few hostile peers reach.
_SETTINGS = {
    "host": "127.0.0.1", "port": 0, "request_timeout_s": 4.0, "drain_s": 20.0, "max_pending": 32, "max_frame_mib": 4.0,
    "max_buffered_mib": 256.0, "max_unread_mib": 8.0, "handshake_timeout_s": 3.0, "message_timeout_s": 5.0,
    "unread_timeout_s": 3.0, "ping_interval_s": 2.0, "ping_timeout_s": 10.0,
}  # fmt: skip


@dataclass
class Outcome:
    """All that is told at the end."""

    ledger: Ledger
    watch: Watch
    sabotage: Mapping[str, int] = field(default_factory=dict)
    broken: int = 0  # how often the policy was, by us
    drained: Drained | None = None
    revived: Revived | None = None
    hung_up: HungUp | None = None
    cut_short: str = ""  # why, if it did not come to its end
    log_faults: list[str] = field(default_factory=list)
    tls: Tally | None = None  # None: no openssl command here

    @property
    def complaints(self) -> list[str]:
        """What went wrong, in words; empty if nothing did."""
        found = [] if self.ledger.is_balanced else ["the ledger does not balance"]
        found += [self.cut_short] if self.cut_short else []
        found += [*self.watch.complaints(), *self.log_faults]
        if self.replaced > self.broken:
            found.append(f"the policy was replaced {self.replaced} times and broken {self.broken} times")
        for what, act in (("SIGTERM", self.drained), ("SIGKILL", self.revived), ("SIGHUP", self.hung_up)):
            if act is None or not act.is_fine:
                found.append(f"{what}: {act or 'did not happen'}")
        if self.tls is not None and (self.tls.hung or not self.tls.connections):
            found.append(f"TLS: {self.tls.hung} of {self.tls.connections} connections hung")
        return found

    @property
    def replaced(self) -> int:
        """How often the policy was replaced."""
        return 0 if self.watch.end is None else self.watch.end.replaced


async def soak(flags: argparse.Namespace, folder: Path) -> Outcome:
    """Run all acts."""
    settings = {
        **_SETTINGS,
        "loop": flags.loop,
        "isolate": flags.runner,
        "replicas": flags.replicas,
        "max_sessions": 4 * flags.clients + 100,
        "uds": str(folder / "soak.sock") if flags.uds else None,
        "gr00t": 0 if has_zeromq() else None,
        "lerobot": 0 if has_grpc() else None,
    }
    log, keys, gate = folder / "server.log", folder / "keys", folder / "loading"
    gate.touch()
    rig = Rig({**settings, "gate": str(gate)}, log, keys)
    rigs = [rig]
    most_kb = int(_MOST * (_SETTINGS["max_buffered_mib"] + _KEPT_MIB) * 1024)
    outcome = Outcome(Ledger(), Watch(_SPARE_FDS * flags.replicas if flags.runner == "process" else 0, most_kb))
    try:
        await _acts(flags, rigs, (log, keys), gate.unlink, outcome)
    except (asyncio.TimeoutError, OSError, RuntimeError) as error:  # the ledger says more than a traceback
        outcome.cut_short = f"cut short: {type(error).__name__}: {error}"
    finally:
        for each in rigs:
            await each.kill()
    outcome.log_faults = logs.faults(log)
    return outcome


async def _acts(
    flags: argparse.Namespace,
    rigs: list[Rig],
    files: tuple[Path, Path],
    load: Callable[[], object],
    outcome: Outcome,
) -> None:
    """From the first server's start to the end of its successors, which are added to `rigs`."""
    (rig,), ledger = rigs, outcome.ledger
    await write_while_it_loads(rig, ledger, load, random.Random(f"{flags.seed} loading"))
    await _chaos(flags, rig, outcome)
    outcome.drained = await terminate_under_load(rig, ledger, flags.clients)
    log, keys = files
    settings = {**rig.settings, "gate": None, "port": rig.place.port}
    rigs += [Rig(settings, log, one) for one in (keys, None)]
    await rigs[1].start()
    outcome.revived = await kill_under_load(rigs[1], rigs[2], ledger, flags.clients)
    outcome.hung_up = await hang_up(rigs[2], ledger)
    if outcome.hung_up.is_fine:
        rigs[2].send(signal.SIGTERM)
        await rigs[2].end()
    if has_openssl():
        outcome.tls = await asyncio.to_thread(open_many, _TLS_CONNECTIONS, None, _TLS_S)


async def _chaos(flags: argparse.Namespace, rig: Rig, outcome: Outcome) -> None:
    """Warm up, look, disturb for as long as was asked, look again."""
    warm_up_s = min(_WARM_UP * flags.seconds, _WARM_UP_S)
    with ThreadPoolExecutor(flags.clients) as threads:
        await _crowd(flags, rig, outcome.ledger, "warm-up", time.monotonic() + warm_up_s, threads)
        outcome.watch.start = await _until(rig, lambda held: not (held.sessions or held.strangers or held.stage))
        started_at = time.monotonic()
        end = started_at + flags.seconds - warm_up_s
        dice = random.Random(f"{flags.seed} sabotage")
        saboteur = Saboteur(rig, outcome.ledger, dice, end - started_at, flags.clients)
        watching = asyncio.create_task(_look(rig, outcome.watch, started_at, flags.progress))
        await asyncio.gather(
            saboteur.work(end),
            _crowd(flags, rig, outcome.ledger, "chaos", end, threads),
            suffer(outcome.ledger, random.Random(f"{flags.seed} victims"), end),
        )
        watching.cancel()
        await asyncio.wait([watching])
        outcome.sabotage, outcome.broken = saboteur.done, saboteur.broken
        outcome.watch.end = await _until(rig, outcome.watch.is_as_before)


async def _crowd(
    flags: argparse.Namespace, rig: Rig, ledger: Ledger, act: str, end: float, threads: ThreadPoolExecutor
) -> None:
    """All clients, until `end`; each ends the session that it is in."""
    hostile = misbehaving(has_time=flags.seconds >= _LONG_S)
    kinds: list[Callable[..., Awaitable[None]]] = [
        live_async, live_plain, hostile, in_thread(threads), live_http, hostile,
    ]  # fmt: skip
    kinds += [live_gr00t] if rig.place.gr00t is not None else []
    kinds += [live_lerobot] if rig.place.lerobot is not None else []

    async def live(client: int) -> None:
        session = 0
        while time.monotonic() < end:
            session += 1
            dice = random.Random(f"{flags.seed} {act} {client} {session}")
            await kinds[client % len(kinds)](rig.place, ledger, dice, client, session)

    await asyncio.gather(*(live(client) for client in range(flags.clients)))
    gc.collect()  # with a channel that is collected gRPC closes its connection


async def _look(rig: Rig, watch: Watch, started_at: float, is_shown: bool) -> None:
    while True:
        await asyncio.sleep(1.0)
        watch.samples.append((time.monotonic() - started_at, held := await rig.ask()))
        if is_shown and sys.stderr.isatty():
            print(f"\r\033[K{time.monotonic() - started_at:6.0f} s  {held}"[:110], end="", file=sys.stderr, flush=True)


async def _until(rig: Rig, is_so: Callable[[Held], bool]) -> Held:
    """Look at the server until it is so, or patience ends."""
    deadline = time.monotonic() + PATIENCE_S
    while not is_so(held := await rig.ask("settle")) and time.monotonic() < deadline:  # noqa: ASYNC110 - it tells nobody
        await asyncio.sleep(0.2)
    return held


def report(flags: argparse.Namespace, outcome: Outcome) -> str:
    """The ledger, as docs/reliability.md shows it."""
    words = " ".join(sys.argv[1:])
    drained, revived = outcome.drained, outcome.revived
    sabotage = ", ".join(f"{deed} {count}" for deed, count in sorted(outcome.sabotage.items()))
    lines = [f"`python benchmarks/soak.py {words}`, commit {_commit()}", "", outcome.ledger.tables(), ""]
    lines.append(
        f"Done to the server meanwhile: {sabotage or 'nothing'}. The policy was replaced {outcome.replaced} times."
    )
    lines.append(f"At its peak the server's memory was {outcome.watch.peak_kb / 1024:.0f} MB above that of the start.")
    lines.append("")
    if drained is not None:
        lines.append(
            f"SIGTERM under load: {drained.accepted} requests accepted of these sessions, {drained.told} of them "
            f"answered or refused, exit code {drained.exit_code} after {drained.seconds:.1f} s."
        )
    if revived is not None:
        lines.append(
            f"SIGKILL under load: {revived.again} of {revived.clients} clients answered by the next server, the "
            f"longest pause {revived.longest_s:.1f} s."
        )
    if (hung_up := outcome.hung_up) is not None:
        lines.append(
            f"SIGHUP with a key from the environment: {hung_up.signals} signals, {hung_up.answered} requests answered "
            f"in {hung_up.sessions} session."
        )
    if outcome.tls is not None:
        lines.append(f"TLS: {outcome.tls.hung} of {outcome.tls.connections} connections hung.")
    every_s = 60.0 if flags.seconds >= 120 else max(flags.seconds / 4, 1.0)
    lines += ["", outcome.watch.table(every_s)]
    notes = [f"- {told}" for told in (*outcome.complaints, *outcome.ledger.notes)]
    return "\n".join([*lines, "", *(notes or ["It balances: 0 lost, 0 crossed, nothing kept."])])


def summary(outcome: Outcome) -> dict[str, Any]:
    """The same for a program."""
    return {
        "complaints": outcome.complaints,
        "notes": outcome.ledger.notes,
        "accounts": outcome.ledger.accounts,
        "misdeeds": outcome.ledger.misdeeds,
        "sabotage": outcome.sabotage,
        "replaced": outcome.replaced,
        "peak_kb": outcome.watch.peak_kb,
        "tls": {"connections": outcome.tls.connections, "hung": outcome.tls.hung} if outcome.tls else None,
        "held": [{"at": round(at, 1), **asdict(held)} for at, held in outcome.watch.samples],
    }


def _commit() -> str:
    asked = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runner", choices=("thread", "process"), default="thread")
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), default="asyncio")
    parser.add_argument("--replicas", type=int, default=1)
    parser.add_argument("--uds", action="store_true", help="over a Unix socket")
    parser.add_argument("--json", action="store_true", help="print a summary for programs instead of the tables")
    parser.add_argument("--log", type=Path, help="keep the server's log here")
    flags = parser.parse_args()
    flags.progress = not flags.json
    logging.getLogger("policyserve").setLevel(logging.ERROR)  # our clients' lines about servers that restart
    with tempfile.TemporaryDirectory() as folder:
        outcome = asyncio.run(soak(flags, Path(folder)))
        if flags.log is not None:
            flags.log.write_bytes((Path(folder) / "server.log").read_bytes())
    print(json.dumps(summary(outcome)) if flags.json else report(flags, outcome))
    return 1 if outcome.complaints else 0


if __name__ == "__main__":
    sys.exit(main())
