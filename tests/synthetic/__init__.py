"""Tests of synthetic sets."""
