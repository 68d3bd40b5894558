"""Small real models, photos and data for the demo, the tests and the benchmarks."""
