"""A trained adapter as a directory: its card, its files, and how a run goes on from one."""

from taxadiffusion.adapter.card import AdapterCard, CardNotes, Learned, LearnedSet, base_name
from taxadiffusion.adapter.going_on import StartSettings, settings_of
from taxadiffusion.adapter.model import (
    CARD,
    PICKLED,
    READ_ME,
    SECTION_FILES,
    TAXONOMY,
    Adapter,
    find_adapter,
    load_adapter,
    open_model,
    read_adapter,
    read_card,
    save_adapter,
)

__all__ = [
    "CARD",
    "PICKLED",
    "READ_ME",
    "SECTION_FILES",
    "TAXONOMY",
    "Adapter",
    "AdapterCard",
    "CardNotes",
    "Learned",
    "LearnedSet",
    "StartSettings",
    "base_name",
    "find_adapter",
    "load_adapter",
    "open_model",
    "read_adapter",
    "read_card",
    "save_adapter",
    "settings_of",
]
