"""openpi's server."""

from __future__ import annotations

from policyserve.compat import serving


class WebsocketPolicyServer(serving.WebsocketPolicyServer):
    """Serves any BasePolicy, openpi's own among them, to openpi's clients."""

    dialect = "openpi"
