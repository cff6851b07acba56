"""What every card warns of."""

from __future__ import annotations

NOT_FOR = (
    "as evidence that an organism was seen, somewhere or at all: every picture is synthetic",
    "to train or to test what identifies species, without saying so: labels are what was asked for, not what is shown",
    "to tell look-alike species apart, or to describe a taxon: details may be wrong, most of all of rare taxa",
    "for decisions on safety: what is poisonous, venomous or edible",
    "as records in collections, citizen science or checklists",
)
"""What neither a model nor its pictures must be used for."""
