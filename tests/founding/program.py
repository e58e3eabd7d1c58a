"""Run the Python code in the first argument, where `await` may stand anywhere; print the port of a server it starts."""

from __future__ import annotations

import ast
import asyncio
import inspect
import sys
from typing import Any

_create_server = asyncio.BaseEventLoop.create_server


async def _announce(*args: Any, **options: Any) -> Any:
    server = await _create_server(*args, **options)
    print(server.sockets[0].getsockname()[1], flush=True)
    return server


def _run(code: str) -> None:
    setattr(asyncio.BaseEventLoop, "create_server", _announce)  # noqa: B010  # pyright knows it as no variable
    result = eval(compile(code, "block", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), {"__name__": "__main__"})
    if inspect.iscoroutine(result):
        asyncio.run(result)


if __name__ == "__main__":
    _run(sys.argv[1])
