"""Tests of `readers`."""
