"""What benchmarks/soak.py is made of: a server to disturb, a policy that knows whom it answers, clients, misdeeds."""
