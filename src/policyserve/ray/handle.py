"""Carries groups by Serve's DeploymentHandle, and turns Ray's errors into ours."""

# The environment of our own checks has no ray:
# pyright: reportMissingImports=false
from __future__ import annotations

import asyncio
from typing import Any

from policyserve.core.errors import DeadlineExceeded, NotReady, Overloaded, PolicyLost
from policyserve.core.printable import error_text
from policyserve.engine.isolated.codec import Packed
from policyserve.ray.groups import Described, Parts, joined, read_described


class HandleCarrier:
    """A Carrier over the handle of a deployment of Replicas; Serve chooses the replica."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    async def send(self, group: Packed, timeout_s: float) -> Parts:
        """See Carrier. Its arrays go in one, since each costs on its way."""
        answer, flat = await self._call("infer", timeout_s, *joined(group))
        return answer, flat

    async def describe(self, timeout_s: float) -> Described:
        """What a replica serves; raises as send() does."""
        return read_described(await self._call("describe", timeout_s))

    async def _call(self, method: str, timeout_s: float, *arguments: Any) -> Any:
        from ray import exceptions
        from ray.serve import exceptions as of_serve

        response = getattr(self._handle, method).remote(*arguments)
        try:
            return await asyncio.wait_for(_result(response), timeout_s)
        except asyncio.TimeoutError as error:
            raise DeadlineExceeded(f"no replica answered within {timeout_s:g} s") from error
        except of_serve.BackPressureError as error:
            raise Overloaded("all replicas have more requests than they take") from error
        except exceptions.ActorUnavailableError as error:
            raise NotReady("the way to a replica is interrupted") from error
        except exceptions.RayTaskError:
            raise  # a bug in a replica: to try it again helps nobody
        except (exceptions.RayError, of_serve.RayServeException) as error:
            raise PolicyLost(f"a replica was lost at this request: {error_text(error)[:200]}") from error


async def _result(response: Any) -> Any:
    try:
        return await response
    except asyncio.CancelledError:
        response.cancel()
        raise
