"""Tests of `condition`."""
