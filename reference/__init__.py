"""Plain readings of papers, for tests and benchmarks: slow, one photograph at a time, one idea per line."""
