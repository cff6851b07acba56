"""Formulas on features and names: values in, values out; no network is loaded and no file read."""
