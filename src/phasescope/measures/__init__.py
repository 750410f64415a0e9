"""Measures: pure functions of cells, that is of the activations of (seed, step, layer)."""
