"""The embedded default: a gallery of the shipped fish, and the whole method on a simulated clade, in one report."""

from taxadiffusion.demo.run import demo

__all__ = ["demo"]
