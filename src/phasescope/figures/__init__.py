"""Figures of learning phases, drawn from measures, with the numbers they show."""
