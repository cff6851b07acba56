"""The embedded default: a gallery of the shipped fish, and the whole method on a simulated clade, in one report."""

from taxadiffusion.demo.demonstration import demo

__all__ = ["demo"]
