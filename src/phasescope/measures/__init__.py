"""Measures: pure functions of cells, of the activations of (seed, step, layer) or the networks of (seed, step)."""
