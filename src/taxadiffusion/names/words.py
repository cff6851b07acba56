"""Words beside the names in a scientific name: marks of rank, of doubt, of sex; what stands between authors."""

from __future__ import annotations

RANK_MARKERS = {
    marker: rank
    for rank, markers in {
        "subspecies": "subsp ssp subspec nothosubsp nothossp natio nat st prol pv pathovar",
        "variety": "var variety nvar nothovar convar agamovar agamosp agamossp ab morph",
        "form": "f fo fm fma form forma nothof fa",
    }.items()
    for marker in markers.split()
}
GROUP_MARKERS = frozenset({
    "sect", "subsect", "ser", "subser", "subg", "subgen", "subfam", "tr", "trib", "subtr", "subtrib", "supertrib",
    "div", "nothosect", "nothoser", "unr",
})  # fmt: skip
UNCERTAIN = frozenset({"cf", "cfr", "aff", "sp", "spp", "spec", "species", "nr", "near", "indet", "gen"})
ANNOTATIONS = frozenset({
    "sensu", "sec", "auct", "auctt", "non", "nec", "vide", "fide", "hort", "ht", "ined", "nom", "nomen", "comb", "ms",
    "mihi", "synonym", "emend", "pro", "serovar", "serotype", "strain", "str", "clade", "clone", "group", "complex",
    "agg", "nov", "of", "genera", "from",
})  # fmt: skip
SEXES_AND_STAGES = frozenset({
    "female", "females", "male", "males", "juvenile", "juveniles", "juv", "immature", "adult", "adults", "larva",
    "larvae", "nymph", "pupa", "egg", "eggs", "worker", "queen", "drone", "seedling", "fruit", "flower", "flowers",
})  # fmt: skip
AUTHOR_PARTICLES = frozenset({
    "de", "del", "della", "delle", "degli", "den", "der", "dem", "des", "di", "dos", "du", "da", "do", "al", "al.",
    "el", "la", "las", "le", "lo", "los", "ten", "ter", "van", "von", "vom", "ver", "v", "d", "zu", "zur", "zum",
    "af", "af.", "bis", "i", "y", "e",
    "et", "and", "ex", "in", "apud", "&", "fil", "f", "filius", "'t", "in't", "d'", "het",
})  # fmt: skip
PARTICLES_ALSO_EPITHETS = frozenset({"da", "den", "des", "dos", "du", "la", "van", "zu", "bis"})
