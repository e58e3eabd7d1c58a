"""Wall-X models that only benchmarks and tests need: checkpoints of random numbers, and sampling without a cache."""
