"""A cluster of edges and replicas as a simulation of events: what `cluster_sim.py` runs. Plain Python, no Ray."""
