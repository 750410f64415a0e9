"""Figures, each with the numbers behind it."""
