"""Latents and name states, computed once, memory-mapped, keyed by content."""

from taxadiffusion.cache.encoding import LatentForm, LatentKey, Unreadable
from taxadiffusion.cache.latents import JoinedLatents, Latents, cached_latents, latents_to_come
from taxadiffusion.cache.names import NameStates, cached_states, states_to_come

__all__ = [
    "JoinedLatents",
    "LatentForm",
    "LatentKey",
    "Latents",
    "NameStates",
    "Unreadable",
    "cached_latents",
    "cached_states",
    "latents_to_come",
    "states_to_come",
]
