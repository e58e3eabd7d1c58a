"""Wall-X's server."""

from __future__ import annotations

from policyserve.compat import serving


class WebsocketPolicyServer(serving.WebsocketPolicyServer):
    """Serves any BasePolicy, WallXPolicy among them, to Wall-X's clients."""

    dialect = "wall_x"
