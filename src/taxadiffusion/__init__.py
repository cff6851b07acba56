"""TaxaDiffusion: accurate images of a species from its taxonomy, even when only a handful of photographs exist."""

__version__ = "0.1.0"
