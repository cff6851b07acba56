"""Faults injected into real runs, goal by goal: `python -m tests.faults --report out.json`."""
