"""Datasets: from a source of images to one form in memory."""
