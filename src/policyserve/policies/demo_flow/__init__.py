"""demo_flow: a flow policy without a network, and the scene that it moves a point in.

For trying real-time execution: its velocity, and the derivative that guidance needs, are known exactly. NumPy only.
"""

from policyserve.policies.demo_flow.policy import FlowDemo
from policyserve.policies.demo_flow.scene import CONTROL_HZ, HORIZON, Scene

__all__ = ["CONTROL_HZ", "HORIZON", "FlowDemo", "Scene"]
