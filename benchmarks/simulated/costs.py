"""What each step costs, and where the figure is from. Seconds, of one core's work where nothing else is said."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Costs:
    """The costs of a cluster's steps.

    *Here*: `python benchmarks/cluster.py --replicas 1 2 4`, openpi's client, P1, on two cores that other programs kept
    busy. Processor time of a process, fitted to one part for each call and one for each request, since the runs had
    groups of different sizes (the first round's were not read, and are taken to be the second's). All of a process's
    threads are in it, Ray's too, as if they were the event loop's.
    *By hand*: processor time of Serve's controller over 10 s of rest and over 8 s of `serve.status()`, there as well.
    *Drills*: docs/cluster.md. *Prototype*: one that was measured before this was built. *Assumed*: measured nowhere.
    """

    edge_call_s: float = 3.7e-3  # here: half as a group is sent, half as it comes back
    edge_request_s: float = 0.25e-3  # here
    edge_byte_s: float = 1.0e-9  # here: of P3's 4.2 ms beyond P1's, two thirds; that it is two thirds is assumed
    replica_call_s: float = 4.4e-3  # here
    replica_request_s: float = 0.05e-3  # here
    replica_byte_s: float = 0.5e-9  # here: the other third
    client_s: float = 0.4e-3  # here: clients, raylet, GCS and Ray's other processes; counts where cores are shared
    hop_s: float = 0.3e-3  # assumed: what of the way through Ray is no processor's time, each way
    network_s: float = 0.1e-3  # assumed: a switch, each way
    answer_bytes: int = 1000  # here: (32, 7) float32 and its frame
    balancer_gbit: float = 25.0  # assumed: a network card, each way; copying by HAProxy costs nothing here
    controller_pass_s: float = 3.5e-3  # here: 3 to 4 % of a core, of passes with a pause of 0.1 s
    controller_replica_s: float = 45e-6  # by hand: 3.2 % of a core with one replica, 3.5 % with eight
    controller_pause_s: float = 0.1  # Serve's RAY_SERVE_CONTROL_LOOP_INTERVAL_S
    status_s: float = 4.1e-3  # by hand: `serve.status()`, which an edge asks
    status_replica_s: float = 0.16e-3  # by hand: its answer names each replica; of one and eight
    noticed_s: float = 0.1  # prototype: a killed replica's calls fail
    restart_s: float = 6.0  # prototype: 2 to 6 s until Serve has another process
    load_s: float = 2.0  # the policy's own; of the drills
    call_timeout_s: float = 2.0  # drills: --call-timeout-s
    silent_s: float = 36.0  # prototype: three looks at its health without an answer
    reconnect_s: float = 1.5  # prototype: 1 to 2 s
