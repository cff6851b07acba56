"""Tests of `evaluate`."""
