"""Latents and name states, computed once, memory-mapped, keyed by content."""

from taxadiffusion.cache.latents import LatentKey, Latents, Unreadable, cached_latents
from taxadiffusion.cache.names import NameStates, cached_states

__all__ = ["LatentKey", "Latents", "NameStates", "Unreadable", "cached_latents", "cached_states"]
