"""AP-10K, the benchmark of mammal pose, in JAX and Flax."""
