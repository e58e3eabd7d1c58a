"""All fuzzers by name: functions of bytes that raise nothing, or have found something."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tests.fuzz import conversing, dialects, families, frames, gr00t, handshake, jpegs, lerobot, reading, rest

TARGETS: Mapping[str, Callable[[bytes], None]] = {
    "frames-server": frames.check_server,
    "frames-client": frames.check_client,
    "frames-writer": frames.check_writer,
    "dialects": dialects.check_messages,
    "dialects-text": dialects.check_text,
    "dialects-conversing": conversing.check_conversing,
    "dialects-families": families.check_families,
    "dialects-round-trip": dialects.check_round_trip,
    "gr00t": gr00t.check_gr00t,
    "gr00t-round-trip": gr00t.check_round_trip,
    "jpegs": jpegs.check_jpegs,
    "pngs": jpegs.check_pngs,
    "lerobot": lerobot.check_pickles,
    "reading": reading.check_layouts,
    "reading-replies": reading.check_replies,
    "http-server": handshake.check_server,
    "http-client": handshake.check_client,
    "http-bodies": rest.check_bodies,
    "http-requests": rest.check_connection,
}
