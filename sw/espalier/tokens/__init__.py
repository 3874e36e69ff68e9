"""Graphs of per-token integer operations: what a transformer is to the compiler (NumPy only)."""
