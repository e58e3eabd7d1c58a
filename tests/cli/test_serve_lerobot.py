"""`policyserve serve --lerobot`, as a person types it."""

from __future__ import annotations

import re
import socket

from tests.cli.serving import POLICYSERVE, serving
from tests.policies.frameworks import import_or_skip

import_or_skip("grpc")


def test_the_start_screen_says_where_lerobots_client_connects() -> None:
    here = ["--host", "127.0.0.1", "--port", "0", "--lerobot", "0"]
    with serving([*POLICYSERVE, "serve", "demo_image", *here]) as server:
        found = re.search(r"^ *lerobot +127\.0\.0\.1:(\d+)$", "".join(server.lines), re.MULTILINE)
        assert found is not None, server.lines
        socket.create_connection(("127.0.0.1", int(found[1]))).close()
