"""Synthetic training pictures for a classifier: planned, made, accepted or refused, and whether they help."""
