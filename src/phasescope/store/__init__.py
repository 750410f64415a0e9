"""Stores: directories that are complete or absent, with labelled arrays inside."""
